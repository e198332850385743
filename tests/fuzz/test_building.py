"""Contexts and archives that nobody vouches for: whatever they hold, nothing lies outside, and what is wrong is said in words."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from silo.errors import SiloError
from silo.host.beneath import Root
from silo.storage.building.patterns import compile_component
from silo.storage.building.plain import is_archive, open_plain
from silo.storage.building.tree import digest_of, walk
from silo.storage.extraction import Extraction
from silo.storage.streaming import Halt
from silo.storage.views import Shift

NAMES = st.text(alphabet="ab./\\\0 ~", min_size=1, max_size=12)
KINDS = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, b"Z"])


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, link, data in draw(
            st.lists(st.tuples(NAMES, KINDS, NAMES, st.binary(max_size=20)), max_size=8)
        ):
            info = tarfile.TarInfo(name.replace("\0", ""))
            info.type, info.linkname, info.mode = kind, link.replace("\0", ""), 0o755
            info.uid, info.gid = os.geteuid(), os.getegid()
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(data))
    whole = bytearray(buffer.getvalue())
    for place, value in draw(st.lists(st.tuples(st.integers(0, len(whole) - 1), st.integers(0, 255)), max_size=3)):
        whole[place] = value
    return bytes(whole[: draw(st.integers(0, len(whole)))] if draw(st.booleans()) else whole)


@given(data=archives())
@settings(max_examples=300, deadline=None)
def test_a_context_stays_in_its_place(data: bytes) -> None:
    with tempfile.TemporaryDirectory(prefix="silo-fuzz-") as place:
        outside = Path(place, "outside")
        inside = Path(place, "inside")
        for directory in (outside, inside):
            directory.mkdir()
        is_archive(io.BytesIO(data))
        try:
            with Root(inside) as root:
                owner = (os.geteuid(), os.getegid())
                Extraction(
                    root,
                    "",
                    Shift(),
                    keep_owners=False,
                    no_overwrite_dir_non_dir=False,
                    owner=owner,
                    maximum_entries=100,
                ).run(open_plain(io.BytesIO(data), inside, lambda: None))
                assert all(path for path, _ in walk(root, ""))
                digest_of(root, "", "", None, Halt())
        except SiloError as error:
            assert str(error)
        assert list(outside.iterdir()) == []
        assert sorted(path.name for path in Path(place).iterdir()) == ["inside", "outside"]


@given(pattern=st.text(alphabet="a*?[]^-\\b", max_size=12), name=st.text(alphabet="ab-^]", max_size=8))
@settings(max_examples=500, deadline=None)
def test_patterns_match_or_are_malformed(pattern: str, name: str) -> None:
    try:
        compile_component(pattern).fullmatch(name)
    except SiloError as error:
        assert "malformed" in str(error)
