"""`bench/run images`: how fast an image comes in, is built again and gets its registry, against who else does it.

Parts (`--only`): linux, windows, rebuild, registry, commit. Limits are those of issue 4.

Everything lies on a file system of the bench's own, ext4 as mkfs makes it, in a file: where files were deleted lately, an ext4
without a journal (as some virtual machines have) looks for unused inodes for seconds, which would be measured instead.

A load begins with nothing (the image removed and gone from the disk, everything synced) and with its archive in the page cache. It
has two phases: until the command is back, and until all of it is on the disk, which neither tar nor the peers wait for.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from bench import peers
from bench.image_archives import Archive, linux_archives, windows_archive
from bench.image_registry import BARE_TAG, BASE_KEYS, build_deltas, filled_up, registry_archives
from bench.image_registry import LAYERS as DELTA_LAYERS
from bench.image_registry import TAG as DELTAS_TAG
from bench.measure import Case, Figure, PhasedSubject, Subject, phase_ratios, run_case, run_phases
from bench.parts import After, chosen, run_parts
from bench.silo_subject import Api, silod
from bench.start import Outcome
from silo.windows.base.environment import PREFIX
from silo.windows.registry import merge_registry
from tests.support.images import busybox_image_tar

PARTS = ("linux", "windows", "rebuild", "registry", "commit")
LOADED, ON_DISK = "loaded", "on the disk"
TAR, PLAIN_TAR, DOCKERD, PODMAN = "igzip and tar", "tar", "dockerd", "podman"
MERGE_LIMIT_MS, START_LIMIT_MS, COMMIT_LIMIT_MS = 1000.0, 5.0, 1000.0
LIMITS = {LOADED: {DOCKERD: 0.7, TAR: 1.3, PLAIN_TAR: 1.3}}
DISK_GIB = 24
LONG = 3
"""Loads take part in every so many rounds only."""
REBUILT_STEPS = 20
_GONE_S = 60
T = TypeVar("T")


@dataclass(frozen=True)
class _Engine:
    """One that loads images. `rest`: wait until what was removed is gone."""

    load: Callable[[Path], None]
    remove: Callable[[str], None]
    rest: Callable[[], None] = lambda: None


class ImagesBench:
    def __init__(self, stack: ExitStack) -> None:
        self.outcome = Outcome()
        self.disk = _own_disk(stack)
        self._stack = stack
        self._busybox = busybox_image_tar(self.disk / "busybox.tar")
        self._archives = self.disk / "archives"
        self._archives.mkdir()
        self._dockerd = self._peer(DOCKERD, lambda: stack.enter_context(peers.dockerd(self.disk, self._busybox)))
        self._podman = self._peer(
            PODMAN, lambda: stack.enter_context(peers.podman(self.disk, self._busybox, runs=False))
        )
        self._igzip = self._peer("igzip", peers.igzip)
        self.daemon = stack.enter_context(silod(self.disk, windows_pool="0"))
        self._data = self.daemon.socket.parent.parent / "silod-0"

    # --- loading

    def linux(self, rounds: int) -> None:
        packed, plain = linux_archives(self._archives)
        what = f"load of {packed.file_bytes / 1e6:.0f} MB, {packed.files:,} files"
        for archive, kind in ((packed, "layers by gzip"), (plain, "plain layers")):
            self._race(f"{what}, {kind}", archive, {DOCKERD: archive.path, PODMAN: archive.path}, rounds)
        for path in self._archives.iterdir():
            path.unlink()

    def windows(self, rounds: int) -> None:
        self._fetch_base()
        archive = windows_archive(self._archives)
        try:
            self.daemon.docker("load", "-i", str(archive.path))
            self._silo().remove(archive.tag)
        except RuntimeError as error:
            self.outcome.remarks.append(f"a Windows image is not loaded: {error}")
            return
        others: dict[str, Path] = {}
        if self._podman and archive.without_base:
            try:
                self._podman_engine().load(archive.without_base)
                self._podman_engine().remove(archive.tag)
                others[PODMAN] = archive.without_base
            except RuntimeError as error:
                self.outcome.remarks.append(f"podman loads no Windows image, not even one without a base: {error}")
        what = f"load of a Windows image, {archive.file_bytes / 1e6:.0f} MB, {archive.files:,} files"
        self._race(what, archive, others, rounds)

    def _race(self, case: str, archive: Archive, others: Mapping[str, Path], rounds: int) -> None:
        subjects = [self._loading("Silo (docker client)", self._silo(), archive.path, archive)]
        if DOCKERD in others and self._dockerd:
            subjects.append(self._loading(DOCKERD, self._dockerd_engine(), others[DOCKERD], archive))
        if PODMAN in others and self._podman:
            subjects.append(self._loading(PODMAN, self._podman_engine(), others[PODMAN], archive))
        subjects.append(self._unpacking(archive))
        results = run_phases(case, subjects, max(1, rounds // LONG))
        for subject in subjects:
            subject.between()
        self.outcome.results += results
        self.outcome.ratios += phase_ratios(results, LIMITS)

    def _loading(self, name: str, engine: _Engine, path: Path, archive: Archive) -> PhasedSubject:
        present = False

        def clear() -> None:
            nonlocal present
            if present:
                engine.remove(archive.tag)
                engine.rest()
            present = False
            self._settle(path)

        def load() -> Mapping[str, float]:
            nonlocal present
            present = True
            return self._phases(lambda: engine.load(path))

        return PhasedSubject(name, load, clear)

    def _unpacking(self, archive: Archive) -> PhasedSubject:
        """The floor: nothing is checked, digested or kept."""
        target = self.disk / "unpacked"
        packed = archive.layers[0].name.endswith(".gz") and self._igzip is not None
        one = (
            'igzip -dc "$layer" | tar --warning=no-unknown-keyword -x -C "$0"' if packed else 'tar -xf "$layer" -C "$0"'
        )
        argv = ["sh", "-e", "-c", f"for layer; do {one}; done", str(target), *map(str, archive.layers)]

        def clear() -> None:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            self._settle(*archive.layers)

        def unpack() -> Mapping[str, float]:
            return self._phases(lambda: peers.quiet(argv, env=self._igzip))

        return PhasedSubject(TAR if packed else PLAIN_TAR, unpack, clear)

    def _phases(self, work: Callable[[], None]) -> Mapping[str, float]:
        began = time.perf_counter()
        work()
        loaded = time.perf_counter()
        os.sync()
        return {LOADED: (loaded - began) * 1000, ON_DISK: (time.perf_counter() - began) * 1000}

    def _settle(self, *paths: Path) -> None:
        os.sync()
        for path in paths:
            with path.open("rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass

    def _silo(self) -> _Engine:
        layers, staging = self._data / "layers", self._data / "staging"
        before = len(list(layers.iterdir()))

        def rest() -> None:
            _until(lambda: len(list(layers.iterdir())) <= before and not any(staging.iterdir()))

        return _Engine(
            lambda path: self.daemon.docker("load", "-i", str(path)), lambda tag: self.daemon.docker("rmi", tag), rest
        )

    def _dockerd_engine(self) -> _Engine:
        docker = partial(peers.quiet, env=os.environ | {"DOCKER_HOST": self._dockerd or ""})
        return _Engine(lambda path: docker(["docker", "load", "-i", path]), lambda tag: docker(["docker", "rmi", tag]))

    def _podman_engine(self) -> _Engine:
        assert self._podman is not None
        prefix, env = self._podman
        policy = peers.podman_policy(self.disk)
        return _Engine(
            lambda path: peers.quiet([*prefix, "load", *policy, "-i", path], env=env),
            lambda tag: peers.quiet([*prefix, "rmi", tag], env=env),
        )

    # --- building

    def rebuild(self, rounds: int) -> None:
        context = self.disk / "context"
        context.mkdir()
        (context / "Dockerfile").write_text(_dockerfile())
        for number in range(REBUILT_STEPS):
            (context / f"file{number}").write_text(f"{number}\n" * 1000)
        words = ["docker", "build", "-q", "-t", "bench-rebuilt", str(context)]
        hosts = {"Silo (docker client)": self.daemon.host}
        if self._dockerd:
            hosts[DOCKERD] = self._dockerd
        self.daemon.docker("load", "-i", str(self._busybox))
        subjects = []
        for name, host in hosts.items():
            env = os.environ | {"DOCKER_HOST": host, "DOCKER_BUILDKIT": "0"}
            try:
                peers.quiet(words, env=env)
            except RuntimeError as error:
                self.outcome.remarks.append(f"cached rebuild: not there with {name}: {error}")
                if host == self.daemon.host:
                    return
                continue
            subjects.append(Subject(name, partial(peers.quiet, words, env=env)))
        self.outcome.run(Case(f"cached rebuild of {REBUILT_STEPS} steps", tuple(subjects)), rounds)

    # --- registries

    def registry(self, rounds: int) -> None:
        """Merging deltas of layers over the base, and what a start has of it."""
        self._fetch_base()
        system = next(self._data.joinpath("layers").glob(f"*{PREFIX}/system.reg"))
        base = {
            "system.reg": filled_up(system.read_bytes()),
            "userdef.reg": system.with_name("userdef.reg").read_bytes(),
        }
        deltas = [build_deltas(number) for number in range(DELTA_LAYERS)]

        def merge() -> None:
            if set(merge_registry(base, deltas)) != set(base):
                raise RuntimeError("the deltas changed not what they should")

        name = f"merge of {DELTA_LAYERS} layers' deltas over {BASE_KEYS:,} keys, uncached"
        merged = run_case(Case(name, (Subject("merge_registry", merge),)), rounds)
        self.outcome.results += [replace(result, limit_ms=MERGE_LIMIT_MS) for result in merged]
        try:
            for path in registry_archives(self._archives):
                self.daemon.docker("load", "-i", str(path))
        except RuntimeError as error:
            self.outcome.remarks.append(f"an image with registry deltas is not loaded: {error}")
            return
        subjects = tuple(
            Subject(what, partial(self.daemon.run_by_api, tag, ["cmd", "/c", "exit"], network="none"))
            for what, tag in (("3 layers with deltas", DELTAS_TAG), ("3 layers without", BARE_TAG))
        )
        started = run_case(Case("cmd /c exit, cold, by API", subjects), rounds)
        self.outcome.results += started
        difference = started[0].median_ms - started[1].median_ms
        figure = Figure("start with deltas, longer by", "Silo (API)", difference, "ms", START_LIMIT_MS, n=rounds)
        self.outcome.figures.append(figure)

    def commit(self, rounds: int) -> None:
        """Of a running container with one changed key."""
        self._fetch_base()
        self.daemon.docker("run", "-d", "-i", "--name", "kept", "--network", "none", "windows", "cmd")
        numbers = iter(range(10**6))
        committed = "bench-committed"

        def change() -> None:
            subprocess.run(["docker", "rmi", committed], env=self.daemon.environment, capture_output=True, check=False)
            value = ["reg", "add", "HKLM\\Software\\Bench", "/v", "n", "/d", str(next(numbers)), "/f"]
            self.daemon.docker("exec", "kept", *value)

        change()
        subject = Subject("Silo (docker client)", lambda: self.daemon.docker("commit", "kept", committed), change)
        results = run_case(Case("commit of one changed key", (subject,)), rounds)
        self.outcome.results += [replace(result, limit_ms=COMMIT_LIMIT_MS) for result in results]
        self.daemon.docker("rm", "-f", "kept")

    def _fetch_base(self) -> None:
        with Api(self.daemon.socket) as api:
            api.stream("POST", "/silo/v1/base/windows")

    def _peer(self, name: str, start: Callable[[], T]) -> T | None:
        try:
            return start()
        except (peers.PeerMissing, RuntimeError) as error:
            self.outcome.remarks.append(f"{name} could not run here: {error}")
            return None


def _dockerfile() -> str:
    """Of all kinds of steps that classic builders cache."""
    steps = ["FROM busybox", "ENV A=1 B=2", "WORKDIR /work", "LABEL bench=yes"]
    while len(steps) < REBUILT_STEPS - 1:
        number = len(steps)
        steps.append(f"COPY file{number} /work/" if number % 2 else f"RUN echo {number} > /work/made{number}")
    return "\n".join([*steps, 'CMD ["true"]', ""])


def _own_disk(stack: ExitStack) -> Path:
    scratch = Path(tempfile.mkdtemp(prefix="silo-bench-images-"))
    scratch.chmod(0o755)
    stack.callback(subprocess.run, ["rm", "-rf", "--one-file-system", str(scratch)], check=False)
    image, disk = scratch / "disk.img", scratch / "disk"
    with image.open("wb") as file:
        file.truncate(DISK_GIB << 30)
    peers.quiet(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image])
    disk.mkdir()
    peers.quiet(["mount", "-o", "loop", image, disk])
    stack.callback(subprocess.run, ["umount", "-l", str(disk)], check=False)
    return disk


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _GONE_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"a removed image was still there after {_GONE_S} s")
        time.sleep(0.05)


def main(rounds: int, *, only: Sequence[str] = (), after: After = lambda *_: None) -> Outcome:
    """Needs root and the Windows base in SILO_CACHE_ROOT (bench/run sees to that)."""
    parts = chosen(only, PARTS)
    with ExitStack() as stack:
        bench = ImagesBench(stack)
        run_parts(bench, parts, rounds, after)
        bench.outcome.remarks.append(
            f"loads take seconds: of {rounds} rounds they take part in {max(1, rounds // LONG)}"
        )
        return bench.outcome
