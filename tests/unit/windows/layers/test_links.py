"""Targets of links, from and to Windows' words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.windows.layers.links import dead_text, link_text, resolve_target, windows_target

HERE = ["Users", "me"]


def nothing(_: object) -> bool:
    return False


@pytest.mark.parametrize(
    ("target", "resolved"),
    [
        ("C:\\Windows\\x", ["Windows", "x"]),
        ("c:/Windows/x", ["Windows", "x"]),
        ("C:\\", []),
        ("C:", []),
        ("\\\\?\\C:\\a", ["a"]),
        ("\\??\\C:\\a\\", ["a"]),
        ("\\a", ["a"]),
        ("x\\y", ["Users", "me", "x", "y"]),
        ("..\\x", ["Users", "x"]),
        (".\\..\\..", []),
        ("..\\..\\..", None),
        ("C:x", None),
        ("D:\\x", None),
        ("\\\\server\\share", None),
        ("//server/share", None),
        ("\\??\\UNC\\server\\share", None),
        ("\\\\?\\Volume{0}\\x", None),
        ("a*b", None),
        ("Files/a", ["Users", "me", "a"]),
        ("Files/C:/a", ["a"]),
    ],
)
def test_targets(target: str, resolved: list[str] | None) -> None:
    assert resolve_target(target, HERE, nothing) == resolved


def test_a_wrong_prefix_is_taken_for_what_is_there() -> None:
    for there in (["Users", "me", "Files", "a"], ["Users", "me", "a"], ["a"]):
        assert resolve_target("Files/a", HERE, lambda parts, there=there: [*parts] == there) == there


def test_texts_of_links() -> None:
    assert link_text(["a", "b"], ["a", "c"]) == "../c"
    assert link_text([], ["x"]) == "x"
    assert link_text(["a"], ["a"]) == "."
    assert link_text(["a", "b"], []) == "../.."


NAME = st.text("abC é", min_size=1, max_size=4).filter(lambda name: name[-1] != " ")


@given(st.lists(NAME, max_size=4), st.lists(NAME, max_size=4))
def test_links_lead_back(directory: list[str], target: list[str]) -> None:
    text = link_text(directory, target)
    back = windows_target(text, directory)
    assert back is not None and resolve_target(back, directory, nothing) == target


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("x/y", "x\\y"),
        ("../../..", None),
        ("/etc/passwd", None),
        ("/silo/prefix/drive_c/a/b", "C:\\a\\b"),
        ("/silo/prefix/drive_c", "C:\\"),
        ("/silo/prefix/dosdevices/c:/a", "C:\\a"),
        ("../../../drive_c/a", "C:\\a"),
        ("/silo/prefix/drive_cx", None),
    ],
)
def test_links_of_containers(text: str, target: str | None) -> None:
    assert windows_target(text, HERE) == target


@pytest.mark.parametrize("target", ["\\\\server\\share\\x", "D:\\x", "//server/share", "C:x", "..\\..\\..\\x"])
def test_dead_links_say_what_they_meant(target: str) -> None:
    text = dead_text(target)
    assert "/" not in text and windows_target(text, HERE) == target.replace("/", "\\")
