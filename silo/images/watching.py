"""What skopeo tells while it moves images, as progress."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from silo.images.documents import Descriptor
from silo.images.records import ManifestRecord


class CheckedProgress(Protocol):
    """A Progress that raises when the operation was cancelled; `check` alone does only that."""

    def __call__(self, item: str, status: str, done: int, total: int) -> None: ...
    def check(self) -> None: ...


class PullWatch:
    """Progress of a pull from the sizes of files: skopeo writes to oci-put-blob… and renames to the digest."""

    def __init__(self, layout: Path, arriving: Path, missing: Sequence[Descriptor], progress: CheckedProgress) -> None:
        self._layout = layout
        self._arriving = arriving
        self._missing = list(missing)
        self._progress = progress

    def tick(self, output: Path) -> None:
        del output
        self._progress.check()
        left = []
        for blob in self._missing:
            if (self._arriving / blob.digest.removeprefix("sha256:")).exists():
                self._progress(short(blob.digest), "Download complete", blob.size, blob.size)
            else:
                left.append(blob)
        self._missing = left
        partial = []
        with os.scandir(self._layout) as entries:
            for entry in entries:
                if entry.name.startswith("oci-put-blob"):
                    with contextlib.suppress(FileNotFoundError):
                        partial.append((entry.inode(), entry.stat().st_size))
        # Which file is which layer is not told: they begin in the manifest's order, and one too large for a layer is not its.
        for blob, (_, size) in zip(left, sorted(partial), strict=False):
            self._progress(short(blob.digest), "Downloading", min(size, max(blob.size - 1, 0)), blob.size)


class PushWatch:
    """Progress of a push from skopeo's lines `Copying blob <digest>`."""

    def __init__(self, manifest: ManifestRecord, progress: CheckedProgress) -> None:
        self._sizes = {layer.digest.removeprefix("sha256:"): layer.size for layer in manifest.layers}
        self._progress = progress

    def tick(self, output: Path) -> None:
        self._progress.check()
        for line in output.read_text(errors="replace").splitlines():
            if line.startswith("Copying blob "):
                digest = line.split()[2].removeprefix("sha256:")
                matching = [known for known in self._sizes if known.startswith(digest)]
                for known in matching:
                    size = self._sizes.pop(known)
                    self._progress(known[:12], "Pushing", 0, size)


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
