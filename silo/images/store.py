"""The image store of this machine: the port `ImageStore` over a directory and a table of rows.

Each operation works in threads and in a staging directory of its own; when its blobs and layers are in place and synced, its
rows are written on the event loop. So at every moment each row names only what is whole (silo.images.workspace). A load does not
wait for the disk, nor do a pull and a commit: their rows are marked until that has everything (silo.images.syncing).
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from silo.engine.ports import ImageChange, Progress, PullRequest, WindowsLayers
from silo.errors import NotFound, Unavailable
from silo.host.durable import sync_file_system
from silo.images.archive_in import ArchiveReader
from silo.images.archive_out import choose_manifest, plan_archive, stream_archive
from silo.images.blobs import BlobStore
from silo.images.catalog import WINDOWS_TAG, Catalog
from silo.images.feed import ProgressRelay, Stop, in_thread, next_batch, run_fed
from silo.images.intake import Intake
from silo.images.layers import LayerStore
from silo.images.limits import ImageLimits
from silo.images.making import ImageMaker
from silo.images.platforms import host_architecture, parse_platform
from silo.images.pushing import Packed, Pusher
from silo.images.records import ImageRecord, ManifestRecord, SavedImage, build_image
from silo.images.references import Reference, parse_reference, parse_tag_target
from silo.images.skopeo import registry_domain
from silo.images.substitute_base import SubstituteBase
from silo.images.syncing import Syncer
from silo.images.transport import Transport
from silo.images.windows_bases import KnownBase, check_build, find_known_base
from silo.images.workspace import Operation, Workspace
from silo.model.image import HistoryEntry, Image, ImageConfig
from silo.model.persistence import Documents
from silo.model.platform import Platform


class LocalImageStore:
    """Implements `silo.engine.ports.ImageStore`. One at a time over one data root."""

    def __init__(
        self,
        *,
        data_root: Path,
        records: Documents[ImageRecord],
        limits: ImageLimits | None = None,
        insecure_registries: Sequence[str] = (),
        windows: WindowsLayers | None = None,
        windows_version: str = "",
        bases_mirror: str = "",
        push_silo_base: bool = False,
    ) -> None:
        """`windows`: who reads and writes layers of Windows' format. `windows_version`: what Silo's base claims to be.

        `bases_mirror`: see Transport. `push_silo_base`: as if every push asked for it (see PullRequest).
        """
        self._push_silo_base = push_silo_base
        self._limits = limits or ImageLimits()
        self._workspace = Workspace(data_root)
        self._catalog = Catalog(records)
        self._blobs = BlobStore(self._workspace, self._limits)
        self._layers = LayerStore(self._workspace, self._limits, windows)
        self._bases = SubstituteBase(self._catalog, windows_version)
        self._intake = Intake(self._blobs, self._layers, self._limits, self._bases)
        self._maker = ImageMaker(self._blobs, self._layers, self._intake, self._limits)
        self._transport = Transport(
            self._workspace,
            self._blobs,
            self._intake,
            self._limits,
            insecure_registries=insecure_registries,
            windows_version=windows_version,
            bases_mirror=bases_mirror,
        )
        self._pusher = Pusher(self._workspace, self._blobs, self._intake, self._maker, self._transport, self._bases)
        self._syncer = Syncer(data_root, self._catalog)
        self._syncer.open()
        self._deleter: threading.Thread | None = None
        self._built: dict[str, tuple[ImageRecord, Image]] = {}
        self._pulling: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        for record in self._catalog.all():
            self._workspace.know_blob(record.id, record.config_size)
            for manifest in record.manifests:
                self._workspace.know_blob(manifest.digest, manifest.size)
                for packed in manifest.layers:
                    self._workspace.know_blob(packed.digest, packed.size)
            for layer in record.stack:
                self._workspace.know_layer(layer.place, layer.size_bytes)
        # What no row names may be half written: the last process may have died at any moment.
        self._workspace.set_aside(self._catalog.content)

    def find(self, reference: str, *, platform: str = "") -> Image | None:
        record = self._catalog.find(reference, platform=platform)
        return None if record is None else self._image(record)

    def get(self, reference: str, *, platform: str = "") -> Image:
        return self._image(self._catalog.get(reference, platform=platform))

    def all(self) -> tuple[Image, ...]:
        return tuple(self._image(record) for record in self._catalog.all())

    def build_base_by(self, build: Callable[[Progress], Awaitable[Image]]) -> None:
        """Who makes Silo's Windows base when an image needs it that is not there yet."""
        self._bases.build = build

    async def load(
        self, chunks: AsyncIterator[bytes], progress: Progress, *, base_layers: int | None = None
    ) -> tuple[Image, ...]:
        stop = Stop()
        relay = ProgressRelay(progress, stop)

        def work(pieces: Iterator[bytes]) -> list[ImageRecord]:
            return self._syncer.mark(reader.load(pieces, relay, base_layers=base_layers))

        async with self._operation() as operation:
            reader = ArchiveReader(operation, self._blobs, self._layers, self._intake, self._limits)
            records = await run_fed(chunks, work, stop)
            images = tuple(self._register(record) for record in records)
        self._syncer.follow()
        if reader.unused:
            self._collect_garbage()
        return images

    async def pull(self, request: PullRequest, progress: Progress) -> Image:
        reference = parse_reference(request.reference).with_default_tag()
        if self._is_base_name(reference, request.platform) and self._bases.build is not None:
            return await self._bases.build(progress)
        known = self._known_base(reference, request.platform)
        stop = Stop()
        relay = ProgressRelay(progress, stop)

        def work() -> ImageRecord:
            if known is None:
                record = self._transport.pull(operation, request, relay)
            else:
                record = self._maker.substitute_base(operation, self._bases.substitute(relay), reference, known)
                record = msgspec.structs.replace(record, tags=(reference.canonical,))
            return self._syncer.mark([record])[0]

        async with self._pulling[f"{reference.canonical} {request.platform}"], self._operation() as operation:
            record = self._catalog.register(await in_thread(work, stop))
        self._syncer.follow()
        return self._image(record)

    @staticmethod
    def _is_base_name(reference: Reference, platform: str) -> bool:
        """Silo's own name for its base: no registry is asked, whoever may have that name there."""
        return reference.canonical == WINDOWS_TAG and parse_platform(platform).os in ("", "windows")

    def _known_base(self, reference: Reference, platform: str) -> KnownBase | None:
        """What needs no registry. Raises Unsupported for a base newer than Silo's, unless it is insisted on."""
        wish = parse_platform(platform)
        known = find_known_base(reference)
        if known is None or wish.os not in ("", "windows") or wish.architecture not in ("", "amd64"):
            return None
        if not wish.os_version:
            check_build(reference.familiar, known.build, self._bases.os_version)
        return known

    async def push(self, request: PullRequest, progress: Progress) -> str:
        reference = parse_reference(request.reference).with_default_tag()
        record = self._catalog.find(reference.canonical, platform=request.platform)
        if record is None:
            raise NotFound(f"An image does not exist locally with the tag: {reference.familiar_name}")
        stop = Stop()
        relay = ProgressRelay(progress, stop)
        if self._push_silo_base:
            request = msgspec.structs.replace(request, silo_base=True)

        def work() -> tuple[str, Packed]:
            pushed = self._pusher.push(operation, record, request, relay)
            sync_file_system(self._workspace.data_root)
            return pushed

        async with self._operation() as operation:
            for digest in record.content():
                operation.pin(digest)
            digest, packed = await in_thread(work, stop)
            # what was sent with another config is another image, which the next push makes again
            manifest = packed.manifest if packed.config == record.id else None
            self._catalog.add_pushed(record.id, manifest, reference.with_digest(digest).canonical)
        return digest

    async def login(self, username: str, password: str, server: str) -> str:
        """`docker login`: try the credentials; answers Docker's sentence. Raises AccessDenied, InvalidRequest."""
        domain = registry_domain(server)
        parse_reference(f"{domain}/login")
        async with self._operation() as operation:
            await in_thread(lambda: self._transport.login(operation, domain, username, password), Stop())
        return "Login Succeeded"

    def save(self, references: Sequence[str]) -> AsyncIterator[bytes]:
        """Names are looked up at once, so that an unknown one is an error before the first byte."""
        return self._save(self._catalog.select_for_save(references))

    async def _save(self, images: Sequence[SavedImage]) -> AsyncIterator[bytes]:
        async with self._operation() as operation:
            for image in images:
                for digest in image.record.content():
                    operation.pin(digest)
            planned = await in_thread(
                lambda: [(image, self._to_save(operation, image.record)) for image in images], Stop()
            )
            pieces = stream_archive(plan_archive(planned), self._blobs)
            while piece := await in_thread(lambda: next_batch(pieces), Stop()):
                yield piece

    def _to_save(self, operation: Operation, record: ImageRecord) -> ManifestRecord:
        manifest = choose_manifest(record, self._workspace)
        return self._pusher.referenced(operation, record, manifest).manifest if record.base else manifest

    async def import_rootfs(
        self, chunks: AsyncIterator[bytes], *, reference: str, platform: str, message: str, config: ImageConfig
    ) -> Image:
        made_for = _made_for(platform)
        tags = (parse_tag_target(reference).canonical,) if reference else ()

        def work(pieces: Iterator[bytes]) -> ImageRecord:
            record = self._maker.import_rootfs(operation, pieces, platform=made_for, config=config, message=message)
            sync_file_system(self._workspace.data_root)
            return record

        async with self._operation() as operation:
            record = await run_fed(chunks, work, Stop())
            return self._register(record, tags)

    async def import_layout(self, path: Path, *, reference: str) -> Image:
        tags = (parse_tag_target(reference).canonical,)
        stop = Stop()

        def work() -> list[ImageRecord]:
            records = self._maker.adopt_layout(operation, path, lambda *_: stop.check())
            sync_file_system(self._workspace.data_root)
            return records

        async with self._operation() as operation:
            images = [self._register(record, tags) for record in await in_thread(work, stop)]
            return images[0]

    async def commit(
        self,
        base: Image,
        layer: AsyncIterator[bytes] | None,
        *,
        reference: str,
        config: ImageConfig,
        entry: HistoryEntry,
    ) -> Image:
        record = self._catalog.get(base.id)
        tags = (parse_tag_target(reference).canonical,) if reference else ()
        manifest = choose_manifest(record, self._workspace)

        def work(pieces: Iterator[bytes] | None) -> ImageRecord:
            return self._maker.commit(operation, record, manifest, pieces, config=config, entry=entry)

        async with self._operation() as operation:
            for digest in record.content():
                operation.pin(digest)
            if layer is None:
                made = await in_thread(lambda: work(None), Stop())
            else:
                made = await run_fed(layer, work, Stop())
            return await self._register_made(made, tags)

    async def extend(self, base: Image, source: Image, *, config: ImageConfig, entry: HistoryEntry) -> Image:
        record, other = self._catalog.get(base.id), self._catalog.get(source.id)
        own, others = choose_manifest(record, self._workspace), choose_manifest(other, self._workspace)

        async with self._operation() as operation:
            for digest in record.content() | other.content():
                operation.pin(digest)
            made = await in_thread(
                lambda: self._maker.extend(operation, record, own, other, others, config=config, entry=entry), Stop()
            )
            return await self._register_made(made)

    async def empty(self, platform: str) -> Image:
        async with self._operation() as operation:
            made = await in_thread(lambda: self._maker.empty(operation, _made_for(platform)), Stop())
            return await self._register_made(made)

    def check_tag(self, reference: str) -> None:
        parse_tag_target(reference)

    def children(self, image_id: str) -> tuple[Image, ...]:
        return tuple(self._image(record) for record in self._catalog.children(image_id))

    def _register(self, record: ImageRecord, tags: tuple[str, ...] = ()) -> Image:
        record = msgspec.structs.replace(record, tags=(*record.tags, *tags))
        return self._image(self._catalog.register(record))

    async def _register_made(self, record: ImageRecord, tags: tuple[str, ...] = ()) -> Image:
        """The disk follows."""
        (record,) = await in_thread(lambda: self._syncer.mark([record]), Stop())
        image = self._register(record, tags)
        self._syncer.follow()
        return image

    def _image(self, record: ImageRecord) -> Image:
        """Looked up at each start of a container: built once for each state of the record."""
        known = self._built.get(record.id)
        if known is None or known[0] is not record:
            known = self._built[record.id] = (record, build_image(record, self._workspace))
        return known[1]

    def tag(self, reference: str, new_reference: str) -> None:
        self._catalog.tag(reference, new_reference)

    def remove(self, reference: str, *, force: bool, in_use: Mapping[str, str]) -> tuple[ImageChange, ...]:
        changes = self._catalog.remove(reference, force=force, in_use=in_use)
        gone = [change.subject for change in changes if change.action == "deleted"]
        for image_id in gone:
            self._built.pop(image_id, None)
        if gone:
            self._collect_garbage()
        return changes

    def collect_garbage(self) -> int:
        """What failed operations left for a retry goes as well."""
        self._workspace.forget_kept()
        return self._collect_garbage()

    def _collect_garbage(self) -> int:
        """Answers at once; the deleting goes on in a thread of its own."""
        freed = self._workspace.set_aside(self._catalog.content)
        self._deleter = threading.Thread(target=self._workspace.delete_rubbish, name="delete images", daemon=True)
        self._deleter.start()
        return freed

    def finish_deleting(self) -> None:
        """Wait until what was collected so far is off the disk. Blocks."""
        if self._deleter is not None:
            self._deleter.join()

    async def finish_syncing(self) -> None:
        """Wait until what was loaded so far is on the disk."""
        await self._syncer.finish()

    def disk_usage_bytes(self) -> int:
        return self._workspace.known_bytes()

    @contextlib.asynccontextmanager
    async def _operation(self) -> AsyncIterator[Operation]:
        self._bases.loop = asyncio.get_running_loop()
        operation = self._workspace.begin()
        try:
            yield operation
        except BaseException as error:
            if isinstance(error, Unavailable | asyncio.CancelledError):
                self._workspace.keep_for_retry(operation)
            await in_thread(lambda: self._give_up(operation), Stop())
            raise
        else:
            await in_thread(lambda: self._workspace.end(operation), Stop())

    def _give_up(self, operation: Operation) -> None:
        """A failed operation leaves nothing but what a retry can use: what it put into place and no image needs goes at once."""
        self._workspace.end(operation)
        self._workspace.set_aside(self._catalog.content)
        self._workspace.delete_rubbish()


def _made_for(platform: str) -> Platform:
    """What an image made here is for, as far as nobody says: Linux on this machine."""
    wish = parse_platform(platform)
    return Platform(
        os=wish.os or "linux",
        architecture=wish.architecture or host_architecture(),
        variant=wish.variant,
        os_version=wish.os_version,
    )
