"""Which layers of a Windows image are Microsoft's base, and which names mean a base. Pure.

Silo runs its own base in the place of nanoserver, servercore, server or windows, and neither fetches nor runs theirs: their licence
allows Windows hosts only. Everything above the base is the application's.

    history     nanoserver: `Apply image 10.0.…`; servercore and larger: that and `Install update 10.0.…`
    media type  foreign (Docker) and nondistributable (OCI) layers at the bottom are the base's
    names       mcr.microsoft.com/windows/{nanoserver,servercore,server}, mcr.microsoft.com/windows; before 2018 microsoft/…

Sources: MicrosoftDocs/Virtualization-Documentation (base images, version compatibility); OCI image-spec config.md (os.version).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from silo.errors import InvalidRequest, Unsupported
from silo.images.documents import RawImage
from silo.images.references import Reference

_BASE_STEP = re.compile(r"^(?:Apply image|Install update) (?=\S)")
_VERSION = re.compile(r"10\.0\.([0-9]{1,6})(?:\.[0-9]{1,9})?")
_REPOSITORIES = {
    "mcr.microsoft.com/windows/nanoserver": "nanoserver",
    "mcr.microsoft.com/windows/servercore": "servercore",
    "mcr.microsoft.com/windows/server": "server",
    "mcr.microsoft.com/windows": "windows",
    "docker.io/microsoft/nanoserver": "nanoserver",
    "docker.io/microsoft/windowsservercore": "servercore",
}
_BUILDS = {
    "ltsc2016": 14393,
    "sac2016": 14393,
    "1607": 14393,
    "1709": 16299,
    "1803": 17134,
    "1809": 17763,
    "ltsc2019": 17763,
    "1903": 18362,
    "1909": 18363,
    "2004": 19041,
    "20h2": 19042,
    "ltsc2022": 20348,
    "23h2": 25398,
    "ltsc2025": 26100,
}
_ARCHITECTURE = "-amd64"
_CONTAINER_USER = "containeruser"


class WindowsBase(msgspec.Struct, frozen=True, kw_only=True):
    """The base of an image: `layers` is the number of its lowest layers that are the base's."""

    family: str
    """nanoserver, servercore, server or windows; by the image's own words, where its name does not tell."""
    os_version: str
    layers: int


class KnownBase(msgspec.Struct, frozen=True, kw_only=True):
    """A name that means a base: needs no registry to be run."""

    family: str
    build: int
    """0 where the tag names none."""


def find_base(raw: RawImage, media_types: Sequence[str], *, told: int | None = None) -> WindowsBase | None:
    """The base of a Windows image, or None where nothing says that it has one.

    `media_types`: of its packed layers, lowest first. `told`: a user's word for how many of them are the base's.

    Raises InvalidRequest when the word does not fit.
    """
    if raw.os != "windows":
        return None
    if told is not None and told > len(media_types):
        raise InvalidRequest(f"the image has {len(media_types)} layers, of which {told} cannot be its base's")
    count = max(_foreign(media_types), _applied(raw)) if told is None else told
    count = min(count, len(media_types))
    if not count:
        return None
    user = ((raw.config.user if raw.config else None) or "").lower()
    small = count == 1 and user in ("", _CONTAINER_USER)
    return WindowsBase(family="nanoserver" if small else "servercore", os_version=raw.os_version or "", layers=count)


def _foreign(media_types: Sequence[str]) -> int:
    return next((number for number, kind in enumerate(media_types) if not is_foreign(kind)), len(media_types))


def is_foreign(media_type: str) -> bool:
    """A layer that registries are not to distribute."""
    return "foreign" in media_type or "nondistributable" in media_type


def _applied(raw: RawImage) -> int:
    count = 0
    for entry in raw.history or ():
        if entry.empty_layer:
            continue
        if not _BASE_STEP.match(entry.created_by or ""):
            break
        count += 1
    return count


def find_known_base(reference: Reference) -> KnownBase | None:
    """What a name means; None for a name that is no base's, for a digest, and for another machine's."""
    family = _REPOSITORIES.get(reference.name)
    if family is None or reference.digest:
        return None
    tag = reference.tag.lower()
    if tag.endswith(("-arm64", "-arm")):
        return None
    tag = tag.removesuffix(_ARCHITECTURE)
    exact = _VERSION.fullmatch(tag)
    if exact:
        return KnownBase(family=family, build=int(exact[1]))
    if tag in ("", "latest"):
        return KnownBase(family=family, build=0)
    # ltsc2022, and the same with an update's number: ltsc2022-kb5031364
    word = tag.partition("-")[0]
    return KnownBase(family=family, build=_BUILDS[word]) if word in _BUILDS else None


def base_repository(family: str) -> str:
    """The repository that a base of this family comes from, as host/path."""
    return next(name for name, known in _REPOSITORIES.items() if known == family)


def build_of(os_version: str) -> int:
    """The build of `10.0.20348.2700`, 20348; 0 where it tells none."""
    found = _VERSION.fullmatch(os_version)
    return int(found[1]) if found else 0


def check_build(what: str, build: int, ours: str) -> None:
    """Raises Unsupported for a base that is newer than the one that runs in its place (`ours`: its os.version)."""
    if build > build_of(ours):
        raise Unsupported(
            f"{what} is for Windows build {build}, newer than Silo's base, which is build {build_of(ours)}",
            hint=f"take a tag of an older build such as ltsc2022, or insist: --platform windows/amd64:10.0.{build}",
        )
