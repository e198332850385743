"""The registry's text files in the directories of a Windows image's layers. Blocks.

    silo/prefix/system.reg, userdef.reg                       of the machine: Hives/*_Delta of a layer, merged
    silo/prefix/user.reg, silo/users/ContainerUser/user.reg   of its users: Files/Users/<user>/NTUSER.DAT, over the base's
    etc/localtime                                             the time zone, where a layer sets another one

The uppermost directory that has a file has all of it. What lies in the directories came out of images, so it is opened beneath its
directory, by no link, and read up to a limit.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from silo.errors import InvalidRequest
from silo.host.beneath import Links, Root
from silo.host.whole_files import read_file
from silo.model.windows_names import fold
from silo.model.windows_paths import DRIVE_C, PREFIX, REGISTRY_FILES
from silo.windows.base.environment import ADMINISTRATOR, USER
from silo.windows.hives import Key
from silo.windows.hives.tree import find_key, find_value
from silo.windows.registry import (
    build_user_hive,
    diff_registry,
    merge_registry,
    merge_user_hive,
    user_hive_path,
    user_text_path,
)
from silo.windows.registry.comparing import changed_parts
from silo.windows.registry.sections import RegistrySections
from silo.windows.time_zone import build_localtime

MAXIMUM_BYTES = 64 << 20
USERS = (ADMINISTRATOR, USER)
_USER_FILE = "user.reg"
_SYSTEM_FILE = "system.reg"
_TIME_ZONE = "SYSTEM\\CONTROLSET001\\CONTROL\\TIMEZONEINFORMATION"
_TIME_ZONES = "SOFTWARE\\MICROSOFT\\WINDOWS NT\\CURRENTVERSION\\TIME ZONES"
_LOCALTIME = "/etc/localtime"

Warn = Callable[[str], None]


class LayerRegistry:
    """The registry that a stack of directories shows, uppermost first. A context manager."""

    def __init__(self, layers: Sequence[Path]) -> None:
        self._layers = tuple(layers)
        self._resources = ExitStack()
        self._roots: list[Root] = []

    def __enter__(self) -> LayerRegistry:
        with ExitStack() as undo:
            self._roots = [undo.enter_context(Root(path, links=Links.REFUSE)) for path in self._layers]
            self._resources = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def read(self, path: str) -> bytes:
        """A file by its absolute path in a container; empty where there is none. Raises InvalidRequest."""
        return next((found for found in (_read(root, path) for root in self._roots) if found is not None), b"")

    def read_base(self, path: str) -> bytes:
        """The same of the lowest directory that has it: the base."""
        return next(
            (found for found in (_read(root, path) for root in reversed(self._roots)) if found is not None), b""
        )

    def machine_files(self) -> dict[str, bytes]:
        """Wine's files by name, without that of a user."""
        found = {name: self.read(f"{PREFIX}/{name}") for name in REGISTRY_FILES if name != _USER_FILE}
        return {name: text for name, text in found.items() if text}

    def merge(self, target: Path, deltas: Mapping[str, bytes], warn: Warn) -> None:
        """Write into a layer's own directory what its deltas and its users' hives make of the files below.

        Raises DamagedRegistry, InvalidRequest; a user's hive that cannot be read is left out with a warning.
        """
        texts: dict[str, bytes] = {}
        if deltas:
            machine = self.machine_files()
            merged = merge_registry(machine, [deltas])
            texts.update({f"{PREFIX}/{name}": text for name, text in merged.items()})
            if _SYSTEM_FILE in merged:
                texts.update(_localtime(machine.get(_SYSTEM_FILE, b""), merged[_SYSTEM_FILE], warn))
        with Root(target, links=Links.REFUSE) as root:
            for user in USERS:
                hive = _find_spelled(root, DRIVE_C, user_hive_path(user).split("/"))
                untrusted = None if hive is None else _read(root, hive)
                if untrusted is None:
                    continue
                path = user_text_path(user)
                try:
                    texts[path] = merge_user_hive(self.read_base(path), untrusted)
                except InvalidRequest as error:
                    warn(f"the registry of the user {user} is left out: {error}")
            for path, text in texts.items():
                self._write(root, path, text)

    def _write(self, root: Root, path: str, text: bytes) -> None:
        parts = path.strip("/").split("/")
        for count in range(1, len(parts)):
            self._make_directory(root, "/".join(parts[:count]))
        name = path.strip("/")
        if root.status(name) is not None:
            root.remove(name)
        with open(root.open_write(name, 0o600), "wb") as file:
            file.write(text)
            status = self._status(name)
            if status is not None:
                os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode) if status is not None else 0o644)

    def _make_directory(self, root: Root, path: str) -> None:
        """What overlayfs shows of a directory is what its uppermost layer says of it."""
        if root.status(path) is not None:
            return
        status = self._status(path)
        root.make_directory(path, 0o755)
        if status is not None:
            root.set_owner(path, status.st_uid, status.st_gid)
            root.set_mode(path, stat.S_IMODE(status.st_mode))
            root.set_times(path, status.st_mtime_ns, status.st_mtime_ns)

    def _status(self, path: str) -> os.stat_result | None:
        return next((found for found in (root.status(path) for root in self._roots) if found is not None), None)

    def diff(self, untrusted_after: Mapping[str, bytes]) -> tuple[dict[str, bytes], dict[str, bytes]]:
        """What a container made of it, from its files by name (`system.reg`, …).

        Answers (deltas by name, files by their path on `C:\\`, such as `Users/ContainerUser/NTUSER.DAT`). Raises DamagedRegistry,
        InvalidRequest.
        """
        machine = {
            name: untrusted_after[name] for name in REGISTRY_FILES if name in untrusted_after and name != _USER_FILE
        }
        deltas = diff_registry(self.machine_files(), machine)
        after = untrusted_after.get(_USER_FILE)
        if not after:
            return deltas, {}
        user, before = self._whose(after)
        hive = build_user_hive(user, before, after)
        return deltas, {} if hive is None else {user_hive_path(user): hive}

    def _whose(self, untrusted_after: bytes) -> tuple[str, bytes]:
        """A container has one user, whose file it began with: the one that it differs from the least."""
        found = [(user, self.read(user_text_path(user))) for user in USERS]
        return min(found, key=lambda pair: _distance(pair[1], untrusted_after))


def _localtime(before: bytes, after: bytes, warn: Warn) -> dict[str, bytes]:
    """The file of the time zone that a layer sets; nothing if it sets none. Wine does not look for it in the registry."""
    chosen = _time_zone(before), _time_zone(after)
    if chosen[0] == chosen[1] or chosen[1] is None:
        return {}
    name, daylight = chosen[1]
    path = f"{_TIME_ZONES}\\{fold(name)}"
    key = find_key(RegistrySections(after).read([path]), path)
    value = find_value(key, "TZI") if key is not None else None
    try:
        if value is None:
            raise InvalidRequest(f"the registry has no time zone {name!r}")
        return {_LOCALTIME: build_localtime(name, value.data, daylight=daylight)}
    except InvalidRequest as error:
        warn(f"the time zone is left as it was: {error}")
        return {}


def _time_zone(text: bytes) -> tuple[str, bool] | None:
    """(name, whether it has daylight saving time)."""
    if not text:
        return None
    key = find_key(RegistrySections(text).read([_TIME_ZONE]), _TIME_ZONE)
    name = find_value(key, "TimeZoneKeyName") if key is not None else None
    if key is None or name is None:
        return None
    disabled = find_value(key, "DynamicDaylightTimeDisabled")
    return name.data.decode("utf-16-le", "replace").split("\0")[0], disabled is None or not any(disabled.data)


def _distance(before: bytes, untrusted_after: bytes) -> int:
    return sum(_count(part) for part in changed_parts(_USER_FILE, before, untrusted_after))


def _count(key: Key) -> int:
    pending, count = [key], 0
    while pending:
        found = pending.pop()
        count += 1 + len(found.values)
        pending.extend(found.subkeys)
    return count


def _read(root: Root, path: str) -> bytes | None:
    return read_file(root, path, limit_bytes=MAXIMUM_BYTES)


def _find_spelled(root: Root, top: str, parts: Iterable[str]) -> str | None:
    """A path below `top` as it is spelled in the directory, names without case."""
    place = top.strip("/")
    for part in parts:
        try:
            names = root.names(place)
        except OSError:
            return None
        found = next((name for name in names if name.lower() == part.lower()), None)
        if found is None:
            return None
        place = f"{place}/{found}"
    return place
