"""Programs: the container's main one and those executed in it later. crun makes them, the agent is their parent.

A task is `starting` until its process has become the program, `running`, then `exited` until the host releases it; so a host
that was away learns the exit code. crun leaves its children behind, and they become the agent's (it is pid 1, or a subreaper).
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from silo.guest.calls import Call
from silo.guest.crun import Crun, Job
from silo.guest.failures import Refused, are_last_words, start_failure
from silo.guest.loop import Loop
from silo.guest.streams import Streams
from silo.guest.task import Task

if TYPE_CHECKING:
    from silo.guest.launching import Launcher

_MAXIMUM_TASKS = 1024
_UNCLAIMED_LIMIT = 1024
_SETTLE_S = 30.0
_LAST_WORDS_BYTES = 4096


class Tasks:
    def __init__(self, loop: Loop, streams: Streams, crun: Crun, entry_place: str) -> None:
        self._loop = loop
        self._entry_place = entry_place
        self._streams = streams
        self._crun = crun
        self._tasks: dict[str, Task] = {}
        self._by_pid: dict[int, Task] = {}
        self._jobs: dict[int, Job] = {}
        self._unclaimed: dict[int, int] = {}
        self.on_exit: Callable[[Task], None] = lambda _: None
        loop.on_children = self._reap

    def describe(self) -> list[dict[str, Any]]:
        return [task.describe() for task in self._tasks.values()]

    def get(self, name: object) -> Task:
        task = self._tasks.get(str(name))
        if task is None:
            raise Refused("no_task", f"there is no task {name}")
        return task

    # --- starting

    def run(
        self, call: Call, name: str, config: dict[str, Any], streams: dict[str, int], *, launcher: bool, entry: bool
    ) -> None:
        """The container: an OCI configuration whose root is mounted already. With `entry` its process waits for `enter`."""
        task = Task(self._new_name(name), name, config["process"])
        path = str(config.get("linux", {}).get("cgroupsPath", "")).strip("/")
        task.cgroup = f"/sys/fs/cgroup/{path}" if path else ""
        job = Job(call, task)
        if entry:
            from silo.guest.entry import WORDS, Entry

            task.process["args"] = list(WORDS)
            task.entry = Entry(self._loop, self._entry_place)
            job.passed = task.entry.passed
        if launcher:
            from silo.guest.launching import Launcher

            task.launcher = Launcher(self._loop, self._crun.socket_path())
            job.passed = task.launcher.passed

        def begin() -> None:
            bundle = self._crun.write_bundle(name, config)
            self._spawn(job, self._crun.run_words(bundle, len(job.passed)))

        self._start(job, streams, begin)

    def execute(self, call: Call, name: str, container: str, process: dict[str, Any], streams: dict[str, int]) -> None:
        owner = self._running_container(container)
        job = Job(call, Task(self._new_name(name), container, process))
        job.task.cgroup = owner.cgroup
        words = self._crun.exec_words(name, process)
        self._start(job, streams, lambda: self._spawn(job, words))

    def enter(self, call: Call, container: str, process: dict[str, Any]) -> None:
        """A container that was begun ahead becomes the program that it was made for, on the streams that it has."""
        from silo.guest.entry import encode_order, refusal

        task = self._running_container(container)
        if task.entry is None:
            raise Refused("invalid", f"container {container} was not begun ahead")
        args, pid = [str(word) for word in process["args"]], task.pid
        order = encode_order(args, [str(word) for word in process["env"]])

        def answered(number: int) -> None:
            if not number:
                call.reply({"pid": pid})
                return
            # what ends now is the process that waited; nobody is told
            self._by_pid.pop(pid, None)
            self._drop_streams(task)
            self._tasks.pop(task.name, None)
            self._forget_container(task)
            call.fail(refusal(number, args[0] if args else ""))

        task.entry.enter(order, answered)

    def ask(self, call: Call, container: str, message: bytes) -> None:
        """A launcher's request that has one answer, or none before the container ends."""
        launcher = self.launcher_of(container)

        def answered(answer: bytes) -> bool:
            call.reply({"answer": answer.hex()})
            return False

        launcher.ask(message, [], answered)

    def launch(self, call: Call, params: dict[str, Any], message: bytes) -> None:
        """A further program of a Windows container, on streams of its own."""
        container, tty = str(params["container"]), bool(params.get("tty"))
        launcher = self.launcher_of(container)
        user = self.get(container).process["user"]
        job = Job(call, Task(self._new_name(params["task"]), container, {"terminal": tty, "user": user}))
        task = job.task

        def begin() -> None:
            if tty:
                terminal, its = os.openpty()
                job.theirs = [its]
                self._attach_terminal(task, terminal)
                if params.get("rows"):
                    self._crun.set_size(terminal, int(params["rows"]), int(params["columns"]))
            launcher.ask(message, job.theirs, lambda answer: self._launched(job, answer))
            job.close_theirs()

        self._start(job, params.get("streams", {}), begin)

    def _running_container(self, name: object) -> Task:
        owner = self.get(name)
        if not owner.is_container or owner.state != "running":
            raise Refused("not_running", f"container {name} is not running")
        return owner

    def launcher_of(self, container: object) -> Launcher:
        launcher = self._running_container(container).launcher
        if launcher is None:
            raise Refused("invalid", f"container {container} has no launcher")
        return launcher

    def _launched(self, job: Job, answer: bytes) -> bool:
        """What the launcher says of a program: that it has started or why not, then its end. True: more is to come."""
        from silo.guest.launching import exit_code, started_pid

        task = job.task
        if task.state == "starting":
            task.windows_pid = started_pid(answer)
            if not task.windows_pid:
                self._drop_streams(task)
                del self._tasks[task.name]
                job.call.reply({"answer": answer.hex()})
                return False
            task.state = "running"
            job.call.reply({"answer": answer.hex()})
            for output in task.outputs:
                output.held = False
            return True
        code = exit_code(answer)
        # its launcher ended before it, so it was killed
        self._finish(task, 137 if code is None else code)
        return False

    def _new_name(self, name: str) -> str:
        if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum() or len(name) > 128:
            raise Refused("invalid", f"{name!r} is not a task's name")
        if name in self._tasks:
            raise Refused("conflict", f"task {name} exists already")
        if len(self._tasks) >= _MAXIMUM_TASKS:
            raise Refused("limit", "too many tasks: release those that ended")
        return name

    def _start(self, job: Job, wanted: dict[str, int], begin: Callable[[], None]) -> None:
        """Make the task's streams, then `begin`; all is undone when that fails."""
        task = job.task
        try:
            self._open_streams(job, wanted)
            begin()
        except BaseException:
            self._drop_streams(task)
            job.close()
            task.close_helpers()
            raise
        self._tasks[task.name] = task

    def _open_streams(self, job: Job, wanted: dict[str, int]) -> None:
        task = job.task
        roles = ("stdin", "stdout") if task.tty else ("stdin", "stdout", "stderr")
        if not set(wanted) <= set(roles):
            raise Refused("invalid", f"the streams are {', '.join(roles)}")
        self._streams.check_free(*wanted.values())
        if "stdin" in wanted:
            task.input = self._streams.add_input(wanted["stdin"], terminal=task.tty)
        ends = {} if task.tty else job.make_pipes(frozenset(wanted), int(task.process["user"]["uid"]))
        for role in ("stdout", "stderr"):
            if role in wanted:
                output = self._streams.add_output(wanted[role])
                task.outputs.append(output)
                if role in ends:
                    output.attach(ends[role])
        if task.input and "stdin" in ends:
            task.input.attach(ends["stdin"])

    def _spawn(self, job: Job, words: list[str]) -> None:
        self._crun.spawn(job, words)
        self._jobs[job.pid] = job

    def _drop_streams(self, task: Task) -> None:
        for stream in task.streams():
            self._streams.remove(stream.number)
        task.outputs = []
        task.input = None
        if task.terminal >= 0:
            os.close(task.terminal)
            task.terminal = -1

    # --- children

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._jobs:
                self._crun_ended(self._jobs.pop(pid), os.waitstatus_to_exitcode(status))
            elif pid in self._by_pid:
                self._ended(self._by_pid.pop(pid), status)
            elif self._jobs:
                # perhaps a program whose crun is yet to be reaped; else an orphan
                self._unclaimed[pid] = status
                if len(self._unclaimed) > _UNCLAIMED_LIMIT:
                    self._unclaimed.pop(next(iter(self._unclaimed)))
            if not self._jobs:
                self._unclaimed.clear()

    def _crun_ended(self, job: Job, code: int) -> None:
        task = job.task
        terminal = job.accept_terminal()
        words, pid = self._crun.collect(job)
        if code != 0 or pid == 0:
            if terminal >= 0:
                os.close(terminal)
            for output in task.outputs:
                output.drain()
                words += output.spool.read(output.spool.start, _LAST_WORDS_BYTES).decode(errors="replace")
            self._fail(job, start_failure(words))
            return
        task.pid = pid
        if terminal >= 0:
            self._attach_terminal(task, terminal)
        job.deadline = time.monotonic() + _SETTLE_S
        if pid in self._unclaimed:
            self._settled_by_end(job, self._unclaimed.pop(pid))
        else:
            self._by_pid[pid] = task
            task.job = job
            self._settle(job)

    def _attach_terminal(self, task: Task, terminal: int) -> None:
        """Each user gets a descriptor of its own: they end at different times."""
        task.terminal = terminal
        for stream in task.streams():
            stream.attach(os.dup(terminal))

    def _settle(self, job: Job) -> None:
        """Look until crun has become the program. Nobody tells: crun has answered by then."""
        task = job.task
        if task.job is not job:
            return
        if self._crun.has_become_program(task.pid) or time.monotonic() > job.deadline:
            self._running(job)
        else:
            self._loop.later(0.001, lambda: self._settle(job))

    def _running(self, job: Job) -> None:
        job.task.job = None
        job.task.state = "running"
        job.call.reply({"pid": job.task.pid})
        for output in job.task.outputs:
            output.held = False

    def _settled_by_end(self, job: Job, status: int) -> None:
        """It ended before it was seen to run: too fast to be seen, or refused by the kernel?"""
        task = job.task
        task.job = None
        if os.waitstatus_to_exitcode(status) == 1 and task.outputs:
            last = task.outputs[-1]
            last.drain()
            words = last.spool.read(last.spool.start, _LAST_WORDS_BYTES)
            if are_last_words(words):
                self._fail(job, start_failure(words.decode(errors="replace")))
                return
        self._running(job)
        self._finish_status(task, status)

    def _fail(self, job: Job, failure: Refused) -> None:
        task = job.task
        self._drop_streams(task)
        self._tasks.pop(task.name, None)
        if task.is_container:
            self._forget_container(task)
        job.call.fail(failure)

    def _ended(self, task: Task, status: int) -> None:
        if task.job is not None:
            self._settled_by_end(task.job, status)
        else:
            self._finish_status(task, status)

    def _finish_status(self, task: Task, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        code = 128 - code if code < 0 else code
        self._finish(task, code if task.launcher is None else task.launcher.take_exit_code(code))

    def _finish(self, task: Task, code: int) -> None:
        ends = {}
        for output in task.outputs:
            output.drain()
            ends[str(output.number)] = output.expected_end()
        task.exit = {
            "code": code,
            "oom": self._crun.was_out_of_memory(task.cgroup),
            "at_ns": time.time_ns(),
            "ends": ends,
        }
        task.state = "exited"
        task.pid = task.windows_pid = 0
        self.on_exit(task)

    # --- afterwards

    def release(self, name: str) -> None:
        """The host has the exit and all of the output that it wants."""
        task = self.get(name)
        if task.state != "exited":
            raise Refused("conflict", f"task {name} has not ended")
        del self._tasks[name]
        self._drop_streams(task)
        if task.is_container:
            self._forget_container(task)

    def _forget_container(self, task: Task) -> None:
        self._crun.forget(task.name, task.cgroup)
        task.close_helpers()

    def signal(self, name: str, number: int, everyone: bool) -> None:
        task = self.get(name)
        if task.windows_pid and not everyone:
            raise Refused("invalid", f"task {name} is its launcher's to signal")
        if everyone and task.cgroup and os.path.isdir(task.cgroup):  # noqa: PTH112 - pathlib is not imported here
            self._crun.signal_all(task.cgroup, number)
            return
        if not task.pid:
            raise Refused("not_running", f"task {name} is not running")
        try:
            # not reaped yet, so the number is still its own
            os.kill(task.pid, number)
        except OSError as error:
            if error.errno != errno.ESRCH:
                raise

    def resize(self, name: str, rows: int, columns: int) -> None:
        task = self.get(name)
        if task.terminal < 0:
            raise Refused("invalid", f"task {name} has no terminal")
        with contextlib.suppress(OSError):
            self._crun.set_size(task.terminal, rows, columns)

    def close_input(self, name: str) -> None:
        task = self.get(name)
        if task.input is not None:
            task.input.close_soon()
