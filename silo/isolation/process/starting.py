"""From "crun waits at the fifo" to "the program runs": the byte that lets it go, and telling success from refusal.

crun's `start` would do the former in 3 ms; opening its exec.fifo ourselves takes a tenth of one. The latter nobody reports:
crun is gone by then, and the kernel's refusal to execute goes to the program's own standard error.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from pathlib import Path

from silo.errors import HostError, SiloError
from silo.host.run import run
from silo.isolation.process.failures import EXEC_FAILED, translate_failure
from silo.isolation.process.live import Live
from silo.isolation.process.probe import HostFacts
from silo.isolation.process.record import Paths, save_record
from silo.isolation.seccomp import SeccompSource
from silo.model.runtime import ContainerPlan

log = logging.getLogger(__name__)

_PATIENCE_S = 30.0
_LAST_WORDS_BYTES = 65536
_SECCOMP_FILTERING = "Seccomp:\t2"


class Starter:
    def __init__(self, paths: Paths, facts: HostFacts, seccomp: SeccompSource) -> None:
        self._paths = paths
        self._facts = facts
        self._seccomp = seccomp
        self._filter_seen = False

    async def start(self, live: Live) -> None:
        """Raises ProcessStartFailed, HostError; the container has then ended or is ended by release."""
        log_file = live.record.plan.directory / "log"
        log_size = log_file.stat().st_size if log_file.exists() else 0
        await asyncio.to_thread(self._let_go, live)
        if not await self._becomes_program(live):
            raise await asyncio.to_thread(_explain, live, log_file, log_size)
        if not self._filter_seen and live.exit is None and wants_filter(live.record.plan):
            await asyncio.to_thread(self._check_filter, live)

    def _let_go(self, live: Live) -> None:
        save_record(self._paths, live.record)
        fifo = self._paths.crun_root / live.id / "exec.fifo"
        if not fifo.exists():
            # a crun that synchronizes in another way
            run([self._facts.crun, f"--root={self._paths.crun_root}", "start", live.id], timeout_s=_PATIENCE_S)
            return
        try:
            descriptor = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise HostError("the container does not wait to be started", details=str(error)) from error
        try:
            fifo.unlink()
            os.write(descriptor, b"0")
        finally:
            os.close(descriptor)

    async def _becomes_program(self, live: Live) -> bool:
        """Until the waiting crun has become the program (True), or has ended without (False)."""
        link = f"/proc/{live.record.pid}/exe"
        loop = asyncio.get_running_loop()
        end = loop.time() + _PATIENCE_S
        pause = 0.0002
        while loop.time() < end:
            try:
                now = os.stat(link)  # noqa: PTH116 - microseconds, and the target may be gone
                if (now.st_dev, now.st_ino) != self._facts.crun_identity:
                    return True
            except OSError:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(live.ended.wait(), 5)
                break
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.02)
        return not await asyncio.to_thread(_was_refused, live)

    def _check_filter(self, live: Live) -> None:
        """Once a daemon: does crun really load the filter that it is given in an annotation? Fails closed."""
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{live.record.pid}/status").read_text()
            if "State:\tZ" in status:
                return
            if _SECCOMP_FILTERING not in status:
                self._seccomp.stop_using_annotation()
                raise HostError(
                    "this crun did not load the seccomp filter: the container was stopped at once",
                    hint="start it again: from now on crun gets the rules in its configuration",
                )
            self._filter_seen = True


def wants_filter(plan: ContainerPlan) -> bool:
    return not plan.privileged and plan.seccomp != "unconfined"


def _was_refused(live: Live) -> bool:
    """The process ended before it was seen to be the program: too fast to be seen, or refused by the kernel?"""
    if live.exit is None or live.exit.exit_code == 0:
        return False
    file = live.record.plan.directory / "log"
    try:
        with open(file, "rb") as records:
            records.seek(max(0, file.stat().st_size - 4096))
            return EXEC_FAILED in records.read()
    except FileNotFoundError:
        return False


def _explain(live: Live, log_file: Path, log_size: int) -> SiloError:
    """The last words are crun's, not the program's: they leave the log and become the error."""
    with log_file.open("rb") as records:
        # former runs may have written any amount
        records.seek(log_size)
        message = records.read(_LAST_WORDS_BYTES)
    os.truncate(log_file, log_size)
    start = message.find(EXEC_FAILED)
    program = live.record.plan.process.args[0]
    return translate_failure(program, message[max(start, 0) :].decode(errors="replace"))
