"""Containers that are begun ahead of their order: all of them runs that does not hang on who asks, and waits.

    Windows   the silo: Wine's services and the launcher (windows.py); parked: its main program too, stopped at its entry point
    Linux     the container as crun makes it, whose process waits and becomes the program that it is told (silo/linux/entry)

A template of an image holds such a container (`warm_ahead`), and the pool begins it in a clone (`begin_ahead`). What is begun
knows nothing of its container: name, addresses, special files, folders, limits, arguments and environment are given it by
`dress_ahead`, after the machine has been reseeded; `find_ahead` says what can be begun for a plan, and is equal for all plans
that it serves.

The template's scratch is kept, and a clone gets a copy of it, which becomes the container's: what was written by then, what the
container writes, and the registry all lie on it, and a later cold start finds a scratch like any other.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from silo.errors import GuestError
from silo.isolation.seccomp import SeccompSource
from silo.isolation.vm.guest_spec import MAIN, build_early_spec, folders_of, limits, read_special_files, special_files
from silo.isolation.vm.machine import VirtualMachine
from silo.isolation.vm.programs import GuestProgram
from silo.isolation.vm.session import FILES, FOLDERS, GuestSession, root_mounts
from silo.isolation.vm.template import Warm
from silo.isolation.vm.warming import warm_linux
from silo.isolation.vm.windows import begin_silo, exercise, own_prefix, park_program
from silo.isolation.warm_recipe import build_warm_plan, computer_name, find_recipe
from silo.model.container import Namespaces, Resources
from silo.model.mount import MountKind, PlannedMount
from silo.model.platform import PersonalityName
from silo.model.runtime import ContainerPlan, LaunchPlan, Rootfs

_CONNECT_LIMIT_S = 300.0
# nowhere: the special files of what is begun have no contents on the host
_NO_DIRECTORY = Path("/ahead")
PARKED_NAME = "SILO00PARKED"
"""Of the computer, while a program is parked: another one of the same length can take its place."""
_MAXIMUM_WORDS = 500_000
"""Characters of arguments and environment: what the process that waits can surely be told."""


def find_ahead(plan: ContainerPlan) -> ContainerPlan | None:
    """The plan of what can be begun for containers like this one. None for one that cannot be served by it."""
    if plan.personality is PersonalityName.WINDOWS:
        return _find_silo(plan)
    return _find_entry(plan)


def is_parked(begun: ContainerPlan | None) -> bool:
    """The main program of a Windows container is there, and stands at its entry point."""
    return begun is not None and begun.launch is not None and bool(begun.launch.command_line or begun.launch.path)


def _find_silo(plan: ContainerPlan) -> ContainerPlan | None:
    # a removal at the end concerns how it ends only
    plan = msgspec.structs.replace(plan, auto_remove=False, rootfs=msgspec.structs.replace(plan.rootfs, volatile=False))
    recipe = find_recipe(plan)
    if recipe is None:
        return None
    made = build_warm_plan(recipe, "template", _NO_DIRECTORY)
    launch = plan.launch if plan.parked and _can_park(plan) else LaunchPlan(command_line="", directory="")
    return msgspec.structs.replace(
        made, mounts=_special_mounts(plan), launch=launch, scratch_owner=plan.scratch_owner, vm=plan.vm
    )


def _can_park(plan: ContainerPlan) -> bool:
    """Its working directory is opened ahead, so nothing may be mounted later; and its environment holds the computer's name."""
    return len(computer_name(plan)) == len(PARKED_NAME) and not folders_of(plan)


def _find_entry(plan: ContainerPlan) -> ContainerPlan | None:
    resources, process = plan.resources, plan.process
    plain = (
        plan.launch is None
        and plan.disk is None
        and plan.namespaces == Namespaces()
        and plan.network == "private"
        and plan.seccomp == "default"
        and plan.scratch_owner is None
        and not plan.rootfs.size_bytes
        and not (plan.privileged or plan.sysctls or plan.init or plan.rootfs.read_only or plan.domainname)
        and not (resources.devices or resources.device_cgroup_rules or resources.oom_score_adj)
        and all(mount.kind is not MountKind.TMPFS for mount in plan.mounts)
        and sum(map(len, (*process.args, *process.env))) < _MAXIMUM_WORDS
    )
    if not plain:
        return None
    return ContainerPlan(
        id="ahead",
        personality=plan.personality,
        image_id="",
        rootfs=Rootfs(layers=plan.rootfs.layers, scratch=_NO_DIRECTORY),
        process=msgspec.structs.replace(process, args=(), env=(), console_size=None),
        directory=_NO_DIRECTORY,
        hostname="ahead",
        mounts=_special_mounts(plan),
        masked_paths=plan.masked_paths,
        readonly_paths=plan.readonly_paths,
        resources=Resources(shm_size_bytes=resources.shm_size_bytes, ulimits=resources.ulimits),
        # a pipe can be closed later, not made; a terminal is there or not
        open_stdin=plan.open_stdin or not process.tty,
        vm=plan.vm,
    )


def _special_mounts(plan: ContainerPlan) -> tuple[PlannedMount, ...]:
    return tuple(
        msgspec.structs.replace(mount, source=_NO_DIRECTORY / name) for name, mount in special_files(plan).items()
    )


# --- before the order


async def begin_ahead(session: GuestSession, plan: ContainerPlan, seccomp: SeccompSource) -> None:
    """Begin the container of `find_ahead`'s plan in a guest that is reseeded and has its root mounted.

    Raises GuestError, Unavailable, ProcessStartFailed, InvalidRequest.
    """
    await session.write_files({f"{FILES}/{name}": b"127.0.0.1 silo\n" for name in special_files(plan)})
    await own_prefix(session, plan)
    identity = await session.identity(plan.process.user, plan.process.groups)
    spec = build_early_spec(plan, identity, await asyncio.to_thread(seccomp.select, plan))
    if plan.launch is None:
        await session.guest.run(MAIN, spec, stdin=plan.open_stdin, entry=True)
        return
    await begin_silo(session, plan, spec)
    await session.guest.until_ready(MAIN)
    await exercise(session)
    if is_parked(plan):
        await session.guest.configure(MAIN, PARKED_NAME)
        await park_program(session, plan.launch)


def warm_ahead(plan: ContainerPlan, seccomp: SeccompSource, *, mapped: bool) -> Warm:
    """For `make_template`: the machine has the image in its slot and an empty scratch. `plan` is `find_ahead`'s."""

    async def warm(vm: VirtualMachine) -> None:
        if plan.launch is None:
            await warm_linux(vm)
        session = GuestSession(vm)
        try:
            await session.connect(limit_s=_CONNECT_LIMIT_S)
            await session.reseed("silo", "0" * 32)
            await session.mount(root_mounts(mapped=mapped, volatile=plan.rootfs.volatile))
            await begin_ahead(session, plan, seccomp)
            await session.client.request("sync")
            await session.client.request("void_seed")
        finally:
            session.client.close()

    return warm


# --- the order


async def dress_ahead(session: GuestSession, plan: ContainerPlan, *, machine_id: str) -> GuestProgram:
    """What was begun becomes the container of `plan`, up to its main program.

    Reseeds the guest and writes its special files; the network can be made meanwhile. Folders of the host are attached if the guest
    has them mounted. Answers the program MAIN, whose streams are those of the main program. Raises GuestError, InvalidRequest,
    Unavailable.
    """
    program = _find_begun(session)
    files = await asyncio.to_thread(read_special_files, plan)
    requests = [session.reseed(plan.hostname, machine_id), session.write_files(dict(files))]
    changed = limits(plan.resources)
    if changed:
        requests.append(session.client.request("limit", {"task": MAIN, "files": changed}))
    folders = [
        {"source": f"{FOLDERS}/{number}", "target": mount.target, "read_only": mount.read_only}
        for number, mount in enumerate(folders_of(plan))
    ]
    if folders:
        requests.append(session.client.request("attach", {"task": MAIN, "mounts": folders}))
    if plan.process.tty and plan.process.console_size:
        requests.append(session.guest.resize(MAIN, *plan.process.console_size))
    # the agent carries out what it gets in that order: nothing runs before it is reseeded
    await asyncio.gather(*requests)
    if not plan.open_stdin and program.stdin is not None:
        program.stdin.close()
    if plan.launch is not None:
        await session.guest.configure(MAIN, computer_name(plan))
    return program


def _find_begun(session: GuestSession) -> GuestProgram:
    """Begun by this daemon in the pool, or found in a clone of a template."""
    program = session.guest.find(MAIN)
    if program is not None:
        return program
    state = next((task for task in session.tasks if task.task == MAIN and task.state == "running"), None)
    if state is None:
        raise GuestError("the clone holds no container that was begun")
    return session.guest.adopt(state)
