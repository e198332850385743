"""Filling of volumes, while a container that has the volume mounted works against it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from silo.errors import HostError
from silo.storage import filling


def make_image(root: Path) -> Path:
    (root / "data" / "inner").mkdir(parents=True)
    (root / "data" / "inner" / "file").write_text("of the image")
    (root / "data" / "inner" / "file").chmod(0o666)
    return root


def test_links_exchanged_for_directories_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, volume, outside = make_image(tmp_path / "image"), tmp_path / "volume", tmp_path / "outside"
    volume.mkdir()
    outside.mkdir()
    (outside / "file").write_text("of the host")
    (outside / "file").chmod(0o600)
    copy_file = filling.copy_file

    def copy_and_exchange(path: Path, target: int, size: int) -> None:
        copy_file(path, target, size)
        (volume / "inner").rename(volume / "moved")
        (volume / "inner").symlink_to(outside)

    monkeypatch.setattr(filling, "copy_file", copy_and_exchange)
    with pytest.raises(HostError):
        filling.fill_volume(volume, image, "/data", staged=False)
    assert (outside / "file").stat().st_mode & 0o777 == 0o600
    assert (outside / "file").read_text() == "of the host"


def test_a_socket_in_the_image_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, volume = make_image(tmp_path / "image"), tmp_path / "volume" / "_data"
    volume.mkdir(parents=True)
    monkeypatch.chdir(image / "data")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    filling.fill_volume(volume, image, "/data", staged=True)
    assert [entry.name for entry in volume.iterdir()] == ["inner"]
    assert (volume / "inner" / "file").stat().st_mode & 0o777 == 0o666
