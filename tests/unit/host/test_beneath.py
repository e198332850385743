"""Root: nothing is made, read or removed outside, whatever links and names say."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from silo.errors import InvalidRequest
from silo.host.beneath import Links, Root, remove_tree, split_path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "secret").write_text("untouched")
    return directory


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    (tmp_path / "root").mkdir()
    with Root(tmp_path / "root") as opened:
        yield opened


def names(directory: Path) -> list[str]:
    return sorted(entry.name for entry in directory.iterdir())


def write(root: Root, path: str, text: str = "x") -> None:
    descriptor = root.open_write(path, 0o644)
    os.write(descriptor, text.encode())
    os.close(descriptor)


def test_files_links_and_attributes(root: Root) -> None:
    root.make_directory("etc", 0o755)
    write(root, "/etc/motd", "hello")
    root.symlink("motd", "etc/link")
    root.hardlink("etc/motd", "etc/second")
    root.make_node("etc/fifo", stat.S_IFIFO | 0o600)
    root.set_mode("etc/motd", 0o600)
    root.set_times("etc/motd", 1, 2_000_000_001)
    root.set_attribute("etc/motd", "user.note", b"kept")
    status = root.status("etc/second")
    assert status is not None
    assert (status.st_nlink, stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (2, 0o600, 2_000_000_001)
    assert root.attributes("etc/second") == {"user.note": b"kept"}
    assert root.read_link("etc/link") == "motd"
    assert root.names("etc") == ["fifo", "link", "motd", "second"]
    assert root.status("etc/none") is None and root.status("etc/motd/below") is None


def test_parents_are_made_on_demand_and_not_otherwise(root: Root) -> None:
    with pytest.raises(FileNotFoundError):
        root.directory("a/b")
    root.directory("a/b/c", create=True)
    assert (root.path / "a/b/c").is_dir()
    deep = "/".join(["d"] * 1500)
    root.directory(deep, create=True)
    root.remove("d")
    assert not (root.path / "d").exists()


def test_a_link_on_the_way_stays_beneath(root: Root, outside: Path) -> None:
    (root.path / "lib").symlink_to("usr/lib")
    (root.path / "usr/lib").mkdir(parents=True)
    write(root, "lib/x")
    assert (root.path / "usr/lib/x").read_text() == "x"
    (root.path / "absolute").symlink_to(outside)
    with pytest.raises(FileNotFoundError):
        write(root, "absolute/new")
    (root.path / "climbing").symlink_to("../../../../outside")
    with pytest.raises(FileNotFoundError):
        write(root, "climbing/new")
    with pytest.raises(OSError):
        root.directory("climbing/new", create=True)
    write(root, "../beside")
    assert (root.path / "beside").exists() and names(outside) == ["secret"]


def test_refused_links(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "strict").mkdir()
    (tmp_path / "strict/real").mkdir()
    (tmp_path / "strict/link").symlink_to("real")
    with Root(tmp_path / "strict", links=Links.REFUSE) as root:
        with pytest.raises(OSError) as caught:
            write(root, "link/x")
        assert caught.value.errno == errno.ELOOP
        with pytest.raises(OSError) as caught:
            write(root, "../outside/x")
        assert caught.value.errno == errno.EXDEV
    assert names(outside) == ["secret"]


def test_the_last_component_is_never_followed(root: Root, outside: Path) -> None:
    secret = outside / "secret"
    before = secret.stat()
    (root.path / "link").symlink_to(secret)
    with pytest.raises(FileExistsError):
        root.open_write("link", 0o644)
    with pytest.raises(OSError):
        root.set_mode("link", 0o777)
    root.set_times("link", 1, 1)
    with pytest.raises(OSError):
        root.set_attribute("link", "user.note", b"x")
    root.hardlink("link", "again")
    assert (root.path / "again").is_symlink()
    root.remove("link")
    after = secret.stat()
    assert (after.st_mode, after.st_mtime_ns, after.st_nlink) == (before.st_mode, before.st_mtime_ns, 1)
    assert os.listxattr(secret) == []


def test_remove_does_not_follow_and_forgets_replaced_directories(root: Root, outside: Path) -> None:
    root.directory("tree/below", create=True)
    (root.path / "tree/out").symlink_to(outside)
    root.remove("tree")
    root.remove("tree")
    assert (outside / "secret").read_text() == "untouched"
    root.directory("elsewhere", create=True)
    root.symlink("elsewhere", "tree")
    write(root, "tree/x")
    assert (root.path / "elsewhere/x").exists()


def test_a_tree_wider_and_deeper_than_the_descriptors(tmp_path: Path) -> None:
    here = os.open(tmp_path, os.O_RDONLY)
    descriptor = os.dup(here)
    for _ in range(300):
        for name in ("a", "b"):
            os.mkdir(name, dir_fd=descriptor)
        below = os.open("a", os.O_RDONLY, dir_fd=descriptor)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=below))
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)
    remove_tree("a", here)
    os.close(here)
    assert names(tmp_path) == ["b"]


def test_more_directories_than_cached(root: Root) -> None:
    before = len(names(Path("/proc/self/fd")))
    for index in range(500):
        root.directory(f"d{index}", create=True)
        write(root, f"d{index}/x")
    assert len(names(Path("/proc/self/fd"))) - before <= 65
    root.forget_directories()
    assert len(names(Path("/proc/self/fd"))) == before


@pytest.mark.parametrize("path", ["", "/", ".", "a/..", "a/.", "..", "a\0b"])
def test_names_that_are_none(path: str) -> None:
    with pytest.raises(InvalidRequest):
        split_path(path)
