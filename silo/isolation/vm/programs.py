"""Programs in a guest as the runtime handles them, on top of AgentClient: run, execute, adopt, their ends, and archives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import msgspec

from silo.errors import GuestError, SiloError, Unavailable
from silo.isolation.launcher_messages import (
    FLAG_MAIN,
    FLAG_NO_FLUSH,
    FLAG_PARK,
    Answer,
    ConsoleEvent,
    WindowsProcess,
    decode_answer,
    encode_configure,
    encode_list,
    encode_ping,
    encode_resize,
    encode_run,
    encode_save,
    encode_shutdown,
    encode_signal,
    encode_start,
    expect_done,
    expect_processes,
    expect_started,
    run_request,
)
from silo.isolation.vm.agent import AgentClient
from silo.isolation.vm.agent_streams import GuestReader, GuestWriter
from silo.isolation.vm.answers import Exit, Greeting, Nothing, Owned, PathStatus, Processes, Relayed, Started, TaskState
from silo.model.exit_codes import KILLED
from silo.model.runtime import LaunchPlan, ScratchOwner, Statistics

_START_TIMEOUT_S = 60.0
_LAUNCH_TIMEOUT_S = 120.0
_ANSWER_TIMEOUT_S = 30.0
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

    async def until_ended(self, task: str) -> None:
        """At once for a task that nobody here started."""
        if task in self._programs:
            await self._programs[task].wait()

    def take_greeting(self, greeting: Greeting) -> None:
        """The ends that happened while nobody was connected. A program that the guest does not know any more ends with 137."""
        known = {task.task: task for task in greeting.tasks}
        for name, program in self._programs.items():
            state = known.get(name)
            if state is None:
                program.end(Exit(code=KILLED))
            elif state.exit is not None:
                program.end(state.exit)

    def find(self, task: str) -> GuestProgram | None:
        """One that was started or adopted here."""
        return self._programs.get(task)

    async def run(
        self, name: str, config: Mapping[str, Any], *, stdin: bool, launcher: bool = False, entry: bool = False
    ) -> GuestProgram:
        """The container of an OCI configuration; with `launcher` a Windows one, which `start_main` gives its program to run;
        with `entry` one whose process waits for `enter`.

        Raises ProcessStartFailed, InvalidRequest, GuestError, Unavailable.
        """
        params = {"config": config, "launcher": launcher, "entry": entry}
        return await self._start_process("run", name, params, config["process"], (stdin, True, True))

    async def enter(self, name: str, process: Mapping[str, Any]) -> None:
        """The process of a container that was run with `entry` becomes the program of the OCI object (args, env).

        Raises ProcessStartFailed (nothing of the container is left), InvalidRequest, GuestError, Unavailable.
        """
        params = {"task": name, "process": {"args": process["args"], "env": process["env"]}}
        word = str((process["args"] or ("",))[0])
        number = self.client.begin("enter", params)
        try:
            await self.client.finish(number, "enter", Started, timeout_s=_START_TIMEOUT_S, program=word)
        except BaseException:
            self._forget(self._programs[name])
            raise

    async def execute(
        self, name: str, container: str, process: Mapping[str, Any], *, wanted: tuple[bool, bool, bool]
    ) -> GuestProgram:
        """`process` is the OCI object; `wanted`: stdin, stdout, stderr; the others are /dev/null. Raises as `run` does."""
        return await self._start_process("exec", name, {"container": container, "process": process}, process, wanted)

    async def _start_process(
        self,
        request: str,
        name: str,
        params: dict[str, Any],
        process: Mapping[str, Any],
        wanted: tuple[bool, bool, bool],
    ) -> GuestProgram:
        async def started(number: int) -> int:
            word = str((process.get("args") or ("",))[0])
            answer = await self.client.finish(number, request, Started, timeout_s=_START_TIMEOUT_S, program=word)
            return answer.pid

        return await self._start(request, name, params, wanted, started, tty=bool(process.get("terminal")))

    async def _start(
        self,
        request: str,
        name: str,
        params: dict[str, Any],
        wanted: tuple[bool, bool, bool],
        started: Callable[[int], Awaitable[int]],
        *,
        tty: bool,
    ) -> GuestProgram:
        """`started` awaits the reply to the request of that number and answers the program's pid."""
        program = GuestProgram(name)
        roles = [role for role, is_wanted in zip(("stdin", "stdout", "stderr"), wanted, strict=True) if is_wanted]
        if tty and "stderr" in roles:
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
        try:
            program.pid = await started(number)
        except BaseException:
            self._forget(program)
            raise
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

    async def own(self, root: str, owner: ScratchOwner) -> bool:
        """Beneath the directory `root` of the guest, before a container runs there; False: it is so already."""
        order = {"root": root, **msgspec.to_builtins(owner)}
        return (await self.client.request("own", order, answer=Owned)).given

    # --- Windows containers, whose launcher the agent passes messages to

    async def ask(self, container: str, message: bytes, *, timeout_s: float = _ANSWER_TIMEOUT_S) -> Answer:
        """One message to the launcher and its answer. Raises GuestError, Conflict (nothing runs), Unavailable."""
        params = {"container": container, "message": message.hex()}
        return decode_relayed(await self.client.request("ask", params, answer=Relayed, timeout_s=timeout_s))

    async def start_main(
        self, container: str, launch: LaunchPlan, *, no_flush: bool = False, park: bool = False
    ) -> int:
        """The container's main program, on the streams of `run`: its end is the container's. Answers its Windows process id.

        `no_flush`: the registry need not be written at its end. `park`: it stops at its entry point until `resume_main`.
        Waits until the launcher is ready.
        Raises ProcessStartFailed, InvalidRequest, GuestError, Unavailable.
        """
        flags = FLAG_MAIN | (FLAG_NO_FLUSH if no_flush else 0) | (FLAG_PARK if park else 0)
        message = encode_run(run_request(launch, flags))
        return expect_started(await self.ask(container, message, timeout_s=_LAUNCH_TIMEOUT_S))

    async def resume_main(self, container: str, *, no_flush: bool) -> int:
        """The main program that was parked goes on. Answers its Windows process id. Raises GuestError, Unavailable."""
        return expect_started(await self.ask(container, encode_start(no_flush=no_flush), timeout_s=_LAUNCH_TIMEOUT_S))

    async def launch(
        self, name: str, container: str, launch: LaunchPlan, *, wanted: tuple[bool, bool, bool]
    ) -> GuestProgram:
        """A further program, as the task `name`; its `pid` is Windows'. `wanted` and errors are those of `execute`."""
        rows, columns = launch.console_size or (0, 0)
        params = {"container": container, "message": encode_run(run_request(launch)).hex(), "tty": launch.tty}
        params |= {"rows": rows, "columns": columns}

        async def started(number: int) -> int:
            return expect_started(
                decode_relayed(await self.client.finish(number, "launch", Relayed, timeout_s=_LAUNCH_TIMEOUT_S))
            )

        return await self._start("launch", name, params, wanted, started, tty=launch.tty)

    async def send_event(self, container: str, event: ConsoleEvent, *, pid: int = 0) -> None:
        """To the program that was launched as `pid`, 0 being the main one (see `console_event`). Raises GuestError."""
        expect_done(await self.ask(container, encode_signal(event, pid)), "deliver the signal")

    async def resize_console(self, task: str, container: str, rows: int, columns: int, *, pid: int = 0) -> None:
        """Of a Windows program with a terminal: its pseudo terminal, and what Windows knows of it."""
        await self.resize(task, rows, columns)
        expect_done(await self.ask(container, encode_resize(columns, rows, pid)), "resize the terminal")

    async def until_ready(self, container: str) -> None:
        """The launcher can start programs. Raises GuestError, Unavailable."""
        expect_done(await self.ask(container, encode_ping(), timeout_s=_LAUNCH_TIMEOUT_S), "become ready")

    async def configure(self, container: str, computer_name: str) -> None:
        expect_done(await self.ask(container, encode_configure(computer_name)), "take its computer name")

    async def save(self, container: str) -> None:
        """The registry's files hold all that was written to it, in the container's root (not yet on its disk: `sync`)."""
        expect_done(await self.ask(container, encode_save()), "save its registry")

    async def windows_processes(self, container: str) -> tuple[WindowsProcess, ...]:
        return expect_processes(await self.ask(container, encode_list()))

    async def shut_down(self, container: str, code: int) -> None:
        """The container ends with `code`, its registry written; its end is told as always."""
        params = {"container": container, "message": encode_shutdown(code).hex()}
        await self.client.request("ask", params, answer=Relayed)

    # --- files

    async def stat(self, place: Mapping[str, str], path: str) -> PathStatus:
        """`place` is {"task": name} (a running container's root) or {"root": directory in the guest}."""
        return await self.client.request("stat", {**place, "path": path}, answer=PathStatus)

    async def archive_out(self, place: Mapping[str, str], path: str, **options: object) -> AsyncIterator[bytes]:
        """A tar of the tree at `path`, piece by piece; `options` as docs/guest-protocol.md says. Untrusted, as all here."""
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


def decode_relayed(untrusted: Relayed) -> Answer:
    """Raises GuestError for what is no answer of a launcher."""
    if not untrusted.answer:
        raise GuestError("the container's launcher went away")
    return decode_answer(bytes.fromhex(untrusted.answer))


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
