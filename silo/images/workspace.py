"""The directories of the image store, and the rule by which nothing half-made is ever taken for whole.

    blobs/sha256/<hex>   manifests, configs, packed layers, exactly as digested
    layers/<hex>/        unpacked layers, by diff id, read-only by agreement
    staging/<random>/    one directory for each running operation; what no operation owns is rubbish

Things are made in staging and renamed into place. A name in blobs/ or layers/ counts only while the store knows it: from a row
(of what is on the disk, or was registered in this boot), or because this process put it there. What a crash left is unknown to
the next process and is moved aside when it opens the store. Operations pin what they rely on, so that collecting garbage beside
them is safe; what one had finished when a registry or its client went away is kept for an hour, in this process, so that a retry
goes on from there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from silo.host.beneath import remove_tree

_RUBBISH = "rubbish-"
_KEPT_S = 3600.0


class Operation:
    """One load, pull, commit, …: its own directory, and what must not be collected while it runs."""

    def __init__(self, directory: Path, pins: Counter[str], lock: threading.Lock) -> None:
        self.directory = directory
        self._pins = pins
        self._lock = lock
        self._mine: set[str] = set()

    def pin(self, digest: str) -> None:
        """Keep a blob or layer, there already or yet to come, until the operation ends."""
        with self._lock:
            if digest not in self._mine:
                self._mine.add(digest)
                self._pins[digest] += 1

    @property
    def pinned(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(self._mine)

    def unpin_all(self) -> None:
        with self._lock:
            for digest in self._mine:
                self._pins[digest] -= 1
                if not self._pins[digest]:
                    del self._pins[digest]
            self._mine.clear()

    def path(self) -> Path:
        """A fresh name in the operation's directory."""
        return self.directory / secrets.token_hex(8)


class Workspace:
    """Owns the directories; safe for use by several threads."""

    def __init__(self, data_root: Path) -> None:
        self.data_root = data_root
        self.blobs = data_root / "blobs" / "sha256"
        self.layers = data_root / "layers"
        self.staging = data_root / "staging"
        for directory in (self.blobs, self.layers, self.staging):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._deleting = threading.Lock()
        self._pins: Counter[str] = Counter()
        self._running: set[str] = set()
        self._known_blobs: dict[str, int] = {}
        self._known_layers: dict[str, int] = {}
        self._kept: dict[str, float] = {}
        self._in_work: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def begin(self) -> Operation:
        """The caller ends it by `end`, whatever happens."""
        name = secrets.token_hex(8)
        with self._lock:
            self._running.add(name)
        directory = self.staging / name
        directory.mkdir(mode=0o700)
        return Operation(directory, self._pins, self._lock)

    def end(self, operation: Operation) -> None:
        """Remove its directory with all that was not moved into place. Blocks."""
        operation.unpin_all()
        delete(operation.directory)
        with self._lock:
            self._running.discard(operation.directory.name)

    def keep_for_retry(self, operation: Operation) -> None:
        """What a failed operation had finished is worth keeping for a while: the next one goes on from there."""
        until = time.monotonic() + _KEPT_S
        pinned = operation.pinned
        with self._lock:
            self._kept.update(dict.fromkeys(pinned, until))

    def forget_kept(self) -> None:
        """The next collecting takes what only failed operations left."""
        with self._lock:
            self._kept.clear()

    def _still_kept(self) -> set[str]:
        now = time.monotonic()
        self._kept = {digest: until for digest, until in self._kept.items() if until > now}
        return set(self._kept)

    @contextmanager
    def exclusively(self, digest: str) -> Iterator[None]:
        """Two operations that need the same thing make it one after the other, so the second finds it made."""
        with self._lock:
            lock = self._in_work[digest]
        with lock:
            yield

    def know_blob(self, digest: str, size: int) -> None:
        with self._lock:
            self._known_blobs[digest] = size

    def know_layer(self, diff_id: str, size: int) -> None:
        with self._lock:
            self._known_layers[diff_id] = size

    def blob_path(self, digest: str) -> Path:
        return self.blobs / digest.removeprefix("sha256:")

    def layer_path(self, diff_id: str) -> Path:
        return self.layers / diff_id.removeprefix("sha256:")

    def blob_size(self, digest: str) -> int | None:
        """None when the store does not hold it."""
        size = self._known_blobs.get(digest)
        return size if size is not None and self.blob_path(digest).is_file() else None

    def layer_size(self, diff_id: str) -> int | None:
        """Bytes of its files; None when the store does not hold it."""
        size = self._known_layers.get(diff_id)
        return size if size is not None and self.layer_path(diff_id).is_dir() else None

    def put_blob(self, path: Path, digest: str, size: int) -> None:
        """Move a finished, verified file of a staging directory into place."""
        with self._lock:
            path.replace(self.blob_path(digest))
            self._known_blobs[digest] = size

    def put_layer(self, path: Path, diff_id: str, size: int) -> None:
        """The same for an unpacked layer; the caller holds `exclusively(diff_id)`."""
        target = self.layer_path(diff_id)
        with self._lock:
            if target.exists():  # of unknown origin, or it would not be made again
                target.rename(self.staging / (_RUBBISH + secrets.token_hex(8)))
            path.rename(target)
            self._known_layers[diff_id] = size

    def set_aside(self, needed: Callable[[], set[str]]) -> int:
        """Move what is neither needed nor pinned out of sight (fast); answers the bytes that deleting it will free.

        `needed` is asked under the lock under which operations pin. What the store does not know counts nothing.
        """
        freed = 0
        with self._lock:
            keep = needed() | set(self._pins) | self._still_kept()
            for directory, known in ((self.blobs, self._known_blobs), (self.layers, self._known_layers)):
                for path in list(directory.iterdir()):
                    digest = f"sha256:{path.name}"
                    if digest not in keep:
                        freed += known.pop(digest, 0)
                        path.rename(self.staging / (_RUBBISH + secrets.token_hex(8)))
            for digest in [
                digest for digest, lock in self._in_work.items() if not lock.locked() and digest not in keep
            ]:
                del self._in_work[digest]
        return freed

    def delete_rubbish(self) -> None:
        """Delete everything in staging that no running operation owns. Blocks, as long as that takes."""
        with self._deleting:
            with self._lock:
                rubbish = [path for path in self.staging.iterdir() if path.name not in self._running]
            for path in rubbish:
                delete(path)

    def known_bytes(self) -> int:
        """Of blobs and unpacked layers, each counted once however many images share it."""
        with self._lock:
            return sum(self._known_blobs.values()) + sum(self._known_layers.values())


def delete(path: Path) -> None:
    """A file or a tree of any depth; nothing there is fine, and what cannot be deleted now is rubbish for the next time."""
    with contextlib.suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                remove_tree(path.name, parent)
            finally:
                os.close(parent)
        else:
            path.unlink()
