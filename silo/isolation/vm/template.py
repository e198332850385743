"""Templates: a VM that was booted and warmed once, saved, and from then on cloned copy-on-write.

A template is two files in memory: the guest's memory, sealed, which every clone maps privately (the pages that a clone does not
write are shared by all), and the small rest of the machine's state, which each clone reads. Both live as long as the daemon; a
daemon that comes again boots anew, which is right as well after an upgrade of QEMU.

A clone wakes up as the exact copy of its template: whoever starts one has to reseed it before anything of a container's runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from silo.errors import GuestError, HostError, ProcessStartFailed, SiloError, Unavailable
from silo.isolation.vm.command import Machine, Role
from silo.isolation.vm.guest import REBUILD, check_guest
from silo.isolation.vm.machine import VirtualMachine, start_machine
from silo.isolation.vm.memory import create_memory, seal_memory
from silo.isolation.vm.qmp import EventListener, QmpClient

Warm = Callable[[VirtualMachine], Awaitable[None]]
"""Waits until the guest is ready to be saved: its agent answers, what shall be warm has run once."""

_REBUILD = f"if it comes again: {REBUILD}"
SAVE_LIMIT_S = 60.0
LOAD_LIMIT_S = 20.0
_LONGEST_PAUSE_S = 0.02
_SEAL_TRIES, _SEAL_PAUSE_S = 20, 0.1
# The memory is not written to the state: it is the file already.
_CAPABILITY = {"capability": "x-ignore-shared", "state": True}


@dataclass(slots=True, eq=False)
class Template:
    """`memory` and `state` are descriptors of files in memory; `close` gives them back, clones that run keep what they map."""

    machine: Machine
    files: Mapping[str, Path]
    memory: int
    state: int
    _closed: bool = field(default=False, init=False)

    @property
    def size_bytes(self) -> int:
        """What it holds of the host's memory, shared by all clones."""
        return sum(os.fstat(descriptor).st_blocks * 512 for descriptor in (self.memory, self.state))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            os.close(self.memory)
            os.close(self.state)


async def make_template(
    directory: Path,
    machine: Machine,
    *,
    uid: int,
    files: Mapping[str, Path],
    warm: Warm,
    limit_s: float,
    scratch: int = -1,
    user_namespace: int = -1,
    entry_files: Sequence[str] = (),
) -> Template:
    """Boot `machine` in `directory`, let it get warm within `limit_s` seconds, save it. Nothing runs afterwards.

    Raises GuestError with the console's last lines when the guest does not get ready, ProcessStartFailed, HostError (also for a
    damaged image), Unavailable.
    """
    async with _suspect_image(files), contextlib.AsyncExitStack() as undo:
        memory = create_memory(machine.memory_bytes)
        undo.callback(os.close, memory)
        try:
            running = await start_machine(
                directory,
                machine,
                Role.TEMPLATE,
                uid=uid,
                files=files,
                memory=memory,
                scratch=scratch,
                user_namespace=user_namespace,
                entry_files=entry_files,
            )
        except HostError as error:
            raise HostError(error.brief, details=error.details, hint=error.hint or _REBUILD) from error
        undo.push_async_callback(running.end)
        await running.monitor.execute("cont")
        try:
            async with asyncio.timeout(limit_s):
                await warm(running)
        except TimeoutError:
            raise GuestError(
                f"the virtual machine was not ready within {limit_s:.0f} s",
                details=running.console.last_lines(),
                hint=_REBUILD,
            ) from None
        except ProcessStartFailed:
            # the program that was to be parked in it; nothing is wrong with the machine
            raise
        except SiloError as error:
            details = running.console.last_lines() or error.details
            brief = f"the virtual machine did not get ready: {error.brief}"
            raise GuestError(brief, details=details, hint=_REBUILD) from error
        state = await _save(running.monitor)
        undo.callback(os.close, state)
        await running.end()
        for descriptor in (memory, state):
            await _seal(descriptor)
        undo.pop_all()
    return Template(machine, dict(files), memory, state)


@contextlib.asynccontextmanager
async def _suspect_image(files: Mapping[str, Path]) -> AsyncIterator[None]:
    """A machine that does not come up may have been given a damaged image: then that is told. Raises HostError."""
    try:
        yield
    except (GuestError, HostError):
        await asyncio.to_thread(check_guest, files)
        raise


async def _seal(descriptor: int) -> None:
    """The kernel gives a dead machine's pages back in its own time, and refuses to seal what it still holds."""
    tries = 0
    while True:
        try:
            return await asyncio.to_thread(seal_memory, descriptor)
        except HostError:
            tries += 1
            if tries == _SEAL_TRIES:
                raise
            await asyncio.sleep(_SEAL_PAUSE_S)


async def _save(monitor: QmpClient) -> int:
    """The machine's state without its memory, as a file in memory.

    It is saved while it runs: a state saved of a stopped machine keeps every clone stopped.
    """
    state = create_memory(0)
    try:
        await monitor.execute("migrate-set-capabilities", capabilities=[_CAPABILITY])
        await monitor.execute("getfd", descriptors=[state], fdname="state")
        await monitor.execute("migrate", uri="fd:state")
        await _until_moved(monitor, SAVE_LIMIT_S)
    except BaseException:
        os.close(state)
        raise
    return state


async def start_clone(
    template: Template,
    directory: Path,
    *,
    uid: int,
    user_namespace: int = -1,
    scratch: int = -1,
    files: Mapping[str, Path] | None = None,
    entry_files: Sequence[str] = (),
    on_event: EventListener | None = None,
) -> VirtualMachine:
    """A running copy of the template in `directory`; `files` take the places of the template's.

    Raises HostError, Unavailable; nothing runs then.
    """
    clone = await start_machine(
        directory,
        template.machine,
        Role.CLONE,
        uid=uid,
        files={**template.files, **(files or {})},
        memory=template.memory,
        scratch=scratch,
        user_namespace=user_namespace,
        entry_files=entry_files,
        on_event=on_event,
    )
    try:
        # a description of its own, which begins at the beginning, for each of them
        state = os.open(f"/proc/self/fd/{template.state}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            await clone.monitor.execute("migrate-set-capabilities", capabilities=[_CAPABILITY])
            await clone.monitor.execute("getfd", descriptors=[state], fdname="state")
            await clone.monitor.execute("migrate-incoming", uri="fd:state")
        finally:
            os.close(state)
        await _until_moved(clone.monitor, LOAD_LIMIT_S)
    except BaseException:
        await asyncio.shield(clone.end())
        raise
    return clone


async def _until_moved(monitor: QmpClient, limit_s: float) -> None:
    """Asked again and again, first at once: a load takes 12 to 18 ms, and its event comes no earlier."""
    pause_s = 0.001
    try:
        async with asyncio.timeout(limit_s):
            while True:
                untrusted_answer = await monitor.execute("query-migrate")
                status = untrusted_answer.get("status") if isinstance(untrusted_answer, dict) else None
                if status == "completed":
                    return
                if status in ("failed", "cancelled"):
                    reason = str(untrusted_answer.get("error-desc", ""))[:500]
                    raise HostError("QEMU could not save or load a machine's state", details=reason)
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
    except TimeoutError:
        raise Unavailable(f"QEMU did not save or load a machine's state within {limit_s:.0f} s") from None
