"""What a Windows silo that is begun before anybody asks has to be like, so that a container can take it over while it runs."""

from __future__ import annotations

from pathlib import Path

import msgspec

from silo.model.container import Namespaces, Resources
from silo.model.mount import MountKind
from silo.model.platform import PersonalityName
from silo.model.runtime import ContainerPlan, LaunchPlan, ProcessPlan, Rootfs

COMPUTER_NAME = "SILO_COMPUTER_NAME"


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """All of a plan that cannot be changed once pid 1 runs."""

    layers: tuple[Path, ...]
    volatile: bool
    process: ProcessPlan
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    shm_size_bytes: int
    auto_remove: bool


def find_recipe(plan: ContainerPlan) -> Recipe | None:
    """None for a plan that a silo made ahead cannot serve."""
    resources = plan.resources
    plain = (
        plan.personality == PersonalityName.WINDOWS
        and plan.launch is not None
        and not plan.process.tty
        and plan.namespaces == Namespaces()
        and plan.network == "private"
        and plan.seccomp == "default"
        and not plan.rootfs.size_bytes
        and not (plan.privileged or plan.sysctls or plan.init or plan.rootfs.read_only or plan.domainname)
        and not (resources.ulimits or resources.devices or resources.device_cgroup_rules or resources.oom_score_adj)
        and all(mount.kind is not MountKind.TMPFS for mount in plan.mounts)
    )
    if not plain:
        return None
    env = tuple(word for word in plan.process.env if not word.startswith(f"{COMPUTER_NAME}="))
    return Recipe(
        layers=plan.rootfs.layers,
        volatile=plan.rootfs.volatile,
        process=msgspec.structs.replace(plan.process, env=env, console_size=None),
        masked_paths=plan.masked_paths,
        readonly_paths=plan.readonly_paths,
        shm_size_bytes=resources.shm_size_bytes,
        auto_remove=plan.auto_remove,
    )


def build_warm_plan(recipe: Recipe, container_id: str, directory: Path) -> ContainerPlan:
    name = f"W{container_id[:10].upper()}"
    env = (*recipe.process.env, f"{COMPUTER_NAME}={name}")
    return ContainerPlan(
        id=container_id,
        personality=PersonalityName.WINDOWS,
        image_id="",
        rootfs=Rootfs(layers=recipe.layers, scratch=directory, volatile=recipe.volatile),
        process=msgspec.structs.replace(recipe.process, env=env),
        launch=LaunchPlan(command_line="", directory=""),
        directory=directory,
        hostname=name,
        masked_paths=recipe.masked_paths,
        readonly_paths=recipe.readonly_paths,
        resources=Resources(shm_size_bytes=recipe.shm_size_bytes),
        # the pipe can be closed later, not made
        open_stdin=True,
        auto_remove=recipe.auto_remove,
    )


def computer_name(plan: ContainerPlan) -> str:
    for word in plan.process.env:
        if word.startswith(f"{COMPUTER_NAME}="):
            return word.partition("=")[2]
    return plan.hostname.upper()[:15]
