"""Which layers of a Windows image are Microsoft's, and which names mean a base."""

from __future__ import annotations

import msgspec
import pytest

from silo.errors import InvalidRequest, Unsupported
from silo.images.documents import RawImage
from silo.images.references import parse_reference
from silo.images.windows_bases import (
    KnownBase,
    WindowsBase,
    base_repository,
    build_of,
    check_build,
    find_base,
    find_known_base,
)

OURS = "10.0.20348.2700"
GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
FOREIGN = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"


def image(*steps: str, user: str = "", os: str = "windows") -> RawImage:
    """Steps that begin with # are empty."""
    document = {
        "os": os,
        "os.version": "10.0.17763.5",
        "config": {"User": user},
        "history": [{"created_by": step.lstrip("#"), "empty_layer": step.startswith("#")} for step in steps],
    }
    return msgspec.json.decode(msgspec.json.encode(document), type=RawImage)


@pytest.mark.parametrize(
    ("raw", "types", "family", "layers"),
    [
        (image("Apply image 10.0.17763.5", "cmd /S /C x", user="ContainerUser"), [GZIP] * 2, "nanoserver", 1),
        (image("Apply image 10.0.17763.1", "Install update 10.0.17763.5", "x"), [GZIP] * 3, "servercore", 2),
        (image("#label", "Apply image 1607-RTM-amd64", "Install update 10.0", "x"), [GZIP] * 3, "servercore", 2),
        # the history was squashed away: the types tell
        (image(), [FOREIGN, FOREIGN, GZIP], "servercore", 2),
        (image(), [NONDISTRIBUTABLE, GZIP], "nanoserver", 1),
        (image("Apply image 10.0.17763.5", user="ContainerAdministrator"), [GZIP], "servercore", 1),
        # the whole image is a base
        (image("Apply image 10.0.17763.5"), [FOREIGN], "nanoserver", 1),
    ],
)
def test_a_base_is_found(raw: RawImage, types: list[str], family: str, layers: int) -> None:
    assert find_base(raw, types) == WindowsBase(family=family, os_version="10.0.17763.5", layers=layers)


@pytest.mark.parametrize(
    ("raw", "types"),
    [
        (image("cmd /S /C echo Apply image 10.0"), [GZIP]),
        (image("silo base build windows (0123)", "x"), [GZIP] * 2),
        (image("x", "Apply image 10.0.17763.5"), [GZIP] * 2),
        (image("Apply image 10.0.17763.5", os="linux"), [GZIP]),
        (image(), [GZIP, FOREIGN]),
        (image(), []),
    ],
)
def test_no_base(raw: RawImage, types: list[str]) -> None:
    assert find_base(raw, types) is None


def test_a_users_word_goes_before_what_the_image_says() -> None:
    raw = image("Apply image 10.0.17763.5", "x")
    found = find_base(raw, [GZIP] * 3, told=2)
    assert found is not None and found.layers == 2
    assert find_base(raw, [GZIP] * 3, told=0) is None
    with pytest.raises(InvalidRequest, match="has 3 layers, of which 4"):
        find_base(raw, [GZIP] * 3, told=4)


@pytest.mark.parametrize(
    ("text", "family", "build"),
    [
        ("mcr.microsoft.com/windows/nanoserver:ltsc2022", "nanoserver", 20348),
        ("mcr.microsoft.com/windows/nanoserver:LTSC2022-amd64", "nanoserver", 20348),
        ("mcr.microsoft.com/windows/servercore:ltsc2019", "servercore", 17763),
        ("mcr.microsoft.com/windows/servercore:10.0.17763.1234", "servercore", 17763),
        ("mcr.microsoft.com/windows/server:10.0.20348.1-amd64", "server", 20348),
        ("mcr.microsoft.com/windows/server:ltsc2022-KB5031364", "server", 20348),
        ("mcr.microsoft.com/windows:20H2", "windows", 19042),
        ("mcr.microsoft.com/windows/nanoserver", "nanoserver", 0),
        ("microsoft/windowsservercore:1803", "servercore", 17134),
    ],
)
def test_names_of_bases(text: str, family: str, build: int) -> None:
    assert find_known_base(parse_reference(text)) == KnownBase(family=family, build=build)


@pytest.mark.parametrize(
    "text",
    [
        "windows:latest",
        "mcr.microsoft.com/windows/servercore/iis:latest",
        "mcr.microsoft.com/windows/nanoserver:nightly",
        "mcr.microsoft.com/windows/nanoserver:10.0.17763.1234-arm64",
        "mcr.microsoft.com/windows/nanoserver:10.0.17763.1234-anything",
        "mcr.microsoft.com/windows/nanoserver@sha256:" + "a" * 64,
        "mirror.example/windows/nanoserver:ltsc2022",
    ],
)
def test_other_names(text: str) -> None:
    assert find_known_base(parse_reference(text)) is None


def test_every_family_has_a_repository() -> None:
    assert base_repository("nanoserver") == "mcr.microsoft.com/windows/nanoserver"
    assert base_repository("windows") == "mcr.microsoft.com/windows"


@pytest.mark.parametrize(
    ("text", "build"),
    [(OURS, 20348), ("10.0.17763", 17763), ("", 0), ("6.1.7601", 0), ("10.0.x", 0), ("10.0.1.2.3", 0)],
)
def test_builds(text: str, build: int) -> None:
    assert build_of(text) == build


def test_a_newer_build_is_refused_by_name() -> None:
    check_build("x", 20348, OURS)
    check_build("x", 0, OURS)
    with pytest.raises(
        Unsupported, match=r"x is for Windows build 26100, newer than Silo's base.*--platform windows/amd64"
    ):
        check_build("x", 26100, OURS)
