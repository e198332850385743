"""The use cases around images: the store's methods, plus who uses an image, events, and Docker's filters."""

from __future__ import annotations

import fnmatch
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from silo.engine.events import EventBus
from silo.engine.filters import Filters, any_of, check_keys, labels_match, parse_flag, parse_moment_ns
from silo.engine.instructions import apply_instructions
from silo.engine.parts import Parts
from silo.engine.ports import ImageChange, Progress, PullRequest
from silo.engine.roster import Roster
from silo.errors import Conflict, NotFound, Unsupported
from silo.model.clock import parse_time
from silo.model.image import Image, ImageConfig


class Images:
    """`docker image …`."""

    def __init__(self, parts: Parts, roster: Roster, events: EventBus) -> None:
        self._store = parts.images
        self._roster = roster
        self._events = events
        self.held: Callable[[], Mapping[str, str]] = dict
        """Images that something else than a container uses: id → what."""

    def all(self, filters: Filters | None = None, *, intermediate: bool = True) -> tuple[Image, ...]:
        """Newest first. Without `intermediate`, steps of builds that lead to other images are left out."""
        filters = filters or {}
        check_keys(filters, ("dangling", "label", "label!", "before", "since", "until", "reference"))
        images = sorted(self._store.all(), key=lambda image: image.created, reverse=True)
        dangling = filters.get("dangling", ())
        wanted = parse_flag(dangling[0], "dangling") if dangling else None
        before = [self._store.get(text).created for text in filters.get("before", ())]
        since = [self._store.get(text).created for text in filters.get("since", ())]
        until = [parse_moment_ns(text) for text in filters.get("until", ())]
        parents = frozenset() if intermediate else {image.parent for image in images}
        return tuple(
            image
            for image in images
            if (image.id not in parents or not _dangling(image))
            and labels_match(image.config.labels, filters)
            and (wanted is None or _dangling(image) is wanted)
            and any_of(filters, "reference", lambda pattern, image=image: _named_like(image, pattern))  # type: ignore[misc]
            and all(image.created < moment for moment in before)
            and all(image.created > moment for moment in since)
            and all(parse_time(image.created) < moment for moment in until)
        )

    def get(self, reference: str, *, platform: str = "") -> Image:
        return self._store.get(reference, platform=platform)

    def ancestors(self, image: Image) -> tuple[Image, ...]:
        """The images that this one was made from, step by step, as far as they are here; nearest first."""
        found: list[Image] = []
        while image.parent and (parent := self._store.find(image.parent)) is not None and parent not in found:
            found.append(parent)
            image = parent
        return tuple(found)

    async def pull(self, request: PullRequest, progress: Progress) -> Image:
        image = await self._store.pull(request, progress)
        self._events.publish("image", "pull", request.reference, {"name": request.reference})
        return image

    async def push(self, request: PullRequest, progress: Progress) -> str:
        digest = await self._store.push(request, progress)
        self._events.publish("image", "push", request.reference, {"name": request.reference})
        return digest

    async def load(
        self, chunks: AsyncIterator[bytes], progress: Progress, *, base_layers: int | None = None
    ) -> tuple[Image, ...]:
        images = await self._store.load(chunks, progress, base_layers=base_layers)
        for image in images:
            self._events.publish("image", "load", image.id, {"name": image.tags[0] if image.tags else image.id})
        return images

    def save(self, references: Sequence[str]) -> AsyncIterator[bytes]:
        """The store checks every reference before the first byte."""
        return self._store.save(references)

    async def import_(
        self,
        chunks: AsyncIterator[bytes],
        *,
        repo: str = "",
        tag: str = "",
        message: str = "",
        changes: tuple[str, ...] = (),
        platform: str = "",
    ) -> Image:
        reference = f"{repo}:{tag or 'latest'}" if repo else ""
        config = apply_instructions(ImageConfig(), changes, windows=platform.lower().startswith("windows"))
        image = await self._store.import_rootfs(
            chunks, reference=reference, platform=platform, message=message, config=config
        )
        self._events.publish("image", "import", image.id, {"name": reference or image.id})
        return image

    def tag(self, reference: str, repo: str, tag: str = "") -> None:
        image = self._store.get(reference)
        name = f"{repo}:{tag or 'latest'}"
        self._store.tag(reference, name)
        self._events.publish("image", "tag", image.id, {"name": name})

    def remove(self, reference: str, *, force: bool = False, noprune: bool = False) -> tuple[ImageChange, ...]:
        """Raises Conflict while a container uses it. Untagged parents are never removed along, with or without `noprune`."""
        del noprune
        changes = self._store.remove(reference, force=force, in_use=self._in_use())
        for change in changes:
            action = "untag" if change.action == "untagged" else "delete"
            self._events.publish("image", action, change.subject, {"name": change.subject})
        return changes

    def _in_use(self) -> dict[str, str]:
        return {**self.held(), **{live.record.image_id: live.id for live in self._roster}}

    async def prune(self, filters: Filters) -> tuple[tuple[ImageChange, ...], int]:
        """Remove untagged images (dangling=false: all without a container). Answers (changes, bytes freed)."""
        check_keys(filters, ("dangling", "label", "label!", "until"))
        dangling = filters.get("dangling", ("true",))
        only_untagged = parse_flag(dangling[0], "dangling")
        until = [parse_moment_ns(text) for text in filters.get("until", ())]
        used = self._in_use()
        before = self._store.disk_usage_bytes()
        changes: list[ImageChange] = []
        for image in self._store.all():
            if (
                image.id in used
                or (only_untagged and not _dangling(image))
                or not labels_match(image.config.labels, filters)
            ):
                continue
            if any(parse_time(image.created) >= moment for moment in until):
                continue
            try:
                changes += self.remove(image.id, force=True)
            except (Conflict, NotFound):  # a parent goes with its last child
                continue
        self._store.collect_garbage()
        return tuple(changes), max(0, before - self._store.disk_usage_bytes())

    async def search(self, term: str) -> None:
        raise Unsupported(f"searching a registry for {term!r} is not supported", hint="use the registry's own web page")


def _dangling(image: Image) -> bool:
    """Nothing names it, neither a tag nor (pulled by digest) a repository."""
    return not image.tags and not image.digests


def _named_like(image: Image, pattern: str) -> bool:
    names = [*image.tags, *(tag.rpartition(":")[0] for tag in image.tags)]
    return any(fnmatch.fnmatchcase(name, pattern) for name in names)
