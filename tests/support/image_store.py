"""An image store on the disk, and a real registry (Debian's docker-registry) on loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from silo.images import ImageLimits, ImageRecord, LocalImageStore
from silo.windows.base.environment import OS_VERSION
from silo.windows.layer_format import WindowsLayerFormat
from tests.support.documents import MemoryDocuments
from tests.support.probes import require_program


@dataclass
class StoreOnDisk:
    """A store that can be opened again over the same rows, as after a restart."""

    root: Path
    rows: MemoryDocuments[ImageRecord] = field(default_factory=lambda: MemoryDocuments(ImageRecord))
    settings: dict[str, Any] = field(default_factory=dict)

    def open(self, limits: ImageLimits | None = None) -> LocalImageStore:
        return LocalImageStore(
            data_root=self.root,
            records=self.rows,
            limits=limits,
            windows=WindowsLayerFormat(),
            windows_version=OS_VERSION,
            **self.settings,
        )

    def wipe(self) -> LocalImageStore:
        self.rows.rows.clear()
        store = self.open()
        store.collect_garbage()
        store.finish_deleting()
        return store


async def chunks_of(path: Path, size: int = 1 << 16) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(size):
            yield chunk


class ProgressLog:
    """Remembers what was reported."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, int, int]] = []

    def __call__(self, item: str, status: str, done: int, total: int) -> None:
        self.lines.append((item, status, done, total))

    def statuses(self) -> set[str]:
        return {status for _, status, _, _ in self.lines}


@dataclass(frozen=True)
class Registry:
    address: str
    storage: Path


_KNOCK = "import socket, sys; sys.exit(socket.socket().connect_ex(('127.0.0.1', int(sys.argv[1]))) != 0)"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def run_registry(
    directory: Path, *, htpasswd: str = "", prefix: Sequence[str] = (), layers_elsewhere: bool = True, port: int = 0
) -> Iterator[Registry]:
    """`docker-registry serve` until the generator is closed; `prefix` leads its command, e.g. into a network namespace.

    `port` 0 is any. `layers_elsewhere`: it takes manifests whose layers it has not but which say where they are; by its own default
    it does not.
    """
    program = require_program("docker-registry")
    require_program("skopeo")
    port = port or _free_port()
    storage = directory / "storage"
    auth = ""
    if htpasswd:
        (directory / "htpasswd").write_text(htpasswd)
        auth = f"auth:\n  htpasswd:\n    realm: test\n    path: {directory / 'htpasswd'}\n"
    allowed = "validation:\n  manifests:\n    urls:\n      allow: ['^https?://']\n" if layers_elsewhere else ""
    config = directory / "config.yml"
    config.write_text(
        "version: 0.1\nlog:\n  level: warn\nstorage:\n  filesystem:\n"
        f"    rootdirectory: {storage}\n  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n{auth}{allowed}"
    )
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([*prefix, program, "serve", str(config)], stdout=log, stderr=log)
        try:
            for _ in range(50):
                if subprocess.run([*prefix, sys.executable, "-c", _KNOCK, str(port)], check=False).returncode == 0:
                    break
                time.sleep(0.1)
            else:
                pytest.fail(f"docker-registry does not answer: {(directory / 'log').read_text()}")
            yield Registry(f"127.0.0.1:{port}", storage)
        finally:
            process.terminate()
            process.wait(10)
