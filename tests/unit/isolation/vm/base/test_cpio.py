"""The archive writer: its bytes, and that they depend on nothing but the entries."""

from __future__ import annotations

import io

import pytest

from silo.isolation.vm.base import cpio

HEADER_BYTES = 110


def written(*entries: cpio.Entry) -> bytes:
    target = io.BytesIO()
    size = cpio.write_cpio(target, entries, time_s=0x5F000000)
    assert size == len(target.getvalue())
    return target.getvalue()


def read(archive: bytes) -> list[tuple[str, list[int], bytes]]:
    """Name, the thirteen fields and contents of each entry, by the format's own description."""
    found, at = [], 0
    while True:
        assert archive[at : at + 6] == b"070701"
        assert at % 4 == 0
        fields = [int(archive[at + 6 + 8 * index : at + 14 + 8 * index], 16) for index in range(13)]
        end = at + HEADER_BYTES + fields[11]
        name = archive[at + HEADER_BYTES : end - 1].decode()
        start = end + (-end % 4)
        found.append((name, fields, archive[start : start + fields[6]]))
        at = start + fields[6] + (-fields[6] % 4)
        if name == "TRAILER!!!":
            assert at == len(archive)
            return found[:-1]


def test_every_kind_of_entry_is_written() -> None:
    entries = read(
        written(
            cpio.directory("dev"),
            cpio.character_device("dev/console", 5, 1),
            cpio.file("init", b"#!/bin/sh\n", 0o755),
            cpio.link("bin", "usr/bin"),
            cpio.file("empty", b""),
        )
    )
    assert [name for name, _, _ in entries] == ["dev", "dev/console", "init", "bin", "empty"]
    assert [oct(fields[1]) for _, fields, _ in entries] == ["0o40755", "0o20600", "0o100755", "0o120777", "0o100644"]
    assert [data for _, _, data in entries] == [b"", b"", b"#!/bin/sh\n", b"usr/bin", b""]
    assert entries[1][1][9:11] == [5, 1]
    assert {fields[5] for _, fields, _ in entries} == {0x5F000000}
    assert [fields[0] for _, fields, _ in entries] == [1, 2, 3, 4, 5]
    assert {(fields[2], fields[3]) for _, fields, _ in entries} == {(0, 0)}


@pytest.mark.parametrize("size", range(9))
def test_contents_are_padded_and_keep_their_length(size: int) -> None:
    ((name, _, data),) = read(written(cpio.file("n" * (size + 1), b"x" * size)))
    assert (name, data) == ("n" * (size + 1), b"x" * size)


def test_equal_entries_are_equal_bytes() -> None:
    assert written(cpio.file("a", b"1"), cpio.directory("b")) == written(cpio.file("a", b"1"), cpio.directory("b"))
