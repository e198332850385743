"""Whose programs: a user's words become plans."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from silo.model.container import ContainerConfig, Resources
from silo.model.image import Image
from silo.model.mount import PlannedMount
from silo.model.platform import Isolation, PersonalityName
from silo.model.runtime import (
    LaunchPlan,
    ProcessPlan,
    ScratchOwner,
)


class Personality(Protocol):
    """Whose programs: turns a user's words into plans. Pure; no I/O."""

    name: PersonalityName

    def check(self, config: ContainerConfig, image: Image) -> tuple[str, ...]:
        """Refuse what this personality cannot do (InvalidRequest, Unsupported); answers warnings."""

    def check_resources(self, resources: Resources, isolation: Isolation) -> tuple[str, ...]:
        """The part of `check` that an update needs as well."""

    def limits(self, resources: Resources, isolation: Isolation) -> Resources:
        """A user's limits as the kernel has them, for plans and updates of a running container."""

    def plan_main(
        self, config: ContainerConfig, image: Image, *, hostname: str, container_id: str
    ) -> tuple[ProcessPlan, LaunchPlan | None]: ...

    def scratch_owner(self, config: ContainerConfig, image: Image) -> ScratchOwner | None:
        """Whom the scratch must belong to before the first start (Wine refuses a prefix of another user)."""

    def describe_command(self, config: ContainerConfig, image: Image) -> tuple[str, tuple[str, ...]]:
        """(path, args) as `inspect` shows them."""

    def plan_exec(
        self, config: ContainerConfig, image: Image, request: ExecRequest, *, hostname: str
    ) -> ProcessPlan | LaunchPlan: ...

    def map_path(self, path: str, *, working_dir: str = "") -> str:
        """A path in the container's words → absolute POSIX path in its Linux root (`C:\\data` → /…/drive_c/data)."""

    def plan_special_mounts(self, files: Mapping[str, Path]) -> tuple[PlannedMount, ...]:
        """Where `hosts`, `hostname`, `resolv.conf` (keys) go."""

    def default_masked_paths(self) -> tuple[str, ...]: ...
    def default_readonly_paths(self) -> tuple[str, ...]: ...
    def default_stop_signal(self) -> int: ...
    def default_stop_timeout_s(self) -> int: ...
    def health_command(self, test: tuple[str, ...], image: Image) -> tuple[str, ...]:
        """("CMD-SHELL", text) → the program and arguments to execute."""


class ExecRequest(msgspec.Struct, frozen=True, kw_only=True):
    """`docker exec`."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    tty: bool = False
    privileged: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = True
    attach_stderr: bool = True
    detach_keys: str = ""
    console_size: tuple[int, int] | None = None
