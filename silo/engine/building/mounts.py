"""`RUN --mount`: binds of files of the context, a stage or an image, caches kept between builds, and tmpfs.

Secrets and SSH agents come over BuildKit's session, which the classic protocol does not have: one that is not required is left
out, as BuildKit does with one that nobody gave; a required one is refused.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from contextlib import AsyncExitStack

import msgspec

from silo.dockerfile.flags import parse_flags
from silo.dockerfile.syntax import Instruction
from silo.engine.building.copying import Fill, FindTree, source_path
from silo.engine.building.ports import BuildFiles
from silo.errors import InvalidRequest, NotFound, Unsupported
from silo.model.build import SourceItem, SourceKind
from silo.model.mount import MountKind, MountRequest

CACHE_LABEL = "com.silo.build.cache"
"""On volumes that keep a RUN's caches; its value is the cache's id."""
_CACHE_NAME = "silo-build-cache-"
_KNOWN = {
    "bind": {"target", "source", "from", "readonly"},
    "cache": {"target", "id", "readonly", "sharing", "uid", "gid", "mode"},
    "tmpfs": {"target", "size"},
    "secret": {"target", "id", "required", "uid", "gid", "mode", "env"},
    "ssh": {"target", "id", "required", "uid", "gid", "mode"},
}
_ALIASES = {"dst": "target", "destination": "target", "src": "source", "ro": "readonly", "rw": "readwrite"}
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


class StepMounts(msgspec.Struct, frozen=True, kw_only=True):
    """What a RUN gets mounted; `key` is what the cache knows it by, "" for none."""

    requests: tuple[MountRequest, ...] = ()
    key: str = ""


class CacheLocks:
    """Of caches that only one step may use at a time."""

    def __init__(self) -> None:
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def of(self, name: str) -> asyncio.Lock:
        return self._locks[name]


class MountPlanner:
    """Of one RUN; what is mounted stays as long as the stack."""

    def __init__(
        self, files: BuildFiles, stack: AsyncExitStack, find_tree: FindTree, fill: Fill, locks: CacheLocks
    ) -> None:
        self._files = files
        self._stack = stack
        self._find_tree = find_tree
        self._fill = fill
        self._locks = locks

    async def plan(self, instruction: Instruction, *, windows: bool) -> StepMounts:
        """Raises InvalidRequest, NotFound, Unsupported."""
        flags = parse_flags(instruction.name, instruction.flags, where=instruction.where)
        requests: list[MountRequest] = []
        keys: list[str] = []
        for text in flags.list("mount"):
            fields = parse_mount(self._fill(text))
            kind = fields.get("type", "bind")
            if kind == "bind":
                request, key = await self._bind(text, fields, windows=windows)
                requests.append(request)
                keys.append(key)
            elif kind == "cache":
                requests.append(self._cache(text, fields))
            elif kind == "tmpfs":
                requests.append(_tmpfs(fields))
            elif fields.get("required", "false") == "true":
                raise Unsupported(
                    f"--mount={text} is not supported: the classic build protocol cannot hand over a {kind}",
                    hint="leave `required` out, or use a build argument for what is no secret",
                )
        key = hashlib.sha256("\n".join(keys).encode()).hexdigest() if keys else ""
        return StepMounts(requests=tuple(requests), key=key)

    async def _bind(self, text: str, fields: dict[str, str], *, windows: bool) -> tuple[MountRequest, str]:
        word = fields.get("from", "")
        tree, personality = await self._find_tree(word)
        pattern = source_path(fields.get("source", "/" if word else "."), personality, windows=windows)
        try:
            found = await tree.find(pattern, archives=False)
        except NotFound as error:
            raise NotFound(f"--mount={text}: {fields.get('source')} is not there") from error
        if len(found) != 1:
            raise InvalidRequest(f"--mount={text}: the source is not one file or directory")
        item: SourceItem = found[0]
        if word:
            # An image's root is an overlay, of which the kernel makes no mount with other ids.
            taken = await self._stack.enter_async_context(self._files.take(tree, item))
            source = taken.directory / item.name if item.kind is not SourceKind.DIRECTORY else taken.directory
        else:
            source = tree.directory / item.path
        request = MountRequest(kind=MountKind.BIND, source=str(source), target=fields["target"], read_only=True)
        return request, f"{item.kind}:{item.digest} at {fields['target']}"

    def _cache(self, text: str, fields: dict[str, str]) -> MountRequest:
        for name in ("uid", "gid", "mode"):
            if fields.get(name, "0") not in ("0", "0755"):
                raise Unsupported(f"--mount={text}: {name} of a cache is not supported", hint="caches are root's, 0755")
        identity = fields.get("id") or fields["target"]
        name = _CACHE_NAME + hashlib.sha256(identity.encode()).hexdigest()[:32]
        if fields.get("sharing", "shared") not in ("shared", "private", "locked"):
            raise InvalidRequest(f"--mount={text}: sharing is shared, private or locked")
        return MountRequest(
            kind=MountKind.VOLUME,
            source=name,
            target=fields["target"],
            read_only=fields.get("readonly", "false") == "true",
            labels={CACHE_LABEL: identity},
            no_copy=True,
        )

    async def lock_caches(self, instruction: Instruction) -> None:
        """Wait until no other step uses the caches that are not to be shared; in one order, so that two steps never wait for
        one another."""
        flags = parse_flags(instruction.name, instruction.flags, where=instruction.where)
        wanted = set()
        for text in flags.list("mount"):
            fields = parse_mount(self._fill(text))
            if fields.get("type") == "cache" and fields.get("sharing") in ("locked", "private"):
                wanted.add(fields.get("id") or fields["target"])
        for identity in sorted(wanted):
            await self._stack.enter_async_context(self._locks.of(identity))


def _tmpfs(fields: dict[str, str]) -> MountRequest:
    text = fields.get("size", "0").lower()
    number, unit = (text[:-1], text[-1]) if text[-1:] in "bkmg" and text[:-1] else (text, "")
    if not number.isdigit():
        raise InvalidRequest(f"--mount=type=tmpfs: the size {text!r} is not a number", hint="such as 64m")
    return MountRequest(kind=MountKind.TMPFS, target=fields["target"], tmpfs_size_bytes=int(number) * _UNITS[unit])


def parse_mount(text: str) -> dict[str, str]:
    """`type=cache,target=/x` → fields by their full names. Raises InvalidRequest, Unsupported."""
    fields: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        name = _ALIASES.get(name.lower(), name.lower())
        if name == "readwrite":
            if value.lower() != "false" and fields.get("type", "bind") == "bind":
                raise Unsupported(
                    f"--mount={text}: writing to a bind is not supported", hint="copy what is to be changed"
                )
            continue
        fields[name] = value if equals else "true"
    kind = fields.get("type", "bind")
    if kind not in _KNOWN:
        raise InvalidRequest(f"--mount={text}: unsupported mount type {kind!r}", hint=f"one of {', '.join(_KNOWN)}")
    for name in fields:
        if name != "type" and name not in _KNOWN[kind]:
            raise Unsupported(f"--mount={text}: {name} is not supported for {kind}")
    if "target" not in fields and kind in ("bind", "cache", "tmpfs"):
        raise InvalidRequest(f"--mount={text}: a target is required")
    return fields
