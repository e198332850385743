"""The tar reader against the standard library's writer and GNU tar, and against damage."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from silo.errors import InvalidRequest
from silo.model import tarstream
from silo.model.tarstream import ByteStream, TarEntry, TarReader
from tests.support.images import Entry, directory, file, hardlink, layer_tar, symlink


def read(data: bytes, size: int = 700) -> list[tuple[TarEntry, bytes]]:
    pieces = (data[at : at + size] for at in range(0, len(data), size))
    reader = TarReader(ByteStream(iter(pieces)))
    found = []
    while (entry := reader.next()) is not None:
        found.append((entry, b"".join(bytes(piece) for piece in reader.data())))
    return found


def members() -> list[Entry]:
    return [
        directory("dir/", mode=0o1777, uid=7, gid=8),
        file("dir/empty"),
        file("dir/data", b"x" * 1025, mode=0o4755, uid=3_000_000, gid=4_000_000_000),
        file("deep/" + "d" * 200 + "/" + "f" * 200, b"long"),
        file("naïve-ü-日本", "text"),
        symlink("link", "../" + "t" * 300),
        hardlink("second", "dir/data"),
        Entry(name="times", mtime=1.5, pax={"SCHILY.xattr.user.a": "b", "atime": "2.25"}),
        Entry(name="old", mtime=-12.5),
        Entry(name="null", kind=tarfile.CHRTYPE, device=(1, 3)),
    ]


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_what_the_standard_library_writes(kind: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for entry in members():
            info = tarfile.TarInfo(entry.name)
            info.type, info.mode, info.uid, info.gid = entry.kind, entry.mode, entry.uid, entry.gid
            info.linkname, info.mtime, info.size = entry.link, entry.mtime, len(entry.data)
            info.devmajor, info.devminor = entry.device
            info.pax_headers = entry.pax if kind == tarfile.PAX_FORMAT else {}
            archive.addfile(info, io.BytesIO(entry.data))
    found = read(buffer.getvalue())
    assert len(found) == len(members())
    for wrote, (entry, data) in zip(members(), found, strict=True):
        assert entry.name.rstrip("/") == wrote.name.rstrip("/") and data == wrote.data
        assert (entry.mode, entry.uid, entry.gid, entry.link) == (wrote.mode, wrote.uid, wrote.gid, wrote.link)
        assert (entry.device_major, entry.device_minor) == wrote.device
        expected = wrote.mtime if kind == tarfile.PAX_FORMAT else int(wrote.mtime // 1)
        assert abs(entry.mtime_ns - expected * 1e9) <= (0 if kind == tarfile.PAX_FORMAT else 1e9)
    if kind == tarfile.PAX_FORMAT:
        times = found[7][0]
        assert times.records["SCHILY.xattr.user.a"] == b"b" and times.atime_ns == 2_250_000_000


@pytest.mark.parametrize("kind", ["ustar", "gnu", "posix", "v7"])
def test_what_gnu_tar_writes(tmp_path: Path, kind: str) -> None:
    source = tmp_path / "source"
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/file").write_bytes(b"z" * 70_000)
    (source / "a/link").symlink_to("b/file")
    (source / "a/hard").hardlink_to(source / "a/b/file")
    data = subprocess.run(["tar", f"--format={kind}", "-C", source, "-c", "."], capture_output=True, check=True).stdout
    found = {entry.name.strip("./"): (entry, content) for entry, content in read(data, 100_000)}
    assert set(found) == {"", "a", "a/b", "a/b/file", "a/link", "a/hard"}
    assert sorted(len(found[name][1]) for name in ("a/b/file", "a/hard")) == [0, 70_000]
    assert found["a/link"][0].link == "b/file" and found["a/b"][0].kind == tarstream.DIRECTORY


def test_unread_data_is_skipped() -> None:
    reader = TarReader(ByteStream(iter([layer_tar([file("a", b"1" * 5000), file("b", b"2")])])))
    names = []
    while (entry := reader.next()) is not None:
        names.append(entry.name)
    assert names == ["a", "b"]


def test_global_records_and_their_override() -> None:
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"uid": "55", "comment": "c"}
    ) as archive:
        archive.addfile(tarfile.TarInfo("a"))
    ((entry, _),) = read(buffer.getvalue())
    assert entry.uid == 55 and entry.records == {"comment": b"c"}


@pytest.mark.parametrize("cut", [1, 511, 513, 700, 1100])
def test_a_truncated_archive(cut: int) -> None:
    data = layer_tar([file("a", b"1" * 900)])
    with pytest.raises(InvalidRequest, match="truncated"):
        read(data[:cut])


def test_damage_is_found_with_its_offset() -> None:
    data = bytearray(layer_tar([file("a", b"1"), file("b", b"2")]))
    data[1024 + 3] ^= 1
    with pytest.raises(InvalidRequest, match="no tar header at offset 1024"):
        read(bytes(data))


def test_a_sparse_file_is_refused_by_name(tmp_path: Path) -> None:
    sparse = tmp_path / "holes"
    with sparse.open("wb") as made:
        made.truncate(1 << 20)
        made.seek(1 << 19)
        made.write(b"x")
    for kind in ("gnu", "posix"):
        data = subprocess.run(
            ["tar", f"--format={kind}", "--sparse", "-C", tmp_path, "-c", "holes"], capture_output=True, check=True
        ).stdout
        with pytest.raises(InvalidRequest, match="sparse"):
            read(data)


def test_an_extended_header_is_bounded() -> None:
    entry = Entry(name="a", pax={"comment": "x" * (2 << 20)})
    with pytest.raises(InvalidRequest, match="extended header"):
        read(layer_tar([entry]))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 3000), st.integers(1, 4000))
def test_any_bytes_give_entries_or_an_invalid_request(noise: bytes, position: int, size: int) -> None:
    data = bytearray(layer_tar(members()))
    data[position : position + len(noise)] = noise
    try:
        found = read(bytes(data), size)
    except InvalidRequest:
        return
    assert all(isinstance(entry, TarEntry) for entry, _ in found)


def test_the_stream_gives_exact_amounts() -> None:
    def chunks() -> Iterator[bytes]:
        yield from (b"ab", b"", b"cdef", b"g")

    stream = ByteStream(chunks())
    assert stream.take(3) == b"abc" and stream.offset == 3
    assert [bytes(piece) for piece in stream.pieces(3)] == [b"def"]
    assert stream.skip(5) == 1 and stream.take(1) == b"" and stream.offset == 7


@pytest.mark.parametrize("time", ["99999999999999999999", "-99999999999999999999.5", "1e9"])
def test_times_that_no_file_can_have_are_refused(time: str) -> None:
    data = layer_tar([Entry(name="x", pax={"mtime": time})])
    with pytest.raises(InvalidRequest, match="damaged"):
        TarReader(ByteStream(iter([data]))).next()
