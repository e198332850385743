"""Images: what the engine knows of one, independent of where its bytes lie."""

from __future__ import annotations

from pathlib import Path

import msgspec

from silo.model.platform import Platform

BASE_REFERENCE_LABEL = "com.silo.base.reference"
"""On an image made on Silo's Windows base: which base it takes the place of."""


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True):
    """A health probe. `test` as in Docker: ("NONE",), ("CMD", …), ("CMD-SHELL", text), or () to inherit."""

    test: tuple[str, ...] = ()
    interval_s: float = 30.0
    timeout_s: float = 30.0
    start_period_s: float = 0.0
    start_interval_s: float = 5.0
    retries: int = 3


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a container of this image runs unless told otherwise (OCI image config, plus Docker's additions)."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    exposed_ports: tuple[str, ...] = ()
    """Such as `80/tcp`."""
    volumes: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    stop_signal: str = ""
    stop_timeout_s: int | None = None
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] = ()
    args_escaped: bool = False
    on_build: tuple[str, ...] = ()


class HistoryEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One step of how an image was made; `empty_layer` steps changed metadata only."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False
    size_bytes: int = 0


class ImageBase(msgspec.Struct, frozen=True, kw_only=True):
    """The Windows base that an image was made on, and what runs in its place."""

    family: str
    """nanoserver, servercore, server or windows."""
    os_version: str
    layers: int
    """How many of the image's lowest layers are the base's; they are not here."""
    substitute: str
    """The id of Silo's base."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """One image in the local store.

    `id` is the digest of its config (`sha256:…`); `layers` are diff ids, lowest first; `layer_paths` are the unpacked
    read-only directories, lowest first. Where Silo's base takes the place of Windows' (`base`), its directories come first, and
    there are not as many as there are diff ids.
    """

    id: str
    platform: Platform
    config: ImageConfig
    created: str = ""
    author: str = ""
    comment: str = ""
    layers: tuple[str, ...] = ()
    layer_paths: tuple[Path, ...] = ()
    layer_sizes: tuple[int, ...] = ()
    """Bytes of the files in each of those."""
    size_bytes: int = 0
    tags: tuple[str, ...] = ()
    """Familiar references, such as `alpine:3.20`."""
    digests: tuple[str, ...] = ()
    """References by digest, such as `alpine@sha256:…`."""
    history: tuple[HistoryEntry, ...] = ()
    os_features: tuple[str, ...] = ()
    parent: str = ""
    """The image this one was committed from, while that is in the store."""
    base: ImageBase | None = None
    """None where the image's own layers run."""
