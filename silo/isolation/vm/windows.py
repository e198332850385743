"""Windows containers in a VM: a silo (Wine's services and the launcher, docs/launcher-protocol.md), begun, given its program, told
of signals. What is begun ahead of its order: ahead.py.

Cold, in any clone whose slots hold the container's image (as a disk, not mapped) and its scratch, reseeded, with its root mounted:

    await own_prefix(session, plan)
    container.main = await begin_silo(session, plan, build_early_spec(plan, identity, seccomp))
    await start_program(session, plan)                    # waits until the launcher can start programs
"""

from __future__ import annotations

import asyncio
import contextlib
import signal as signals
from pathlib import Path

from silo.errors import GuestError
from silo.isolation.launcher_messages import ConsoleEvent, console_event
from silo.isolation.spec import Json
from silo.isolation.vm.guest_spec import MAIN
from silo.isolation.vm.programs import GuestProgram
from silo.isolation.vm.session import ROOT, GuestSession
from silo.model.runtime import ContainerPlan, LaunchPlan

_CONNECT_LIMIT_S = 300.0
_TERMINATE_PATIENCE_S = 5.0
# nowhere: the special files of a template's plan have no contents on the host
_NO_DIRECTORY = Path("/template")
# What has run once costs a clone less: its pages are there, the console's process runs, and the service that is started after
# the first program.
_FIRST_PROGRAM = LaunchPlan(command_line="C:\\windows\\system32\\cmd.exe /c ver", directory="C:\\")


# --- cold


async def own_prefix(session: GuestSession, plan: ContainerPlan) -> None:
    """The prefix belongs to the container's user. After its root has been mounted, before `begin_silo`."""
    if plan.scratch_owner is not None:
        await session.guest.own(ROOT, plan.scratch_owner)


async def begin_silo(session: GuestSession, plan: ContainerPlan, spec: Json) -> GuestProgram:
    """Process 1 of a Windows container as the task MAIN; `spec` is `build_early_spec`'s. Its launcher is ready some time later.

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


# --- ahead of the order


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


async def park_program(session: GuestSession, launch: LaunchPlan) -> None:
    """The main program is made and stops at its entry point, until `resume_program`. Raises as `start_program` does."""
    await session.guest.start_main(MAIN, launch, park=True)


async def resume_program(session: GuestSession, plan: ContainerPlan) -> int:
    """The program that was parked goes on, as the main one of `plan`. Answers its Windows process id.

    Raises GuestError, Unavailable.
    """
    return await session.guest.resume_main(MAIN, no_flush=plan.auto_remove)
