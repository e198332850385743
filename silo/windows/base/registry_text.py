"""Wine's registry files as text: read, edit and write them without loss.

Wine keeps a registry as `WINE REGISTRY Version 2`: a header, then one block a key,

    [Software\\\\Wine] 1700000000
    #time=1dd7b8ee535cb3a
    "Name"="text"

with key names escaped (`\\\\` between components). Edits are made on the lines of a block, so whatever is not edited stays
byte for byte. Source: Wine, server/registry.c (save_subkeys, load_registry).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from silo.errors import InvalidRequest

_ENCODING = "latin-1"
_HEADING = re.compile(r"^\[(?P<name>.*)\](?: (?P<time>\d+))?$")
_VALUE_NAME = re.compile(r'^(?:@|"(?P<name>(?:[^"\\]|\\.)*)")=')
# FILETIME counts 100 ns since 1601.
_FILETIME_OF_UNIX_EPOCH = 116444736000000000


def escaped_key(path: str) -> str:
    """A key path such as `Software\\Wine` as it is written in the file."""
    return path.replace("\\", "\\\\")


def quoted(text: str) -> str:
    """A REG_SZ value's data as it is written in the file (ASCII only)."""
    if not text.isascii():
        raise InvalidRequest(f"registry text {text!r} is not ASCII")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def dword(number: int) -> str:
    """A REG_DWORD value's data as it is written in the file."""
    return f"dword:{number:08x}"


@dataclass(slots=True)
class RegistryKey:
    """One block of the file. `values` holds value lines (continued lines joined with their newlines) in order."""

    name: str
    modified_s: int
    attributes: list[str] = field(default_factory=list)
    values: list[str] = field(default_factory=list)

    def find_value(self, name: str) -> int | None:
        """The index in `values` of a value by name (without case); "" is the default value."""
        wanted = name.casefold()
        for index, line in enumerate(self.values):
            match = _VALUE_NAME.match(line)
            if match and (match["name"] or "").replace("\\\\", "\\").casefold() == wanted:
                return index
        return None


class RegistryText:
    """One registry file."""

    def __init__(self, header: list[str], keys: list[RegistryKey]) -> None:
        self.header = header
        self.keys = keys

    @classmethod
    def parse(cls, data: bytes) -> RegistryText:
        """Read a registry file. Raises InvalidRequest if it is not one."""
        lines = data.decode(_ENCODING).split("\n")
        if not lines[0].startswith("WINE REGISTRY Version 2"):
            raise InvalidRequest("not a Wine registry file", details=repr(lines[0][:80]))
        header: list[str] = []
        keys: list[RegistryKey] = []
        continued = False
        for line in lines:
            match = None if continued else _HEADING.match(line)
            if match:
                keys.append(RegistryKey(match["name"], int(match["time"] or 0)))
            elif not keys:
                header.append(line)
            elif continued:
                keys[-1].values[-1] += "\n" + line
            elif line.startswith("#"):
                keys[-1].attributes.append(line)
            elif line:
                keys[-1].values.append(line)
            continued = bool(keys) and bool(line) and line.endswith("\\") and not line.endswith('"')
        while header and not header[-1]:
            header.pop()
        return cls(header, keys)

    def render(self) -> bytes:
        """The file's bytes."""
        blocks = ["\n".join(self.header) + "\n"]
        for key in self.keys:
            lines = [f"[{key.name}] {key.modified_s}", *key.attributes, *key.values]
            blocks.append("\n".join(lines) + "\n")
        return "\n".join(blocks).encode(_ENCODING)

    def find_key(self, path: str) -> RegistryKey | None:
        """A key by its path (`Software\\Wine`), without case."""
        wanted = escaped_key(path).casefold()
        return next((key for key in self.keys if key.name.casefold() == wanted), None)

    def set_value(self, path: str, name: str, data: str) -> None:
        """Set a value to data in file syntax (see `quoted`, `dword`); the key is made if missing."""
        key = self.find_key(path)
        if key is None:
            key = RegistryKey(escaped_key(path), 0)
            self.keys.append(key)
        line = f"{quoted(name) if name else '@'}={data}"
        index = key.find_value(name)
        if index is None:
            key.values.append(line)
        else:
            key.values[index] = line

    def delete_value(self, path: str, name: str) -> bool:
        """Delete a value; False if it was not there."""
        key = self.find_key(path)
        index = key.find_value(name) if key else None
        if key is None or index is None:
            return False
        del key.values[index]
        return True

    def delete_tree(self, path: str) -> bool:
        """Delete a key and everything below; False if it was not there."""
        wanted = escaped_key(path).casefold()
        kept = [
            key
            for key in self.keys
            if key.name.casefold() != wanted and not key.name.casefold().startswith(wanted + "\\\\")
        ]
        changed = len(kept) != len(self.keys)
        self.keys = kept
        return changed

    def delete_interfaces(self, typelib: str) -> int:
        """Delete the keys of all COM interfaces whose type library is `typelib` (`{guid}`); returns how many."""
        prefix = escaped_key("Software\\Classes\\Interface") + "\\\\"
        suffix = "\\\\TypeLib"
        doomed = set()
        for key in self.keys:
            if key.name.startswith(prefix) and key.name.endswith(suffix):
                index = key.find_value("")
                if index is not None and typelib.casefold() in key.values[index].casefold():
                    doomed.add(key.name.removesuffix(suffix))
        self.keys = [
            key
            for key in self.keys
            if not (key.name.startswith(prefix) and "\\\\".join(key.name.split("\\\\")[:4]) in doomed)
        ]
        return len(doomed)

    def fix_times(self, epoch_s: int) -> None:
        """Give every key the same modification time, so that equal registries are equal bytes."""
        filetime = _FILETIME_OF_UNIX_EPOCH + epoch_s * 10_000_000
        for key in self.keys:
            key.modified_s = epoch_s
            key.attributes = [f"#time={filetime:x}" if line.startswith("#time=") else line for line in key.attributes]
