"""`-v`, `--mount` and `--tmpfs` words. Targets may be Windows paths: a letter and a colon before a slash is a drive."""

from __future__ import annotations

import os

from silo.cli.failure import UsageError
from silo.cli.grammar import parse_size
from silo.cli.words import parse_bool, split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any


def split_volume(word: str) -> list[str]:
    """At colons that are not a drive's: `/data:C:\\data:ro` → three parts."""
    parts: list[str] = []
    rest = word
    while True:
        drive = 2 if len(rest) >= 2 and rest[0].isalpha() and rest[1] == ":" and rest[2:3] in ("\\", "/", "") else 0
        # `c:/x`: a volume or directory called c and the target /x, unless another target follows.
        if drive and not parts and rest[2:3] == "/" and ":" not in rest[2:]:
            drive = 0
        colon = rest.find(":", drive)
        if colon < 0:
            return [*parts, rest]
        parts.append(rest[:colon])
        rest = rest[colon + 1 :]


def parse_volumes(words: Iterable[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Binds, and anonymous volumes by target. A relative host path is made absolute here, for the daemon is elsewhere."""
    binds: list[str] = []
    anonymous: dict[str, dict[str, str]] = {}
    for word in words:
        parts = split_volume(word)
        if len(parts) > 3 or not all(parts[:2]):
            raise UsageError(f"invalid volume specification: {word!r} (source:target[:options])")
        if len(parts) == 1:
            anonymous[parts[0]] = {}
            continue
        source = parts[0]
        if source in (".", "..") or source.startswith(("./", "../")):
            source = os.path.abspath(source)
        elif source == "~" or source.startswith("~/"):
            source = os.path.expanduser(source)
        binds.append(":".join([source, *parts[1:]]))
    return binds, anonymous


def parse_tmpfs(words: Iterable[str]) -> dict[str, str]:
    found = {}
    for word in words:
        target, _, options = word.partition(":")
        if not target.startswith("/"):
            raise UsageError(f"invalid --tmpfs {word!r}: path[:options]")
        found[target] = options
    return found


def parse_mounts(words: Iterable[str]) -> list[dict[str, Any]]:
    return [parse_mount(word) for word in words]


def parse_mount(word: str) -> dict[str, Any]:
    """One --mount in the API's words. Raises UsageError."""
    mount: dict[str, Any] = {"Type": "volume"}
    for field in split_csv(word):
        key, equals, value = field.partition("=")
        key = key.strip().lower()
        if not equals and key not in _BARE:
            raise UsageError(f"invalid field {field!r} in --mount {word!r}: it is written key=value")
        setter = _FIELDS.get(key)
        if setter is None:
            from silo.cli.grammar import suggest

            raise UsageError(f"unexpected key {key!r} in --mount {word!r}{suggest(key, sorted(_FIELDS))}")
        setter(mount, value, f"--mount {word!r}")
    if not mount.get("Target"):
        raise UsageError(f"--mount {word!r}: the target is missing (dst=…)")
    for member, kind in (("BindOptions", "bind"), ("VolumeOptions", "volume"), ("TmpfsOptions", "tmpfs")):
        if member in mount and mount["Type"] != kind:
            raise UsageError(f"--mount {word!r}: options of {kind} mounts do not fit type={mount['Type']}")
    return mount


def _top(member: str) -> Callable[[dict[str, Any], str, str], None]:
    def put(mount: dict[str, Any], value: str, _flag: str) -> None:
        mount[member] = value

    return put


def _put_source(mount: dict[str, Any], value: str, _flag: str) -> None:
    relative = value in (".", "..") or value.startswith(("./", "../"))
    mount["Source"] = os.path.abspath(value) if relative else value


def _inner(member: str, name: str, kind: str = "text") -> Callable[[dict[str, Any], str, str], None]:
    def put(mount: dict[str, Any], value: str, flag: str) -> None:
        options = mount.setdefault(member, {})
        try:
            if kind == "bool":
                options[name] = parse_bool(value, flag)
            elif kind == "size":
                options[name] = parse_size(value)
            elif kind == "octal":
                options[name] = int(value, 8)
            else:
                options[name] = value
        except ValueError:
            raise UsageError(f"invalid value {value!r} in {flag}") from None

    return put


def _put_read_only(mount: dict[str, Any], value: str, flag: str) -> None:
    mount["ReadOnly"] = parse_bool(value, flag)


def _put_recursive(mount: dict[str, Any], value: str, flag: str) -> None:
    options = mount.setdefault("BindOptions", {})
    members = {"disabled": "NonRecursive", "writable": "ReadOnlyNonRecursive", "readonly": "ReadOnlyForceRecursive"}
    if value != "enabled":
        if value not in members:
            raise UsageError(f"invalid bind-recursive in {flag}: enabled, disabled, writable or readonly")
        options[members[value]] = True


def _put_label(mount: dict[str, Any], value: str, _flag: str) -> None:
    key, _, text = value.partition("=")
    mount.setdefault("VolumeOptions", {}).setdefault("Labels", {})[key] = text


def _put_driver(mount: dict[str, Any], value: str, _flag: str) -> None:
    mount.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})["Name"] = value


def _put_driver_option(mount: dict[str, Any], value: str, _flag: str) -> None:
    key, _, text = value.partition("=")
    driver = mount.setdefault("VolumeOptions", {}).setdefault("DriverConfig", {})
    driver.setdefault("Options", {})[key] = text


_BARE = ("readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src")
_FIELDS: dict[str, Callable[[dict[str, Any], str, str], None]] = {
    "type": lambda mount, value, _flag: mount.update(Type=value.lower()),
    "source": _put_source,
    "src": _put_source,
    "target": _top("Target"),
    "dst": _top("Target"),
    "destination": _top("Target"),
    "readonly": _put_read_only,
    "ro": _put_read_only,
    "consistency": _top("Consistency"),
    "bind-propagation": _inner("BindOptions", "Propagation"),
    "bind-nonrecursive": _inner("BindOptions", "NonRecursive", "bool"),
    "bind-create-src": _inner("BindOptions", "CreateMountpoint", "bool"),
    "bind-recursive": _put_recursive,
    "volume-subpath": _inner("VolumeOptions", "Subpath"),
    "volume-nocopy": _inner("VolumeOptions", "NoCopy", "bool"),
    "volume-label": _put_label,
    "volume-driver": _put_driver,
    "volume-opt": _put_driver_option,
    "tmpfs-size": _inner("TmpfsOptions", "SizeBytes", "size"),
    "tmpfs-mode": _inner("TmpfsOptions", "Mode", "octal"),
}
