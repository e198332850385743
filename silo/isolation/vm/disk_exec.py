"""Programs beside what a disk's system runs, by its guest agent: no terminal, input given up front, output at the end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from silo.errors import ProcessStartFailed, SiloError, Unsupported, exit_status
from silo.isolation.nonblocking import read_some, write_all
from silo.isolation.vm.pumps import PIECE_BYTES
from silo.isolation.vm.whole.guest import WholeGuest
from silo.isolation.vm.whole.guest_agent import INPUT_BYTES, Executed
from silo.model.exit_codes import KILLED
from silo.model.runtime import ExecStreams, ProcessPlan

_CUT = "silo: the guest agent keeps 16 MiB of each output; the rest is lost\n"


class DiskExec:
    """See silo.engine.ports.RunningExec. `pid` is the guest's number, 0 while its input is awaited."""

    def __init__(self, guest: WholeGuest, program: ProcessPlan) -> None:
        self.pid = 0
        self.streams = ExecStreams()
        self._guest = guest
        self._program = program
        self._outputs: dict[str, int] = {}
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, guest: WholeGuest, program: ProcessPlan, *, stdin: bool, stdout: bool, stderr: bool
    ) -> DiskExec:
        """With `stdin` the program itself starts when that has ended, and what keeps it from starting is told as it would.

        Raises ProcessStartFailed, Unsupported, Unavailable, GuestError.
        """
        if program.tty:
            raise Unsupported(
                "exec -t is not possible in a disk's own system",
                details="its guest agent runs programs without a terminal",
                hint="leave -t out, or use the console (silo attach)",
            )
        running = cls(guest, program)
        if not stdin:
            running.pid = await running._begin(b"")
        source = running._open_pipes(stdin=stdin, stdout=stdout, stderr=stderr)
        running._task = asyncio.create_task(running._run(source), name="disk-exec")
        return running

    def _open_pipes(self, *, stdin: bool, stdout: bool, stderr: bool) -> int:
        given: dict[str, int] = {}
        for name, wanted in (("stdout", stdout), ("stderr", stderr)):
            if wanted:
                given[name], self._outputs[name] = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        source = -1
        if stdin:
            source, given["stdin"] = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.streams = ExecStreams(**given)
        return source

    async def _begin(self, given: bytes) -> int:
        program = self._program
        words: Sequence[str] = program.args
        return await self._guest.start_program(words, env=program.env, cwd=program.cwd, user=program.user, input=given)

    async def _run(self, source: int) -> None:
        try:
            done = await self._execute(source)
        except SiloError as error:
            code = exit_status(error) if isinstance(error, ProcessStartFailed) else KILLED
            done = Executed(code=code, untrusted_stderr=f"silo: {error}\n".encode())
        finally:
            if source >= 0:
                os.close(source)
        self.end(done.code)
        complaint = done.untrusted_stderr + (_CUT.encode() if done.truncated else b"")
        try:
            await asyncio.gather(self._hand_over("stdout", done.untrusted_stdout), self._hand_over("stderr", complaint))
        finally:
            self._close_outputs()

    async def _execute(self, source: int) -> Executed:
        if source >= 0:
            given = bytearray()
            # one byte more than the agent takes is refused by name
            while len(given) <= INPUT_BYTES and (piece := await read_some(source, PIECE_BYTES)):
                given += piece
            self.pid = await self._begin(bytes(given))
        return await self._guest.agent.wait(self.pid)

    async def _hand_over(self, name: str, untrusted_output: bytes) -> None:
        descriptor = self._outputs.get(name, -1)
        if descriptor < 0:
            return
        try:
            await write_all(descriptor, untrusted_output)
        except OSError:
            # nobody reads it any more
            return
        os.close(self._outputs.pop(name))

    def _close_outputs(self) -> None:
        while self._outputs:
            os.close(self._outputs.popitem()[1])

    def end(self, code: int = KILLED) -> None:
        if not self._ended.done():
            self._ended.set_result(code)

    @property
    def is_over(self) -> bool:
        return self._ended.done()

    def abandon(self) -> None:
        """Its machine is gone: descriptors end, and so does it."""
        self.end()
        if self._task is not None:
            self._task.cancel()
        self._close_outputs()

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def resize(self, rows: int, columns: int) -> None:
        """It has no terminal."""

    async def signal(self, signal: int) -> None:
        if self.pid and not self._ended.done():
            await self._guest.signal(self.pid, signal)
