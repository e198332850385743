"""A storage of its own in a mount namespace of the machine; layers made by hand."""

from __future__ import annotations

import os
from pathlib import Path

from silo.engine.ports import VolumeInfo
from silo.host import mounts
from silo.model.image import Image, ImageConfig
from silo.model.platform import Platform
from silo.state import Database
from silo.storage import LocalStorage

ID = "a" * 64


class Place:
    """A storage, an image of two layers made by the test, and a container."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.data_root = directory / "data"
        self.data_root.mkdir()
        self.run_root = directory / "run"
        self.database = Database(self.data_root / "state.db")
        self.storage = LocalStorage(
            data_root=self.data_root,
            run_root=self.run_root,
            volumes=self.database.documents("volumes", VolumeInfo),
        )
        self.lower = directory / "lower"
        self.higher = directory / "higher"
        self.lower.mkdir()
        self.higher.mkdir()
        self.image = Image(
            id="sha256:1",
            platform=Platform(os="linux", architecture="amd64"),
            config=ImageConfig(),
            layer_paths=(self.lower, self.higher),
        )
        self.storage.create_scratch(ID)
        self.rootfs = self.storage.rootfs(ID, self.image, read_only=False, volatile=False)

    @property
    def upper(self) -> Path:
        return self.rootfs.scratch / "upper"

    def views(self) -> tuple[str, ...]:
        return mounts.list_mount_points(self.run_root)


def write(path: Path, text: str = "x", *, mode: int = 0o644, owner: tuple[int, int] = (0, 0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    os.chown(path, *owner)
    path.chmod(mode)
    return path


def listed(directory: Path) -> list[str]:
    """The names in a directory, sorted."""
    return sorted(entry.name for entry in directory.iterdir())
