"""Wine's registry files (system.reg, user.reg, userdef.reg) ↔ a tree. Pure.

    WINE REGISTRY Version 2
    ;; All keys relative to REGISTRY\\\\Machine

    #arch=win64

    [Software\\\\Wine] 1700000000
    #time=1dd7b8ee535cb3a
    @="text"
    "Name"=str(2):"text"
    "Bytes"=hex(7):00,01,\\
      02

Wine writes a block for every key that has values, no subkeys, a class or a link; other keys exist by those below them, and
their times are not kept. What is written here is what Wine itself would write, byte for byte. Security descriptors have no
place in the text.

Source: Wine, server/registry.c (save_subkeys, dump_value, load_registry) and server/unicode.c (dump_strW, parse_strW).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import msgspec

from silo.errors import InvalidRequest
from silo.model.windows_names import fold, fold_lower, sort_key, units
from silo.windows.hives import format as layout
from silo.windows.hives.damage import DamagedRegistry
from silo.windows.hives.hex_lines import broken_hex
from silo.windows.hives.reading import HiveLimits
from silo.windows.hives.tree import FLAG_LINK, MAXIMUM_DEPTH, Key, Layering, Value, ValueType
from silo.windows.wine_escapes import CONTROLS, OCTAL_DIGITS, unescape

SIGNATURE = "WINE REGISTRY Version 2"
_BASE_KEY = ";; All keys relative to "
_ARCHITECTURE = "#arch="
_ARCHITECTURES = ("win32", "win64")
_FILETIME_OF_UNIX_EPOCH = 116444736000000000
_TICKS_PER_S = 10_000_000

_HEADING = re.compile(r"\[([^\]\\]*(?:\\.[^\]\\]*)*)\](?: *(\d{1,10}))?")
_VALUE = re.compile(r'(?:@|"([^"\\]*(?:\\.[^"\\]*)*)")=')
_STRING = re.compile(r'(?:str(?:\(([0-9a-f]{1,8})\))?:)?"([^"\\]*(?:\\.[^"\\]*)*)"\s*\Z', re.IGNORECASE)
_HEX = re.compile(r"hex(?:\(([0-9a-f]{1,8})\))?:([0-9a-f, \t]*)\Z", re.IGNORECASE)
_DWORD = re.compile(r"dword:([0-9a-f]{1,8})\s*\Z", re.IGNORECASE)
_TIME = re.compile(r"#time=([0-9a-f]{1,16})\s*\Z", re.IGNORECASE)
_CLASS = re.compile(r'#class="([^"\\]*(?:\\.[^"\\]*)*)"\s*\Z')

_IN_STRINGS = re.compile(r"[^ -!#-\[\]-\x7f]")
_IN_PATHS = re.compile(r"[^ -Z^-\x7f]")
_CONTROL_LETTERS = {character: letter for letter, character in CONTROLS.items()}
_HEX_DIGITS = frozenset("0123456789abcdefABCDEF")


class WineRegistry(msgspec.Struct, frozen=True):
    """One file. Keys of `root` are relative to `base_key`."""

    root: Key
    base_key: str
    """Such as `REGISTRY\\Machine`."""
    architecture: str = "win64"
    """win32, win64, or empty when the file does not say."""


def read_wine_text(untrusted_data: bytes, *, limits: HiveLimits | None = None) -> WineRegistry:
    """The registry in a whole file; a key named twice has the values of both. Raises DamagedRegistry."""
    return _Reader(untrusted_data, limits or HiveLimits()).read()


class _Node:
    """A key while its file is read."""

    __slots__ = ("class_name", "flags", "modified", "name", "subkeys", "values")

    def __init__(self, name: str) -> None:
        self.name = name
        self.modified = 0
        self.class_name = ""
        self.flags = 0
        self.values: dict[str, Value] = {}
        self.subkeys: dict[str, _Node] = {}

    def freeze(self) -> Key:
        subkeys = []
        for node in self.subkeys.values():
            subkeys.append(node.freeze())  # a comprehension would be a second frame at each level
        return Key(
            name=self.name,
            values=tuple(self.values.values()),
            subkeys=tuple(subkeys),
            modified=self.modified,
            class_name=self.class_name,
            flags=self.flags,
        )


class _Reader:
    def __init__(self, untrusted_data: bytes, limits: HiveLimits) -> None:
        self._at = 0
        self._lines: list[str] = []
        self._left = limits.cells
        if len(untrusted_data) > limits.size_bytes:
            raise self._damaged(f"{len(untrusted_data)} bytes, more than {limits.size_bytes}")
        # Wine too passes over what is no UTF-8
        self._lines = untrusted_data.decode("utf-8", "ignore").split("\n")
        if not self._lines[0].startswith(SIGNATURE):
            raise self._damaged(f"the first line is not {SIGNATURE}")

    def read(self) -> WineRegistry:
        root = _Node("")
        node: _Node | None = None
        base_key = architecture = ""
        for line in self._whole_lines():
            if line.startswith("["):
                node = self._key(root, line)
            elif node is None:
                if line.startswith(_BASE_KEY):
                    base_key = unescape(line[len(_BASE_KEY) :])
                elif line.startswith(_ARCHITECTURE):
                    architecture = self._architecture(line)
            elif line.startswith(('"', "@")):
                value = self._value(line)
                node.values[fold(value.name)] = value
            elif line.startswith("#"):
                _set_attribute(node, line)
            elif line and not line.startswith(";"):
                raise self._damaged("neither a key nor a value")
        return WineRegistry(root=root.freeze(), base_key=base_key, architecture=architecture)

    def _architecture(self, line: str) -> str:
        found = line[len(_ARCHITECTURE) :].strip()
        if found not in _ARCHITECTURES:
            raise self._damaged(f"the architecture {found!r} is none of {', '.join(_ARCHITECTURES)}")
        return found

    def _whole_lines(self) -> Iterator[str]:
        """Lines after the first; bytes go on behind a backslash at the end."""
        parts: list[str] = []
        for number, raw in enumerate(self._lines[1:], 1):
            line = raw.rstrip("\r")
            if not parts:
                self._at = number
            # a line that begins the bytes of a value, or continues them
            if line.endswith("\\") and (parts or _is_hex(line)):
                parts.append(line[:-1])
                continue
            yield "".join([*parts, line])
            parts = []
        if parts:
            raise self._damaged("the file ends within a value")

    def _key(self, root: _Node, line: str) -> _Node:
        match = _HEADING.match(line)
        if match is None:
            raise self._damaged("the name of a key does not end")
        node = root
        path = [part for part in unescape(match[1]).split("\\") if part]
        if len(path) >= MAXIMUM_DEPTH:
            raise self._damaged(f"keys are nested deeper than {MAXIMUM_DEPTH} levels")
        for name in path:
            folded = fold(name)
            below = node.subkeys.get(folded)
            if below is None:
                self._count()
                if len(units(name)) > 2 * layout.MAXIMUM_KEY_NAME_UNITS:
                    raise self._damaged(f"a key's name of more than {layout.MAXIMUM_KEY_NAME_UNITS} characters")
                below = node.subkeys[folded] = _Node(name)
            node = below
        if match[2]:
            node.modified = _FILETIME_OF_UNIX_EPOCH + int(match[2]) * _TICKS_PER_S
        return node

    def _value(self, line: str) -> Value:
        self._count()
        match = _VALUE.match(line)
        if match is None:
            raise self._damaged("the name of a value does not end")
        name = unescape(match[1] or "")
        data = line[match.end() :]
        if string := _STRING.match(data):
            return Value(name, int(string[1] or "1", 16), units(unescape(string[2])) + b"\0\0")
        if number := _DWORD.match(data):
            return Value(name, ValueType.DWORD, int(number[1], 16).to_bytes(4, "little"))
        if octets := _HEX.match(data):
            try:
                return Value(name, int(octets[1] or "3", 16), bytes.fromhex(octets[2].replace(",", " ")))
            except ValueError:
                pass
        raise self._damaged(f"the data of the value {name!r} cannot be read")

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise self._damaged("more keys and values than are allowed")

    def _damaged(self, reason: str) -> DamagedRegistry:
        offset = sum(len(line) + 1 for line in self._lines[: self._at])
        return DamagedRegistry(f"line {self._at + 1}: {reason}", offset, kind="registry text")


def _is_hex(line: str) -> bool:
    match = _VALUE.match(line)
    return match is not None and line.startswith("hex", match.end())


def _set_attribute(node: _Node, line: str) -> None:
    """Others than these are passed over, as Wine does."""
    if match := _TIME.match(line):
        node.modified = int(match[1], 16)
    elif match := _CLASS.match(line):
        node.class_name = unescape(match[1])
    elif line.rstrip() == "#link":
        node.flags |= FLAG_LINK


def write_wine_text(registry: WineRegistry) -> bytes:
    """The file. Raises InvalidRequest for a tree with layer semantics."""
    base_key = "\\\\".join(escape_name(part) for part in registry.base_key.split("\\"))
    parts = [f"{SIGNATURE}\n{_BASE_KEY}{base_key}\n"]
    if registry.architecture:
        parts.append(f"\n{_ARCHITECTURE}{registry.architecture}\n")
    _write_key(registry.root, "", parts)
    return "".join(parts).encode("ascii")


def _write_key(key: Key, path: str, parts: list[str]) -> None:
    if key.layering is not Layering.MERGE or key.inherit_class:
        raise InvalidRequest(f"the registry key {key.name} is a layer's; merge it before it is written for Wine")
    if key.values or not key.subkeys or key.class_name or key.flags & FLAG_LINK:
        parts.append(write_block(key, path))
    below = f"{path}\\\\" if path else ""
    for subkey in sorted(key.subkeys, key=_sorting):
        _write_key(subkey, below + escape_name(subkey.name), parts)


def escape_name(name: str) -> str:
    """A key's name as it is written in headings."""
    return _escape(name, _IN_PATHS)


def _sorting(item: Key | Value) -> bytes:
    return sort_key(fold_lower(item.name))


def write_block(key: Key, path: str) -> str:
    """One key's block, with the empty line before it; `path` is escaped (see `escape_name`). Raises as `write_wine_text`."""
    lines = [f"\n[{path}]"]
    if key.modified:
        seconds = (key.modified - _FILETIME_OF_UNIX_EPOCH) // _TICKS_PER_S & 0xFFFFFFFF
        lines = [f"\n[{path}] {seconds}", f"#time={key.modified:x}"]
    if key.class_name:
        lines.append(f'#class="{_escape(key.class_name, _IN_STRINGS)}"')
    if key.flags & FLAG_LINK:
        lines.append("#link")
    lines += map(_value_line, sorted(key.values, key=_sorting))
    return "\n".join(lines) + "\n"


def _value_line(value: Value) -> str:
    if value.tombstone:
        raise InvalidRequest(f"the registry value {value.name} is a tombstone; merge it before it is written for Wine")
    name = f'"{_escape(value.name, _IN_STRINGS)}"=' if value.name else "@="
    data = value.data
    if value.type == ValueType.DWORD and len(data) == 4:
        return f"{name}dword:{int.from_bytes(data, 'little'):08x}"
    is_string = value.type in (ValueType.SZ, ValueType.EXPAND_SZ, ValueType.MULTI_SZ)
    if is_string and len(data) % 2 == 0 and data.endswith(b"\0\0"):
        kind = "" if value.type == ValueType.SZ else f"str({value.type:x}):"
        return f'{name}{kind}"{_escape(data[:-2].decode("utf-16-le", "surrogatepass"), _IN_STRINGS)}"'
    kind = "hex:" if value.type == ValueType.BINARY else f"hex({value.type:x}):"
    return broken_hex(name + kind, data)


def _escape(text: str, special: re.Pattern[str]) -> str:
    if special.search(text) is None:
        return text
    if not text.isascii():
        data = units(text)
        text = "".join(map(chr, struct.unpack(f"<{len(data) // 2}H", data)))
    return special.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    following = match.string[match.end() : match.end() + 1]
    if character > "\x7f":
        return f"\\x{ord(character):04x}" if following in _HEX_DIGITS else f"\\x{ord(character):x}"
    if character < " ":
        if character in _CONTROL_LETTERS:
            return "\\" + _CONTROL_LETTERS[character]
        return f"\\{ord(character):03o}" if following in OCTAL_DIGITS else f"\\{ord(character):o}"
    return "\\" + character
