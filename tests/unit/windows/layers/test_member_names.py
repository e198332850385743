"""Names in a layer's tar."""

from __future__ import annotations

import pytest

from silo.errors import InvalidRequest
from silo.model.windows_names import find_fault
from silo.windows.layers.member_names import Area, is_base_hive, parse_parent, split_member, split_stream


def test_parents() -> None:
    assert parse_parent("fIlEs/a//./B") == (Area.FILES, "a/B")
    assert parse_parent("./Hives") == (Area.HIVES, "")
    assert parse_parent("etc/x") == (Area.OTHER, "x")
    assert split_member("Files/a/b/") == ("Files/a", "b")
    assert split_member("Files") == ("", "Files")


@pytest.mark.parametrize("parent", ["/Files", "Files/../etc", "..", "Files/a:b", "Files/nul", "Files/a\\b", "Files/x."])
def test_parents_that_lead_away_or_cannot_be_are_refused(parent: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_parent(parent)


def test_streams() -> None:
    assert split_stream("x.txt") == ("x.txt", "")
    assert split_stream("x.txt:Zone.Identifier") == ("x.txt", "Zone.Identifier")
    assert split_stream("x:s:$data") == ("x", "s")
    for wrong in ("x:", "x::$DATA", "x:a:b", "x:s:$INDEX_ALLOCATION", "x:a/b", "x:" + "s" * 256):
        with pytest.raises(InvalidRequest):
            split_stream(wrong)


def test_base_layers_hold_the_registry_itself() -> None:
    assert is_base_hive("windows/SYSTEM32/Config/sam")
    assert not is_base_hive("Windows/System32/config/systemprofile")


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("a" * 255, ""),
        ("ß" * 127, ""),
        ("COM10", ""),
        (".x", ""),
        ("a" * 256, "255"),
        ("\U0001f600" * 128, "UTF-16"),
        ("a<", "'<'"),
        ("é\x1f", "cannot hold"),
        ("x ", "dot or a space"),
        ("com1.txt", "device"),
        ("\udcff", "UTF-8"),
        ("", "dot or a space"),
    ],
)
def test_names_that_windows_allows(name: str, fault: str) -> None:
    found = find_fault(name)
    assert (found == "") == (fault == "") and fault in found
