"""Debug sections are cut, everything that is loaded stays, other files are left alone."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from silo.windows.base import portable_executable as pe

CODE = b"\x90" * 512
DEBUG = b"dwarf..." * 64


def build_pe(*, sections: list[tuple[bytes, bytes]], machine: int = pe.MACHINE_AMD64) -> bytes:
    """A small PE32+ file; section names longer than 8 bytes go to the string table, as GNU ld writes them."""
    strings = b""
    names = []
    for name, _ in sections:
        if len(name) <= 8:
            names.append(name.ljust(8, b"\0"))
        else:
            names.append(f"/{4 + len(strings)}".encode().ljust(8, b"\0"))
            strings += name + b"\0"
    header = b"MZ".ljust(60, b"\0") + struct.pack("<I", 128)
    optional = bytearray(240)
    struct.pack_into("<I", optional, 32, 4096)
    struct.pack_into("<I", optional, 56, 4096 * (len(sections) + 1))
    data_at = 1024
    table = b""
    body = b""
    for number, (_, content) in enumerate(sections):
        row = struct.pack(
            "<8sIIIIIIHHI",
            names[number],
            len(content),
            4096 * (number + 1),
            len(content),
            data_at + len(body),
            0,
            0,
            0,
            0,
            0,
        )
        table += row
        body += content
    symbols_at = data_at + len(body)
    coff = struct.pack("<HHIIIHH", machine, len(sections), 0, symbols_at, 0, len(optional), 0)
    start = header.ljust(128, b"\0") + b"PE\0\0" + coff + bytes(optional) + table
    return start.ljust(data_at, b"\0") + body + struct.pack("<I", 4 + len(strings)) + strings


def test_debug_sections_at_the_end_are_cut() -> None:
    data = build_pe(sections=[(b".text", CODE), (b".data", CODE), (b".debug_info", DEBUG), (b".debug_line", DEBUG)])
    stripped = pe.without_debug_sections(data)
    assert DEBUG not in stripped
    assert stripped[1024:] == CODE + CODE
    coff = 132
    machine, count, _, symbols_at, symbol_count, _, _ = struct.unpack_from("<HHIIIHH", stripped, coff)
    assert (machine, count, symbols_at, symbol_count) == (pe.MACHINE_AMD64, 2, 0, 0)
    assert struct.unpack_from("<I", stripped, coff + 20 + 56)[0] == 3 * 4096
    assert b".debug" not in stripped


def test_stripping_twice_changes_nothing_more() -> None:
    once = pe.without_debug_sections(build_pe(sections=[(b".text", CODE), (b".debug_info", DEBUG)]))
    assert pe.without_debug_sections(once) is once


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"MZ",
        b"#!/bin/sh\n",
        b"MZ".ljust(60, b"\0") + struct.pack("<I", 0xFFFFFF00),
        build_pe(sections=[(b".text", CODE)]),
        build_pe(sections=[(b".debug_info", DEBUG), (b".text", CODE)]),
        build_pe(sections=[(b".debug_info", DEBUG)]),
        build_pe(sections=[(b".text", CODE), (b".debug_info", DEBUG)])[:300],
    ],
)
def test_anything_else_stays_as_it_is(data: bytes) -> None:
    assert pe.without_debug_sections(data) == data


def test_machine_type() -> None:
    assert pe.machine_type(build_pe(sections=[(b".text", CODE)])) == pe.MACHINE_AMD64
    assert pe.machine_type(build_pe(sections=[(b".text", CODE)], machine=pe.MACHINE_I386)) == pe.MACHINE_I386
    assert pe.machine_type(b"\x7fELF" + bytes(100)) is None


def test_builtin_mark_replaces_the_dos_stub_only() -> None:
    data = build_pe(sections=[(b".text", CODE)])
    marked = pe.marked_builtin(data)
    assert marked[64:96] == b"Wine builtin DLL" + bytes(16)
    assert marked[:64] == data[:64]
    assert marked[96:] == data[96:]


def test_strip_file_keeps_mode_and_tells_what_it_saved(tmp_path: Path) -> None:
    path = tmp_path / "a.dll"
    data = build_pe(sections=[(b".text", CODE), (b".debug_info", DEBUG)])
    path.write_bytes(data)
    path.chmod(0o640)
    assert pe.strip_file(path) == len(data) - path.stat().st_size > 0
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.dll"]
