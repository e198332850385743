"""Volumes of the driver `local`.

    volumes/<name>/_data     the files
    volumes/<name>/.fill     files of an image on their way into an empty volume (see filling)

Options as Docker's local driver has them: none; `type=tmpfs` (o=size=…,mode=…,uid=…); `type=none,o=bind,device=/path`.
A tmpfs volume is mounted over `_data` at its first use and lives until the volume is removed or the host restarts.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec

from silo.engine.ports import VolumeInfo
from silo.errors import Conflict, HostError, InvalidRequest, NotFound
from silo.host import mounts
from silo.model.ids import NAME_PATTERN
from silo.model.persistence import Documents
from silo.storage.failures import explained
from silo.storage.scratch import disk_usage_bytes
from silo.storage.tmpfs import tmpfs_options
from silo.storage.trash import Trash

_OPTIONS = ("type", "o", "device")


class Volumes:
    """All volumes under `directory`; `documents` is what is known of them."""

    def __init__(self, directory: Path, documents: Documents[VolumeInfo], trash: Trash) -> None:
        self._directory = directory
        self._documents = documents
        self._trash = trash
        self.filling = threading.Lock()
        """Held while a volume is made ready and filled: containers that start at the same time may share an empty one."""

    def create(self, info: VolumeInfo) -> VolumeInfo:
        """The volume, made if there is none of the name. Raises InvalidRequest, Conflict, NoSpace."""
        if info.driver != "local":
            raise InvalidRequest(
                f'error looking up volume plugin {info.driver}: plugin "{info.driver}" not found',
                hint="the one volume driver is local",
            )
        if not NAME_PATTERN.match(info.name) or len(info.name) > 255:
            raise InvalidRequest(f"{info.name!r} is not a volume's name", hint="[a-zA-Z0-9][a-zA-Z0-9_.-]+")
        check_options(info.options)
        existing = self._documents.get(info.name)
        if existing is not None:
            if info.options and dict(info.options) != dict(existing.options):
                raise Conflict(
                    f"a volume named {info.name} exists with other options", details=_words(existing.options)
                )
            return existing
        made = msgspec.structs.replace(info, path=self._directory / info.name / "_data")
        fresh = not (self._directory / made.name).exists()
        # Written down first: a crash between leaves a volume without files yet, which `open` makes, and never a directory
        # that no record names.
        self._documents.put(made.name, made)
        try:
            self._make_directory(made)
        except BaseException:
            self._documents.delete(made.name)
            if fresh:
                self._trash.throw(self._directory / made.name)
            raise
        return made

    def get(self, name: str) -> VolumeInfo:
        info = self._documents.get(name)
        if info is None:
            raise NotFound(f"get {name}: no such volume")
        return info

    def all(self) -> tuple[VolumeInfo, ...]:
        return tuple(info for _, info in self._documents.items())

    def remove(self, name: str) -> None:
        """Files first: a crash between leaves an empty volume, never a forgotten one whose files come back."""
        info = self.get(name)
        with explained(f"remove the volume {name}"):
            if info.options.get("type") == "tmpfs":
                mounts.unmount(info.path)
            self._trash.throw(self._directory / name)
        self._documents.delete(name)

    def size_bytes(self, name: str) -> int:
        return disk_usage_bytes(self._location(self.get(name)))

    def open(self, name: str) -> Path:
        """Where the files are, ready for use. Raises NotFound, HostError (device missing), NoSpace."""
        info = self.get(name)
        self._make_directory(info)
        location = self._location(info)
        if info.options.get("type") == "tmpfs" and not mounts.is_mount_point(info.path):
            with explained(f"mount the volume {name}"):
                options = ",".join(tmpfs_options(words=info.options.get("o", "").split(",")).data)
                mounts.mount("tmpfs", info.path, "tmpfs", mounts.MS_NOSUID | mounts.MS_NODEV, options)
        if not location.exists():
            raise HostError(
                f"failed to mount local volume {name}: {location} does not exist", hint="make it, or remove the volume"
            )
        return location

    def read_only(self, name: str) -> bool:
        """Whether the volume's own options say so."""
        return "ro" in self.get(name).options.get("o", "").split(",")

    def is_plain(self, name: str) -> bool:
        """Whether the files lie in the volume's own directory."""
        return not self.get(name).options

    def _location(self, info: VolumeInfo) -> Path:
        return Path(info.options["device"]) if _is_bind(info.options) else info.path

    def _make_directory(self, info: VolumeInfo) -> None:
        with explained(f"make the volume {info.name}"):
            if info.path.is_dir():
                return
            self._directory.mkdir(mode=0o711, parents=True, exist_ok=True)
            info.path.parent.mkdir(mode=0o711, exist_ok=True)
            info.path.mkdir()
            info.path.chmod(0o755)


def check_options(options: Mapping[str, str]) -> None:
    """Raises InvalidRequest naming what the local driver does not do."""
    for name in options:
        if name not in _OPTIONS:
            raise InvalidRequest(f'invalid option: "{name}"', hint=f"the driver local knows {', '.join(_OPTIONS)}")
    if not options:
        return
    kind = options.get("type", "")
    words = [word for word in options.get("o", "").split(",") if word]
    if kind == "tmpfs":
        tmpfs_options(words=words)
    elif _is_bind(options):
        device = options.get("device", "")
        if not device.startswith("/"):
            raise InvalidRequest("missing device in volume options", hint="device=/absolute/path")
        unknown = set(words) - {"bind", "rbind", "ro", "rw"}
        if unknown:
            raise InvalidRequest(f"invalid mount option of a bind volume: {sorted(unknown)[0]}")
    else:
        raise InvalidRequest(
            f"a local volume of type {kind or '(none given)'} is not supported",
            hint="type=tmpfs, or type=none with o=bind and device=/path",
        )


def _is_bind(options: Mapping[str, str]) -> bool:
    words = options.get("o", "").split(",")
    return options.get("type") in ("none", "bind") and ("bind" in words or "rbind" in words)


def _words(options: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "none"
