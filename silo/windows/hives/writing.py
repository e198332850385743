"""A tree → a hive file. The same hive gives the same bytes.

Cells are laid down one after another: the root first (some readers look for it there), then of each key its class name, values
and lists, then its subkeys. A cell lies within one bin; bins have one page, or as many as one large cell needs. What cannot be
stored so that Windows would load it is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from silo.errors import InvalidRequest
from silo.model.windows_names import fold, sort_key, units
from silo.windows.hives import format as layout
from silo.windows.hives.tree import MAXIMUM_DEPTH, Hive, Key, Layering, Value, ValueType

# O:BAG:SYD:P(A;CI;KA;;;BA)(A;CI;KA;;;SY)(A;CI;KR;;;BU): administrators and the system may do all, users read.
DEFAULT_SECURITY = bytes.fromhex(
    "01000490 60000000 70000000 00000000 14000000"
    "02004c00 03000000"
    "00021800 3f000f00 0102000000000005 20000000 20020000"
    "00021400 3f000f00 0101000000000005 12000000"
    "00021800 19000200 0102000000000005 20000000 21020000"
    "0102000000000005 20000000 20020000"
    "0101000000000005 12000000"
)
"""Of a root that has none of its own."""

_MAXIMUM_SIZE = 0x7FFFF000
_MAXIMUM_DATA = 0xFFFF * layout.SEGMENT_BYTES
_SIZE = struct.Struct("<i")


def write_hive(hive: Hive) -> bytes:
    """The file. Raises InvalidRequest naming the key for what the format or Windows cannot hold."""
    if hive.minor_version not in layout.MINOR_VERSIONS:
        raise InvalidRequest(f"hives of format 1.{hive.minor_version} cannot be written", hint="1.3 to 1.6 can")
    if hive.layered and hive.minor_version < layout.LAYERS_SINCE:
        raise InvalidRequest(f"a hive of format 1.{hive.minor_version} cannot have layers", hint="1.6 can")
    cells = _Cells()
    root = _Writer(cells, hive).write_tree(hive.root)
    bins = cells.finish(hive.modified)
    if len(bins) > _MAXIMUM_SIZE:
        raise InvalidRequest(f"a hive of {len(bins)} bytes is larger than the format allows")
    return _base_block(hive, root, len(bins)) + bins


def _base_block(hive: Hive, root: int, size: int) -> bytes:
    name = units(hive.file_name)
    if len(name) > 2 * layout.FILE_NAME_UNITS:
        raise InvalidRequest(f"the file name {hive.file_name} is longer than {layout.FILE_NAME_UNITS} characters")
    block = bytearray(layout.PAGE)
    fields = (layout.BASE_SIGNATURE, 1, 1, hive.modified, 1, hive.minor_version, 0, 1, root, size, 1, name)
    layout.BASE_BLOCK.pack_into(block, 0, *fields)
    struct.pack_into("<I", block, layout.BASE_FLAGS_OFFSET, layout.FLAG_LAYERED if hive.layered else 0)
    struct.pack_into("<I", block, layout.CHECKSUM_OFFSET, layout.checksum(block))
    return bytes(block)


class _Cells:
    """Bins being filled. Offsets count from the first bin."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._used = 0
        self._bin_starts: list[int] = []

    def add(self, content: bytes) -> int:
        """A new cell; returns its offset."""
        size = layout.aligned(4 + len(content))
        if self._used + size > len(self.data):
            self._begin_bin(size)
        at = self._used
        _SIZE.pack_into(self.data, at, -size)
        self.data[at + 4 : at + 4 + len(content)] = content
        self._used = at + size
        return at

    def _begin_bin(self, cell_size: int) -> None:
        self._close_bin()
        start = len(self.data)
        self.data += bytes(layout.aligned(layout.BIN_HEADER_SIZE + cell_size, layout.PAGE))
        self._bin_starts.append(start)
        self._used = start + layout.BIN_HEADER_SIZE

    def _close_bin(self) -> None:
        if self._used < len(self.data):
            _SIZE.pack_into(self.data, self._used, len(self.data) - self._used)

    def finish(self, modified: int) -> bytes:
        """All bins; the first has the time of the hive."""
        self._close_bin()
        for start, end in zip(self._bin_starts, [*self._bin_starts[1:], len(self.data)], strict=True):
            time = modified if start == 0 else 0
            layout.BIN_HEADER.pack_into(self.data, start, layout.BIN_SIGNATURE, start, end - start, 0, time, 0)
        return bytes(self.data)


class _Security:
    """The ring of security descriptors, each stored once with the number of keys that use it."""

    def __init__(self, cells: _Cells) -> None:
        self._cells = cells
        self._offsets: dict[bytes, int] = {}
        self._users: dict[bytes, int] = {}

    def use(self, descriptor: bytes) -> int:
        """The offset of its cell."""
        if descriptor not in self._offsets:
            header = layout.SECURITY.pack(layout.SECURITY_SIGNATURE, 0, 0, 0, 0, len(descriptor))
            self._offsets[descriptor] = self._cells.add(header + descriptor)
            self._users[descriptor] = 0
        self._users[descriptor] += 1
        return self._offsets[descriptor]

    def close_ring(self) -> None:
        ring = list(self._offsets.values())
        for index, (descriptor, offset) in enumerate(self._offsets.items()):
            following, previous = ring[(index + 1) % len(ring)], ring[index - 1]
            header = (layout.SECURITY_SIGNATURE, 0, following, previous, self._users[descriptor], len(descriptor))
            layout.SECURITY.pack_into(self._cells.data, offset + 4, *header)


class _Writer:
    def __init__(self, cells: _Cells, hive: Hive) -> None:
        self._cells = cells
        self._security = _Security(cells)
        self._layered = hive.layered
        self._big_data = hive.minor_version >= layout.BIG_DATA_SINCE
        self._hashes = hive.minor_version >= layout.HASHES_SINCE

    def write_tree(self, root: Key) -> int:
        """All cells of the hive; returns the root's offset."""
        offset = self._cells.add(bytes(layout.KEY.size) + _stored(root.name)[0])
        self._write_key(root, offset, layout.NO_OFFSET, DEFAULT_SECURITY, (root.name,))
        self._security.close_ring()
        return offset

    def _write_key(self, key: Key, offset: int, parent: int, inherited: bytes, path: tuple[str, ...]) -> None:
        self._check(key, path)
        security = key.security or inherited
        subkeys = sorted(key.subkeys, key=lambda subkey: sort_key(fold(subkey.name)))
        offsets = [self._cells.add(bytes(layout.KEY.size) + _stored(subkey.name)[0]) for subkey in subkeys]
        links = (
            self._list_of_subkeys(subkeys, offsets),
            self._list_of_values(key, path),
            self._security.use(security),
            self._cells.add(units(key.class_name)) if key.class_name else layout.NO_OFFSET,
        )
        self._pack_key(key, offset, parent, links)
        for subkey, at in zip(subkeys, offsets, strict=True):
            self._write_key(subkey, at, offset, security, (*path, subkey.name))

    def _pack_key(self, key: Key, offset: int, parent: int, links: tuple[int, int, int, int]) -> None:
        subkeys, values, security, class_name = links
        stored, compressed = _stored(key.name)
        flags = key.flags & ~layout.KEY_OF_THE_FILE
        flags |= layout.KEY_COMPRESSED_NAME if compressed else 0
        flags |= layout.KEY_HIVE_ENTRY | layout.KEY_NO_DELETE if parent == layout.NO_OFFSET else 0
        layering = key.layering | (layout.INHERIT_CLASS if key.inherit_class else 0)
        longest = (
            max((len(units(subkey.name)) for subkey in key.subkeys), default=0),
            *(key.user_flags, 0),
            max((len(units(subkey.class_name)) for subkey in key.subkeys), default=0),
            max((len(units(value.name)) for value in key.values), default=0),
            max((len(value.data) for value in key.values), default=0),
        )
        layout.KEY.pack_into(
            self._cells.data,
            offset + 4,
            *(layout.KEY_SIGNATURE, flags, key.modified, 0, layering, 0, parent),
            *(len(key.subkeys), 0, subkeys, layout.NO_OFFSET, len(key.values), values, security, class_name),
            *longest,
            *(0, len(stored), len(units(key.class_name))),
        )

    def _check(self, key: Key, path: tuple[str, ...]) -> None:
        if len(path) > MAXIMUM_DEPTH:
            raise _refusal(path[:3], f"is nested deeper than {MAXIMUM_DEPTH} levels")
        if len(units(key.name)) > 2 * layout.MAXIMUM_KEY_NAME_UNITS:
            raise _refusal(path, f"has a name of more than {layout.MAXIMUM_KEY_NAME_UNITS} characters")
        if len(path) > 1 and (not key.name or "\\" in key.name):
            raise _refusal(path, "has an empty name or one with a backslash")
        if len(units(key.class_name)) > 0xFFFE:
            raise _refusal(path, "has a class name that is too long")
        for what, items in (("subkeys", key.subkeys), ("values", key.values)):
            if len({fold(item.name) for item in items}) != len(items):
                raise _refusal(path, f"has two {what} of the same name")
        if not self._layered and (key.layering or key.inherit_class or any(value.tombstone for value in key.values)):
            raise _refusal(path, "has layer semantics in a hive without layers")
        if key.layering is Layering.TOMBSTONE and (key.values or key.subkeys or key.class_name):
            raise _refusal(path, "is a tombstone and has content")

    def _list_of_subkeys(self, subkeys: Sequence[Key], offsets: list[int]) -> int:
        leaves = [
            self._leaf(subkeys[at : at + layout.LEAF_ENTRIES], offsets[at : at + layout.LEAF_ENTRIES])
            for at in range(0, len(subkeys), layout.LEAF_ENTRIES)
        ]
        if len(leaves) < 2:
            return leaves[0] if leaves else layout.NO_OFFSET
        header = layout.LIST_HEADER.pack(layout.LIST_OF_LISTS, len(leaves))
        return self._cells.add(header + struct.pack(f"<{len(leaves)}I", *leaves))

    def _leaf(self, subkeys: Sequence[Key], offsets: list[int]) -> int:
        parts = [layout.LIST_HEADER.pack(b"lh" if self._hashes else b"lf", len(subkeys))]
        for subkey, offset in zip(subkeys, offsets, strict=True):
            parts.append(offset.to_bytes(4, "little"))
            if self._hashes:
                parts.append(layout.name_hash(subkey.name).to_bytes(4, "little"))
            else:
                parts.append(layout.name_hint(subkey.name))
        return self._cells.add(b"".join(parts))

    def _list_of_values(self, key: Key, path: tuple[str, ...]) -> int:
        if not key.values:
            return layout.NO_OFFSET
        offsets = [self._value(value, path) for value in key.values]
        return self._cells.add(struct.pack(f"<{len(offsets)}I", *offsets))

    def _value(self, value: Value, path: tuple[str, ...]) -> int:
        if len(units(value.name)) > 2 * layout.MAXIMUM_VALUE_NAME_UNITS:
            raise _refusal(path, f"has a value with a name of more than {layout.MAXIMUM_VALUE_NAME_UNITS} characters")
        if len(value.data) > _MAXIMUM_DATA:
            raise _refusal(path, f"has a value of {len(value.data)} bytes: {value.name}")
        stored, compressed = _stored(value.name)
        flags = layout.VALUE_COMPRESSED_NAME if compressed else 0
        size, at = len(value.data), layout.NO_OFFSET
        if value.tombstone:
            if value.data or value.type != ValueType.NONE:
                raise _refusal(path, f"has a tombstone with data: {value.name}")
            flags |= layout.VALUE_TOMBSTONE
        elif size <= layout.DATA_WITHIN_BYTES:
            size, at = size | layout.DATA_WITHIN, int.from_bytes(value.data, "little")
        else:
            at = self._data(value.data)
        header = layout.VALUE.pack(layout.VALUE_SIGNATURE, len(stored), size, at, value.type, flags, 0)
        return self._cells.add(header + stored)

    def _data(self, data: bytes) -> int:
        if len(data) <= layout.SEGMENT_BYTES or not self._big_data:
            return self._cells.add(data)
        starts = range(0, len(data), layout.SEGMENT_BYTES)
        # libhivex never reads the last four bytes of a segment's cell, which a full one has to spare
        segments = [self._cells.add(data[start : start + layout.SEGMENT_BYTES] + bytes(4)) for start in starts]
        entries = self._cells.add(struct.pack(f"<{len(segments)}I", *segments))
        return self._cells.add(layout.BIG_DATA.pack(layout.BIG_DATA_SIGNATURE, len(segments), entries))


def _stored(name: str) -> tuple[bytes, bool]:
    """A name as it lies in a cell, and whether that is the compressed form: one byte a character."""
    try:
        return name.encode("latin-1"), True
    except UnicodeEncodeError:
        return units(name), False


def _refusal(path: tuple[str, ...], reason: str) -> InvalidRequest:
    name = "\\".join(path[1:]) or "at the root"
    return InvalidRequest(f"the registry key {name} {reason}")
