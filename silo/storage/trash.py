"""Removal that is over at once: a directory is renamed into `trash/`, one thread deletes it there.

Whatever a crash leaves in `trash/` is deleted at the next start. Deleting follows no link and has no limit of depth.
"""

from __future__ import annotations

import logging
import os
import queue
import secrets
import threading
from pathlib import Path

from silo.host.beneath import remove_tree

log = logging.getLogger(__name__)


class Trash:
    """`directory` must be on the file system of what is thrown away."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._queue: queue.SimpleQueue[str | threading.Event] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def throw(self, path: Path) -> bool:
        """Take `path` out of sight now and delete it soon; False when nothing is there. Raises OSError."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        name = secrets.token_hex(8)
        try:
            path.rename(self._directory / name)
        except FileNotFoundError:
            return False
        self._submit(name)
        return True

    def empty(self) -> None:
        """Delete what an earlier daemon left."""
        if self._directory.is_dir():
            for entry in list(os.scandir(self._directory)):
                self._submit(entry.name)

    def finish(self) -> None:
        """Wait until everything thrown away so far is deleted."""
        done = threading.Event()
        self._submit(done)
        done.wait()

    def _submit(self, item: str | threading.Event) -> None:
        self._queue.put(item)
        if self._thread is None:
            # a daemon thread: the program's end does not wait for it, the next start goes on
            self._thread = threading.Thread(target=self._work, name="trash", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, str):
                self._delete(item)
            else:
                item.set()

    def _delete(self, name: str) -> None:
        descriptor = -1
        try:
            descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            remove_tree(name, descriptor)
        except FileNotFoundError:
            return
        except OSError as error:
            # an immutable file, a mount below: it stays, out of the way, and the next start tries again
            log.warning("deleting %s: %s", self._directory / name, error)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
