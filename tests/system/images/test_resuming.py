"""A pull that a registry breaks off midway: what had come is not fetched again."""

from __future__ import annotations

import asyncio
import re
import secrets
from pathlib import Path

import pytest

from silo.engine.ports import PullRequest
from silo.errors import SiloError, Unavailable
from tests.support.image_store import ProgressLog, Registry, StoreOnDisk, chunks_of
from tests.support.images import SmallImage, file, image_archive, layer_tar

LARGE = 2 << 20


class Proxy:
    """Passes connections on to a registry and hangs up on whoever fetches the blob `broken`."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self.broken = ""
        self.fetched: list[str] = []
        self.port = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, to_upstream = await asyncio.open_connection(*self._target)
        answering = asyncio.ensure_future(self._answer(upstream, writer))
        try:
            while data := await reader.read(1 << 16):
                for digest in re.findall(rb"GET /v2/\S+/blobs/(sha256:[0-9a-f]{64})", data):
                    self.fetched.append(digest.decode())
                    if digest.decode() == self.broken:
                        return
                to_upstream.write(data)
                await to_upstream.drain()
        except ConnectionError:
            pass
        finally:
            answering.cancel()
            to_upstream.close()
            writer.close()

    async def _answer(self, upstream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await upstream.read(1 << 16):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass


def packed_layers(disk: StoreOnDisk) -> list[str]:
    """Of the one image in the store, as it was pushed."""
    ((_, record),) = disk.rows.items()
    return [layer.digest for layer in record.manifests[0].layers]


def test_a_retry_goes_on_where_a_pull_stopped(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    layers = tuple(layer_tar([file(f"part-{number}", secrets.token_hex(LARGE // 2))]) for number in range(3))

    async def scenario() -> None:
        async with Proxy(registry.address) as proxy:
            name = f"127.0.0.1:{proxy.port}/test/parts:1"
            store = disk.open()
            archive = image_archive(tmp_path / "image.tar", [SmallImage(tags=(name,), layers=layers)])
            (image,) = await store.load(chunks_of(archive), ProgressLog())
            await store.push(PullRequest(reference=name), ProgressLog())
            digests = packed_layers(disk)
            store = disk.wipe()
            proxy.broken = digests[2]
            with pytest.raises(Unavailable):
                await store.pull(PullRequest(reference=name), ProgressLog())
            assert store.all() == () and list((disk.root / "staging").iterdir()) == []
            proxy.fetched.clear()
            proxy.broken = ""
            log = ProgressLog()
            pulled = await store.pull(PullRequest(reference=name), log)
            # the config is small, and asked for each time
            assert pulled.id == image.id and set(proxy.fetched) - {image.id} == {digests[2]}
            assert sum(status == "Already exists" for _, status, _, _ in log.lines) == 2

    asyncio.run(scenario())


def test_what_nobody_retries_can_be_pruned(disk: StoreOnDisk, registry: Registry, tmp_path: Path) -> None:
    layers = tuple(layer_tar([file(f"piece-{number}", secrets.token_hex(LARGE // 2))]) for number in range(2))

    async def scenario() -> None:
        async with Proxy(registry.address) as proxy:
            name = f"127.0.0.1:{proxy.port}/test/pieces:1"
            store = disk.open()
            archive = image_archive(tmp_path / "image.tar", [SmallImage(tags=(name,), layers=layers)])
            await store.load(chunks_of(archive), ProgressLog())
            await store.push(PullRequest(reference=name), ProgressLog())
            proxy.broken = packed_layers(disk)[1]
            store = disk.wipe()
            with pytest.raises(SiloError):
                await store.pull(PullRequest(reference=name), ProgressLog())
            assert any((disk.root / "blobs/sha256").iterdir())
            assert store.collect_garbage() > LARGE // 2
            store.finish_deleting()
            assert list((disk.root / "blobs/sha256").iterdir()) == []

    asyncio.run(scenario())
