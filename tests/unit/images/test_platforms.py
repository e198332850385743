"""`--platform` and what is taken without it."""

from __future__ import annotations

import pytest

from silo.errors import InvalidRequest
from silo.images.documents import Descriptor, RawPlatform
from silo.images.platforms import PlatformWish, parse_platform, same_slot
from silo.images.transport import choose_platform
from silo.model.platform import Platform


@pytest.mark.parametrize(
    ("text", "wish"),
    [
        ("", PlatformWish()),
        ("linux", PlatformWish(os="linux")),
        ("Linux/x86_64", PlatformWish(os="linux", architecture="amd64")),
        ("linux/arm64/v8", PlatformWish(os="linux", architecture="arm64", variant="v8")),
        ("arm64", PlatformWish(os="linux", architecture="arm64")),
        ("windows/amd64:10.0.20348", PlatformWish(os="windows", architecture="amd64", os_version="10.0.20348")),
    ],
)
def test_wishes(text: str, wish: PlatformWish) -> None:
    assert parse_platform(text) == wish


@pytest.mark.parametrize(
    "text", ["linux/", "/", "a/b/c/d", "plan9/amd64", "toaster", "linux/amd64:ltsc", "linux/amd64:1.2.3.4.5", "x y"]
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid platform"):
        parse_platform(text)


def test_acceptance() -> None:
    windows = Platform(os="windows", architecture="amd64", os_version="10.0.20348.169")
    assert parse_platform("windows/amd64:10.0.20348").accepts(windows)
    assert not parse_platform("windows/amd64:10.0.2034").accepts(windows)
    assert parse_platform("linux/arm64/v8").accepts(Platform(os="linux", architecture="arm64"))
    assert not parse_platform("linux/arm/v6").accepts(Platform(os="linux", architecture="arm"))
    assert same_slot(
        Platform(os="linux", architecture="arm64"), Platform(os="linux", architecture="arm64", variant="v8")
    )
    assert not same_slot(Platform(os="linux", architecture="amd64"), windows)


def entry(mark: str, os: str, architecture: str, version: str = "", **annotations: str) -> Descriptor:
    return Descriptor(
        digest="sha256:" + mark * 64,
        size=1,
        platform=RawPlatform(os=os, architecture=architecture, os_version=version or None),
        annotations={key.replace("_", "."): value for key, value in annotations.items()} or None,
    )


def chosen(entries: list[Descriptor], wish: str = "") -> str | None:
    found = choose_platform(entries, parse_platform(wish))
    return found.digest[-1] if found else None


def test_choice_from_an_index() -> None:
    attestation = entry("9", "linux", "amd64")
    attestation.annotations = {"vnd.docker.reference.type": "attestation-manifest"}
    entries = [
        attestation,
        entry("0", "unknown", "unknown"),
        entry("1", "linux", "arm64"),
        entry("2", "windows", "amd64", "10.0.17763.1"),
        entry("3", "windows", "amd64", "10.0.20348.5"),
        entry("4", "windows", "amd64", "10.0.20348.40"),
        entry("5", "linux", "amd64"),
    ]
    assert chosen(entries) == "5"
    assert chosen(entries[:-1]) == "4"
    assert chosen(entries, "windows/amd64:10.0.17763") == "2"
    assert chosen(entries, "linux/arm64") == "1"
    assert chosen(entries, "linux/s390x") is None
    assert chosen(entries[:3]) is None


@pytest.mark.parametrize(
    ("newest", "wish", "expected"),
    [
        (20348, "", "2"),
        (17763, "", "1"),
        (26100, "", "3"),
        (14393, "", None),
        (20348, "windows/amd64:10.0.26100", "3"),
        (20348, "windows/amd64", "2"),
    ],
)
def test_windows_is_taken_up_to_our_build_unless_a_version_is_wished_for(
    newest: int, wish: str, expected: str | None
) -> None:
    entries = [
        entry("1", "windows", "amd64", "10.0.17763.9999"),
        entry("3", "windows", "amd64", "10.0.26100.1"),
        entry("2", "windows", "amd64", "10.0.20348.9999"),
    ]
    found = choose_platform(entries, parse_platform(wish), newest_build=newest)
    assert (found.digest[-1] if found else None) == expected
