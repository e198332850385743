"""A hive file → its tree. Nothing in the file is trusted.

All cells are found first by walking the bins, and each may be used once (security descriptors are shared, and kept once). So
no cycle, overlap or cell named a million times gets anywhere, and what a tree takes is bounded by the file. Windows keeps to
this too: it frees the cells of what is deleted.

Keys are read level by level and built from the deepest level up, so depth costs no stack.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import islice

import msgspec

from silo.model.windows_names import fold
from silo.windows.hives import format as layout
from silo.windows.hives.damage import DamagedRegistry
from silo.windows.hives.tree import MAXIMUM_DEPTH, Hive, Key, Layering, Value, ValueType

_SIZE = struct.Struct("<i")
_BIN = struct.Struct("<4sII")
_LAYERINGS = tuple(Layering)


class HiveLimits(msgspec.Struct, frozen=True):
    """What a hive may cost. A cell becomes at most some 300 bytes beside its data."""

    size_bytes: int = 256 << 20
    cells: int = 2_000_000


class _BaseBlock(msgspec.Struct, frozen=True):
    minor_version: int
    modified: int
    root: int
    size: int
    file_name: str
    layered: bool


def read_hive(
    untrusted_data: bytes | memoryview, *, limits: HiveLimits | None = None, allow_dirty: bool = False
) -> Hive:
    """The hive in a whole file.

    A dirty hive (its last write did not finish; the rest is in a .LOG file beside it) is refused, or with `allow_dirty` read as
    it stands. Raises DamagedRegistry.
    """
    limits = limits or HiveLimits()
    if len(untrusted_data) > limits.size_bytes:
        raise DamagedRegistry(f"{len(untrusted_data)} bytes, more than {limits.size_bytes}", 0)
    data = memoryview(untrusted_data)
    base = _read_base_block(data, allow_dirty)
    cells = _Cells(data[layout.PAGE : layout.PAGE + base.size], limits.cells)
    return Hive(
        root=_read_tree(_Keys(cells, base), base.root),
        minor_version=base.minor_version,
        modified=base.modified,
        file_name=base.file_name,
        layered=base.layered,
    )


def _read_base_block(data: memoryview, allow_dirty: bool) -> _BaseBlock:
    if len(data) < 2 * layout.PAGE:
        raise DamagedRegistry(f"{len(data)} bytes, too short for a hive", 0)
    signature, primary, secondary, modified, major, minor, kind, form, root, size, _, name = (
        layout.BASE_BLOCK.unpack_from(data)
    )
    if signature != layout.BASE_SIGNATURE:
        raise DamagedRegistry("the signature regf is missing", 0)
    expected, found = layout.checksum(data), _number(data, layout.CHECKSUM_OFFSET)
    if found != expected:
        raise DamagedRegistry(f"the checksum is {found:08x}, should be {expected:08x}", layout.CHECKSUM_OFFSET)
    if major != 1 or minor not in layout.MINOR_VERSIONS:
        raise DamagedRegistry(f"format {major}.{minor} is not one of 1.3 to 1.6", 20)
    if kind != 0 or form != 1:
        raise DamagedRegistry(f"type {kind}, format {form}: a transaction log, or no hive", 28)
    if primary != secondary and not allow_dirty:
        raise DamagedRegistry(
            f"the hive is dirty: write {primary} began, {secondary} is the last that finished",
            4,
            hint="the rest is in its transaction log; let Windows load and unload it once",
        )
    if size % layout.PAGE or not 0 < size <= len(data) - layout.PAGE:
        raise DamagedRegistry(f"bins of {size} bytes in a file of {len(data)}", 40)
    layered = minor >= layout.LAYERS_SINCE and bool(
        _number(data, layout.BASE_FLAGS_OFFSET) & layout.FLAG_LAYERED  # an older format means something else by it
    )
    text = name.decode("utf-16-le", "surrogatepass").partition("\0")[0]
    return _BaseBlock(minor_version=minor, modified=modified, root=root, size=size, file_name=text, layered=layered)


def _number(data: memoryview, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


class _Cells:
    """The allocated cells of the bins, each to be taken once. Offsets here count from the first bin."""

    def __init__(self, bins: memoryview, maximum: int) -> None:
        self.data = bins
        self._left = maximum
        # one byte for every place where a cell may begin: 1 for an allocated cell, 2 once it is used
        self._marks = bytearray(len(bins) // layout.CELL_ALIGNMENT)
        at = 0
        while at < len(bins):
            at = self._walk_bin(at)

    def _walk_bin(self, start: int) -> int:
        signature, offset, size = _BIN.unpack_from(self.data, start)
        if signature != layout.BIN_SIGNATURE or offset != start:
            raise damaged("no bin begins here", start)
        end: int = start + size
        if size == 0 or size % layout.PAGE or end > len(self.data):
            raise damaged(f"a bin of {size} bytes", start)
        data, marks, size_at, left = self.data, self._marks, _SIZE.unpack_from, self._left
        at = start + layout.BIN_HEADER_SIZE
        while at < end:
            length: int = size_at(data, at)[0]
            if length < 0:
                length = -length
                marks[at >> 3] = 1
            if length & 7 or not 8 <= length <= end - at:
                raise damaged(f"a cell of {length} bytes", at)
            at += length
            left -= 1
        self._left = left
        if left < 0:
            raise damaged("more cells than are allowed", start)
        return end

    def take(self, offset: int, what: str, referrer: int) -> tuple[int, int]:
        """Begin and end of a cell's data. Raises DamagedRegistry at the place that refers to it."""
        start, end = self.look(offset, what, referrer)
        if self._marks[offset >> 3] != 1:
            raise damaged(f"the {what} at 0x{offset + layout.PAGE:x} is used twice, or in a circle", referrer)
        self._marks[offset >> 3] = 2
        return start, end

    def look(self, offset: int, what: str, referrer: int) -> tuple[int, int]:
        """The same for a cell that may be shared."""
        if offset & 7 or offset >= len(self.data) or not self._marks[offset >> 3]:
            raise damaged(f"no cell for a {what} begins at 0x{offset + layout.PAGE:x}", referrer)
        return offset + 4, offset - int(_SIZE.unpack_from(self.data, offset)[0])


def damaged(reason: str, offset: int) -> DamagedRegistry:
    """The error for an offset that counts from the first bin."""
    return DamagedRegistry(reason, offset + layout.PAGE)


def _read_tree(keys: _Keys, root: int) -> Key:
    levels: list[list[_Head]] = []
    offsets: Sequence[int] = (root,)
    parent = 0
    while offsets:
        if len(levels) == MAXIMUM_DEPTH:
            raise damaged(f"keys are nested deeper than {MAXIMUM_DEPTH} levels", parent)
        level = [keys.read_head(offset, parent) for offset in offsets]
        levels.append(level)
        parent = level[0][0]
        offsets = [offset for _, subkeys in level for offset in subkeys]
    below: list[Key] = []
    for depth in range(len(levels) - 1, -1, -1):
        waiting = iter(below)
        below = [
            keys.read_key(start, tuple(islice(waiting, len(subkeys))), is_root=depth == 0)
            for start, subkeys in levels[depth]
        ]
    return below[0]


_Head = tuple[int, Sequence[int]]
"""Where a key's data begins, and the offsets of its subkeys."""


class _Keys:
    """Reads one key at a time."""

    def __init__(self, cells: _Cells, base: _BaseBlock) -> None:
        self._cells = cells
        self._data = cells.data
        self._layered = base.layered
        self._big_data = base.minor_version >= layout.BIG_DATA_SINCE
        self._descriptors: dict[int, bytes] = {layout.NO_OFFSET: b""}

    def read_head(self, offset: int, referrer: int) -> _Head:
        start, end = self._cells.take(offset, "key", referrer)
        if end - start < layout.KEY.size:
            raise damaged("no key (nk)", offset)
        signature, count, at, name_size = layout.KEY_LINKS.unpack_from(self._data, start)
        if signature != layout.KEY_SIGNATURE:
            raise damaged("no key (nk)", offset)
        if layout.KEY.size + name_size > end - start:
            raise damaged(f"a key's name of {name_size} bytes does not fit its cell", offset)
        return start, (self._subkey_offsets(at, count, start) if count else ())

    def _subkey_offsets(self, offset: int, count: int, referrer: int) -> Sequence[int]:
        start, signature, length = self._list_header(offset, referrer)
        if signature == layout.LIST_OF_LISTS:
            offsets: list[int] = []
            for leaf in struct.unpack_from(f"<{length}I", self._data, start):
                offsets += self._leaf(*self._list_header(leaf, offset))
        else:
            offsets = list(self._leaf(start, signature, length))
        if len(offsets) != count:
            raise damaged(f"a list of {len(offsets)} subkeys for a key that has {count}", referrer)
        return offsets

    def _list_header(self, offset: int, referrer: int) -> tuple[int, bytes, int]:
        """Where the entries begin, the signature, and how many there are."""
        start, end = self._cells.take(offset, "list of subkeys", referrer)
        signature, length = layout.LIST_HEADER.unpack_from(self._data, start)
        words = layout.LIST_WORDS.get(signature, 1)
        if start + layout.LIST_HEADER.size + 4 * words * length > end:
            raise damaged(f"{length} subkeys do not fit their list", offset)
        return start + layout.LIST_HEADER.size, signature, length

    def _leaf(self, start: int, signature: bytes, length: int) -> Sequence[int]:
        words = layout.LIST_WORDS.get(signature)
        if words is None:
            raise damaged(f"no list of subkeys ({signature!r})", start)
        return struct.unpack_from(f"<{length * words}I", self._data, start)[::words]

    def read_key(self, start: int, subkeys: tuple[Key, ...], *, is_root: bool) -> Key:
        flags, modified, layers, count, values, security, class_at, user_flags, name_size, class_size = (
            layout.KEY_CONTENT.unpack_from(self._data, start)
        )
        name = self._text(start + layout.KEY.size, name_size, flags & layout.KEY_COMPRESSED_NAME)
        if not is_root and (not name or "\\" in name):
            raise damaged(f"a key cannot have the name {name!r}", start)
        if len({fold(subkey.name) for subkey in subkeys}) != len(subkeys):
            raise damaged("two subkeys have the same name", start)
        if flags & layout.KEY_PREDEFINED_HANDLE:
            count = 0
        return Key(
            name=name,
            values=self._values(values, count, start) if count else (),
            subkeys=subkeys,
            modified=modified,
            class_name=self._class_name(class_at, class_size, start) if class_size else "",
            security=self._security(security, start),
            flags=flags & ~layout.KEY_OF_THE_FILE,
            user_flags=user_flags,
            layering=_LAYERINGS[layers & layout.LAYERING_MASK if self._layered else 0],
            inherit_class=self._layered and bool(layers & layout.INHERIT_CLASS),
        )

    def _text(self, start: int, size: int, compressed: int) -> str:
        """A name; a compressed one holds the low bytes of its UTF-16 units."""
        raw = bytes(self._data[start : start + size])
        if compressed:
            return raw.decode("latin-1")
        if size % 2:
            raise damaged("half a character of UTF-16 in a name", start)
        return raw.decode("utf-16-le", "surrogatepass")

    def _class_name(self, offset: int, size: int, referrer: int) -> str:
        if offset == layout.NO_OFFSET:
            return ""
        start, end = self._cells.take(offset, "class name", referrer)
        if size > end - start:
            raise damaged(f"a class name of {size} bytes does not fit its cell", offset)
        return self._text(start, size, 0)

    def _security(self, offset: int, referrer: int) -> bytes:
        known = self._descriptors.get(offset)
        if known is not None:
            return known
        start, end = self._cells.look(offset, "security descriptor", referrer)
        if end - start < layout.SECURITY.size:
            raise damaged("no security descriptor (sk)", offset)
        signature, _, _, _, _, size = layout.SECURITY.unpack_from(self._data, start)
        start += layout.SECURITY.size
        if signature != layout.SECURITY_SIGNATURE or size > end - start:
            raise damaged("no security descriptor (sk)", offset)
        descriptor = self._descriptors[offset] = bytes(self._data[start : start + size])
        return descriptor

    def _values(self, offset: int, count: int, referrer: int) -> tuple[Value, ...]:
        start, end = self._cells.take(offset, "list of values", referrer)
        if start + 4 * count > end:
            raise damaged(f"{count} values do not fit their list", offset)
        values = [self._value(at, start) for at in struct.unpack_from(f"<{count}I", self._data, start)]
        if len({fold(value.name) for value in values}) != count:
            raise damaged("two values have the same name", referrer)
        return tuple(values)

    def _value(self, offset: int, referrer: int) -> Value:
        start, end = self._cells.take(offset, "value", referrer)
        if end - start < layout.VALUE.size:
            raise damaged("no value (vk)", offset)
        signature, name_size, size, at, kind, flags, _ = layout.VALUE.unpack_from(self._data, start)
        if signature != layout.VALUE_SIGNATURE:
            raise damaged("no value (vk)", offset)
        if layout.VALUE.size + name_size > end - start:
            raise damaged(f"a value's name of {name_size} bytes does not fit its cell", offset)
        name = self._text(start + layout.VALUE.size, name_size, flags & layout.VALUE_COMPRESSED_NAME)
        if self._layered and flags & layout.VALUE_TOMBSTONE:
            return Value(name, ValueType.NONE, b"", True)
        if size & layout.DATA_WITHIN:
            return Value(name, kind, self._data_within(start, size & ~layout.DATA_WITHIN))
        return Value(name, kind, self._data_of(at, size, start) if size else b"")

    def _data_within(self, start: int, size: int) -> bytes:
        if size > layout.DATA_WITHIN_BYTES:
            raise damaged(f"data of {size} bytes where {layout.DATA_WITHIN_BYTES} fit", start)
        return bytes(self._data[start + 8 : start + 8 + size])

    def _data_of(self, offset: int, size: int, referrer: int) -> bytes:
        start, end = self._cells.take(offset, "data", referrer)
        if size <= end - start:
            return bytes(self._data[start : start + size])
        if size <= layout.SEGMENT_BYTES or not self._big_data:
            raise damaged(f"data of {size} bytes in a cell of {end - start}", offset)
        return self._segments(start, end, size)

    def _segments(self, start: int, end: int, size: int) -> bytes:
        """Data of a db cell: every segment but the last is full."""
        if end - start < layout.BIG_DATA.size:
            raise damaged(f"data of {size} bytes in a cell of {end - start}", start)
        signature, count, offset = layout.BIG_DATA.unpack_from(self._data, start)
        if signature != layout.BIG_DATA_SIGNATURE or count != -(-size // layout.SEGMENT_BYTES):
            raise damaged(f"no data of {size} bytes in segments (db)", start)
        entries, entries_end = self._cells.take(offset, "list of segments", start)
        if entries + 4 * count > entries_end:
            raise damaged(f"{count} segments do not fit their list", offset)
        parts = []
        for at in struct.unpack_from(f"<{count}I", self._data, entries):
            first, last = self._cells.take(at, "segment", entries)
            wanted = min(size, layout.SEGMENT_BYTES)
            if wanted > last - first:
                raise damaged(f"a segment of {last - first} bytes where {wanted} should be", at)
            parts.append(self._data[first : first + wanted])
            size -= wanted
        return b"".join(parts)
