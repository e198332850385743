"""Choose among platforms: what `--platform` asks for, and what is taken when nothing is asked for.

linux/amd64   windows   linux/arm64/v8   windows/amd64:10.0.20348
"""

from __future__ import annotations

import os
import re

import msgspec

from silo.errors import InvalidRequest
from silo.model.platform import Platform

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "armhf": "arm",
    "armel": "arm",
    "i386": "386",
}
_SYSTEMS = ("linux", "windows", "darwin", "freebsd")
_PART = re.compile(r"[A-Za-z0-9_-]{1,32}")
_VERSION = re.compile(r"[0-9]+(?:\.[0-9]+){0,3}")
# The variant that an architecture has when none is told.
_USUAL_VARIANT = {"arm64": "v8", "arm": "v7"}


class PlatformWish(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for; an empty field accepts anything."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""

    def accepts(self, platform: Platform) -> bool:
        return (
            self.os in ("", platform.os)
            and self.architecture in ("", platform.architecture)
            and (not self.variant or self.variant == _variant(platform))
            and (not self.os_version or f"{platform.os_version}.".startswith(f"{self.os_version}."))
        )


def parse_platform(untrusted_text: str) -> PlatformWish:
    """Docker's `os[/architecture[/variant]][:os.version]`, or an architecture alone. Raises InvalidRequest."""
    if not untrusted_text:
        return PlatformWish()
    text, colon, version = untrusted_text.partition(":")
    if colon and not _VERSION.fullmatch(version):
        raise _invalid(untrusted_text, "after the colon a version such as 10.0.20348 is expected")
    parts = text.split("/")
    if len(parts) > 3 or not all(_PART.fullmatch(part) for part in parts):
        raise _invalid(untrusted_text, "expected os/architecture[/variant]")
    words = [part.lower() for part in parts]
    if len(words) == 1 and words[0] not in _SYSTEMS:
        architecture = _ARCHITECTURES.get(words[0], words[0])
        if architecture not in ("amd64", "arm64", "arm", "386", "riscv64", "ppc64le", "s390x"):
            raise _invalid(untrusted_text, f"{words[0]!r} is neither an operating system nor an architecture")
        return PlatformWish(os="linux", architecture=architecture)
    if words[0] not in _SYSTEMS:
        raise _invalid(untrusted_text, f"unknown operating system {words[0]!r}")
    architecture = _ARCHITECTURES.get(words[1], words[1]) if len(words) > 1 else ""
    return PlatformWish(
        os=words[0], architecture=architecture, variant=words[2] if len(words) > 2 else "", os_version=version
    )


def host_architecture() -> str:
    machine = os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def preference(platform: Platform) -> int:
    """Lower is better: Linux for this machine, Windows for this machine, everything else."""
    if platform.architecture == host_architecture():
        return {"linux": 0, "windows": 1}.get(platform.os, 2)
    return 3


def same_slot(one: Platform, other: Platform) -> bool:
    """Whether a tag can point to only one of the two: images of different platforms may share a tag."""
    return (one.os, one.architecture, _variant(one)) == (other.os, other.architecture, _variant(other))


def _variant(platform: Platform) -> str:
    return platform.variant or _USUAL_VARIANT.get(platform.architecture, "")


def _invalid(text: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"invalid platform {text[:80]!r}", details=why)
