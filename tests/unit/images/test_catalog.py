"""Names: what a reference means, and Docker's rules for moving and removing names."""

from __future__ import annotations

import msgspec
import pytest

from silo.errors import Conflict, ImageNotFound, InvalidRequest
from silo.images.catalog import Catalog
from silo.images.records import ImageRecord, ManifestRecord
from silo.model.image import ImageConfig
from silo.model.platform import Platform
from tests.support.documents import MemoryDocuments

LINUX = Platform(os="linux", architecture="amd64")
WINDOWS = Platform(os="windows", architecture="amd64", os_version="10.0.20348.1")
DIGEST = "sha256:" + "d" * 64


def record(
    mark: str, *tags: str, platform: Platform = LINUX, parent: str = "", digests: tuple[str, ...] = ()
) -> ImageRecord:
    return ImageRecord(
        id="sha256:" + mark.ljust(64, "0"),
        config_size=1,
        platform=platform,
        config=ImageConfig(),
        layers=(),
        manifests=(),
        tags=tuple(f"docker.io/library/{tag}" for tag in tags),
        digests=digests,
        parent=parent,
        created=f"2024-01-0{len(mark)}",
    )


@pytest.fixture
def rows() -> MemoryDocuments[ImageRecord]:
    return MemoryDocuments(ImageRecord)


@pytest.fixture
def catalog(rows: MemoryDocuments[ImageRecord]) -> Catalog:
    return Catalog(rows)


def actions(catalog: Catalog, reference: str, **options: object) -> list[str]:
    force = bool(options.get("force"))
    in_use = options.get("in_use") or {}
    assert isinstance(in_use, dict)
    return [f"{change.action} {change.subject}" for change in catalog.remove(reference, force=force, in_use=in_use)]


def test_what_a_reference_means(catalog: Catalog) -> None:
    first = catalog.register(record("aa", "box:latest", "box:1", digests=(f"docker.io/library/box@{DIGEST}",)))
    second = catalog.register(record("ab", "abba:latest"))
    for reference in (
        "box",
        "box:1",
        "docker.io/library/box",
        first.id,
        first.id[7:],
        "aa",
        "sha256:aa",
        f"box@{DIGEST}",
        f"box:x@{DIGEST}",
    ):
        assert catalog.get(reference) == first, reference
    assert catalog.get("ab") == second and catalog.get("abba") == second
    assert catalog.find("box:2") is None and catalog.find("f") is None and catalog.find(f"abba@{DIGEST}") is None
    with pytest.raises(InvalidRequest, match="ambiguous"):
        catalog.find("a")
    with pytest.raises(InvalidRequest, match="invalid reference"):
        catalog.find("Box")
    with pytest.raises(ImageNotFound, match="No such image: nope:latest"):
        catalog.get("nope")


def test_a_name_goes_before_an_id(catalog: Catalog) -> None:
    catalog.register(record("fade"))
    named = catalog.register(record("b", "fade:latest"))
    assert catalog.get("fade") == named and catalog.get("sha256:fade").id.startswith("sha256:fade")


def test_platforms_share_a_name(catalog: Catalog) -> None:
    windows = catalog.register(record("a", "go:latest", platform=WINDOWS))
    assert catalog.get("go") == windows
    linux = catalog.register(record("b", "go:latest"))
    assert catalog.get("go") == linux and catalog.get("go", platform="windows/amd64") == windows
    assert catalog.find("go", platform="linux/arm64") is None
    assert catalog.get("go", platform="windows/amd64:10.0.20348") == windows
    assert sorted(actions(catalog, "go")) == [
        f"deleted {windows.id}",
        f"deleted {linux.id}",
        *["untagged go:latest"] * 2,
    ]
    assert catalog.all() == ()


def test_a_tag_moves_and_leaves_the_old_image_dangling(catalog: Catalog, rows: MemoryDocuments[ImageRecord]) -> None:
    old = catalog.register(record("a", "box:latest"))
    new = catalog.register(record("b", "box:latest"))
    assert catalog.get("box") == new and catalog.get(old.id).tags == ()
    catalog.tag(old.id, "box:old")
    assert catalog.get("box:old").id == old.id
    again = Catalog(rows)
    assert again.get("box:old").id == old.id and again.get("box").id == new.id
    with pytest.raises(ImageNotFound):
        catalog.tag("absent", "x")


def test_registering_again_adds_names_and_manifests(catalog: Catalog) -> None:
    pulled = ManifestRecord(digest=DIGEST, media_type="m", size=1, layers=())
    made = ManifestRecord(digest="sha256:" + "e" * 64, media_type="m", size=1, layers=(), made_here=True)
    catalog.register(msgspec.structs.replace(record("a", "x:1"), manifests=(pulled,)))
    merged = catalog.register(msgspec.structs.replace(record("a", "x:2"), manifests=(made,)))
    assert len(merged.tags) == 2 and merged.manifests == (pulled,)


def test_removal_by_name(catalog: Catalog) -> None:
    image = catalog.register(record("a", "x:1", "x:2", digests=(f"docker.io/library/x@{DIGEST}",)))
    assert actions(catalog, "x:1") == ["untagged x:1"]
    with pytest.raises(Conflict, match="must force"):
        actions(catalog, "x:2", in_use={image.id: "c" * 64})
    assert actions(catalog, "x:2") == ["untagged x:2", f"untagged x@{DIGEST}", f"deleted {image.id}"]
    with pytest.raises(ImageNotFound):
        actions(catalog, "x:2")


def test_a_used_image_loses_a_name_of_several(catalog: Catalog) -> None:
    image = catalog.register(record("a", "x:1", "x:2"))
    assert actions(catalog, "x:1", in_use={image.id: "c" * 64}) == ["untagged x:1"]


def test_removal_by_id(catalog: Catalog) -> None:
    image = catalog.register(record("a", "x:1", "y:1"))
    with pytest.raises(Conflict, match="referenced in multiple repositories"):
        actions(catalog, image.id)
    assert actions(catalog, image.id, force=True) == ["untagged x:1", "untagged y:1", f"deleted {image.id}"]
    single = catalog.register(record("b", "x:1"))
    assert actions(catalog, "b0") == ["untagged x:1", f"deleted {single.id}"]


def test_forced_removal_of_a_used_image_takes_names_only(catalog: Catalog) -> None:
    image = catalog.register(record("a", "x:1"))
    in_use = {image.id: "c" * 64}
    with pytest.raises(Conflict, match="being used by container cccccccccccc"):
        actions(catalog, image.id, in_use=in_use)
    assert actions(catalog, image.id, force=True, in_use=in_use) == ["untagged x:1"]
    assert catalog.get(image.id).tags == ()
    with pytest.raises(Conflict, match="cannot be forced"):
        actions(catalog, image.id, force=True, in_use=in_use)
    assert actions(catalog, image.id) == [f"deleted {image.id}"]


def test_children_keep_their_parents_and_take_them_along(catalog: Catalog) -> None:
    base = catalog.register(record("a", "base:1"))
    middle = catalog.register(record("b", "middle:1", parent=base.id))
    top = catalog.register(record("c", "top:1", parent=middle.id))
    with pytest.raises(Conflict, match="dependent child images"):
        actions(catalog, base.id, force=True)
    assert actions(catalog, "middle:1") == ["untagged middle:1"]
    assert catalog.get(middle.id).tags == ()
    assert actions(catalog, "top:1") == ["untagged top:1", f"deleted {top.id}", f"deleted {middle.id}"]
    assert [image.id for image in catalog.all()] == [base.id]


def test_a_parent_in_use_stays(catalog: Catalog) -> None:
    base = catalog.register(record("a"))
    top = catalog.register(record("c", "top:1", parent=base.id))
    assert actions(catalog, "top:1", in_use={base.id: "c" * 64}) == ["untagged top:1", f"deleted {top.id}"]
    assert catalog.get(base.id).id == base.id
