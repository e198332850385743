"""A second writer of hive files, made from the format's description alone and sharing nothing with silo.windows.hives.

It lays cells down in another order than the library (children first, the root last), and can write what the library never
would: any kind of list, UTF-16 names where bytes would do, cells that nothing refers to, a dirty or wrong base block.

    builder = HiveBuilder(minor=3)
    data = builder.file(builder.key("ROOT", subkeys=[builder.key("A")], entry=True))

Source: msuhanov/regf, "Windows registry file format specification".
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

NOWHERE = 0xFFFFFFFF
TIME = 0x01D7B8EE535CB3A0


@dataclass(frozen=True)
class Cell:
    """A key that is in the file already."""

    offset: int
    name: str


class HiveBuilder:
    """Offsets are those of the format: from the first bin. `bin_pages` is the least size of a bin."""

    def __init__(self, *, minor: int = 5, bin_pages: int = 3) -> None:
        self.minor = minor
        self.bin_size = bin_pages * 4096
        self.bins = bytearray()
        self.end_of_cells = 0

    def cell(self, content: bytes, *, allocated: bool = True) -> int:
        size = (len(content) + 4 + 7) // 8 * 8
        if self.end_of_cells + size > len(self.bins):
            self._fill()
            room = max(self.bin_size, (size + 32 + 4095) // 4096 * 4096)
            header = struct.pack("<4sII8xQI", b"hbin", len(self.bins), room, TIME if not self.bins else 0, 0)
            self.end_of_cells = len(self.bins) + 32
            self.bins += header + bytes(room - 32)
        at = self.end_of_cells
        self.bins[at : at + 4 + len(content)] = struct.pack("<i", -size if allocated else size) + content
        self.end_of_cells = at + size
        return at

    def orphan(self, content: bytes = b"nk\x20\x00 remains of a key") -> int:
        """An allocated cell that nothing refers to."""
        return self.cell(content)

    def _fill(self) -> None:
        if self.end_of_cells < len(self.bins):
            free = len(self.bins) - self.end_of_cells
            self.bins[self.end_of_cells : self.end_of_cells + 4] = struct.pack("<i", free)
            self.end_of_cells = len(self.bins)

    def patch(self, offset: int, at: int, form: str, *numbers: int) -> None:
        """Change numbers at `at` within a cell's content."""
        struct.pack_into(form, self.bins, offset + 4 + at, *numbers)

    def security(self, descriptor: bytes, references: int = 1) -> int:
        offset = self.cell(struct.pack("<2sHIIII", b"sk", 0, 0, 0, references, len(descriptor)) + descriptor)
        self.patch(offset, 4, "<II", offset, offset)
        return offset

    def key(
        self,
        name: str,
        *,
        subkeys: Sequence[Cell] = (),
        values: Sequence[int] = (),
        lists: str = "lf",
        leaf: int = 0,
        utf16: bool = False,
        class_name: str = "",
        security: int = NOWHERE,
        flags: int = 0,
        layers: int = 0,
        user_flags: int = 0,
        entry: bool = False,
        time: int = TIME,
    ) -> Cell:
        """`lists` is the kind of its list of subkeys; with `leaf` an ri of lists with that many entries."""
        stored, compressed = _stored(name, utf16)
        subkey_list = self.subkey_list(subkeys, lists, leaf) if subkeys else NOWHERE
        value_list = self.cell(struct.pack(f"<{len(values)}I", *values)) if values else NOWHERE
        classes = class_name.encode("utf-16-le")
        class_cell = self.cell(classes) if classes else NOWHERE
        flags |= (0x20 if compressed else 0) | (0x0C if entry else 0)
        head = struct.pack("<2sHQBBHI", b"nk", flags, time, 0, layers, 0, 0)
        counts = struct.pack("<IIII", len(subkeys), 0, subkey_list, NOWHERE)
        places = struct.pack("<IIII", len(values), value_list, security, class_cell)
        sizes = struct.pack(
            "<HBBIIII", 2 * max((len(key.name) for key in subkeys), default=0), user_flags, 0, 0, 0, 0, 0
        )
        offset = self.cell(head + counts + places + sizes + struct.pack("<HH", len(stored), len(classes)) + stored)
        for subkey in subkeys:
            self.patch(subkey.offset, 16, "<I", offset)
        return Cell(offset, name)

    def subkey_list(self, subkeys: Sequence[Cell], kind: str, leaf: int) -> int:
        ordered = sorted(subkeys, key=lambda key: key.name.upper())
        if leaf:
            parts = [ordered[at : at + leaf] for at in range(0, len(ordered), leaf)]
            leaves = [self.subkey_list(part, kind, 0) for part in parts]
            return self.cell(struct.pack("<2sH", b"ri", len(leaves)) + struct.pack(f"<{len(leaves)}I", *leaves))
        content = struct.pack("<2sH", kind.encode(), len(ordered))
        for key in ordered:
            content += struct.pack("<I", key.offset)
            if kind == "lf":
                content += key.name.encode("latin-1", "replace")[:4].ljust(4, b"\0")
            elif kind == "lh":
                content += struct.pack("<I", _hash(key.name))
        return self.cell(content)

    def value(self, name: str, kind: int, data: bytes, *, utf16: bool = False, within: bool = True) -> int:
        """`within`: up to four bytes lie in the value itself."""
        if within and len(data) <= 4:
            return self.raw_value(name, kind, len(data) | 0x80000000, data.ljust(4, b"\0"), utf16=utf16)
        at = self.big_data(data) if len(data) > 16344 and self.minor > 3 else self.cell(data)
        return self.raw_value(name, kind, len(data), struct.pack("<I", at), utf16=utf16)

    def raw_value(self, name: str, kind: int, size: int, place: bytes, *, utf16: bool = False, flags: int = 0) -> int:
        stored, compressed = _stored(name, utf16)
        header = struct.pack("<2sHI4sIHH", b"vk", len(stored), size, place, kind, flags | (1 if compressed else 0), 0)
        return self.cell(header + stored)

    def tombstone_value(self, name: str) -> int:
        return self.raw_value(name, 0, 0, b"\xff" * 4, flags=2)

    def big_data(self, data: bytes) -> int:
        entries = [self.cell(data[at : at + 16344]) for at in range(0, len(data), 16344)]
        table = self.cell(struct.pack(f"<{len(entries)}I", *entries))
        return self.cell(struct.pack("<2sHI", b"db", len(entries), table))

    def file(
        self,
        root: Cell | int,
        *,
        sequence: tuple[int, int] = (7, 7),
        layered: bool = False,
        name: str = "\\fixture",
        kind: int = 0,
        checksum: int | None = None,
        padding: int = 0,
    ) -> bytes:
        """The finished file. `checksum` takes the place of the right one."""
        self._fill()
        base = bytearray(4096)
        offset = root if isinstance(root, int) else root.offset
        struct.pack_into("<4sIIQ", base, 0, b"regf", *sequence, TIME)
        struct.pack_into("<IIIIIII", base, 20, 1, self.minor, kind, 1, offset, len(self.bins), 1)
        base[48:112] = name.encode("utf-16-le").ljust(64, b"\0")
        struct.pack_into("<I", base, 144, 2 if layered else 0)
        struct.pack_into("<I", base, 508, xor32(base) if checksum is None else checksum)
        return bytes(base) + bytes(self.bins) + bytes(padding)


def xor32(base: bytes | bytearray) -> int:
    total = 0
    for (number,) in struct.iter_unpack("<I", base[:508]):
        total ^= number
    return total


def resealed(data: bytes | bytearray) -> bytes:
    """A changed file with the checksum that belongs to it."""
    return bytes(data[:508]) + struct.pack("<I", xor32(data)) + bytes(data[512:])


def _stored(name: str, utf16: bool) -> tuple[bytes, bool]:
    if not utf16:
        try:
            return name.encode("latin-1"), True
        except UnicodeEncodeError:
            pass
    return name.encode("utf-16-le", "surrogatepass"), False


def _hash(name: str) -> int:
    total = 0
    for character in name.upper():
        total = (total * 37 + ord(character)) % (1 << 32)
    return total
