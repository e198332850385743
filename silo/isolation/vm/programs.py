"""Programs in a guest as the runtime handles them, on top of AgentClient: run, execute, adopt, their ends, and archives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

from silo.errors import SiloError, Unavailable
from silo.isolation.vm.agent import AgentClient
from silo.isolation.vm.agent_streams import GuestReader, GuestWriter
from silo.isolation.vm.answers import Exit, Greeting, Nothing, PathStatus, Processes, Started, TaskState
from silo.model.runtime import Statistics

_START_TIMEOUT_S = 60.0
_ARCHIVE_TIMEOUT_S = 3600.0


class GuestProgram:
    """A started task. `stdout` is the terminal's output when it has one; `stderr` is then None."""

    def __init__(self, name: str, pid: int = 0) -> None:
        self.name = name
        self.pid = pid
        self.stdin: GuestWriter | None = None
        self.stdout: GuestReader | None = None
        self.stderr: GuestReader | None = None
        self.exit: Exit | None = None
        self._ended = asyncio.Event()

    async def wait(self) -> Exit:
        await self._ended.wait()
        assert self.exit is not None
        return self.exit

    def end(self, exit: Exit) -> None:
        if self.exit is None:
            self.exit = exit
            self._ended.set()

    def stream_numbers(self) -> tuple[int, ...]:
        return tuple(stream.number for stream in (self.stdin, self.stdout, self.stderr) if stream is not None)


class Guest:
    """All programs of one guest. Pass `note_exit` its ExitEvents; call `take_greeting` after every connect."""

    def __init__(self, client: AgentClient) -> None:
        self.client = client
        self._programs: dict[str, GuestProgram] = {}

    def note_exit(self, task: str, exit: Exit) -> None:
        """Of a task that nobody here started: the guest's invention, passed over."""
        if task in self._programs:
            self._programs[task].end(exit)

    def take_greeting(self, greeting: Greeting) -> None:
        """The ends that happened while nobody was connected. A program that the guest does not know any more ends with 137."""
        known = {task.task: task for task in greeting.tasks}
        for name, program in self._programs.items():
            state = known.get(name)
            if state is None:
                program.end(Exit(code=137))
            elif state.exit is not None:
                program.end(state.exit)

    async def run(self, name: str, config: Mapping[str, Any], *, stdin: bool) -> GuestProgram:
        """The container of an OCI configuration. Raises ProcessStartFailed, InvalidRequest, GuestError, Unavailable."""
        process = config["process"]
        return await self._start("run", name, {"config": config}, process, (stdin, True, True))

    async def execute(
        self, name: str, container: str, process: Mapping[str, Any], *, wanted: tuple[bool, bool, bool]
    ) -> GuestProgram:
        """`process` is the OCI object; `wanted`: stdin, stdout, stderr; the others are /dev/null. Raises as `run` does."""
        return await self._start("exec", name, {"container": container, "process": process}, process, wanted)

    async def _start(
        self,
        request: str,
        name: str,
        params: dict[str, Any],
        process: Mapping[str, Any],
        wanted: tuple[bool, bool, bool],
    ) -> GuestProgram:
        program = GuestProgram(name)
        roles = [role for role, is_wanted in zip(("stdin", "stdout", "stderr"), wanted, strict=True) if is_wanted]
        if process.get("terminal") and "stderr" in roles:
            roles.remove("stderr")
        streams = {role: self.client.new_stream() for role in roles}
        number = self.client.begin(request, {**params, "task": name, "streams": streams})
        for role, stream in streams.items():
            if role == "stdin":
                program.stdin = self.client.open_writer(stream)
            else:
                # its credit follows the request: no second exchange before the first output
                setattr(program, role, self.client.open_reader(stream))
        self._programs[name] = program
        words = process.get("args") or ("",)
        try:
            started = await self.client.finish(
                number, request, Started, timeout_s=_START_TIMEOUT_S, program=str(words[0])
            )
        except BaseException:
            self._forget(program)
            raise
        program.pid = started.pid
        return program

    def adopt(self, state: TaskState, offsets: tuple[int, int] = (0, 0)) -> GuestProgram:
        """A program that an earlier daemon started; `offsets`: what is kept of its stdout and stderr already."""
        program = GuestProgram(state.task, state.pid)
        readers = [
            self.client.open_reader(output.stream, offset=offset)
            for output, offset in zip(state.outputs, offsets, strict=False)
        ]
        program.stdout = readers[0] if readers else None
        program.stderr = readers[1] if len(readers) > 1 else None
        if state.input is not None:
            writer = GuestWriter.adopt(state.input, self.client.send, self.client.drain)
            program.stdin = self.client.add_writer(writer)
        self._programs[state.task] = program
        if state.exit is not None:
            program.end(state.exit)
        return program

    def _forget(self, program: GuestProgram, *, settled: bool = False) -> None:
        self._programs.pop(program.name, None)
        self.client.forget_streams(*program.stream_numbers(), settled=settled)

    async def release(self, program: GuestProgram) -> None:
        """Its end and its output are safe: the agent forgets both."""
        await self.client.request("release", {"task": program.name})
        self._forget(program, settled=True)

    async def signal(self, task: str, number: int, *, everyone: bool = False) -> None:
        """`everyone`: all processes of the container."""
        await self.client.request("signal", {"task": task, "signal": number, "everyone": everyone})

    async def resize(self, task: str, rows: int, columns: int) -> None:
        await self.client.request("resize", {"task": task, "rows": rows, "columns": columns})

    async def statistics(self, task: str) -> Statistics:
        return await self.client.request("statistics", {"task": task}, answer=Statistics)

    async def processes(self, task: str) -> Processes:
        return await self.client.request("processes", {"task": task}, answer=Processes)

    async def stat(self, place: Mapping[str, str], path: str) -> PathStatus:
        """`place` is {"task": name} (a running container's root) or {"root": directory in the guest}."""
        return await self.client.request("stat", {**place, "path": path}, answer=PathStatus)

    async def archive_out(self, place: Mapping[str, str], path: str, **options: object) -> AsyncIterator[bytes]:
        """A tar of the tree at `path`, piece by piece; `options`: name, layer, one_file_system. Untrusted, as all here."""
        stream = self.client.new_stream()
        number = self.client.begin("archive_out", {**place, **options, "path": path, "stream": stream})
        reader = self.client.open_reader(stream, passing=True)
        done = asyncio.ensure_future(self.client.finish(number, "archive_out", Nothing, timeout_s=_ARCHIVE_TIMEOUT_S))
        # a refusal leaves the stream without an end
        done.add_done_callback(lambda future: _pass_failure(future, reader))
        try:
            while piece := await reader.read():
                yield piece
            await done
        finally:
            done.cancel()
            self.client.refuse(stream)

    async def archive_in(
        self, place: Mapping[str, str], path: str, pieces: AsyncIterator[bytes], **options: object
    ) -> None:
        """Extract a tar into the directory `path`; `options`: keep_owners, no_overwrite."""
        stream = self.client.new_stream()
        number = self.client.begin("archive_in", {**place, **options, "path": path, "stream": stream})
        writer = self.client.open_writer(stream, passing=True)
        done = asyncio.ensure_future(self.client.finish(number, "archive_in", Nothing, timeout_s=_ARCHIVE_TIMEOUT_S))
        done.add_done_callback(lambda _: writer.fail(Unavailable("the guest has stopped reading the archive")))
        try:
            async for piece in pieces:
                if done.done():
                    break
                await _write_unless_done(writer, piece, done)
            writer.close()
            await done
        finally:
            if not done.done():
                # the agent takes a cut archive for a damaged one, and stops
                writer.close()
                done.cancel()
            self.client.forget_streams(stream)


async def _write_unless_done(writer: GuestWriter, piece: bytes, done: asyncio.Future[Nothing]) -> None:
    try:
        await writer.write(piece)
    except Unavailable:
        if not done.done():
            raise


def _pass_failure(future: asyncio.Future[Nothing], reader: GuestReader) -> None:
    if future.cancelled():
        return
    error = future.exception()
    if isinstance(error, SiloError):
        reader.fail(error)
