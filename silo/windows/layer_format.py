"""Windows layers for the image store: files by silo.windows.layers, the registry by silo.windows.registry, both in one directory.

A layer's directory holds, beside its files, the registry's text files as they are with its deltas merged into those of the layers
below. So the uppermost directory that has such a file has the whole registry, and a container's start merges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from silo.engine.ports import UnpackedLayer
from silo.model.tarstream import ByteStream, TarReader
from silo.windows.layers import find_hives, unpack_layer


class WindowsLayerFormat:
    """Implements `silo.engine.ports.WindowsLayers`."""

    def unpack(
        self, target: Path, chunks: Iterator[bytes], below: Sequence[Path], *, check: Callable[[UnpackedLayer], None]
    ) -> UnpackedLayer:
        with TemporaryDirectory(dir=target.parent, prefix="hives-") as directory:
            hives = Path(directory, "found")
            result = unpack_layer(target, hives, TarReader(ByteStream(chunks)), below, check=check)
            find_hives(hives)
        return result

    def convert(self, chunks: Iterator[bytes], below: Sequence[Path], directory: Path) -> Iterator[bytes]:
        raise NotImplementedError
