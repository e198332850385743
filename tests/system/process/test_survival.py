"""Whatever is killed, containers and what is known of them go on."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from silo.host import mounts
from tests.contract.subjects import LinuxSubject
from tests.system.process.conftest import Shell

DAEMON = """
import asyncio, sys
from pathlib import Path
import msgspec
from silo.isolation.process.namespace import enter_mount_namespace
root = Path(sys.argv[1])
enter_mount_namespace(root / "run")
from silo.isolation.process.runtime import ProcessRuntime
from silo.model.runtime import ContainerPlan
from tests.contract.subjects import Listener
plans = msgspec.json.decode(sys.stdin.buffer.read(), type=list[ContainerPlan], dec_hook=lambda kind, value: kind(value))
async def main():
    runtime = ProcessRuntime(run_root=root / "run", data_root=root / "data", linux_pool=0, windows_pool=0)
    await runtime.open(Listener())
    for number, plan in enumerate(plans):
        await runtime.prepare(plan)
        if number < 2:
            await runtime.start(plan.id)
    print("ready", flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


async def test_sigkill_of_the_daemon(subject: LinuxSubject, shell: Shell, places: Path) -> None:
    living = shell("read line; echo got $line; while true; do echo tick; sleep 0.1; done", open_stdin=True)
    dying = shell("sleep 1; echo last words; exit 9")
    prepared = shell("echo never")
    plans = msgspec.json.encode([living, dying, prepared], enc_hook=str)
    # as it would be with a keeper that this daemon starts
    await subject.runtime.close()
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, str(places)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert daemon.stdin is not None and daemon.stdout is not None
    daemon.stdin.write(plans)
    daemon.stdin.close()
    assert await asyncio.to_thread(daemon.stdout.readline) == b"ready\n"
    daemon.kill()
    daemon.wait()
    daemon.stdout.close()
    await asyncio.sleep(1.5)
    await subject.connect()
    states = await subject.runtime.recover([living.id, dying.id, prepared.id])
    assert states[living.id].pid > 0 and states[living.id].exit is None
    ended = states[dying.id].exit
    assert ended is not None and ended.exit_code == 9
    assert subject.output(dying) == "last words\n"
    assert states[prepared.id].pid == 0 and states[prepared.id].exit is None
    assert not (places / "run" / "containers" / prepared.id).exists()
    await subject.type(living.id, b"hello\n")
    await subject.until_output(living, "got hello\ntick")
    await subject.runtime.signal(living.id, signal.SIGKILL)
    assert (await subject.end(living.id)).exit_code == 137
    for plan in (living, dying, prepared):
        await subject.runtime.release(plan.id)


async def test_sigkill_of_the_keeper(subject: LinuxSubject, shell: Shell) -> None:
    plan = shell("read line; echo got $line; exit 5", open_stdin=True)
    other = shell("sleep 100")
    async with subject.started(plan) as container_id, subject.started(other) as other_id:
        os.kill(subject.runtime._keeper.pid, signal.SIGKILL)
        await asyncio.sleep(0.5)
        await subject.type(container_id, b"on\n")
        record = await subject.end(container_id)
        assert subject.output(plan) == "got on\n"
        # Linux tells exit codes of processes that are not ours since 6.15
        assert record.exit_code in (5, 137)
        await subject.runtime.signal(other_id, signal.SIGKILL)
        assert (await subject.end(other_id)).exit_code == 137
        _, out, _ = await subject.run(shell("echo a new one"))
        assert out == "a new one\n"


async def test_a_full_disk_costs_output_only(subject: LinuxSubject, shell: Shell, places: Path) -> None:
    small = places / "small"
    small.mkdir()
    mounts.mount("tmpfs", small, "tmpfs", 0, "size=256k")
    try:
        plan = shell("dd if=/dev/zero bs=1024 count=1000; echo said; read line; echo after; exit 4", open_stdin=True)
        plan = msgspec.structs.replace(plan, directory=small)
        await subject.runtime.prepare(plan)
        await subject.runtime.start(plan.id)
        await asyncio.sleep(1)
        (small / "log").write_bytes(b"")
        await subject.type(plan.id, b"\n")
        record = await subject.end(plan.id)
        assert record.exit_code == 4
        await subject.runtime.release(plan.id)
    finally:
        mounts.unmount(small)
