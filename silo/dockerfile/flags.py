"""Which flags each instruction has, and how they are read."""

from __future__ import annotations

import enum
from collections.abc import Iterable

import msgspec

from silo.dockerfile.mistakes import mistake, nearest, shown


class FlagKind(enum.Enum):
    """How often a flag may be given, and what its value is."""

    TEXT = "text"
    LIST = "list"
    SWITCH = "switch"


_OWNERSHIP = {"chown": FlagKind.TEXT, "chmod": FlagKind.TEXT, "link": FlagKind.SWITCH, "exclude": FlagKind.LIST}
_HEALTH = ("interval", "timeout", "start-period", "start-interval", "retries")

FLAGS: dict[str, dict[str, FlagKind]] = {
    "FROM": {"platform": FlagKind.TEXT},
    "RUN": {
        "mount": FlagKind.LIST,
        "network": FlagKind.TEXT,
        "security": FlagKind.TEXT,
        "device": FlagKind.LIST,
    },
    "COPY": {**_OWNERSHIP, "from": FlagKind.TEXT, "parents": FlagKind.SWITCH},
    "ADD": {
        **_OWNERSHIP,
        "checksum": FlagKind.TEXT,
        "keep-git-dir": FlagKind.SWITCH,
        "unpack": FlagKind.SWITCH,
    },
    "HEALTHCHECK": dict.fromkeys(_HEALTH, FlagKind.TEXT),
}
"""Instructions that are not here have none."""


class Flags(msgspec.Struct, frozen=True):
    """The flags of one instruction by name, without the dashes."""

    values: dict[str, tuple[str, ...]]

    def text(self, name: str) -> str:
        """The value, empty when the flag was not given."""
        return self.values.get(name, ("",))[0]

    def list(self, name: str) -> tuple[str, ...]:
        """Every value in order."""
        return self.values.get(name, ())

    def switch(self, name: str) -> bool | None:
        """None when the flag was not given."""
        return self.values[name][0] == "true" if name in self.values else None


def parse_flags(instruction: str, flags: Iterable[str], *, where: str) -> Flags:
    """Docker's rules: `--name=value`, each once unless it is a list; `--switch` alone is true. Raises InvalidRequest."""
    known = FLAGS.get(instruction, {})
    values: dict[str, list[str]] = {}
    for flag in flags:
        dashed, equals, value = flag.partition("=")
        name = dashed.removeprefix("--")
        kind = known.get(name)
        if kind is None:
            hint = nearest(dashed, [f"--{each}" for each in known]) or f"{instruction} has " + (
                ", ".join(f"--{each}" for each in sorted(known)) or "no flags"
            )
            raise mistake(where, f"unknown flag: {shown(dashed)[1:-1]}", hint=hint)
        if name in values and kind is not FlagKind.LIST:
            raise mistake(where, f"duplicate flag specified: {dashed}", hint="give it once")
        if kind is FlagKind.SWITCH:
            value = _parse_switch(dashed, value.lower() if equals else "true", where)
        elif not equals:
            raise mistake(where, f"missing a value on flag: {dashed}", hint=f"write {dashed}=…")
        values.setdefault(name, []).append(value)
    return Flags({name: tuple(given) for name, given in values.items()})


def _parse_switch(dashed: str, value: str, where: str) -> str:
    if not value:
        raise mistake(where, f"missing a value on flag: {dashed}", hint=f"write {dashed} or {dashed}=false")
    if value not in ("true", "false"):
        raise mistake(where, f"expecting boolean value for flag {dashed}, not: {shown(value)}", hint="true or false")
    return value
