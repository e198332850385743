"""Further programs of a Windows container in a VM: as any exec, but signalled and resized through the container's launcher."""

from __future__ import annotations

import contextlib

from silo.errors import SiloError
from silo.isolation.launcher_messages import console_event
from silo.isolation.vm.executing import VmExec
from silo.isolation.vm.programs import Guest, GuestProgram


class WindowsVmExec(VmExec):
    """Of a program that `Guest.launch` started in `container`; `pid` is Windows'. See silo.engine.ports.RunningExec."""

    def __init__(self, guest: Guest, program: GuestProgram, container: str, *, terminal: bool) -> None:
        self._container = container
        super().__init__(guest, program, terminal=terminal)

    async def resize(self, rows: int, columns: int) -> None:
        if not self._ended.done():
            with contextlib.suppress(SiloError):
                await self._guest.resize_console(self._program.name, self._container, rows, columns, pid=self.pid)

    async def signal(self, signal: int) -> None:
        event = console_event(signal)
        if event is not None and not self._ended.done():
            with contextlib.suppress(SiloError):
                await self._guest.send_event(self._container, event, pid=self.pid)
