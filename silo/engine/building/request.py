"""What a client asks of a build."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from silo.model.container import Resources
from silo.model.platform import Isolation


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    username: str = ""
    password: str = ""


class BuildRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`docker build`. Credentials (by registry) are used for pulls and never stored."""

    dockerfile: str = "Dockerfile"
    remote: str = ""
    """A URL to take the context or the Dockerfile from, instead of the request's body."""
    tags: tuple[str, ...] = ()
    target: str = ""
    build_args: dict[str, str] = {}
    labels: dict[str, str] = {}
    platform: str = ""
    no_cache: bool = False
    pull: bool = False
    remove: bool = True
    """Containers of steps that succeeded are removed."""
    force_remove: bool = False
    """Those of a step that failed are, too."""
    quiet: bool = False
    cache_from: tuple[str, ...] = ()
    isolation: Isolation = Isolation.PROCESS
    network_mode: str = "default"
    resources: Resources = Resources()
    extra_hosts: tuple[str, ...] = ()
    seccomp: str = "default"
    credentials: Mapping[str, Credentials] = {}
