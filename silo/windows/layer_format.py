"""Windows layers for the image store: files by silo.windows.layers, the registry by silo.windows.registry, both in one directory.

A layer's directory holds, beside its files, the registry's text files with its deltas merged into those of the layers below. So a
container's start merges nothing, and layers that images share have their registry merged once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from silo.engine.ports import UnpackedLayer
from silo.host.durable import host_error
from silo.model.tarstream import ByteStream, TarReader
from silo.windows.layer_registry import LayerRegistry
from silo.windows.layers import RegistryChanges, convert_layer, find_hives, unpack_layer

_LOG = logging.getLogger(__name__)


class WindowsLayerFormat:
    """Implements `silo.engine.ports.WindowsLayers`."""

    def unpack(
        self, target: Path, chunks: Iterator[bytes], below: Sequence[Path], *, check: Callable[[UnpackedLayer], None]
    ) -> UnpackedLayer:
        with TemporaryDirectory(dir=target.parent, prefix="hives-") as directory:
            hives = Path(directory, "found")
            result = unpack_layer(target, hives, TarReader(ByteStream(chunks)), below, check=check)
            deltas = {name: path.read_bytes() for name, path in find_hives(hives).items()}
        try:
            with LayerRegistry(below) as registry:
                registry.merge(target, deltas, result.warn)
        except OSError as error:
            raise host_error(error, "cannot merge the layer's registry") from error
        return result

    def convert(self, chunks: Iterator[bytes], below: Sequence[Path]) -> Iterator[bytes]:
        with LayerRegistry(below) as registry:

            def changes(untrusted_after: Mapping[str, bytes]) -> RegistryChanges:
                return RegistryChanges(*registry.diff(untrusted_after))

            yield from convert_layer(chunks, below, registry_diff=changes, warn=_LOG.warning)
