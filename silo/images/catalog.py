"""Which image a name means, and what happens to names: register, tag, untag, remove. Bookkeeping only; no bytes are moved here.

All rows are mirrored in memory; every change is written through in one transaction. Used on the event loop only, except
`content`, which takes a snapshot.

A tag points to one image for each platform: `golang:latest` may be a Linux and a Windows image at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from silo.engine.ports import ImageChange
from silo.errors import Conflict, ImageNotFound, InvalidRequest
from silo.images.platforms import parse_platform, preference, same_slot
from silo.images.records import ImageRecord, ManifestRecord, SavedImage, is_silo_base
from silo.images.references import Reference, parse_id_prefix, parse_reference, parse_tag_target
from silo.model.persistence import Documents

WINDOWS_TAG = "docker.io/library/windows:latest"
_replace = msgspec.structs.replace


class Catalog:
    """The rows, and the rules over them."""

    def __init__(self, documents: Documents[ImageRecord]) -> None:
        self._documents = documents
        self._records = dict(documents.items())

    def all(self) -> tuple[ImageRecord, ...]:
        """Newest first."""
        return tuple(sorted(self._records.values(), key=lambda record: record.created, reverse=True))

    def content(self) -> set[str]:
        """Digests that some image needs."""
        return {digest for record in tuple(self._records.values()) for digest in record.content()}

    def windows_base(self) -> ImageRecord | None:
        """Silo's own Windows base: by its usual name, else the newest. Takes a snapshot, so from any thread."""
        found = [record for record in tuple(self._records.values()) if is_silo_base(record)]
        return max(found, key=lambda record: (WINDOWS_TAG in record.tags, record.created), default=None)

    def windows_chain(self, diff_ids: Sequence[str]) -> int:
        """How many of these are the base that another image was made on. Takes a snapshot."""
        bases = {record.base.diff_ids for record in tuple(self._records.values()) if record.base is not None}
        return max((len(base) for base in bases if tuple(diff_ids[: len(base)]) == base), default=0)

    def by_id(self, image_id: str) -> ImageRecord | None:
        return self._records.get(image_id)

    def find(self, reference: str, *, platform: str = "") -> ImageRecord | None:
        """Raises InvalidRequest when the reference or platform is malformed, or the id prefix ambiguous."""
        wish = parse_platform(platform)
        found = [record for record in self._matching(reference) if wish.accepts(record.platform)]
        return min(found, key=lambda record: (preference(record.platform), record.id), default=None)

    def get(self, reference: str, *, platform: str = "") -> ImageRecord:
        """Raises ImageNotFound."""
        record = self.find(reference, platform=platform)
        if record is None:
            raise no_such_image(reference, platform)
        return record

    def _matching(self, text: str) -> list[ImageRecord]:
        exact = self._records.get(text)
        if exact is not None:
            return [exact]
        prefix = parse_id_prefix(text)
        try:
            named = self._named(parse_reference(text).with_default_tag())
        except InvalidRequest:
            if prefix is None:
                raise
            named = []
        if named or prefix is None:
            return named
        found = [record for image_id, record in self._records.items() if image_id[7:].startswith(prefix)]
        if len(found) > 1:
            raise InvalidRequest(f"the image id {text} is ambiguous", details=f"{len(found)} ids begin so")
        return found

    def _named(self, reference: Reference) -> list[ImageRecord]:
        if reference.digest:
            return [record for record in self._records.values() if _has_digest(record, reference)]
        wanted = reference.canonical
        return [record for record in self._records.values() if wanted in record.tags]

    def children(self, image_id: str) -> list[ImageRecord]:
        """What was committed from an image."""
        return [record for record in self._records.values() if record.parent == image_id]

    def register(self, new: ImageRecord) -> ImageRecord:
        """Add an image, or what is new about one that is there; its tags leave other images of the same platform."""
        known = self._records.get(new.id)
        if known is not None:
            manifests = {manifest.digest: manifest for manifest in known.manifests}
            for manifest in new.manifests:
                if not (manifest.made_here and manifests):
                    manifests[manifest.digest] = manifest
            new = _replace(
                new,
                tags=tuple(dict.fromkeys((*known.tags, *new.tags))),
                digests=tuple(dict.fromkeys((*known.digests, *new.digests))),
                manifests=tuple(manifests.values()),
                parent=known.parent or new.parent,
                unsynced=known.unsynced,
                taken=known.taken,
            )
        changed = []
        for record in self._records.values():
            if record.id != new.id and same_slot(record.platform, new.platform):
                left = tuple(tag for tag in record.tags if tag not in new.tags)
                if left != record.tags:
                    changed.append(_replace(record, tags=left))
                    if new.unsynced:
                        lost = tuple((tag, record.id) for tag in record.tags if tag not in left)
                        new = _replace(new, taken=(*new.taken, *lost))
        self._write([new, *changed])
        return new

    def unsynced(self) -> frozenset[str]:
        """Ids of the images that a loss of power would damage."""
        return frozenset(record.id for record in self._records.values() if record.unsynced)

    def mark_synced(self, ids: Iterable[str]) -> None:
        """The caller has synced what they name."""
        found = [record for image_id in ids if (record := self._records.get(image_id)) is not None]
        self._write([_replace(record, unsynced="", taken=()) for record in found])

    def dismiss_unsynced(self, boot: str) -> list[ImageRecord]:
        """Forget images of which another boot than this one had not synced all; names that they took go back. Answers them."""
        gone = {record.id: record for record in self._records.values() if record.unsynced not in ("", boot)}
        with self._documents.transaction():
            for record in gone.values():
                for tag, owner in record.taken:
                    # it may have been taken from one that is dismissed as well
                    while owner in gone:
                        owner = dict(gone[owner].taken).get(tag, "")
                    previous = self._records.get(owner)
                    if tag in record.tags and previous is not None:
                        self._write([_replace(previous, tags=(*previous.tags, tag))])
            for image_id in gone:
                self._documents.delete(image_id)
                del self._records[image_id]
        return list(gone.values())

    def tag(self, reference: str, new_reference: str) -> ImageRecord:
        target = parse_tag_target(new_reference)
        record = self.get(reference)
        return self.register(_replace(record, tags=(*record.tags, target.canonical)))

    def add_pushed(self, image_id: str, manifest: ManifestRecord | None, digest_reference: str) -> None:
        """Remember how an image was packed for a registry, so that the next push gives the same digest."""
        record = self._records.get(image_id)
        if record is None:  # removed meanwhile
            return
        manifests = record.manifests
        if manifest is not None and all(known.digest != manifest.digest for known in manifests):
            manifests = (manifest, *manifests)
        digests = tuple(dict.fromkeys((*record.digests, digest_reference)))
        self._write([_replace(record, manifests=manifests, digests=digests)])

    def select_for_save(self, references: Sequence[str]) -> list[SavedImage]:
        """Images with the names to save them under: a name without tag means all its tags, an id means no name."""
        if not references:
            raise InvalidRequest("no image to save is named")
        selected: dict[str, list[str]] = {}
        for text in references:
            for record, tags in self._selection(text):
                names = selected.setdefault(record.id, [])
                names.extend(tag for tag in tags if tag not in names)
        return [SavedImage(record=self._records[image_id], tags=tuple(tags)) for image_id, tags in selected.items()]

    def _selection(self, text: str) -> list[tuple[ImageRecord, tuple[str, ...]]]:
        if self._is_name(text) or not self._matching(text):
            reference = parse_reference(text)
            if not reference.tag and not reference.digest:
                pairs = [
                    (record, tuple(tag for tag in record.tags if parse_reference(tag).name == reference.name))
                    for record in self.all()
                ]
                found = [(record, tags) for record, tags in pairs if tags]
                if found:
                    return found
            named = self._named(reference.with_default_tag())
            tags = (reference.canonical,) if reference.tag and not reference.digest else ()
            if not named:
                raise no_such_image(text)
            return [(record, tags) for record in named]
        return [(record, ()) for record in self._matching(text)]

    def remove(self, text: str, *, force: bool, in_use: Mapping[str, str]) -> tuple[ImageChange, ...]:
        """Docker's rules: a name is untagged, the image goes with its last name; an id takes all names if they are one.

        A forced removal of an image that a container uses takes its names only. Raises ImageNotFound, Conflict.
        """
        matching = self._matching(text)
        if not matching:
            raise no_such_image(text)
        changes: list[ImageChange] = []
        by_name = self._is_name(text)
        for record in matching:
            if by_name:
                self._remove_name(record, text, force, in_use, changes)
            else:
                self._remove_id(record, force, in_use, changes)
        return tuple(changes)

    def _is_name(self, text: str) -> bool:
        if text in self._records:
            return False
        try:
            return bool(self._named(parse_reference(text).with_default_tag()))
        except InvalidRequest:
            return False

    def _remove_name(
        self, record: ImageRecord, text: str, force: bool, in_use: Mapping[str, str], changes: list[ImageChange]
    ) -> None:
        reference = parse_reference(text).with_default_tag()
        last = len(record.tags) + len(record.digests) == 1 or record.tags == (reference.canonical,)
        user = in_use.get(record.id)
        if last and user and not force:
            raise Conflict(
                f"conflict: unable to remove repository reference {text!r} (must force) - container {user[:12]} is using its "
                f"referenced image {record.id[7:19]}"
            )
        if reference.digest:
            gone = {reference.with_digest(reference.digest).canonical}
            if not gone & set(record.digests):  # named by the digest of one platform's manifest
                gone = {digest for digest in record.digests if parse_reference(digest).name == reference.name}
        else:
            gone = {reference.canonical}
            if not any(
                tag != reference.canonical and parse_reference(tag).name == reference.name for tag in record.tags
            ):
                gone |= {digest for digest in record.digests if parse_reference(digest).name == reference.name}
        record = self._untag(record, gone, changes)
        if not record.tags and not record.digests and not user and not self._children(record):
            self._delete(record, in_use, changes)

    def _remove_id(
        self, record: ImageRecord, force: bool, in_use: Mapping[str, str], changes: list[ImageChange]
    ) -> None:
        short = record.id[7:19]
        if self._children(record):
            raise Conflict(f"conflict: unable to delete {short} (cannot be forced) - image has dependent child images")
        user = in_use.get(record.id)
        if user and not force:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - image is being used by container {user[:12]}"
            )
        if user and not record.tags and not record.digests:
            raise Conflict(
                f"conflict: unable to delete {short} (cannot be forced) - image is being used by container {user[:12]}"
            )
        if len(record.tags) > 1 and not force:
            raise Conflict(
                f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories",
                details=", ".join(parse_reference(tag).familiar for tag in record.tags),
            )
        record = self._untag(record, {*record.tags, *record.digests}, changes)
        if not user:
            self._delete(record, in_use, changes)

    def _untag(self, record: ImageRecord, gone: Iterable[str], changes: list[ImageChange]) -> ImageRecord:
        lost = set(gone)
        for reference in (*record.tags, *record.digests):
            if reference in lost:
                changes.append(ImageChange(action="untagged", subject=parse_reference(reference).familiar))
        record = _replace(
            record,
            tags=tuple(tag for tag in record.tags if tag not in lost),
            digests=tuple(digest for digest in record.digests if digest not in lost),
        )
        self._write([record])
        return record

    def _delete(self, record: ImageRecord, in_use: Mapping[str, str], changes: list[ImageChange]) -> None:
        """The image, and parents that only it kept: those without name, user and other children."""
        while True:
            del self._records[record.id]
            self._documents.delete(record.id)
            changes.append(ImageChange(action="deleted", subject=record.id))
            parent = self._records.get(record.parent)
            if parent is None or parent.tags or parent.digests or parent.id in in_use or self._children(parent):
                return
            record = parent

    def _children(self, record: ImageRecord) -> list[str]:
        return [other.id for other in self._records.values() if other.parent == record.id]

    def _write(self, changed: Sequence[ImageRecord]) -> None:
        with self._documents.transaction():
            for record in changed:
                self._documents.put(record.id, record)
        for record in changed:
            self._records[record.id] = record


def _has_digest(record: ImageRecord, reference: Reference) -> bool:
    """By the digest it was pulled with, or, in the same repository, by that of its own manifest within an index."""
    if reference.with_digest(reference.digest).canonical in record.digests:
        return True
    known_here = any(parse_reference(digest).name == reference.name for digest in record.digests)
    return known_here and any(manifest.digest == reference.digest for manifest in record.manifests)


def no_such_image(reference: str, platform: str = "") -> ImageNotFound:
    try:
        shown = parse_reference(reference).with_default_tag().familiar
    except InvalidRequest:
        shown = reference
    return ImageNotFound(f"No such image: {shown}", details=f"for the platform {platform}" if platform else "")
