"""Settings as one table of rows. A value comes from the flag, else the environment, else the file, else the default.

The file is TOML (`/etc/silo/silo.toml` unless `--config` or SILO_CONFIG names another); every error of all sources is collected
and told at once.
"""

from __future__ import annotations

import ipaddress
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from silo.errors import InvalidRequest
from silo.model.vm_image import DEFAULT_VM_IMAGE, VM_NAME_PATTERN

DEFAULT_FILE = Path("/etc/silo/silo.toml")


@dataclass(frozen=True, slots=True)
class Settings:
    """The daemon's settings, checked."""

    data_root: Path
    run_root: Path
    cache_root: Path
    group: str
    default_isolation: str
    subnet: str
    bridge: str
    linux_pool: int
    windows_pool: int
    insecure_registries: tuple[str, ...]
    windows_bases_mirror: str
    push_silo_base: bool
    log_level: str
    max_layer_bytes: int
    vm_image: str
    vm_pool: int
    vm_memory: int
    vm_default_memory: int
    vm_scratch_bytes: int
    vm_acceleration: str


@dataclass(frozen=True, slots=True)
class Row:
    """One setting: `parse` turns text into the value or raises ValueError with what it expects."""

    name: str
    default: str
    parse: Callable[[str], Any]
    help: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return "SILO_" + self.name.upper()


def _absolute(text: str) -> Path:
    if not text.startswith("/"):
        raise ValueError("an absolute path")
    return Path(text)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) > 64:
        raise ValueError("a whole number from 0 to 64")
    return int(text)


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d+)([kmgt]?)b?", text.lower())
    if not match:
        raise ValueError("a size such as 64g")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}[match[2]]


def _size_from(least: str) -> Callable[[str], int]:
    def parse(text: str) -> int:
        size = _size(text)
        if size < _size(least):
            raise ValueError(f"a size of at least {least}")
        return size

    return parse


def _vm_name(text: str) -> str:
    if not VM_NAME_PATTERN.fullmatch(text):
        raise ValueError("a name of a-z, 0-9, _ . -")
    return text


def _subnet(text: str) -> str:
    try:
        return str(ipaddress.IPv4Network(text, strict=False))
    except ValueError:
        raise ValueError("an IPv4 network such as 172.29.0.0/16") from None


def _device(text: str) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9_.-]{1,15}", text):
        raise ValueError("a network device name of at most 15 characters")
    return text


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)}")
        return text

    return parse


def _isolation(text: str) -> str:
    """`vm` is another word for hyperv, as for `--isolation`."""
    return _one_of("process", "hyperv", "vm")(text).replace("vm", "hyperv")


def _registry(text: str) -> str:
    if text and not re.fullmatch(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?(?:/[a-z0-9._-]+)*", text):
        raise ValueError("a registry such as mirror.example:5000, with or without a path")
    return text


def _yes_or_no(text: str) -> bool:
    return _one_of("yes", "no")(text) == "yes"


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[,\s]+", text) if word)


ROWS = (
    Row("data_root", "/var/lib/silo", _absolute, "images, containers, volumes and the state database"),
    Row("run_root", "/run/silo", _absolute, "sockets and mounts; the API socket is <run-root>/silo.sock"),
    Row("cache_root", "", str, "built base images and downloaded packages; <data-root>/cache unless given"),
    Row("group", "", str, "members of this group may use the socket (they become root by it); empty: root only"),
    Row("default_isolation", "process", _isolation, "isolation of containers that do not name one: process or hyperv"),
    Row("subnet", "172.29.0.0/16", _subnet, "addresses of the default network"),
    Row("bridge", "silo0", _device, "bridge device of the default network"),
    Row("linux_pool", "2", _count, "sandboxes for Linux containers prepared ahead; 0 is off"),
    Row("windows_pool", "1", _count, "warm Windows silos kept ready, about 40 MB each; 0 is off"),
    Row("insecure_registries", "", _words, "host[:port] of registries to be used without TLS, besides loopback ones"),
    Row(
        "windows_bases_mirror",
        "",
        _registry,
        "registry asked at a push for manifests of Windows' bases, instead of Microsoft's",
    ),
    Row("push_silo_base", "no", _yes_or_no, "push Windows images with Silo's base, for use by Silo only: yes or no"),
    Row("log_level", "info", _one_of("debug", "info", "warning", "error"), "what the daemon writes to its log"),
    Row("max_layer_bytes", "64g", _size, "an image layer that unpacks to more than this is refused"),
    Row("vm_image", DEFAULT_VM_IMAGE, _vm_name, "utility VM of containers that do not name one (silo base ls)"),
    Row("vm_pool", "1", _count, "clones of utility VMs kept ready; 0 is off"),
    Row(
        "vm_memory",
        "1g",
        _size,
        "what the clones kept ready may take together; fewer are kept where that is too little",
    ),
    Row("vm_default_memory", "512m", _size_from("128m"), "memory of a VM without --memory"),
    Row(
        "vm_scratch_bytes",
        "20g",
        _size_from("64m"),
        "size of a VM's disk for what its container writes; only what is used takes space",
    ),
    Row(
        "vm_acceleration",
        "auto",
        _one_of("auto", "kvm", "tcg"),
        "kvm needs /dev/kvm, tcg emulates the processor; auto takes the faster",
    ),
)


def load_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[Settings, dict[str, str]]:
    """Settings, and the flags that no row knows (`--ready-fd 3` → {"ready-fd": "3"}). Raises InvalidRequest with all errors."""
    flags, errors = _parse_flags(arguments)
    named = flags.pop("config", environment.get("SILO_CONFIG", ""))
    from_file = _load_file(Path(named) if named else DEFAULT_FILE, bool(named), errors)
    values: dict[str, Any] = {}
    for row in ROWS:
        sources = (
            (row.flag, flags.pop(row.flag[2:], None)),
            (row.variable, environment.get(row.variable)),
            (f"{row.name} in the settings file", from_file.get(row.name)),
            ("default", row.default),
        )
        source, text = next((source, text) for source, text in sources if text is not None)
        try:
            values[row.name] = row.parse(text)
        except ValueError as error:
            errors.append(f"{source}: {text!r} is not {error}")
    if errors:
        raise InvalidRequest("the settings are wrong", details="; ".join(errors))
    values["cache_root"] = Path(values["cache_root"] or values["data_root"] / "cache")
    assert set(values) == {field.name for field in fields(Settings)}
    return Settings(**values), flags


def _parse_flags(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    known = {row.flag for row in ROWS} | {"--config", "--ready-fd"}
    flags: dict[str, str] = {}
    errors: list[str] = []
    words = iter(arguments)
    for word in words:
        flag, equals, value = word.partition("=")
        if flag not in known:
            errors.append(f"{word}: unknown flag (known: {', '.join(sorted(known))})")
            continue
        if not equals:
            value = next(words, "")
        if not value and not equals:
            errors.append(f"{flag}: a value is missing")
        flags[flag[2:]] = value
    return flags, errors


def _load_file(path: Path, named: bool, errors: list[str]) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            table = tomllib.load(file)
    except FileNotFoundError:
        if named:
            errors.append(f"{path}: no such file")
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        errors.append(f"{path}: {error}")
        return {}
    known = {row.name for row in ROWS}
    errors.extend(f"{path}: unknown setting {name}" for name in table if name not in known)
    return {name: " ".join(value) if isinstance(value, list) else str(value) for name, value in table.items()}


def describe() -> str:
    """The table for `silo daemon --help`."""
    width = max(len(row.flag) for row in ROWS)
    return "\n".join(f"  {row.flag:<{width}}  {row.help} [{row.default or 'none'}; {row.variable}]" for row in ROWS)
