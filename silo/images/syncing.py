"""Images that can be used before the disk has them.

Writing an image to the disk takes longer than unpacking it. Who loads one does not wait for that: it is registered when it is
whole in the page cache, marked with the boot it was made in (`ImageRecord.unsynced`); syncfs follows at once, in a thread, and
then the mark goes. What a dead process left marked is whole as long as the machine has not booted; after a boot such rows are
dismissed, because their files may be half there.

    load -> row marked -> the client has its answer -> syncfs -> mark gone
                     |                            |
                     '- the daemon dies: the next one syncs and keeps the image
                     '- the power goes: the next boot has neither the image nor half of it, names are back where they were
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from silo.errors import SiloError
from silo.host.durable import boot_id, sync_file_system
from silo.images.catalog import Catalog
from silo.images.feed import Stop, in_thread
from silo.images.records import ImageRecord

_LOG = logging.getLogger(__name__)


class Syncer:
    """One for a store. `open`, `follow` and `finish` on the event loop, `mark` in an operation's thread."""

    def __init__(self, root: Path, catalog: Catalog) -> None:
        self._root = root
        self._catalog = catalog
        self._boot = boot_id()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Before the store is used: what the last process left marked is synced, or dismissed. Blocks."""
        for record in self._catalog.dismiss_unsynced(self._boot):
            _LOG.warning(
                "the image %s (%s) was not on the disk yet when the machine went down: load or pull it again",
                ", ".join(record.tags) or "without a name",
                record.id,
            )
        if left := self._catalog.unsynced():
            sync_file_system(self._root)
            self._catalog.mark_synced(left)

    def mark(self, records: Sequence[ImageRecord]) -> list[ImageRecord]:
        """Records to be registered now and synced by `follow`. Those that are known are not put at risk: they are synced here."""
        if any(self._catalog.by_id(record.id) for record in records):
            sync_file_system(self._root)
            return list(records)
        return [msgspec.structs.replace(record, unsynced=self._boot) for record in records]

    def follow(self) -> None:
        """Sync what is marked, without waiting for it."""
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._sync())

    async def _sync(self) -> None:
        while marked := self._catalog.unsynced():
            try:
                await in_thread(lambda: sync_file_system(self._root), Stop())
            except SiloError as error:
                # they stay marked: neither this process nor a boot takes them for more than they are
                _LOG.error("images cannot be written to the disk: %s", error)
                return
            self._catalog.mark_synced(marked)

    async def finish(self) -> None:
        """Until nothing is marked any more, or cannot be synced."""
        if self._task is not None:
            await asyncio.wait([self._task])
