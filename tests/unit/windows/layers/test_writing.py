"""Layers as Windows' tools want them, read by Python's own tar reader."""

from __future__ import annotations

import tarfile

from silo.windows.layers import DataStream, LayerMember, MemberKind, write_layer
from silo.windows.layers.properties import Properties
from tests.support.windows_layers import members


def test_members_in_their_form() -> None:
    rows = [
        LayerMember(path="d", kind=MemberKind.DIRECTORY, attributes=16, modified_ns=1_500_000_000),
        LayerMember(
            path="d/" + "long" * 40 + "é",
            kind=MemberKind.FILE,
            attributes=32,
            size=3,
            data=[b"a", memoryview(b"bc")],
            streams=(DataStream("s", 2, [b"xy"]),),
            modified_ns=-2_500_000_000,
        ),
        LayerMember(path="d/l", kind=MemberKind.SYMBOLIC_LINK, attributes=1040, properties=Properties(target="C:\\d")),
        LayerMember(path="d/h", kind=MemberKind.HARD_LINK, attributes=32, link="d/l"),
        LayerMember(path="d/gone", kind=MemberKind.WHITEOUT),
    ]
    data = b"".join(write_layer(rows, lambda: {"System_Delta": b"regf", "Software_Delta": b"r"}))
    assert data == b"".join(write_layer([*rows], lambda: {"Software_Delta": b"r", "System_Delta": b"regf"}))
    found = members(data)
    long = "Files/d/" + "long" * 40 + "é"
    assert [(member.name, member.kind, member.data) for member in found] == [
        ("Files", tarfile.DIRTYPE, b""),
        ("Files/d", tarfile.DIRTYPE, b""),
        (long, tarfile.REGTYPE, b"abc"),
        (f"{long}:s", tarfile.REGTYPE, b"xy"),
        ("Files/d/l", tarfile.SYMTYPE, b""),
        ("Files/d/h", tarfile.LNKTYPE, b""),
        ("Files/d/.wh.gone", tarfile.REGTYPE, b""),
        ("Hives", tarfile.DIRTYPE, b""),
        ("Hives/Software_Delta", tarfile.REGTYPE, b"r"),
        ("Hives/System_Delta", tarfile.REGTYPE, b"regf"),
    ]
    assert found[1].mtime == 1.5 and found[2].mtime == -2.5
    assert found[4].link == "C:\\d" and found[5].link == "Files/d/l"
    assert found[4].records["MSWINDOWS.fileattr"] == "1040"
    assert all("MSWINDOWS.rawsd" in member.records for member in (*found[1:3], found[4]))
    assert found[3].records == {} and found[6].records == {}


def test_an_empty_layer_has_both_directories() -> None:
    assert [member.name for member in members(b"".join(write_layer([])))] == ["Files", "Hives"]
