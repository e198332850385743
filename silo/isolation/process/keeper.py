"""The keeper: parent of all containers, holder of their streams, and the only witness of their ends.

One tiny process a daemon, run as `python -I -S keeper.py RUN_ROOT LISTEN_FD`, outlives the daemon: it spawns crun, owns pipes
and pseudo terminals, appends output to each container's log, writes `exit.json` and then tells the daemon, if there is one.
It decides nothing: what to run is the daemon's business, which alone can connect (the socket is root's).

Protocol, version 1: SOCK_SEQPACKET, one JSON object a packet, descriptors by SCM_RIGHTS. A request has `op` and `id`; its reply
has the same `id` and either results or `error`. Events (`exit`, `output`, `exec_exit`) have no id. Requests are the methods
`_do_…` below.

Standard library only; single-threaded; never blocks on a peer.
"""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable

if __name__ == "__main__":
    sys.path.insert(0, __file__.removesuffix("/silo/isolation/process/keeper.py"))

from silo.isolation.container_log import READ_BYTES
from silo.isolation.process.keeper_children import Parked, become_subreaper, make_namespaces
from silo.isolation.process.keeper_clients import Clients
from silo.isolation.process.keeper_containers import (
    Container,
    Job,
    Request,
    adopted_exit_code,
    exit_code,
    listen_for_terminal,
    read_available,
    set_size,
)
from silo.model.exit_codes import KILLED

PROTOCOL_VERSION = 1
_UNCLAIMED_LIMIT = 1024
_DRAIN_LIMIT_BYTES = 4 << 20
# a daemon that is being restarted finds its mount namespace again
_IDLE_EXIT_S = 30.0


class Keeper:
    def __init__(self, listener: socket.socket) -> None:
        self._selector = selectors.DefaultSelector()
        self._clients = Clients(listener, self._selector, self._handle, self._forget_client)
        self._keys: dict[socket.socket, set[str]] = {}
        self._parked: dict[str, Parked] = {}
        self._containers: dict[str, Container] = {}
        self._by_pid: dict[int, Container] = {}
        self._jobs: dict[int, Job] = {}
        self._execs: dict[int, str] = {}
        self._unclaimed: dict[int, int] = {}

    def run(self) -> None:
        become_subreaper()
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_IGN)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self._watch(wake_read, lambda: self._reap(wake_read))
        while True:
            ready = self._selector.select(None if self._is_needed() else _IDLE_EXIT_S)
            if not ready and not self._is_needed():
                return
            for key, _ in ready:
                # an earlier callback of this round may have closed it
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
            self._announce_output()

    def _is_needed(self) -> bool:
        """By a daemon, or by a container that runs."""
        return bool(self._clients.count or self._jobs) or any(c.exit is None for c in self._containers.values())

    def _watch(self, source: socket.socket | int, callback: Callable[[], object]) -> None:
        self._selector.register(source, selectors.EVENT_READ, callback)

    def _unwatch(self, source: socket.socket | int) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(source)

    def _handle(self, client: socket.socket, order: Request, descriptors: list[int]) -> None:
        method = getattr(self, f"_do_{order['op']}", None)
        if method is None:
            raise ValueError(f"unknown request {order['op']}")
        method(client, order, descriptors)

    def _forget_client(self, client: socket.socket) -> None:
        """The daemon is gone: what only it could have used goes too; containers stay."""
        for key in self._keys.pop(client, set()):
            self._discard(key)

    def _announce_output(self) -> None:
        for container in self._containers.values():
            if container.dirty:
                container.dirty = False
                self._clients.tell({"event": "output", "container": container.id})

    # --- requests

    def _do_hello(self, client: socket.socket, order: Request, _: list[int]) -> None:
        answer = {
            "version": PROTOCOL_VERSION,
            "pid": os.getpid(),
            "containers": {c.id: {"pid": c.pid, "exit": c.exit} for c in self._containers.values()},
        }
        self._clients.reply(client, order, answer)

    def _do_park(self, client: socket.socket, order: Request, passed: list[int]) -> None:
        """key, entry_files, user, network → descriptors of the new namespaces; passed: a user namespace to make them in."""
        parked = Parked(order["entry_files"])
        self._parked[order["key"]] = parked
        self._keys.setdefault(client, set()).add(order["key"])
        try:
            made = make_namespaces(order.get("user"), bool(order.get("network")), passed[0] if passed else -1)
        except OSError:
            self._discard(order["key"])
            raise
        self._clients.reply(client, order, {"pid": parked.pid}, made)
        for descriptor in made:
            os.close(descriptor)

    def _do_discard(self, client: socket.socket, order: Request, _: list[int]) -> None:
        self._discard(order["key"])
        self._clients.reply(client, order, {})

    def _discard(self, key: str) -> None:
        parked = self._parked.pop(key, None)
        if parked is not None:
            parked.discard()

    def _take(self, client: socket.socket, key: str) -> Parked:
        self._keys.get(client, set()).discard(key)
        return self._parked.pop(key)

    def _do_create(self, client: socket.socket, order: Request, passed: list[int]) -> None:
        """key, container, argv, env, cwd, terminal, console, input, owner, status, pid_file, directory, log, log_max_bytes.

        `owner` is the host uid of the program. Passed descriptors become 3, 4, …; with `status` a status pipe follows them.
        """
        container_id = order["container"]
        if container_id in self._containers:
            raise ValueError(f"container {container_id} is known already")
        console = listen_for_terminal(order["console"]) if order["terminal"] else None
        parked = self._take(client, order["key"])
        container = Container(container_id, order)
        job = Job(client, order, container, parked)
        job.console = console
        in_read, in_write = os.pipe2(os.O_CLOEXEC)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        for descriptor in (in_read, out_write, err_write):
            # opening /dev/stdout by name needs it
            os.fchown(descriptor, order["owner"], -1)
        theirs = [in_read, out_write, err_write, *passed]
        if order.get("status"):
            container.status_pipe, status_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            theirs.append(status_write)
        try:
            parked.become(order["argv"], order["env"], order["cwd"], theirs)
        finally:
            for descriptor in theirs:
                if descriptor not in passed:
                    os.close(descriptor)
        if order["input"] and not order["terminal"]:
            os.set_blocking(in_write, False)
            container.input = in_write
        else:
            os.close(in_write)
        for descriptor, stream in ((out_read, 1), (err_read, 2)):
            os.set_blocking(descriptor, False)
            container.outputs[descriptor] = stream
        self._containers[container_id] = container
        self._jobs[job.pid] = job

    def _do_exec(self, client: socket.socket, order: Request, passed: list[int]) -> None:
        """key, exec, argv, env, cwd, terminal, console, pid_file; passed: the program's 0, 1, 2."""
        console = listen_for_terminal(order["console"]) if order["terminal"] else None
        parked = self._take(client, order["key"])
        job = Job(client, order, None, parked)
        job.console = console
        parked.become(order["argv"], order["env"], order["cwd"], passed)
        self._jobs[job.pid] = job

    def _reply_streams(self, client: socket.socket, order: Request, container: Container, answer: Request) -> None:
        """With copies of the descriptors: `streams` are their roles. The daemon can then start another keeper."""
        streams = container.streams()
        self._clients.reply(client, order, {**answer, "streams": list(streams)}, list(streams.values()))

    def _do_streams(self, client: socket.socket, order: Request, _: list[int]) -> None:
        self._reply_streams(client, order, self._containers[order["container"]], {})

    def _do_adopt(self, client: socket.socket, order: Request, passed: list[int]) -> None:
        """container, pid, streams (roles of the passed descriptors), directory, log, …: a dead keeper's container.

        It is no child of ours: its end is seen, and its exit code known where the kernel tells.
        """
        container = Container(order["container"], order)
        container.pid = order["pid"]
        container.take_streams({role: os.dup(number) for role, number in zip(order["streams"], passed, strict=True)})
        self._containers[container.id] = container
        self._watch_outputs(container)
        self._clients.reply(client, order, {})
        try:
            container.process = os.pidfd_open(container.pid)
        except ProcessLookupError:
            self._finish_container(container, KILLED)
        else:
            self._watch(container.process, functools.partial(self._adopted_ended, container))

    def _adopted_ended(self, container: Container) -> None:
        code = adopted_exit_code(container.process)
        self._finish_container(container, code)

    def _watch_outputs(self, container: Container) -> None:
        for descriptor in container.outputs:
            self._watch(descriptor, functools.partial(self._read, container, descriptor))

    def _do_close_input(self, client: socket.socket, order: Request, _: list[int]) -> None:
        container = self._containers[order["container"]]
        if container.input >= 0:
            os.close(container.input)
            container.input = -1
        self._clients.reply(client, order, {})

    def _do_resize(self, client: socket.socket, order: Request, _: list[int]) -> None:
        container = self._containers[order["container"]]
        if container.terminal >= 0:
            set_size(container.terminal, order["rows"], order["columns"])
        self._clients.reply(client, order, {})

    def _do_rename(self, client: socket.socket, order: Request, _: list[int]) -> None:
        """container, name, directory, log, log_max_bytes, memory_file: it was started ahead and has got an owner."""
        container = self._containers.pop(order["container"])
        container.settle(order["name"], order)
        self._containers[container.id] = container
        self._clients.reply(client, order, {})

    def _do_forget(self, client: socket.socket, order: Request, _: list[int]) -> None:
        container = self._containers.pop(order["container"], None)
        if container is not None:
            self._by_pid.pop(container.pid, None)
            self._close(container)
            if container.pid and container.exit is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(container.pid, signal.SIGKILL)
        self._clients.reply(client, order, {})

    def _do_shutdown(self, client: socket.socket, order: Request, _: list[int]) -> None:
        if any(c.pid and c.exit is None for c in self._containers.values()) and not order.get("force"):
            raise ValueError("containers are running")
        for key in tuple(self._parked):
            self._discard(key)
        self._clients.stop_listening()
        self._clients.reply(client, order, {})
        os._exit(0)

    # --- children

    def _reap(self, wake: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(wake, 4096)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended(pid, status)

    def _ended(self, pid: int, status: int) -> None:
        job = self._jobs.pop(pid, None)
        if job is not None:
            self._finish_job(job, os.waitstatus_to_exitcode(status))
        elif pid in self._by_pid:
            self._finish_container(self._by_pid.pop(pid), exit_code(status))
        elif pid in self._execs:
            self._clients.tell({"event": "exec_exit", "exec": self._execs.pop(pid), "code": exit_code(status)})
        elif self._jobs:
            # perhaps a program whose crun is yet to be reaped; without a crun on its way, an orphan of a container on the
            # host's pids, and remembering it would be wrong for whoever gets that pid next
            self._unclaimed[pid] = status
            if len(self._unclaimed) > _UNCLAIMED_LIMIT:
                self._unclaimed.pop(next(iter(self._unclaimed)))
        if not self._jobs:
            self._unclaimed.clear()

    def _finish_job(self, job: Job, code: int) -> None:
        job.accept_terminal()
        pid = 0
        if code == 0:
            try:
                pid = job.load_pid()
            except (OSError, ValueError) as error:
                code = 1
                print(f"keeper: no pid from crun: {error}", file=sys.stderr, flush=True)
        if job.container is not None:
            self._created(job, job.container, code, pid)
        else:
            self._executed(job, code, pid)

    def _created(self, job: Job, container: Container, code: int, pid: int) -> None:
        if code != 0 or self._containers.get(container.id) is not container:
            message = b"".join(read_available(descriptor) for descriptor in container.outputs)
            self._containers.pop(container.id, None)
            self._close(container)
            if job.terminal >= 0:
                os.close(job.terminal)
            if pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            text = message.decode(errors="replace")[-4000:]
            self._clients.reply(job.client, job.order, {"status": code or 1, "message": text})
            return
        container.pid = pid
        if job.terminal >= 0:
            for descriptor in container.outputs:
                os.close(descriptor)
            container.outputs = {}
            container.take_streams({"terminal": job.terminal})
        self._watch_outputs(container)
        self._by_pid[pid] = container
        self._reply_streams(job.client, job.order, container, {"status": 0, "pid": pid})
        if pid in self._unclaimed:
            self._finish_container(self._by_pid.pop(pid), exit_code(self._unclaimed.pop(pid)))

    def _executed(self, job: Job, code: int, pid: int) -> None:
        if code != 0:
            self._clients.reply(job.client, job.order, {"status": code})
        else:
            descriptors = [job.terminal] if job.terminal >= 0 else []
            self._clients.reply(job.client, job.order, {"status": 0, "pid": pid}, descriptors)
            if pid in self._unclaimed:
                status = self._unclaimed.pop(pid)
                self._clients.tell({"event": "exec_exit", "exec": job.order["exec"], "code": exit_code(status)})
            else:
                self._execs[pid] = job.order["exec"]
        if job.terminal >= 0:
            os.close(job.terminal)

    def _finish_container(self, container: Container, code: int) -> None:
        limit = _DRAIN_LIMIT_BYTES
        for descriptor in tuple(container.outputs):
            while limit > 0 and (count := self._read(container, descriptor)) > 0:
                limit -= count
        record = container.end(code)
        self._close(container)
        self._clients.tell({"event": "exit", "container": container.id, **record})

    # --- streams

    def _read(self, container: Container, descriptor: int) -> int:
        """One piece of output into the log; answers its size, 0 at the end, -1 when there is none now."""
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return -1
        except OSError:  # EIO: the last user of the terminal is gone
            data = b""
        if not data:
            self._unwatch(descriptor)
            if container.outputs.pop(descriptor, None) is not None:
                os.close(descriptor)
            if descriptor == container.terminal:
                container.terminal = -1
            return 0
        container.log.append(container.outputs[descriptor], data)
        container.dirty = True
        return len(data)

    def _close(self, container: Container) -> None:
        for descriptor in container.open_descriptors():
            self._unwatch(descriptor)
        container.close()


def main() -> None:
    Keeper(socket.socket(fileno=int(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
