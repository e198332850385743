"""`bench/run start`: how long a container takes from the command to its end, and what an idle one costs.

Everything runs in mount and network namespaces of this bench's own, against peers taken out of Debian's packages; cases whose
peer cannot run here say so. The first subject of a case is Silo's; ratios are its median over the other's.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from bench import peers
from bench.measure import Case, Figure, Ratio, Result, Subject, ratios, run_case
from bench.silo_subject import Api, SiloDaemon, pss_kib, silod
from bench.wine import BareWine, build_programs
from tests.support.images import busybox_image_tar

ALIVE = 200
IMAGE = "busybox"
# Enough for the pools to be full again after each start, so that a start finds what it would find on an idle machine.
REFILL_S = 0.25


class Outcome:
    """What the whole bench found."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.ratios: list[Ratio] = []
        self.figures: list[Figure] = []
        self.remarks: list[str] = []

    def run(self, case: Case, rounds: int) -> list[Result]:
        results = run_case(case, rounds)
        self.results += results
        self.ratios += ratios(case, results)
        return results


def main(rounds: int) -> Outcome:
    """Run every case that this machine allows."""
    outcome = Outcome()
    scratch = Path(tempfile.mkdtemp(prefix="silo-bench-"))
    scratch.chmod(0o755)
    with ExitStack() as stack:
        stack.callback(subprocess.run, ["rm", "-rf", "--one-file-system", str(scratch)], check=False)
        tar = busybox_image_tar(scratch / "busybox.tar")
        daemon = stack.enter_context(silod(scratch, windows_pool="0"))
        daemon.docker("load", "-i", str(tar))
        _linux(outcome, daemon, stack, scratch, tar, rounds)
        _crowd(outcome, daemon, rounds)
        with Api(daemon.socket) as api:
            api.stream("POST", "/silo/v1/base/windows")
        _windows(outcome, daemon, stack, scratch, rounds)
    return outcome


def _pause() -> None:
    time.sleep(REFILL_S)


def _linux(outcome: Outcome, daemon: SiloDaemon, stack: ExitStack, scratch: Path, tar: Path, rounds: int) -> None:
    dockerd = _peer(outcome, "dockerd", lambda: stack.enter_context(peers.dockerd(scratch, tar)))
    podman = _peer(outcome, "podman", lambda: stack.enter_context(peers.podman(scratch, tar)))
    docker_env = os.environ | {"DOCKER_HOST": dockerd or ""}
    for network, words in (("none", ["--network", "none"]), ("bridge", [])):
        command = ["run", "--rm", *words, IMAGE, "true"]
        subjects = [Subject("Silo (docker client)", partial(daemon.docker, *command), _pause)]
        if dockerd:
            subjects.append(Subject("dockerd", partial(peers.quiet, ["docker", *command], env=docker_env)))
        if podman:
            prefix, env = podman
            podman_words = [*prefix, "run", "--rm", *words, "localhost/busybox", "true"]
            subjects.append(Subject("podman", partial(peers.quiet, podman_words, env=env)))
        outcome.run(Case(f"run --rm, {network}", tuple(subjects), {"dockerd": 0.2, "podman": 0.35}), rounds)
    rootfs = next((daemon.socket.parent.parent / "silod-0" / "layers").iterdir())
    crun = stack.enter_context(peers.crun_bundle(scratch, rootfs))
    numbers = iter(range(10**6))
    outcome.run(
        Case(
            "API create to removed, none",
            (
                Subject("Silo (API)", lambda: daemon.run_by_api(IMAGE, ["true"], network="none"), _pause),
                Subject("crun run", lambda: peers.quiet([*crun, f"bench-{next(numbers)}"])),
            ),
            {"crun run": 2.0},
        ),
        rounds,
    )
    daemon.docker("run", "-d", "--name", "kept", IMAGE, "sleep", "100000")
    subjects = [Subject("Silo (docker client)", lambda: daemon.docker("exec", "kept", "true"))]
    if dockerd:
        peers.quiet(
            ["docker", "run", "-d", "--name", "kept", "--network", "none", IMAGE, "sleep", "100000"], env=docker_env
        )
        stack.callback(peers.quiet, ["docker", "rm", "-f", "kept"], env=docker_env)
        subjects.append(Subject("dockerd", lambda: peers.quiet(["docker", "exec", "kept", "true"], env=docker_env)))
    outcome.run(Case("exec true", tuple(subjects), {"dockerd": 0.5}), rounds)
    outcome.run(
        Case(
            "ps",
            (
                Subject("silo ps", lambda: daemon.silo("ps")),
                Subject("docker ps (same daemon)", lambda: daemon.docker("ps")),
            ),
            {"docker ps (same daemon)": 1.2},
        ),
        rounds,
    )
    daemon.docker("rm", "-f", "kept")


def _peer(outcome: Outcome, name: str, start: Any) -> Any:
    try:
        return start()
    except (peers.PeerMissing, RuntimeError) as error:
        outcome.remarks.append(f"{name} could not run here: {error}")
        return None


def _crowd(outcome: Outcome, daemon: SiloDaemon, rounds: int) -> None:
    """Starts among many living containers against starts alone, and the memory of the crowd."""

    def start() -> None:
        daemon.run_by_api(IMAGE, ["true"], network="none")

    def alone() -> Result:
        return run_case(Case("start among others", (Subject("alone", start, _pause),)), rounds)[0]

    before = alone()
    idle_kib = daemon.private_kib()
    before_kib = _engine_kib(daemon)
    with Api(daemon.socket) as api:
        for number in range(ALIVE):
            body = {"Image": IMAGE, "Cmd": ["sleep", "100000"], "HostConfig": {"NetworkMode": "none"}}
            made = api.call("POST", f"/v1.50/containers/create?name=crowd{number}", body)
            api.call("POST", f"/v1.50/containers/{made['Id']}/start")
        after_kib = _engine_kib(daemon)
        crowded = run_case(Case("start among others", (Subject(f"{ALIVE} alive", start, _pause),)), rounds)[0]
        for number in range(ALIVE):
            api.call("DELETE", f"/v1.50/containers/crowd{number}?force=1")
    # Before and after the crowd, because what else the machine does cannot be interleaved with it.
    lone = Result(before.case, before.subject, before.times_ms + alone().times_ms)
    outcome.results += [crowded, lone]
    outcome.ratios += [Ratio(lone.case, lone.subject, crowded.median_ms / lone.median_ms, 1.2)]
    per_container = (after_kib - before_kib) / ALIVE
    engine = "engine memory a container (silod and keeper, PSS)"
    outcome.figures += [
        Figure("memory", "silod idle, PSS", round(idle_kib / 1024, 1), limit=60),
        Figure("memory", engine, round(per_container / 1024, 3), limit=1, n=ALIVE),
    ]


def _engine_kib(daemon: SiloDaemon) -> int:
    """silod and its keeper."""
    total = daemon.private_kib()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
                if b"process/keeper.py" in words and daemon.owns_keeper(entry):
                    total += pss_kib(int(entry.name))
            except OSError:
                continue
    return total


def _windows(outcome: Outcome, daemon: SiloDaemon, stack: ExitStack, scratch: Path, rounds: int) -> None:
    programs = build_programs(scratch)
    wine = stack.enter_context(BareWine(scratch, daemon))
    limits = {"wine, warm stock prefix": 0.5, "wine, fresh prefix": 0.03}
    command = ["cmd", "/c", "exit"]
    outcome.run(
        Case(
            "cmd /c exit, cold",
            (
                Subject("Silo (API)", lambda: daemon.run_by_api("windows", command, network="none")),
                Subject("wine, warm stock prefix", wine.run_stock, wine.stop_stock),
            ),
            limits,
        ),
        rounds,
    )
    cold = next(result for result in reversed(outcome.results) if result.subject == "Silo (API)")
    fresh = run_case(
        Case("cmd /c exit, cold", (Subject("wine, fresh prefix", wine.run_fresh, wine.stop_fresh),)), rounds
    )[0]
    outcome.results.append(fresh)
    outcome.ratios.append(Ratio(fresh.case, fresh.subject, cold.median_ms / fresh.median_ms, 0.03))
    with silod(scratch, windows_pool="2") as pooled:
        with Api(pooled.socket) as api:
            api.stream("POST", "/silo/v1/base/windows")
        wine.settle()
        outcome.run(
            Case(
                "cmd /c exit, from the pool",
                (
                    Subject("Silo (API)", lambda: pooled.run_by_api("windows", command, network="none"), wine.settle),
                    Subject("wine, warm stock prefix", wine.run_stock, wine.stop_stock),
                ),
                {"wine, warm stock prefix": 0.2},
            ),
            rounds,
        )
    daemon.docker("run", "-d", "-i", "--name", "kept", "-v", f"{programs}:C:\\bench:ro", "windows", "cmd")
    container = subprocess.run(
        ["docker", "inspect", "-f", "{{.Id}}", "kept"],
        env=daemon.environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    for title, program in (
        ("exec of a small .exe", "small.exe"),
        ("exec of a small .exe with a C library", "hello.exe"),
    ):
        windows_path = f"C:\\bench\\{program}"
        outcome.run(
            Case(
                title,
                (
                    Subject("Silo (API)", partial(daemon.exec_by_api, "kept", [windows_path])),
                    Subject("crun exec wine", partial(wine.crun_exec, container, windows_path)),
                ),
                {"crun exec wine": 0.6},
            ),
            rounds,
        )
    daemon.docker("rm", "-f", "kept")


if __name__ == "__main__":
    print("run this through bench/run start", file=sys.stderr)
    sys.exit(2)
