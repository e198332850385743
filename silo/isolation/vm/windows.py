"""Windows containers in a VM: a silo (Wine's services and the launcher, docs/launcher-protocol.md) begun, saved warm, dressed.

Cold, in any clone whose slots hold the container's image (as a disk, not mapped) and its scratch, reseeded, with its root mounted:

    await own_prefix(session, plan)
    container.main = await begin_silo(session, plan, build_silo_spec(plan, identity, seccomp))
    await start_program(session, plan)                    # waits until the launcher can start programs

Warm: a template of its own for `find_template_plan(plan)`, booted with the container's image in its slot and an empty scratch, with
`warm_windows` as its `Warm`. So the registry that the silo runs on is the image's own. The template's scratch is kept; a clone
gets a copy of it (`ScratchDisks.copy`), which becomes the container's: what the silo had written by then, what the container
writes, and the registry all lie on it, and a later cold start finds a scratch like any other.

    clone: the image in its slot, the copy as its scratch, its agent connected
    container.main = await dress_windows(session, plan, machine_id=…)   # folders are mounted in the guest before
    await start_program(session, plan)

A container whose scratch exists already (something was copied into it, or it has run before), or that has no template's plan,
starts cold. A clone that waits in a pool has run `exercise`, and may be stopped (`stop`, `cont`) until it is dressed.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal as signals
from pathlib import Path

import msgspec

from silo.errors import GuestError
from silo.isolation.identity import Identity, resolve_identity
from silo.isolation.launcher_messages import ConsoleEvent, console_event
from silo.isolation.seccomp import SeccompInputs
from silo.isolation.spec import Json
from silo.isolation.vm.guest_spec import MAIN, build_guest_spec, folders_of, limits, read_special_files, special_files
from silo.isolation.vm.machine import VirtualMachine
from silo.isolation.vm.programs import GuestProgram
from silo.isolation.vm.session import FILES, FOLDERS, ROOT, GuestSession, root_mounts
from silo.isolation.vm.template import Warm
from silo.isolation.warm_recipe import build_warm_plan, computer_name, find_recipe
from silo.model.runtime import ContainerPlan, LaunchPlan

_CONNECT_LIMIT_S = 300.0
_TERMINATE_PATIENCE_S = 5.0
# nowhere: the special files of a template's plan have no contents on the host
_NO_DIRECTORY = Path("/template")
# What has run once costs a clone less: its pages are there, the console's process runs, and the service that is started after
# the first program.
_FIRST_PROGRAM = LaunchPlan(command_line="C:\\windows\\system32\\cmd.exe /c ver", directory="C:\\")


def build_silo_spec(plan: ContainerPlan, identity: Identity, seccomp: SeccompInputs) -> Json:
    """As `build_guest_spec`, with the machine's names: those of a silo that runs already can then still be changed."""
    spec = build_guest_spec(plan, identity, seccomp)
    for name in ("hostname", "domainname"):
        spec.pop(name, None)
    spec["linux"]["namespaces"] = [entry for entry in spec["linux"]["namespaces"] if entry["type"] != "uts"]
    return spec


# --- cold


async def own_prefix(session: GuestSession, plan: ContainerPlan) -> None:
    """The prefix belongs to the container's user. After its root has been mounted, before `begin_silo`."""
    if plan.scratch_owner is not None:
        await session.guest.own(ROOT, plan.scratch_owner)


async def begin_silo(session: GuestSession, plan: ContainerPlan, spec: Json) -> GuestProgram:
    """Process 1 of a Windows container as the task MAIN; `spec` is `build_silo_spec`'s. Its launcher is ready some time later.

    Raises ProcessStartFailed, InvalidRequest, GuestError, Unavailable.
    """
    return await session.guest.run(MAIN, spec, stdin=plan.open_stdin, launcher=True)


async def start_program(session: GuestSession, plan: ContainerPlan) -> int:
    """The main program of a silo that has been begun or dressed; its end is MAIN's. Answers its Windows process id.

    Raises ProcessStartFailed, InvalidRequest, GuestError (the silo ended first), Unavailable.
    """
    assert plan.launch is not None
    return await session.guest.start_main(MAIN, plan.launch, no_flush=plan.auto_remove)


async def signal_program(session: GuestSession, plan: ContainerPlan, signal: int) -> None:
    """As a signal means it to Windows (`console_event`); SIGKILL ends a container that does not end in order within some seconds.

    Raises GuestError, Conflict (it does not run).
    """
    event = console_event(signal)
    if event is ConsoleEvent.TERMINATE:
        await _terminate(session, in_order=not plan.auto_remove)
    elif event is not None:
        await session.guest.send_event(MAIN, event)


async def _terminate(session: GuestSession, *, in_order: bool) -> None:
    """In order, so that the registry is written. It does not hang on the launcher's answers."""
    if in_order:
        with contextlib.suppress(GuestError, TimeoutError):
            async with asyncio.timeout(_TERMINATE_PATIENCE_S):
                await session.guest.send_event(MAIN, ConsoleEvent.TERMINATE)
                await session.guest.until_ended(MAIN)
                return
    await session.guest.signal(MAIN, signals.SIGKILL)


# --- warm


def find_template_plan(plan: ContainerPlan) -> ContainerPlan | None:
    """The plan of the silo that a template for containers like this one holds; equal for all that can be clones of it.

    None for a plan that cannot be served by a silo that runs already.
    """
    # a removal at the end concerns how it ends only
    plan = msgspec.structs.replace(plan, auto_remove=False, rootfs=msgspec.structs.replace(plan.rootfs, volatile=False))
    recipe = find_recipe(plan)
    if recipe is None:
        return None
    made = build_warm_plan(recipe, "template", _NO_DIRECTORY)
    special = tuple(
        msgspec.structs.replace(mount, source=_NO_DIRECTORY / name) for name, mount in special_files(plan).items()
    )
    return msgspec.structs.replace(made, mounts=special, scratch_owner=plan.scratch_owner, vm=plan.vm)


def warm_windows(plan: ContainerPlan, seccomp: SeccompInputs) -> Warm:
    """For `make_template`: the machine has the image in its slot and an empty scratch. `plan` is `find_template_plan`'s."""

    async def warm(vm: VirtualMachine) -> None:
        session = GuestSession(vm)
        try:
            await session.connect(limit_s=_CONNECT_LIMIT_S)
            await session.reseed("silo", "0" * 32)
            await session.mount(root_mounts(mapped=False, volatile=plan.rootfs.volatile))
            await session.write_files({f"{FILES}/{name}": b"127.0.0.1 silo\n" for name in special_files(plan)})
            await own_prefix(session, plan)
            passwd, group = await session.read_files(ROOT, ["/etc/passwd", "/etc/group"])
            texts = (passwd.decode(errors="replace"), group.decode(errors="replace"))
            identity = resolve_identity(*texts, plan.process.user, plan.process.groups)
            await begin_silo(session, plan, build_silo_spec(plan, identity, seccomp))
            await session.guest.until_ready(MAIN)
            await exercise(session)
            await session.client.request("sync")
            await session.client.request("void_seed")
        finally:
            session.client.close()

    return warm


async def exercise(session: GuestSession) -> None:
    """Run a small program in a silo that is ready: the next one starts faster. Reseeded before, as for any program.

    Raises GuestError, Unavailable.
    """
    program = await session.guest.launch("exercise", MAIN, _FIRST_PROGRAM, wanted=(False, True, False))
    assert program.stdout is not None
    while await program.stdout.read():
        pass
    end = await program.wait()
    await session.guest.release(program)
    if end.code != 0:
        raise GuestError(f"the first program in a silo ended with code {end.code:#x}")


async def dress_windows(session: GuestSession, plan: ContainerPlan, *, machine_id: str) -> GuestProgram:
    """A clone's silo becomes the container of `plan`, up to where `start_program` can be called.

    Reseeds the guest and writes its special files; the network can be made meanwhile. Folders of the host are attached if the guest
    has them mounted. Answers the program MAIN, whose streams are those of the main program. Raises GuestError, InvalidRequest,
    Unavailable.
    """
    state = next((task for task in session.tasks if task.task == MAIN and task.state == "running"), None)
    if state is None:
        raise GuestError("the clone holds no silo that runs")
    program = session.guest.adopt(state)
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
    # the agent carries out what it gets in that order: nothing runs before it is reseeded
    await asyncio.gather(*requests)
    if not plan.open_stdin and program.stdin is not None:
        program.stdin.close()
    await session.guest.configure(MAIN, computer_name(plan))
    return program
