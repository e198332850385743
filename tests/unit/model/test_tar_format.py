"""Headers are what another reader of tar understands, also where ustar is too small."""

from __future__ import annotations

import io
import os
import stat
import tarfile

from hypothesis import given
from hypothesis import strategies as st

from silo.model.tar_format import END, build_empty_file, build_header, padding


def status(mode: int, *, size: int = 0, mtime: int = 0, device: int = 0) -> os.stat_result:
    return os.stat_result(
        (mode, 0, 0, 1, 0, 0, size, 0, mtime, 0),
        {"st_rdev": device, "st_mtime": float(mtime)},  # type: ignore[arg-type]
    )


def read(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data + END), mode="r:") as archive:
        return archive.getmembers()


NAMES = st.text(alphabet="abcü/€ .", min_size=1, max_size=300).map(lambda text: text.strip("/ .") or "x")


@given(
    NAMES,
    st.integers(0, 1 << 32),
    st.integers(0, 1 << 32),
    st.integers(-(1 << 33), 1 << 36),
    st.dictionaries(st.sampled_from(["user.a", "security.capability"]), st.binary(max_size=300)),
)
def test_files(name: str, uid: int, gid: int, mtime: int, attributes: dict[str, bytes]) -> None:
    data = build_header(
        name, status(stat.S_IFREG | 0o4755, size=3, mtime=mtime), owner=(uid, gid), attributes=attributes
    )
    assert len(data) % 512 == 0
    (found,) = read(data + b"abc" + padding(3))
    assert (found.name, found.uid, found.gid, found.size, found.mtime, found.mode) == (name, uid, gid, 3, mtime, 0o4755)
    records = {key: value for key, value in found.pax_headers.items() if key.startswith("SCHILY")}
    assert {
        key.removeprefix("SCHILY.xattr."): value.encode("utf-8", "surrogateescape") for key, value in records.items()
    } == attributes


def test_kinds() -> None:
    entries = [
        build_header("dir", status(stat.S_IFDIR | 0o1777), owner=(0, 0)),
        build_header("link", status(stat.S_IFLNK | 0o777, size=9), owner=(0, 0), link="t" * 200),
        build_header("hard", status(stat.S_IFREG, size=9), owner=(0, 0), link="first", hard_link=True),
        build_header("pipe", status(stat.S_IFIFO), owner=(0, 0)),
        build_header("null", status(stat.S_IFCHR, device=os.makedev(1, 3)), owner=(0, 0)),
        build_header("disk", status(stat.S_IFBLK, device=os.makedev(259, 70000)), owner=(0, 0)),
        build_empty_file("dir/.wh.x"),
    ]
    found = read(b"".join(entries))
    assert [member.name for member in found] == ["dir", "link", "hard", "pipe", "null", "disk", "dir/.wh.x"]
    assert found[0].isdir() and found[0].mode == 0o1777
    assert found[1].issym() and found[1].linkname == "t" * 200 and found[1].size == 0
    assert found[2].islnk() and found[2].linkname == "first" and found[2].size == 0
    assert found[3].isfifo() and found[4].ischr() and (found[4].devmajor, found[4].devminor) == (1, 3)
    assert found[5].isblk() and (found[5].devmajor, found[5].devminor) == (259, 70000)
    assert found[6].isreg() and found[6].size == 0


def test_names_that_are_no_text() -> None:
    raw = b"caf\xe9"
    data = build_header(os.fsdecode(raw), status(stat.S_IFREG), owner=(0, 0))
    assert raw in data
    (found,) = read(data)
    assert os.fsencode(found.name) == raw


def test_large_sizes() -> None:
    size = 1 << 40
    data = build_header("big", status(stat.S_IFREG, size=size), owner=(0, 0))
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        found = archive.next()
    assert found is not None and found.size == size


def test_equal_input_gives_equal_bytes() -> None:
    first = build_header("ü", status(stat.S_IFREG), owner=(1, 2), attributes={"user.b": b"1", "user.a": b"2"})
    assert first == build_header("ü", status(stat.S_IFREG), owner=(1, 2), attributes={"user.a": b"2", "user.b": b"1"})
