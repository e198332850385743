"""Further programs in a running container: `crun exec` through the keeper, streams made here and owned by the caller."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from pathlib import Path

import msgspec

from silo.errors import HostError, Unavailable
from silo.host import namespaces
from silo.host.cgroups import CgroupTree
from silo.host.syscalls import peek_pipe
from silo.isolation.identity import load_identity
from silo.isolation.process.failures import EXEC_FAILED, translate_failure
from silo.isolation.process.keeper_client import KeeperClient
from silo.isolation.process.keeper_containers import set_size
from silo.isolation.process.live import Live
from silo.isolation.process.making import CRUN_ENVIRONMENT
from silo.isolation.process.probe import HostFacts
from silo.isolation.process.record import Paths
from silo.isolation.process.streams import close_streams, make_pipes
from silo.isolation.run_files import write_private
from silo.isolation.slots import RANGE_SIZE
from silo.isolation.spec import build_process, build_rlimits
from silo.model.exit_codes import KILLED
from silo.model.runtime import ExecStreams, ProcessPlan

log = logging.getLogger(__name__)


class LinuxExec:
    """See silo.engine.ports.RunningExec."""

    def __init__(self, container_id: str, streams: ExecStreams) -> None:
        self.container_id = container_id
        self.streams = streams
        self.pid = 0
        self._started = 0
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        # a descriptor of our own: the caller may close its terminal while resize still comes in
        self._terminal = os.dup(streams.terminal) if streams.terminal is not None else -1

    def identify(self, pid: int) -> None:
        self.pid = pid
        self._started = namespaces.start_time(pid)

    async def wait(self) -> int:
        return await asyncio.shield(self._ended)

    async def signal(self, signal: int) -> None:
        if not self._ended.done() and self._started:
            namespaces.kill_process(self.pid, signal, started=self._started)

    async def resize(self, rows: int, columns: int) -> None:
        if self._terminal >= 0:
            set_size(self._terminal, rows, columns)

    def exit_code(self) -> int | None:
        return self._ended.result() if self._ended.done() else None

    def end(self, code: int) -> None:
        if not self._ended.done():
            self._ended.set_result(code)
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1


class Executor:
    def __init__(self, paths: Paths, keeper: KeeperClient, cgroups: CgroupTree, facts: HostFacts) -> None:
        self._paths = paths
        self._keeper = keeper
        self._cgroups = cgroups
        self._facts = facts
        self._running: dict[str, LinuxExec] = {}
        self._early: dict[str, int] = {}

    async def run(self, live: Live, program: ProcessPlan, *, stdin: bool, stdout: bool, stderr: bool) -> LinuxExec:
        """Raises ProcessStartFailed, InvalidRequest, HostError."""
        exec_id = secrets.token_hex(8)
        bundle = self._paths.bundle(live.id)
        process_file, pid_file = bundle / f"exec-{exec_id}.json", bundle / f"exec-{exec_id}.pid"
        entry_files = self._cgroups.entry_files(live.record.cgroup) if self._facts.own_cgroups else ()
        parking = self._keeper.begin("park", key=exec_id, entry_files=entry_files, user=None, network=False)
        try:
            await asyncio.to_thread(self._write_process, live, program, process_file)
            parked = (await parking).values
            if "error" in parked:
                raise HostError("the keeper could not make a process", details=str(parked["error"]))
        except BaseException:
            with contextlib.suppress(Unavailable):
                # its reply is not awaited: requests are carried out in order
                self._keeper.begin("discard", key=exec_id)
            raise
        console = f"{self._paths.terminals}/{exec_id}"
        complaints = bundle / f"exec-{exec_id}.log"
        argv = [str(self._facts.crun), f"--root={self._paths.crun_root}", f"--log={complaints}"]
        if self._facts.own_cgroups:
            argv.append("--cgroup-manager=disabled")
        argv += ["exec", "--detach", f"--process={process_file}", f"--pid-file={pid_file}"]
        if program.tty:
            argv.append(f"--console-socket={console}")
        null = self._facts.null_device
        # What nobody wants goes to a read-only mount of /dev/null: crun gives standard streams to the container's user, and
        # would give away the host's device. A terminal takes the place of all three.
        wanted = (False, False, False) if program.tty else (stdin, stdout, stderr)
        ours, theirs = make_pipes(null, wanted)
        try:
            reply = await self._keeper.request(
                "exec",
                theirs,
                key=exec_id,
                exec=exec_id,
                argv=[*argv, live.id],
                env=CRUN_ENVIRONMENT,
                cwd=str(bundle),
                terminal=program.tty,
                console=console,
                pid_file=str(pid_file),
            )
        except BaseException:
            close_streams(ours)
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
            process_file.unlink(missing_ok=True)
        started = self._finish(live, program, exec_id, reply.values, reply.descriptors, ours, complaints, pid_file)
        await self._settle(started, program)
        return started

    def _finish(
        self,
        live: Live,
        program: ProcessPlan,
        exec_id: str,
        values: dict[str, object],
        descriptors: list[int],
        ours: ExecStreams,
        complaints: Path,
        pid_file: Path,
    ) -> LinuxExec:
        pid_file.unlink(missing_ok=True)
        message = complaints.read_text(errors="replace") if complaints.exists() else ""
        complaints.unlink(missing_ok=True)
        if values["status"] != 0:
            close_streams(ours)
            raise translate_failure(program.args[0] if program.args else "", message)
        if program.tty:
            os.set_blocking(descriptors[0], False)
            ours = ExecStreams(terminal=descriptors[0])
            if program.console_size:
                set_size(descriptors[0], *program.console_size)
        started = LinuxExec(live.id, ours)
        started.identify(int(str(values["pid"])))
        if exec_id in self._early:
            started.end(self._early.pop(exec_id))
        else:
            self._running[exec_id] = started
        return started

    async def _settle(self, started: LinuxExec, program: ProcessPlan) -> None:
        """Until crun has become the program. Raises ProcessStartFailed when the kernel refused it.

        crun has answered by then; its last words are on the program's standard error, and are looked at without being taken.
        """
        link = f"/proc/{started.pid}/exe"
        own = self._facts.crun_identity
        for _ in range(200):
            code = started.exit_code()
            if code is not None:
                words = peek_pipe(started.streams.stderr) if code == 1 and started.streams.stderr is not None else b""
                if words.startswith((EXEC_FAILED, b"exec: ")):
                    close_streams(started.streams)
                    raise translate_failure(program.args[0], words.decode(errors="replace"))
                return
            with contextlib.suppress(OSError):
                now = os.stat(link)  # noqa: PTH116 - microseconds, and the target may be gone
                if (now.st_dev, now.st_ino) != own:
                    return
            await asyncio.sleep(0.0005)

    def _write_process(self, live: Live, program: ProcessPlan, file: Path) -> None:
        root: int | Path = live.root if live.root >= 0 else Path(f"/proc/{live.record.pid}/root")
        limit = RANGE_SIZE if live.record.first_host_uid else 2**31 - 1
        identity = load_identity(root, program.user, program.groups, limit=limit)
        allowed = tuple(name for name in program.capabilities if name in self._facts.capabilities)
        fitted = msgspec.structs.replace(program, capabilities=allowed)
        process = build_process(fitted, identity)
        process["rlimits"] = build_rlimits(live.record.plan.resources.ulimits)
        write_private(file, msgspec.json.encode(process))

    def ended(self, exec_id: str, code: int) -> None:
        running = self._running.pop(exec_id, None)
        if running is None:
            self._early[exec_id] = code
            return
        running.end(code)

    def container_ended(self, container_id: str) -> None:
        for exec_id, running in tuple(self._running.items()):
            if running.container_id == container_id:
                del self._running[exec_id]
                running.end(KILLED)
