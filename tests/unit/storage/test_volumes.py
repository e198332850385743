"""Volumes of the local driver: their options, and what a crash or a full disk leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from silo.engine.ports import VolumeInfo
from silo.errors import InvalidRequest, NoSpace, NotFound
from silo.model.clock import now
from silo.storage.trash import Trash
from silo.storage.volumes import Volumes, check_options
from tests.support.documents import MemoryDocuments


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"type": "tmpfs"},
        {"type": "tmpfs", "device": "tmpfs", "o": "size=10m,uid=1000"},
        {"type": "none", "o": "bind", "device": "/srv"},
        {"type": "bind", "o": "rbind,ro", "device": "/srv"},
    ],
)
def test_good_options(options: dict[str, str]) -> None:
    check_options(options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": "1g"}, "size"),
        ({"type": "nfs", "device": ":/x", "o": "addr=10.0.0.1"}, "nfs"),
        ({"type": "none", "device": "/srv"}, "none"),
        ({"o": "bind", "device": "/srv"}, "none given"),
        ({"type": "none", "o": "bind", "device": "relative"}, "missing device"),
        ({"type": "none", "o": "bind,exec", "device": "/srv"}, "exec"),
        ({"type": "tmpfs", "o": "colour=red"}, "colour"),
    ],
)
def test_bad_options_are_named(options: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        check_options(options)


class _Killed(BaseException):
    """The end of the process at a line."""


def _volumes(directory: Path) -> tuple[Volumes, MemoryDocuments[VolumeInfo]]:
    documents = MemoryDocuments(VolumeInfo)
    return Volumes(directory / "volumes", documents, Trash(directory / "trash")), documents


def _info(directory: Path) -> VolumeInfo:
    return VolumeInfo(name="vol", path=directory, created=now(), driver="local")


def test_killed_before_it_is_written_down_a_volume_left_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes, documents = _volumes(tmp_path)

    def killed(*_arguments: object, **_options: object) -> None:
        raise _Killed

    monkeypatch.setattr(documents, "put", killed)
    with pytest.raises(_Killed):
        volumes.create(_info(tmp_path))
    assert not (tmp_path / "volumes" / "vol").exists()


def test_killed_before_its_directory_is_made_a_volume_is_whole_at_its_next_use(tmp_path: Path) -> None:
    volumes, _ = _volumes(tmp_path)
    made = volumes.create(_info(tmp_path))
    made.path.rmdir()
    made.path.parent.rmdir()
    assert volumes.size_bytes("vol") == 0
    assert volumes.open("vol") == made.path and made.path.is_dir()
    made.path.rmdir()
    made.path.parent.rmdir()
    volumes.remove("vol")
    with pytest.raises(NotFound):
        volumes.get("vol")


def test_a_full_disk_leaves_nothing_of_a_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    volumes, documents = _volumes(tmp_path)
    real = Path.mkdir

    def full(path: Path, *arguments: object, **options: object) -> None:
        if path.name == "_data":
            raise OSError(28, "No space left on device")
        real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(NoSpace):
        volumes.create(_info(tmp_path))
    assert not (tmp_path / "volumes" / "vol").exists()
    assert not list(documents.items())
