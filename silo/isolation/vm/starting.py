"""Bringing a container up in its VM: what the guest is told, in what order.

Requests that do not hang on one another's answers are sent together: the agent does them in order, and the way there and back
is gone only once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from silo.errors import InvalidRequest
from silo.isolation import run_files
from silo.isolation.seccomp import SeccompSource
from silo.isolation.spec import build_process
from silo.isolation.vm.ahead import dress_ahead, is_parked
from silo.isolation.vm.container import VmContainer
from silo.isolation.vm.folders import attach_folders
from silo.isolation.vm.guest_spec import INIT, MAIN, build_early_spec, build_guest_spec, folders_of, read_special_files
from silo.isolation.vm.programs import GuestProgram
from silo.isolation.vm.pumps import Inlet
from silo.isolation.vm.session import folders_mount, root_mounts
from silo.isolation.vm.windows import own_prefix, resume_program, start_program
from silo.isolation.vm.wiring_up import wire_up
from silo.model.runtime import ContainerPlan

log = logging.getLogger(__name__)

_INIT_PROGRAMS = (Path("/usr/bin/tini-static"), Path("/sbin/docker-init"), Path("/usr/bin/docker-init"))


MapPipes = Callable[[VmContainer], Awaitable[None]]


class Starter:
    def __init__(self, seccomp: SeccompSource) -> None:
        self._seccomp = seccomp

    async def set_up(self, container: VmContainer) -> None:
        """The guest's part of `prepare`: identity, root, folders. Raises what the guest refuses, InvalidRequest, HostError."""
        plan, session, clone = container.record.plan, container.clone.session, container.clone
        folders = folders_of(plan)
        attaching = (
            asyncio.to_thread(attach_folders, container.record.pid, folders, clone.range.namespace) if folders else None
        )
        # what was begun ahead has its root; it is reseeded with its other names, when these are known
        begun = clone.begun is not None
        steps = []
        if not begun:
            steps.append(session.reseed(plan.hostname, machine_id_of(plan)))
            if not clone.rooted:
                steps.append(session.mount(root_mounts(mapped=clone.image.mapped, volatile=plan.rootfs.volatile)))
        await asyncio.gather(*steps)
        if attaching is not None:
            for warning in await attaching:
                log.warning("container %s: %s", container.id[:12], warning)
            await session.mount([folders_mount()])
        if not begun:
            await own_prefix(session, plan)

    async def start(self, container: VmContainer, map_pipes: MapPipes) -> None:
        """The main program runs; its pipes are mapped before.

        Raises ProcessStartFailed, InvalidRequest, GuestError, Unavailable.
        """
        plan, session = container.record.plan, container.clone.session
        assert container.creating is not None
        await container.creating
        await asyncio.to_thread(container.log.begin)
        container.record = msgspec.structs.replace(container.record, started=True)
        run_files.save(container.record_file, container.record)
        begun = container.clone.begun
        container.main = await (self._run if begun is None else self._dress)(container)
        if container.main.stdin is not None:
            container.inlet = Inlet(container.main.stdin)
        if plan.pipes:
            await map_pipes(container)
        if plan.launch is not None:
            await (resume_program if is_parked(begun) else start_program)(session, plan)
        container.record = msgspec.structs.replace(container.record, guest_pid=container.main.pid)

    async def _run(self, container: VmContainer) -> GuestProgram:
        """Process 1: the main program, or that of a silo."""
        plan, session = container.record.plan, container.clone.session
        files = await self.files(plan)
        _, _, identity, _ = await asyncio.gather(
            wire_up(container),
            session.write_files(files),
            session.identity(plan.process.user, plan.process.groups),
            self._set_parameters(container),
        )
        if plan.init:
            await session.write_files({INIT: await asyncio.to_thread(_read_init)}, mode=0o755)
        seccomp = await asyncio.to_thread(self._seccomp.select, plan)
        windows = plan.launch is not None
        spec = (build_early_spec if windows else build_guest_spec)(plan, identity, seccomp)
        return await session.guest.run(MAIN, spec, stdin=plan.open_stdin, launcher=windows)

    async def _dress(self, container: VmContainer) -> GuestProgram:
        """Process 1 runs already, and becomes this container's."""
        plan, session = container.record.plan, container.clone.session
        dressing = dress_ahead(session, plan, machine_id=machine_id_of(plan))
        steps = (dressing, wire_up(container), self._set_parameters(container))
        if plan.launch is not None:
            program, *_ = await asyncio.gather(*steps)
            return program
        whose = session.identity(plan.process.user, plan.process.groups)
        identity, program, *_ = await asyncio.gather(whose, *steps)
        await session.guest.enter(MAIN, build_process(plan.process, identity))
        return program

    async def files(self, plan: ContainerPlan) -> dict[str, bytes]:
        """hosts, hostname, resolv.conf as the engine has written them."""
        return dict(await asyncio.to_thread(read_special_files, plan))

    async def _set_parameters(self, container: VmContainer) -> None:
        # as in any container: anybody may ping and listen at low ports
        values = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 2147483647"}
        values |= container.record.plan.sysctls
        await container.clone.session.client.request("sysctl", {"values": values})


def machine_id_of(plan: ContainerPlan) -> str:
    """The guest's own; the container has that of its image."""
    return hashlib.sha256(plan.id.encode()).hexdigest()[:32]


def _read_init() -> bytes:
    for path in _INIT_PROGRAMS:
        if path.exists():
            return path.read_bytes()
    raise InvalidRequest("--init needs the program tini-static on the host", hint="apt-get install tini")
