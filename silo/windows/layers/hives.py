"""The registry's half of a layer: `Hives/<Name>_Delta`, kept as files in a directory beside the layer."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from silo.errors import InvalidRequest
from silo.model import tarstream
from silo.model.tarstream import TarEntry, TarReader
from silo.windows.hives.places import PLACES, find_place
from silo.windows.hives.reading import HiveLimits

_MAXIMUM_BYTES = HiveLimits().size_bytes


def find_hives(hives: Path) -> dict[str, Path]:
    """The registry's deltas that unpack_layer left in a directory, by their names on Windows (`Software_Delta`). Blocks."""
    paths = {place.delta_name: hives / place.delta_name for place in PLACES}
    return {name: path for name, path in paths.items() if path.is_file()}


class HiveFiles:
    """Takes members of Hives/ into a directory, which is made for the first."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def take(
        self, parent: str, untrusted_name: str, entry: TarEntry, reader: TarReader, warn: Callable[[str], None]
    ) -> None:
        """One member; others than the five deltas are left out. Raises InvalidRequest, OSError."""
        place = None if parent else find_place(untrusted_name)
        if place is None:
            warn(f"{entry.name} is no registry delta, and is left out")
            return
        if entry.kind != tarstream.FILE:
            raise InvalidRequest("a registry delta is a file")
        if entry.size > _MAXIMUM_BYTES:
            raise InvalidRequest(f"a registry delta of {entry.size} bytes is not taken, more than {_MAXIMUM_BYTES}")
        self._directory.mkdir(mode=0o700, exist_ok=True)
        path = self._directory / place.delta_name
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            for piece in reader.data():
                file.write(piece)
