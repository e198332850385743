"""The agent's entry and its requests: see docs/guest-protocol.md for what they mean.

Run as `python3 -I -S agent.py --port /dev/vport0p1`, as pid 1 or any other: orphans become its children either way. Modules that
only some requests need are imported by them: an import takes milliseconds under emulation, and a template imports nothing
that its containers may never use.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    sys.path.insert(0, __file__.removesuffix("/silo/guest/agent.py"))

from silo.guest import ENTRY
from silo.guest.calls import Call
from silo.guest.crun import Crun
from silo.guest.failures import Refused
from silo.guest.kernel import become_subreaper
from silo.guest.loop import Loop
from silo.guest.port import Port
from silo.guest.streams import Streams
from silo.guest.task import Task
from silo.guest.tasks import Tasks
from silo.model.guest_frames import CREDIT, DATA, END, EVENT, HELLO, REQUEST, VERSION, Frame, encode_message

if TYPE_CHECKING:
    from silo.guest.pipes import Pipes

Params = dict[str, Any]

_PORT_TRIES = 2000


class Agent:
    def __init__(self, loop: Loop, port: Port, crun: Crun, run_root: str, entry_place: str) -> None:
        self._loop = loop
        self._port = port
        self._streams = Streams(loop, port.send, run_root)
        self._tasks = Tasks(loop, self._streams, crun, entry_place)
        self._tasks.on_exit = self._tell_exit
        self._pipes: Pipes | None = None
        self._boot = os.urandom(8).hex()
        self._greeted = False
        self._reseeded = False
        port.on_session = self._begin
        port.on_frame = self._handle
        port.pull = self._streams.pull

    def _begin(self) -> None:
        self._greeted = False
        self._streams.new_session()
        if self._pipes is not None:
            self._pipes.new_session()

    def _tell_exit(self, task: Task) -> None:
        if self._greeted:
            self._port.send(encode_message(EVENT, 0, {"event": "exit", "task": task.name, **(task.exit or {})}))

    def _handle(self, frame: Frame) -> None:
        if frame.type == HELLO:
            self._greet(json.loads(frame.payload))
        elif not self._greeted:
            return
        elif frame.type == REQUEST:
            self._answer(frame)
        elif frame.type in (DATA, CREDIT, END):
            try:
                self._streams.handle(frame)
            except Refused as refusal:
                event = {"event": "stream_error", "stream": frame.stream, "message": str(refusal)}
                self._port.send(encode_message(EVENT, 0, event))

    def _greet(self, greeting: Params) -> None:
        if VERSION not in greeting.get("versions", ()):
            self._port.send(encode_message(HELLO, 0, {"version": 0, "supported": [VERSION]}))
            return
        self._greeted = True
        answer = {
            "version": VERSION,
            "boot": self._boot,
            "reseeded": self._reseeded,
            "tasks": self._tasks.describe(),
        }
        self._port.send(encode_message(HELLO, 0, answer))

    def _answer(self, frame: Frame) -> None:
        session = self._port.session
        call = Call(frame.stream, self._port.send, lambda: self._port.session == session)
        try:
            request = json.loads(frame.payload)
            method: Callable[[Call, Params], Params | None] | None = getattr(self, f"_do_{request['do']}", None)
            if method is None:
                raise Refused("unknown_request", f"this agent knows no request {request['do']!r}")
            result = method(call, request.get("with", {}))
        except Exception as error:
            # whatever a request holds, the agent goes on
            call.fail(error)
        else:
            if result is not None:
                call.reply(result)

    # --- requests: they answer their result, or None when the reply comes later

    def _do_ping(self, _: Call, __: Params) -> Params:
        return {}

    def _do_reseed(self, _: Call, params: Params) -> Params:
        from silo.guest.identity import reseed

        reseed(params)
        self._reseeded = True
        return {}

    def _do_void_seed(self, _: Call, __: Params) -> Params:
        """The machine is about to be saved as a template: its clones must not take its randomness for their own."""
        self._reseeded = False
        return {}

    def _do_clock(self, _: Call, params: Params) -> Params:
        from silo.guest.identity import set_clock

        set_clock(params["time_ns"])
        return {}

    def _do_mount(self, _: Call, params: Params) -> Params:
        from silo.guest.mounting import make_mounts

        make_mounts(params["mounts"])
        return {}

    def _do_unmount(self, _: Call, params: Params) -> Params:
        from silo.guest.kernel import unmount

        for target in params["targets"]:
            unmount(target, lazy=bool(params.get("lazy")))
        return {}

    def _do_attach(self, call: Call, params: Params) -> None:
        from silo.guest.attaching import attach

        task = self._tasks.get(params["task"])
        if not task.pid:
            raise Refused("not_running", f"task {task.name} is not running")
        pid, mounts = task.pid, params["mounts"]
        self._in_thread(call, lambda: attach(pid, mounts))

    def _do_network(self, _: Call, params: Params) -> Params:
        from silo.guest.netlink import configure

        return {"interfaces": configure(params["interfaces"])}

    def _check_reseeded(self) -> None:
        if not self._reseeded:
            raise Refused("not_reseeded", "a container must not start with its template's randomness: reseed first")

    def _do_run(self, call: Call, params: Params) -> None:
        self._check_reseeded()
        launcher, entry = bool(params.get("launcher")), bool(params.get("entry"))
        self._tasks.run(
            call, params["task"], params["config"], params.get("streams", {}), launcher=launcher, entry=entry
        )

    def _do_enter(self, call: Call, params: Params) -> None:
        self._check_reseeded()
        self._tasks.enter(call, params["task"], params["process"])

    def _do_exec(self, call: Call, params: Params) -> None:
        self._tasks.execute(call, params["task"], params["container"], params["process"], params.get("streams", {}))

    def _do_launch(self, call: Call, params: Params) -> None:
        from silo.guest.launching import parse_message

        self._check_reseeded()
        self._tasks.launch(call, params, parse_message(params["message"]))

    def _do_ask(self, call: Call, params: Params) -> None:
        from silo.guest.launching import parse_message

        self._check_reseeded()
        self._tasks.ask(call, params["container"], parse_message(params["message"]))

    def _do_pipe(self, call: Call, params: Params) -> None:
        from silo.guest.launching import parse_message
        from silo.guest.pipes import Pipes

        self._check_reseeded()
        if self._pipes is None:
            self._pipes = Pipes(self._loop, self._streams, self._tell_pipe)
        launcher = self._tasks.launcher_of(params["container"])
        self._pipes.open(call, launcher, int(params["link"]), parse_message(params["message"]))

    def _tell_pipe(self, link: int, message: bytes) -> None:
        if self._greeted:
            self._port.send(encode_message(EVENT, 0, {"event": "pipe", "link": link, "message": message.hex()}))

    def _do_pipe_say(self, _: Call, params: Params) -> Params:
        from silo.guest.launching import parse_message

        self._some_pipes().say(int(params["link"]), parse_message(params["message"]), list(params.get("streams", ())))
        return {}

    def _do_pipe_forget(self, _: Call, params: Params) -> Params:
        self._some_pipes().forget(list(params["streams"]))
        return {}

    def _do_pipe_close(self, _: Call, params: Params) -> Params:
        self._some_pipes().close(int(params["link"]))
        return {}

    def _some_pipes(self) -> Pipes:
        if self._pipes is None:
            raise Refused("invalid", "no pipe is mapped")
        return self._pipes

    def _do_own(self, _: Call, params: Params) -> Params:
        from silo.guest.owning import give

        return {"given": give(str(params["root"]), params)}

    def _do_signal(self, _: Call, params: Params) -> Params:
        self._tasks.signal(params["task"], int(params["signal"]), bool(params.get("everyone")))
        return {}

    def _do_resize(self, _: Call, params: Params) -> Params:
        self._tasks.resize(params["task"], int(params["rows"]), int(params["columns"]))
        return {}

    def _do_close_input(self, _: Call, params: Params) -> Params:
        self._tasks.close_input(params["task"])
        return {}

    def _do_release(self, _: Call, params: Params) -> Params:
        self._tasks.release(params["task"])
        return {}

    def _do_statistics(self, _: Call, params: Params) -> Params:
        from silo.guest.readings import read_statistics

        return read_statistics(self._tasks.get(params["task"]).cgroup)

    def _do_processes(self, _: Call, params: Params) -> Params:
        from silo.guest.readings import read_processes

        task = self._tasks.get(params["task"])
        if not task.pid:
            raise Refused("not_running", f"task {task.name} is not running")
        return {"processes": read_processes(task.cgroup, task.pid)}

    def _open_root(self, params: Params) -> int:
        """`task`: a running container's root with all its mounts; else the directory `root`."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        if params.get("task"):
            task = self._tasks.get(params["task"])
            if not task.pid:
                raise Refused("not_running", f"task {task.name} is not running")
            return os.open(f"/proc/{task.pid}/root", flags)
        return os.open(str(params["root"]), flags)

    def _do_read_files(self, _: Call, params: Params) -> Params:
        from silo.guest.files import read_files

        root = self._open_root(params)
        try:
            return {"files": read_files(root, params["paths"])}
        finally:
            os.close(root)

    def _do_write_files(self, _: Call, params: Params) -> Params:
        from silo.guest.files import write_files

        write_files(params["files"])
        return {}

    def _do_limit(self, _: Call, params: Params) -> Params:
        from silo.guest.files import set_limits

        set_limits(self._tasks.get(params["task"]).cgroup, params["files"])
        return {}

    def _do_sysctl(self, _: Call, params: Params) -> Params:
        from silo.guest.files import set_sysctls

        set_sysctls(params["values"])
        return {}

    def _do_stat(self, _: Call, params: Params) -> Params:
        from silo.guest.paths import describe_path

        root = self._open_root(params)
        try:
            return describe_path(root, params["path"])
        finally:
            os.close(root)

    def _do_archive_out(self, call: Call, params: Params) -> None:
        from silo.guest.archives import Writer

        path, name = str(params["path"]), str(params.get("name", ""))
        self._streams.check_free(params["stream"])
        root = self._open_root(params)
        read, write = os.pipe2(os.O_CLOEXEC)
        self._streams.add_output(params["stream"], passing=True).attach(read)
        out = Writer.of(write, params)

        def work() -> None:
            try:
                out.run(root, path, name)
            finally:
                os.close(write)
                os.close(root)

        self._in_thread(call, work, params["stream"], keep=True)

    def _do_archive_in(self, call: Call, params: Params) -> None:
        from silo.guest.archives import Reader

        path = str(params["path"])
        self._streams.check_free(params["stream"])
        root = self._open_root(params)
        read, write = os.pipe2(os.O_CLOEXEC)
        self._streams.add_input(params["stream"], passing=True).attach(write)
        keep, refuse = bool(params.get("keep_owners", True)), bool(params.get("no_overwrite"))

        def work() -> None:
            try:
                with open(read, "rb", buffering=0) as source:
                    Reader(root, path, keep_owners=keep, no_overwrite=refuse).run(source)
            finally:
                os.close(root)

        self._in_thread(call, work, params["stream"], keep=False)

    def _do_sync(self, call: Call, _: Params) -> None:
        self._in_thread(call, os.sync)

    def _do_shutdown(self, call: Call, _: Params) -> None:
        from silo.guest.kernel import power_off

        def done(_: object) -> None:
            call.reply({})
            self._port.flush()
            power_off()

        self._loop.in_thread(os.sync, done)

    def _in_thread(self, call: Call, work: Callable[[], object], stream: int = 0, *, keep: bool = False) -> None:
        """`keep`: the stream ends by itself when the work has gone well."""
        session = self._port.session

        def done(result: object) -> None:
            failed = isinstance(result, BaseException)
            if stream and (failed or not keep) and session == self._port.session:
                self._streams.remove(stream)
            if isinstance(result, BaseException):
                call.fail(result)
            else:
                call.reply({})

        self._loop.in_thread(work, done)


def _open_port(path: str) -> int:
    """A virtio port opens once; its device comes a moment after its driver."""
    for _ in range(_PORT_TRIES):
        with contextlib.suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        time.sleep(0.005)
    raise FileNotFoundError(f"the port {path} does not appear")


def main(words: list[str]) -> None:
    """--port PATH or --port-fd N; --run-root, --crun, --cgroup-manager, --entry."""
    options = {"--run-root": "/run/silo", "--crun": "/usr/bin/crun", "--cgroup-manager": "cgroupfs"}
    options["--entry"] = ENTRY
    options.update(zip(words[::2], words[1::2], strict=True))
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open("/dev/null", os.O_RDWR)
    descriptor = int(options["--port-fd"]) if "--port-fd" in options else _open_port(options["--port"])
    os.set_inheritable(descriptor, False)
    become_subreaper()
    os.makedirs(options["--run-root"], 0o700, exist_ok=True)  # noqa: PTH103 - pathlib takes 10 ms to import
    loop = Loop()
    crun = Crun(options["--crun"], options["--run-root"], options["--cgroup-manager"])
    Agent(loop, Port(descriptor, loop), crun, options["--run-root"], options["--entry"])
    loop.run()


if __name__ == "__main__":
    main(sys.argv[1:])
