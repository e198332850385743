"""The registry of Windows images and containers, for people."""

from __future__ import annotations

from typing import Protocol

import msgspec


class RegistrySource(msgspec.Struct, frozen=True, kw_only=True):
    """Where a registry comes from: a silo's files by name (`system.reg`, `user.reg`, `userdef.reg`), or one hive."""

    files: dict[str, bytes]
    hive: str = ""
    """The file name of a hive, which says where it belongs; `files` holds it alone."""


class RegistryViewer(Protocol):
    """What a person sees of a Windows registry. Pure; blocks for a moment.

    `key` is in the user's words (`HKLM\\Software\\App`), empty for all. Everything raises InvalidRequest (for what is damaged,
    too) and NotFound.
    """

    def query(self, source: RegistrySource, key: str, *, value: str | None, recursive: bool) -> str:
        """As `reg query` prints it; `value` "" is the default one."""

    def export(self, source: RegistrySource, key: str) -> str:
        """As `reg export` writes it, in lines that end in LF."""

    def diff(self, before: RegistrySource, after: RegistrySource, key: str) -> str:
        """What makes one registry into another, in the form of `export`; empty when nothing does. Both are of one kind."""
