"""Windows executables (PE/COFF): removing debug information, marking a DLL as Wine's own, telling the machine type.

Four fifths of Debian's libwine are DWARF sections inside the PE files. `strip` would remove them but rewrites the
alignment of the file, which keeps Wine from mapping it directly; cutting the sections off the end leaves every other
byte where it was.

Format: Microsoft PE/COFF specification (header, section table, COFF string table).
"""

from __future__ import annotations

import struct
from pathlib import Path

MACHINE_I386 = 0x014C
MACHINE_AMD64 = 0x8664

# Wine's loader looks for this text after the DOS header to know a DLL for its own build (Wine: dlls/ntdll/unix/loader.c).
_BUILTIN_SIGNATURE = b"Wine builtin DLL"
_DOS_HEADER_BYTES = 64
_BUILTIN_AREA_BYTES = 32

_COFF_HEADER = struct.Struct("<HHIIIHH")
_SECTION = struct.Struct("<8sIIIIIIHHI")
_SYMBOL_BYTES = 18
_SIZE_OF_IMAGE_OFFSET = 56
_SECTION_ALIGNMENT_OFFSET = 32
_MAX_FILE_BYTES = 256 * 1024 * 1024


def _coff_offset(data: bytes | bytearray) -> int | None:
    """Where the COFF header starts, or None if this is no PE file."""
    if len(data) < _DOS_HEADER_BYTES or data[:2] != b"MZ":
        return None
    offset = int(struct.unpack_from("<I", data, 60)[0])
    if len(data) < offset + 4 + _COFF_HEADER.size or data[offset : offset + 4] != b"PE\0\0":
        return None
    return offset + 4


def machine_type(data: bytes) -> int | None:
    """The machine field of a PE file's first bytes (MACHINE_AMD64, MACHINE_I386, …), or None if it is not one."""
    offset = _coff_offset(data)
    return None if offset is None else int(struct.unpack_from("<H", data, offset)[0])


def _section_name(raw_name: bytes, strings: bytes) -> bytes:
    """A section's name; `/123` names the one at offset 123 of the string table."""
    name = raw_name.rstrip(b"\0")
    if not name.startswith(b"/") or not name[1:].isdigit():
        return name
    start = int(name[1:])
    return strings[start : strings.find(b"\0", start)]


def without_debug_sections(data: bytes) -> bytes:
    """The same PE file without the `.debug_*` sections and COFF symbols at its end.

    Returns the data unchanged if it is no PE file, has none, or keeps them before sections that are loaded.
    """
    coff = _coff_offset(data)
    if coff is None:
        return data
    _, sections, _, symbols_at, symbol_count, optional_bytes, _ = _COFF_HEADER.unpack_from(data, coff)
    optional = coff + _COFF_HEADER.size
    table = optional + optional_bytes
    if sections == 0 or len(data) < table + sections * _SECTION.size:
        return data
    strings = data[symbols_at + symbol_count * _SYMBOL_BYTES :] if symbols_at else b""
    rows = [_SECTION.unpack_from(data, table + number * _SECTION.size) for number in range(sections)]
    is_debug = [_section_name(row[0], strings).startswith(b".debug") for row in rows]
    kept = is_debug.index(True) if True in is_debug else sections
    if kept in (0, sections) or not all(is_debug[kept:]):
        return data
    end = min(row[4] for row in rows[kept:] if row[3])
    if any(row[3] and row[4] + row[3] > end for row in rows[:kept]):
        return data
    return _cut(data[:end], coff=coff, optional=optional, table=table, kept=kept, rows=rows)


def _cut(
    data: bytes, *, coff: int, optional: int, table: int, kept: int, rows: list[tuple[bytes, int, int, int, int]]
) -> bytes:
    """`data`, already cut behind its last kept section, with headers that say so."""
    result = bytearray(data)
    struct.pack_into("<H", result, coff + 2, kept)
    struct.pack_into("<II", result, coff + 8, 0, 0)
    result[table + kept * _SECTION.size : table + len(rows) * _SECTION.size] = bytes((len(rows) - kept) * _SECTION.size)
    alignment = int(struct.unpack_from("<I", result, optional + _SECTION_ALIGNMENT_OFFSET)[0]) or 4096
    last = rows[kept - 1]
    image_bytes = last[2] + max(last[1], last[3])
    struct.pack_into("<I", result, optional + _SIZE_OF_IMAGE_OFFSET, -(-image_bytes // alignment) * alignment)
    return bytes(result)


def marked_builtin(data: bytes) -> bytes:
    """A DLL from mingw-w64 with Wine's signature in the DOS stub, so that Wine loads it as its own."""
    start, end = _DOS_HEADER_BYTES, _DOS_HEADER_BYTES + _BUILTIN_AREA_BYTES
    return data[:start] + _BUILTIN_SIGNATURE.ljust(_BUILTIN_AREA_BYTES, b"\0") + data[end:]


def strip_file(path: Path) -> int:
    """Remove debug sections from a file in place; returns the bytes saved."""
    if path.stat().st_size > _MAX_FILE_BYTES:
        return 0
    data = path.read_bytes()
    stripped = without_debug_sections(data)
    if stripped is data:
        return 0
    temporary = path.with_name(path.name + ".new")
    temporary.write_bytes(stripped)
    temporary.chmod(path.stat().st_mode & 0o7777)
    temporary.replace(path)
    return len(data) - len(stripped)
