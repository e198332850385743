"""RUN: its mounts, network and security, and what it runs when heredocs belong to it.

Source: https://docs.docker.com/reference/dockerfile/#run---mount.
"""

from __future__ import annotations

import csv
import enum

import msgspec

from silo.dockerfile.expansion import Expander
from silo.dockerfile.flags import parse_flags
from silo.dockerfile.mistakes import mistake, nearest, shown
from silo.dockerfile.quantities import parse_size_bytes
from silo.dockerfile.syntax import Heredoc, Instruction
from silo.dockerfile.words import parse_heredoc_word

NETWORKS = ("default", "none", "host")
SECURITIES = ("sandbox", "insecure")
MAXIMUM_MOUNTS = 100


class MountType(enum.StrEnum):
    BIND = "bind"
    CACHE = "cache"
    TMPFS = "tmpfs"
    SECRET = "secret"
    SSH = "ssh"


class Sharing(enum.StrEnum):
    """What two builds do with one cache at one time."""

    SHARED = "shared"
    PRIVATE = "private"
    LOCKED = "locked"


class RunMount(msgspec.Struct, frozen=True, kw_only=True):
    """One `--mount` with Docker's defaults filled in; `target` may be empty for secrets and ssh."""

    type: MountType = MountType.BIND
    target: str = ""
    source: str = ""
    source_stage: str = ""
    """`from`: a stage or an image; empty is the context (bind) or an empty directory (cache)."""
    read_only: bool = True
    id: str = ""
    """Of a cache (default: the target), a secret (default: the target's last name) or an agent (default: `default`)."""
    sharing: Sharing = Sharing.SHARED
    size_bytes: int = 0
    """tmpfs only; 0 is no limit."""
    is_required: bool = False
    variable: str | None = None
    """secret only: an environment variable that holds it; empty is named like the id, None is no variable."""
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The flags of one RUN."""

    mounts: tuple[RunMount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()
    """As written: what the builder does not know it has to refuse."""


class RunCommand(msgspec.Struct, frozen=True, kw_only=True):
    """What a RUN runs, one of three: the words of the exec form, a text for the shell, or a program with a `#!` line."""

    words: tuple[str, ...] = ()
    script: str = ""
    program: Heredoc | None = None


_NAMES = {
    "type": "type",
    "from": "source_stage",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "read_only",
    "ro": "read_only",
    "readwrite": "writable",
    "rw": "writable",
    "id": "id",
    "sharing": "sharing",
    "required": "is_required",
    "size": "size_bytes",
    "mode": "mode",
    "uid": "uid",
    "gid": "gid",
    "env": "variable",
}
"""Docker's keys → fields; `writable` is `read_only` turned round."""

_COMMON = {"type", "target"}
_FILE = {"mode", "uid", "gid"}
_TYPE_FIELDS: dict[MountType, set[str]] = {
    MountType.BIND: _COMMON | {"source", "source_stage", "read_only", "writable"},
    MountType.CACHE: _COMMON | _FILE | {"id", "source", "source_stage", "read_only", "writable", "sharing"},
    MountType.TMPFS: _COMMON | {"size_bytes", "read_only", "writable"},
    MountType.SECRET: _COMMON | _FILE | {"id", "source", "is_required", "variable", "read_only"},
    MountType.SSH: _COMMON | _FILE | {"id", "source", "is_required", "read_only"},
}


def parse_run_options(instruction: Instruction, expand: Expander) -> RunOptions:
    """Raises InvalidRequest that begins with the instruction's place."""
    flags = parse_flags("RUN", instruction.flags, where=instruction.where)
    network = flags.text("network").lower() or "default"
    if network not in NETWORKS:
        raise mistake(
            instruction.where, f"unsupported network mode {shown(network)}", hint=f"one of {', '.join(NETWORKS)}"
        )
    security = flags.text("security").lower() or "sandbox"
    if security not in SECURITIES:
        raise mistake(
            instruction.where, f"unsupported security {shown(security)}", hint=f"one of {', '.join(SECURITIES)}"
        )
    mounts = flags.list("mount")
    if len(mounts) > MAXIMUM_MOUNTS:
        raise mistake(instruction.where, f"{len(mounts)} mounts; at most {MAXIMUM_MOUNTS} are possible")
    return RunOptions(
        mounts=tuple(_parse_mount(text, instruction.where, expand) for text in mounts),
        network=network,
        security=security,
        devices=flags.list("device"),
    )


def _parse_mount(text: str, where: str, expand: Expander) -> RunMount:
    fields: dict[str, object] = {}
    try:
        for part in next(csv.reader([text], strict=True), []):
            fields |= [_parse_field(part, expand)]
        return _build_mount(fields)
    except (ValueError, csv.Error) as error:
        brief, _, hint = str(error).partition("\n")
        raise mistake(where, f"--mount={shown(text)[1:-1]}: {brief}", hint=hint) from None


def _parse_field(part: str, expand: Expander) -> tuple[str, object]:
    key, equals, value = part.partition("=")
    field = _NAMES.get(key.lower())
    if field is None:
        raise ValueError(f"unexpected key {shown(key)}\n{nearest(key.lower(), _NAMES)}")
    if field in ("read_only", "writable", "is_required"):
        return field, _parse_truth(key, expand(value) if equals else "true")
    if not equals:
        raise ValueError(f"invalid field {shown(part)} must be a key=value pair")
    if field == "source_stage" and "$" in value[:-1]:
        raise ValueError("'from' doesn't support variable expansion\nname a stage with FROM ${…} AS name")
    return field, _parse_value(field, key, expand(value))


def _parse_value(field: str, key: str, value: str) -> object:
    match field:
        case "type" | "sharing":
            kinds: type[MountType] | type[Sharing] = MountType if field == "type" else Sharing
            if value.lower() not in list(kinds):
                raise ValueError(f"unsupported {key} {shown(value)}\none of {', '.join(kinds)}")
            return kinds(value.lower())
        case "size_bytes":
            return parse_size_bytes(value)
        case "mode" | "uid" | "gid":
            digits = "01234567" if field == "mode" else "0123456789"
            if not value or len(value) > 10 or value.strip(digits):
                raise ValueError(f"invalid value {shown(value)} for {key}")
            number = int(value, len(digits))
            if number > (0o7777 if field == "mode" else 2**32 - 2):
                raise ValueError(f"the {key} {value} is too large")
            return number
    return value


def _parse_truth(key: str, value: str) -> bool:
    """Go's words for true and false."""
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise ValueError(f"invalid value for {key}: {shown(value)}\ntrue or false")


def _build_mount(fields: dict[str, object]) -> RunMount:
    kind = fields.get("type", MountType.BIND)
    assert isinstance(kind, MountType)
    for field in fields:
        if field not in _TYPE_FIELDS[kind]:
            key = next(key for key, name in _NAMES.items() if name == field)
            raise ValueError(f"unexpected key {shown(key)} for mount type {shown(kind)}")
    if "writable" in fields:
        fields["read_only"] = not fields.pop("writable")
    fields.setdefault("read_only", kind not in (MountType.CACHE, MountType.TMPFS))
    mount = msgspec.convert(fields, RunMount)
    if kind is MountType.SECRET:
        return _build_secret(mount)
    if kind is MountType.SSH:
        return msgspec.structs.replace(mount, id=mount.id or mount.source or "default", source="")
    if not mount.target:
        raise ValueError(f"a {kind} mount has a target\nadd target=/path")
    return msgspec.structs.replace(mount, id=mount.id or mount.target) if kind is MountType.CACHE else mount


def _build_secret(mount: RunMount) -> RunMount:
    if not (mount.source or mount.target or mount.id):
        raise ValueError("invalid secret mount: one of id and target is required")
    if mount.source and mount.id:
        raise ValueError("both source and id can't be set")
    last = mount.target.replace("\\", "/").rstrip("/").rpartition("/")[2]
    return msgspec.structs.replace(mount, id=mount.id or mount.source or last, source="")


def parse_run_command(instruction: Instruction) -> RunCommand:
    """What RUN runs. A heredoc alone is the script itself, or a program where it begins with `#!`; any other is the shell's."""
    if instruction.is_json:
        return RunCommand(words=instruction.words)
    if not instruction.heredocs:
        return RunCommand(script=instruction.text)
    first = instruction.heredocs[0]
    if parse_heredoc_word(instruction.text):
        return RunCommand(program=first) if first.text.startswith("#!") else RunCommand(script=first.text)
    bodies = "".join(f"\n{heredoc.text}{heredoc.name}" for heredoc in instruction.heredocs)
    return RunCommand(script=instruction.text + bodies)
