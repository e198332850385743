"""What a source word finds, that nothing leads out of the tree, and what a digest covers."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from silo.errors import InvalidRequest, NotFound, Unavailable
from silo.host.beneath import Root
from silo.model.build import SourceItem, SourceKind
from silo.storage.building.patterns import compile_component, has_wildcard
from silo.storage.building.tree import Digests, SourceTree, digest_of
from silo.storage.streaming import Halt


def find(tree: Path, pattern: str, **options: bool) -> tuple[SourceItem, ...]:
    return asyncio.run(SourceTree(tree).find(pattern, **({"archives": False} | options)))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name in ("a.txt", "b.txt", "src/one/x.c", "src/two/x.c", "src/two/y.h", "-odd", "[1]"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "outside").write_text("secret")
    return root


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a.txt", ["a.txt"]),
        ("./src/../a.txt", None),
        ("/a.txt", ["a.txt"]),
        ("*.txt", ["a.txt", "b.txt"]),
        ("src/*/x.c", ["src/one/x.c", "src/two/x.c"]),
        ("src/*/*", ["src/one/x.c", "src/two/x.c", "src/two/y.h"]),
        ("s*", ["src"]),
        ("[ab].txt", ["a.txt", "b.txt"]),
        ("[^a].txt", ["b.txt"]),
        ("?.txt", ["a.txt", "b.txt"]),
        ("\\[1\\]", ["[1]"]),
        ("*.none", []),
        ("*/x.c", []),
        (".", [""]),
    ],
)
def test_patterns_match_as_in_go(tree: Path, pattern: str, found: list[str] | None) -> None:
    if found is None:
        with pytest.raises(InvalidRequest, match="forbidden path outside the build context"):
            find(tree, pattern)
        return
    assert [item.found for item in find(tree, pattern)] == found


@pytest.mark.parametrize("pattern", ["[", "[a", "[]a]", "[-a]", "[b-a]", "a\\", "[a-]"])
def test_malformed_patterns(pattern: str) -> None:
    assert has_wildcard(pattern)
    with pytest.raises(InvalidRequest, match="malformed"):
        compile_component(pattern)


def test_links_are_followed_within_the_tree_only(tree: Path) -> None:
    (tree / "inside").symlink_to("src/one/x.c")
    (tree / "absolute").symlink_to("/src/two")
    (tree / "chain").symlink_to("inside")
    (tree / "out").symlink_to("../outside")
    (tree / "passwd").symlink_to("/etc/passwd")
    (tree / "loop").symlink_to("loop")
    assert find(tree, "inside")[0].path == "src/one/x.c" and find(tree, "chain")[0].path == "src/one/x.c"
    assert find(tree, "absolute")[0].path == "src/two" and find(tree, "absolute/y.h")[0].path == "src/two/y.h"
    for name in ("out", "passwd"):
        with pytest.raises(NotFound):
            find(tree, name)
    with pytest.raises((NotFound, InvalidRequest)):
        find(tree, "loop")
    with pytest.raises(NotFound):
        asyncio.run(SourceTree(tree).read("out", limit_bytes=100))


def test_reading_is_bounded(tree: Path) -> None:
    reader = SourceTree(tree)
    assert asyncio.run(reader.read("a.txt", limit_bytes=5)) == b"a.txt"
    for name, limit in (("a.txt", 4), ("src", 100)):
        with pytest.raises(InvalidRequest):
            asyncio.run(reader.read(name, limit_bytes=limit))
    os.mkfifo(tree / "pipe")
    with pytest.raises(InvalidRequest):
        asyncio.run(reader.read("pipe", limit_bytes=100))
    with pytest.raises(InvalidRequest):
        find(tree, "pipe")


def test_what_a_digest_covers(tree: Path) -> None:
    def digests() -> tuple[str, str]:
        return find(tree, "src")[0].digest, find(tree, "a.txt")[0].digest

    first = digests()
    os.utime(tree / "a.txt", (1, 1))
    os.utime(tree / "src/one/x.c", (1, 1))
    assert digests() == first
    (tree / "src/one/x.c").chmod(0o600)
    second = digests()
    assert second[0] != first[0] and second[1] == first[1]
    (tree / "src/one/x.c").rename(tree / "src/one/z.c")
    third = digests()
    (tree / "src/one/z.c").write_text("other")
    fourth = digests()
    (tree / "src/link").symlink_to("one")
    assert len({first[0], second[0], third[0], fourth[0], digests()[0]}) == 5


def test_names_and_contents_cannot_be_confused(tmp_path: Path) -> None:
    for name, files in (("one", {"a": "b", "c": ""}), ("two", {"a": "", "c": "b"}), ("three", {"ab": "", "c": ""})):
        for file, text in files.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / file).write_text(text)
    assert len({find(tmp_path, name)[0].digest for name in ("one", "two", "three")}) == 3


def test_excluded_files_are_not_in_the_digest(tree: Path) -> None:
    def digest() -> str:
        with Root(tree) as root:
            return digest_of(root, "src", "src", lambda path: path.endswith(".h"), Halt())

    before = digest()
    (tree / "src/two/y.h").write_text("changed")
    assert digest() == before


def test_an_unwanted_digest_stops(tree: Path) -> None:
    halt = Halt()
    halt.told = True
    with Root(tree) as root, pytest.raises(Unavailable):
        digest_of(root, "", "", None, halt)


def test_digests_of_images_are_remembered(tree: Path) -> None:
    kept = Digests()
    first = asyncio.run(SourceTree(tree, kept, "image").find("a.txt", archives=False))
    (tree / "a.txt").write_text("an image never changes")
    assert asyncio.run(SourceTree(tree, kept, "image").find("a.txt", archives=False)) == first
    assert asyncio.run(SourceTree(tree, kept, "other").find("a.txt", archives=False)) != first
    for number in range(1001):
        kept.keep(str(number), "")
    assert kept.find("image\0a.txt\0a.txt") is None


def test_names_on_the_drive_have_no_case(tmp_path: Path) -> None:
    place = tmp_path / "silo/prefix/drive_c/App"
    place.mkdir(parents=True)
    (place / "Tool.EXE").write_text("")
    assert find(tmp_path, "/silo/prefix/drive_c/app/tool.exe")[0].found == "silo/prefix/drive_c/App/Tool.EXE"
    assert find(tmp_path, "/silo/prefix/drive_c/App/*.exe")[0].name == "Tool.EXE"


def test_archives_are_told_apart_by_their_content(tree: Path) -> None:
    import gzip
    import io
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    (tree / "named.bin").write_bytes(gzip.compress(buffer.getvalue()))
    (tree / "text.tar").write_text("no archive")
    (tree / "zeros.tar").write_bytes(bytes(10240))
    (tree / "text.gz").write_bytes(gzip.compress(b"no archive"))
    kinds = {item.name: item.kind for item in find(tree, "*.*", archives=True)}
    assert kinds["named.bin"] is SourceKind.ARCHIVE
    assert {kinds[name] for name in ("text.tar", "zeros.tar", "text.gz", "a.txt")} == {SourceKind.FILE}
    assert find(tree, "named.bin")[0].kind is SourceKind.FILE
