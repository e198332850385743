"""`bench/run vm`: the hyperv level as its users meet it, against a cold boot of the same machine.

Parts (`--only`): linux, windows, agent, memory, cache, crowd, pool. Each container goes the runtime's whole way (vm_level.py): from
a clone, from the pool, and in a machine that boots where the others are clones. Limits are those of issue 3.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

from bench.measure import Figure, PhasedSubject, Ratio, run_phases
from bench.parts import After, chosen, run_parts
from bench.start import Outcome
from bench.vm_level import Level, Workload, cold_boots, processor_s, summed_pss_mib
from bench.vm_profile import Breakdown
from silo.host.run import run
from silo.isolation.vm.base.images import describe, find_named
from silo.isolation.vm.image_files import ImageFile
from silo.isolation.vm.shapes import host_limits
from silo.model.container import Resources
from silo.model.runtime import ContainerPlan
from silo.model.vm_image import DEFAULT_VM_IMAGE
from silo.windows.base.environment import DRIVE_C

PARTS = ("linux", "windows", "agent", "memory", "cache", "crowd", "pool")
IDLE, COLD_IDLE = (1, 5, 10, 20), (1, 5)
CROWD = 20
COLD_RUNS = 5
CACHE_BYTES = 70 << 20
SETTLE_S = 1.0
POOL_WATCHED_S = 5.0
PROGRAM = Path(__file__).parent.parent / "tests" / "contract" / "program.c"

FIRST, EXIT, GONE = "first output", "exit", "exit to nothing left"
COLD = "cold boot"


@dataclass(frozen=True)
class Workloads:
    echo: Workload
    idle: Workload
    reader: Workload
    hello: Workload
    version: Workload
    other: Workload
    windows_idle: Workload


class VmBench:
    def __init__(self, stack: ExitStack, *, quick: bool) -> None:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="silo-bench-vm-")))
        scratch.chmod(0o755)
        cache = Path(os.environ["SILO_CACHE_ROOT"])
        found = find_named(cache, DEFAULT_VM_IMAGE)
        if found is None:
            raise RuntimeError(f"no utility VM in {cache}")
        self.image = describe(found, DEFAULT_VM_IMAGE)
        self.quick = quick
        self.work = _workloads(scratch, (cache / "base" / "current").resolve() / "rootfs")
        self.clones = stack.enter_context(Level(scratch / "clones", self.image))
        self.pooled = stack.enter_context(Level(scratch / "pooled", self.image, pool=1))
        self.outcome = Outcome()

    # --- one container's whole way

    def linux(self, rounds: int) -> None:
        limits = {"clone": {FIRST: 400.0, GONE: 50.0}, "pool": {FIRST: 150.0, GONE: 50.0}}
        self._race("Linux echo", self.work.echo, rounds, limits, ratio=0.15)
        self._parked("Linux echo, begun in a template of its image", self.work.echo, rounds, {"clone": limits["clone"]})

    def windows(self, rounds: int) -> None:
        clone, pool = {GONE: 50.0}, {GONE: 50.0}
        limits = {"clone": clone | {FIRST: 450.0}, "pool": pool | {FIRST: 250.0}}
        self._race("Windows hello, base image", self.work.hello, rounds, limits)
        limits = {"clone": clone | {FIRST: 700.0}, "pool": pool | {FIRST: 500.0}}
        self._race("Windows cmd /c ver, base image", self.work.version, rounds, limits)
        # its first start makes its template
        began = time.perf_counter()
        self.clones.run(self.clones.run_once(self.work.other))
        first_s = time.perf_counter() - began
        subject = self._subject("clone", self.clones, self.work.other, {FIRST: 1000.0})
        self.outcome.results += run_phases("Windows hello, another image", [subject], rounds)
        self.outcome.figures += [
            Figure(
                "Windows hello, another image", "the first start ever, which makes its template", round(first_s, 1), "s"
            ),
        ]
        limits = {name: {FIRST: 200.0, GONE: 50.0} for name in ("clone", "pool")}
        self._parked("Windows hello, its entry process parked", self.work.hello, rounds, limits)
        self._parked("Windows cmd /c ver, its entry process parked", self.work.version, rounds, limits)

    def _parked(self, case: str, workload: Workload, rounds: int, limits: dict[str, dict[str, float]]) -> None:
        levels = {"clone": self.clones, "pool": self.pooled}
        parked = replace(workload, parked=True)
        subjects = [self._subject(name, levels[name], parked, its) for name, its in limits.items()]
        self.outcome.results += run_phases(case, subjects, rounds)
        for level in levels.values():
            self._rest(level)

    def _race(
        self,
        case: str,
        workload: Workload,
        rounds: int,
        limits: dict[str, dict[str, float]],
        ratio: float | None = None,
    ) -> None:
        """Clone, pool and cold boot, interleaved; of the cold boot, which takes seconds, some runs only."""
        subjects = [
            self._subject("clone", self.clones, workload, limits["clone"]),
            self._subject("pool", self.pooled, workload, limits["pool"]),
            self._subject(COLD, self.clones, workload, {}, cold=True, every=_every(rounds)),
        ]
        results = run_phases(case, subjects, rounds)
        for level in (self.clones, self.pooled):
            self._rest(level)
        self.outcome.results += results
        by_key = {(result.case, result.subject): result for result in results}
        for phase, limit in ((FIRST, ratio), (EXIT, None)):
            clone, cold = (by_key[f"{case}: {phase}", name] for name in ("clone", COLD))
            self.outcome.ratios.append(Ratio(clone.case, COLD, clone.median_ms / cold.median_ms, limit))

    def _subject(
        self,
        name: str,
        level: Level,
        workload: Workload,
        limits_ms: dict[str, float],
        *,
        cold: bool = False,
        every: int = 1,
    ) -> PhasedSubject:
        def act() -> dict[str, float]:
            with cold_boots() if cold else nullcontext():
                phases = level.run(level.run_once(workload))
            # its loop stands still while others are measured: no machine may be half made then
            level.run(level.settle())
            return phases

        return PhasedSubject(name, act, lambda: self._rest(level), limits_ms, every)

    def _rest(self, level: Level) -> None:
        """Before each run: the pool is full, nothing is left of the run before."""
        level.run(level.rest())
        if left := level.left():
            raise RuntimeError(f"left behind: {left}")

    # --- the machine alone

    def agent(self, rounds: int) -> None:
        """From the order to make a machine until its agent has answered."""
        level = self.clones

        async def answer() -> dict[str, float]:
            runtime, plan = level.runtime, level.plan(self.work.echo)
            recipe = runtime._chooser.recipe(plan)
            shape = await runtime._chooser.shape_of(recipe, begun=False)
            image = await runtime._images.ensure(recipe.layers, map_it=True)
            scratch = plan.directory / "scratch.img"
            began = time.perf_counter()
            clone = await runtime._clones.start(shape, image, scratch, host_limits(Resources(), shape.memory_bytes))
            answered = time.perf_counter()
            await runtime._clones.end(clone)
            ended = time.perf_counter()
            shutil.rmtree(plan.directory)
            return {"answer": (answered - began) * 1000, "end": (ended - answered) * 1000}

        def act(cold: bool) -> dict[str, float]:
            with cold_boots() if cold else nullcontext():
                return level.run(answer())

        subjects = [
            PhasedSubject("clone", lambda: act(False), lambda: self._rest(level)),
            PhasedSubject(COLD, lambda: act(True), lambda: self._rest(level), every=_every(rounds)),
        ]
        results = run_phases("exec of QEMU to agent", subjects, rounds)
        self.outcome.results += results
        first, second = results[:2]
        self.outcome.ratios.append(Ratio(first.case, COLD, first.median_ms / second.median_ms, None))

    # --- memory

    def memory(self, _: int) -> None:
        for title, workload in (("Linux", self.work.idle), ("Windows", self.work.windows_idle)):
            counts = (1, 2) if self.quick else IDLE
            totals = self.clones.run(self._idle_memory(workload, counts))
            for count, total in totals.items():
                self.outcome.figures.append(Figure(f"memory, {title}", f"{count} idle clones, PSS", total))
            if not self.quick:
                limit = 45.0 if title == "Linux" else None
                further = (totals[20] - totals[10]) / 10
                self.outcome.figures.append(
                    Figure(f"memory, {title}", "each clone from the 11th to the 20th", further, limit=limit)
                )
            begun = self.clones.run(self._idle_memory(replace(workload, parked=True), counts[:3]))
            for count, total in begun.items():
                self.outcome.figures.append(
                    Figure(f"memory, {title}", f"{count} idle clones of a template of the image, PSS", total)
                )
            with cold_boots():
                cold = self.clones.run(self._idle_memory(workload, (1,) if self.quick else COLD_IDLE))
            for count, total in cold.items():
                self.outcome.figures.append(Figure(f"memory, {title}", f"{count} idle cold boots, PSS", total))

    async def _idle_memory(self, workload: Workload, counts: Sequence[int]) -> dict[int, float]:
        totals: dict[int, float] = {}
        plans: list[ContainerPlan] = []
        try:
            for wanted in counts:
                while len(plans) < wanted:
                    plans.append(await self.clones.begin(workload))
                await asyncio.sleep(SETTLE_S)
                totals[wanted] = summed_pss_mib(self.clones, plans)
        finally:
            await self.clones.remove_all(plans)
        return totals

    # --- the guest's page cache

    def cache(self, _: int) -> None:
        for title, mapped in (("mapped (DAX)", True), ("as a disk", False)):
            grown = self.clones.run(self._cache_growth(mapped))
            name = f"after reading {CACHE_BYTES >> 20} MiB of binaries, image {title}"
            self.outcome.figures.append(Figure("guest's page cache", name, grown))

    async def _cache_growth(self, mapped: bool) -> float:
        files = self.clones.runtime._images
        ensure = files.ensure

        async def chosen(layers: Sequence[Path], *, map_it: bool) -> ImageFile:
            return await ensure(layers, map_it=map_it and mapped)

        with patch.object(files, "ensure", chosen):
            async with self.clones.begun(self.work.reader) as plan:
                container = self.clones.container(plan)
                if container.clone.image.mapped is not mapped:
                    raise RuntimeError(f"the image is {'not ' if mapped else ''}mapped")
                before = await _cached_kib(self.clones, plan)
                # it waits for a file, reads the binaries, says so
                await container.clone.session.write_files({"/run/files/hosts": b"read\n"})
                async with asyncio.timeout(60):
                    while "done" not in (plan.directory / "log").read_text(errors="replace"):
                        await asyncio.sleep(0.05)
                return (await _cached_kib(self.clones, plan) - before) / 1024

    # --- many at once

    def crowd(self, _: int) -> None:
        count = 3 if self.quick else CROWD
        for title, workload in (("Linux", self.work.idle), ("Windows", self.work.windows_idle)):
            self.clones.run(self.clones.run_once(self.work.echo))
            took_s, memory = self.clones.run(self._crowd(workload, count))
            left = self.clones.left()
            case = f"{count} starts at once, {title}"
            self.outcome.figures += [
                Figure(case, "until all have answered", took_s, "s", n=count),
                Figure(case, "PSS of all QEMUs then", memory, n=count),
                Figure(case, "left behind", len(left), "things", 0, n=count),
            ]

    async def _crowd(self, workload: Workload, count: int) -> tuple[float, float]:
        async with AsyncExitStack() as undo:
            began = time.perf_counter()
            plans = await asyncio.gather(*(self.clones.begin(workload) for _ in range(count)))
            took_s = time.perf_counter() - began
            undo.push_async_callback(self.clones.remove_all, list(plans))
            return took_s, summed_pss_mib(self.clones, list(plans))

    # --- the pool at rest

    def pool(self, _: int) -> None:
        level = self.pooled
        for workload in (self.work.echo, self.work.version):
            level.run(level.run_once(workload))
        level.run(level.rest())
        pids = level.pooled_pids()
        before = [processor_s(pid) for pid in pids]
        time.sleep(POOL_WATCHED_S)
        used_ms = sum(processor_s(pid) - then for pid, then in zip(pids, before, strict=True)) * 1000
        case = f"pool, {len(pids)} VMs ready (Linux, Windows)"
        self.outcome.figures.append(
            Figure(case, f"processor time of their QEMUs in {POOL_WATCHED_S:g} s", used_ms, "ms", 0)
        )


def main(rounds: int, *, quick: bool = False, only: Sequence[str] = (), after: After = lambda *_: None) -> Outcome:
    """Needs root, QEMU, bubblewrap, the utility VM and the Windows base in SILO_CACHE_ROOT (bench/run sees to that)."""
    parts = chosen(only, PARTS)
    with ExitStack() as stack:
        bench = VmBench(stack, quick=quick)
        run_parts(bench, parts, rounds, after)
        remarks = bench.outcome.remarks
        remarks.append(f"accelerator: {bench.clones.accelerator}")
        remarks.append(
            "in the runtime, without the engine, its API and a client; the network is a private one without a bridge"
        )
        if (every := _every(rounds)) > 1:
            remarks.append(f"a cold boot takes seconds: it takes part in one of {every} rounds")
        return bench.outcome


def profile(rounds: int) -> str:
    """Where the time of one container goes, by what the host asks of QEMU and of the agent."""
    with ExitStack() as stack:
        bench = VmBench(stack, quick=True)
        parts = []
        cases = (("Linux echo", bench.work.echo), ("Windows hello", bench.work.hello))
        cases += tuple((f"{title}, parked", replace(workload, parked=True)) for title, workload in cases)
        for title, workload in cases:
            for name, level in (("clone", bench.clones), ("pool", bench.pooled)):
                breakdown = Breakdown(f"{title}, {name}")
                level.run(level.run_once(workload))
                for _ in range(rounds):
                    level.run(level.rest())
                    with breakdown.watch():
                        breakdown.note_end(level.run(level.run_once(workload)))
                parts.append(breakdown.table())
        return "\n\n".join(parts)


def _every(rounds: int) -> int:
    return max(1, rounds // COLD_RUNS)


async def _cached_kib(level: Level, plan: ContainerPlan) -> int:
    """Of the whole guest."""
    (data,) = await level.container(plan).clone.session.read_files("/", ["/proc/meminfo"])
    for line in data.decode().splitlines():
        if line.startswith("Cached:"):
            return int(line.split()[1])
    raise RuntimeError("the guest does not say what it has cached")


# --- images


def _workloads(scratch: Path, windows_base: Path) -> Workloads:
    if not (windows_base / "silo" / "start").exists():
        raise RuntimeError(f"no Windows base in {windows_base}")
    layers = scratch / "layers"
    busybox = layers / "busybox"
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp"):
        (busybox / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", busybox / "bin")
    for name in ("cat", "echo", "grep", "sh", "sleep", "wc"):
        (busybox / "bin" / name).symlink_to("busybox")
    (busybox / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (busybox / "etc" / "group").write_text("root:x:0:\n")
    binaries = layers / "binaries"
    binaries.mkdir()
    _gather_binaries(binaries / "binaries", CACHE_BYTES)
    programs = [layers / name for name in ("hello", "other")]
    for layer in programs:
        drive = layer / DRIVE_C.lstrip("/")
        drive.mkdir(parents=True)
        run(["x86_64-w64-mingw32-gcc", "-O1", "-o", drive / "program.exe", PROGRAM])
    (programs[1] / DRIVE_C.lstrip("/") / "other.txt").write_text("another image\n")
    reader = (
        "echo begun; until grep -q read /etc/hosts; do sleep 0.1; done; cat /binaries >/dev/null; echo done; sleep 1000"
    )
    say, rest = "C:\\program.exe say hello", "C:\\program.exe sleep 1000"
    hello, other = (programs[0], windows_base), (programs[1], windows_base)
    return Workloads(
        echo=Workload(layers=(busybox,), words=("/bin/echo", "hello"), says="hello"),
        idle=Workload(layers=(busybox,), words=("/bin/sh", "-c", "echo begun; exec sleep 1000"), says="begun"),
        reader=Workload(layers=(binaries, busybox), words=("/bin/sh", "-c", reader), says="begun"),
        hello=Workload(layers=hello, line=say, says="hello"),
        version=Workload(layers=(windows_base,), line="cmd /c ver", says="Windows"),
        other=Workload(layers=other, line=say, says="hello"),
        windows_idle=Workload(layers=hello, line=rest, says="sleeping"),
    )


def _gather_binaries(target: Path, size_bytes: int) -> None:
    """Real programs and libraries of this machine, one after another."""
    sources = sorted(
        path for path in Path("/usr/lib/x86_64-linux-gnu").iterdir() if ".so" in path.name and path.is_file()
    )
    with target.open("wb") as output:
        for path in sources:
            output.write(path.read_bytes()[: size_bytes - output.tell()])
            if output.tell() == size_bytes:
                return
    raise RuntimeError(f"this machine has no {size_bytes >> 20} MiB of libraries")
