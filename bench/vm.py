"""`bench/run vm`: how long the hyperv level's parts take, and what its clones cost in memory.

A container's whole way in a clone of a warm template (exec of QEMU, load, agent, reseed, its image plugged in and mounted, crun,
the program's output, teardown) against the same way in a cold boot of the same VM. Nothing of this goes through the engine yet.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from contextlib import AsyncExitStack, ExitStack
from itertools import count
from pathlib import Path

from bench.measure import Case, Subject
from bench.silo_subject import pss_kib
from bench.start import Outcome
from silo.isolation.vm.command import Accelerator, Role
from silo.isolation.vm.guest import build_guest
from silo.isolation.vm.machine import start_machine
from silo.isolation.vm.template import Template, start_clone
from silo.wiring import AGENT_FILES, UtilityVm
from tests.system.vm.clones import FIRST_UID, MEMORY_BYTES, Session, make_layer, warm_template

IDLE = (1, 5, 10, 20)
COLD_AT_MOST = 5
SETTLE_S = 1.0


def main(rounds: int) -> Outcome:
    """Needs root, QEMU, bubblewrap and the utility VM's image in SILO_CACHE_ROOT (bench/run sees to that)."""
    outcome = Outcome()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="silo-bench-vm-")))
        image = (
            UtilityVm(Path(os.environ["SILO_CACHE_ROOT"]), AGENT_FILES).build(lambda *_: None, refresh=False).directory
        )
        layer = make_layer(scratch / "layer")
        template = asyncio.run(warm_template(image, scratch / "template", layer))
        stack.callback(template.close)
        _times(outcome, scratch, image, layer, template, rounds)
        asyncio.run(_memory(outcome, scratch, image, template))
    outcome.remarks.append("TCG; a container is run by the tests' own hands, the engine does not start VMs yet")
    return outcome


def _times(outcome: Outcome, scratch: Path, image: Path, layer: Path, template: Template, rounds: int) -> None:
    numbers = count()

    async def answer(clone: bool) -> None:
        async with AsyncExitStack() as undo:
            await _started(undo, scratch / f"vm-{next(numbers)}", image, template if clone else None)

    async def whole(clone: bool) -> None:
        async with AsyncExitStack() as undo:
            session = await _started(undo, scratch / f"vm-{next(numbers)}", image, template if clone else None)
            await session.prepare(layer)
            if await session.run("echo hi") != ("hi\n", 0):
                raise RuntimeError("the container did not say hi")

    for title, work in (("exec of QEMU to agent to end", answer), ("echo in a container, from exec to end", whole)):
        subjects = (
            Subject("clone", lambda work=work: asyncio.run(work(True))),  # type: ignore[misc]
            Subject("cold boot", lambda work=work: asyncio.run(work(False))),  # type: ignore[misc]
        )
        outcome.run(Case(title, subjects, {"cold boot": 0.15}), rounds)


async def _started(
    undo: AsyncExitStack, folder: Path, image: Path, template: Template | None, uid: int = FIRST_UID + 1
) -> Session:
    folder.mkdir()
    if template is not None:
        vm = await start_clone(template, folder, uid=uid)
    else:
        machine, files = build_guest(image, memory_bytes=MEMORY_BYTES, accelerator=Accelerator.TCG)
        vm = await start_machine(folder, machine, Role.COLD, uid=uid, files=files)
        await vm.monitor.execute("cont")
    undo.push_async_callback(vm.end)
    session = Session(vm)
    await session.connect()
    undo.callback(session.client.close)
    return session


async def _memory(outcome: Outcome, scratch: Path, image: Path, template: Template) -> None:
    """Summed proportional memory of idle VMs: QEMU alone; what clones share is counted once, in parts."""
    for kind, counts in (("clones", IDLE), ("cold boots", tuple(number for number in IDLE if number <= COLD_AT_MOST))):
        async with AsyncExitStack() as undo:
            pids: list[int] = []
            for wanted in counts:
                while len(pids) < wanted:
                    folder = scratch / f"idle-{kind.replace(' ', '-')}-{len(pids)}"
                    source = template if kind == "clones" else None
                    session = await _started(undo, folder, image, source, FIRST_UID + 100 + len(pids))
                    pids.append(session.vm.pid)
                await asyncio.sleep(SETTLE_S)
                total = sum(pss_kib(pid) for pid in pids) / 1024
                row = {"case": f"memory, {wanted} idle {kind}", "subject": "QEMU, PSS", "median_mib": round(total, 1)}
                outcome.extra.append({**row, "n": 1, "limit_mib": 45 * wanted if kind == "clones" else 0})
