"""The two independent questions about a container: whose programs (personality), and behind which boundary (isolation)."""

from __future__ import annotations

import enum

import msgspec


class PersonalityName(enum.StrEnum):
    """Whose programs a container runs."""

    LINUX = "linux"
    WINDOWS = "windows"


class Isolation(enum.StrEnum):
    """Docker for Windows' words; the API and CLI take `vm` as an alias of hyperv and `default` for the daemon's value."""

    PROCESS = "process"
    HYPERV = "hyperv"


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """An image's platform, as in the OCI image specification."""

    os: str
    architecture: str
    os_version: str = ""
    variant: str = ""

    def __str__(self) -> str:
        text = f"{self.os}/{self.architecture}"
        if self.variant:
            text += f"/{self.variant}"
        return f"{text}:{self.os_version}" if self.os_version else text
