"""Control groups behind one interface, whatever layout the host has: v2, v1, or both (hybrid, whose controllers are v1's).

Parts: `find_layout` looks at the mounted hierarchies; `CgroupTree` is one group per container under `/silo`; the two
translations of `Resources` into files are pure (`silo.host.cgroup_files`). Entering is done by the child itself, writing "0"
to `entry_files()`: a single thread that moves itself skips the kernel's global lock and its RCU grace period (6 to 11 ms
otherwise, Linux ≥ 5.5).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from silo.errors import HostError, Unsupported
from silo.host.cgroup_files import FileWrite, device_writes_v1, writes_v1, writes_v2
from silo.host.cgroup_statistics import load_v1, load_v2
from silo.model.container import Resources
from silo.model.runtime import Statistics

PARENT = "silo"
DEFAULT_RUN_ROOT = Path("/run/silo")
_WANTED_V2 = ("cpuset", "cpu", "io", "memory", "pids")


@dataclass(frozen=True, slots=True)
class Layout:
    """`version` is 1 or 2; `hierarchies` maps each controller to the mount point of its hierarchy (v2: all to one)."""

    version: int
    hybrid: bool
    hierarchies: dict[str, Path]

    @property
    def roots(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(self.hierarchies.values()))


def find_layout(mountinfo: str | None = None) -> Layout:
    """The host's layout from /proc/thread-self/mountinfo (given in tests). Raises HostError when there are no cgroups at all."""
    text = Path("/proc/thread-self/mountinfo").read_text() if mountinfo is None else mountinfo
    hierarchies: dict[str, Path] = {}
    unified: Path | None = None
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(before.split(" ")[4])
        kind, _, options = after.split(" ", 2)
        if kind == "cgroup2":
            unified = unified or point
        elif kind == "cgroup":
            for word in options.split(" ")[-1].split(","):
                if word not in ("rw", "ro", "xattr", "clone_children"):
                    hierarchies.setdefault(word.removeprefix("name="), point)
    if "memory" in hierarchies or "pids" in hierarchies:
        return Layout(1, unified is not None or _has_hidden_unified(hierarchies), hierarchies)
    if unified is not None:
        return Layout(2, False, dict.fromkeys((*_available_v2(unified), ""), unified))
    raise HostError("no cgroups are mounted on this host", hint="mount cgroup2 at /sys/fs/cgroup")


def _has_hidden_unified(hierarchies: dict[str, Path]) -> bool:
    """The daemon takes it out of its own mount namespace, where the empty mount point is what is left."""
    return any((root.parent / "unified").is_dir() for root in hierarchies.values())


def _available_v2(root: Path) -> tuple[str, ...]:
    with contextlib.suppress(OSError):
        return tuple(name for name in (root / "cgroup.controllers").read_text().split() if name in _WANTED_V2)
    return ()


def cgroup_parent(run_root: Path) -> str:
    """The common parent's name. Daemons with other run roots have another one: each cleans up below its own only."""
    if run_root == DEFAULT_RUN_ROOT:
        return PARENT
    return f"{PARENT}-{hashlib.sha256(str(run_root).encode()).hexdigest()[:12]}"


class CgroupTree:
    """The groups of all containers; names are container ids. Blocking calls of well under a millisecond each."""

    def __init__(self, layout: Layout, *, parent: str = PARENT) -> None:
        self.layout = layout
        self.version = layout.version
        self.parent = parent
        self._roots = layout.roots
        # Starts take turns; several daemons, or one that comes again, shall not all begin with the same processor.
        self._turn = os.getpid()

    def open(self) -> tuple[str, ...]:
        """Make the common parent; answers sentences on what this host cannot limit."""
        warnings: list[str] = []
        for root in self._roots:
            (root / self.parent).mkdir(exist_ok=True)
        if self.version == 2:
            root = self._roots[0]
            for directory in (root, root / self.parent):
                for controller in _available_v2(root):
                    try:
                        (directory / "cgroup.subtree_control").write_text(f"+{controller}")
                    except OSError as error:
                        warnings.append(f"cgroup controller {controller} cannot be used: {error.strerror}")
        elif "cpuset" in self.layout.hierarchies:
            _copy_cpuset(self.layout.hierarchies["cpuset"], self.layout.hierarchies["cpuset"] / self.parent)
        known = {"memory", "pids", "cpu", "cpuset"} - set(self.layout.hierarchies)
        warnings += [f"this host has no cgroup controller {name}: its limits are refused" for name in sorted(known)]
        return tuple(dict.fromkeys(warnings))

    def close(self) -> None:
        """Take the common parent away if nothing is in it."""
        for root in self._roots:
            with contextlib.suppress(OSError):
                (root / self.parent).rmdir()

    def path(self, name: str, controller: str = "") -> Path:
        root = self.layout.hierarchies.get(controller) or self._roots[0]
        return root / self.parent / name

    def directories(self, name: str) -> tuple[Path, ...]:
        return tuple(root / self.parent / name for root in self._roots)

    def entry_files(self, name: str) -> tuple[str, ...]:
        """Files to which a single-threaded process writes "0" to enter (v1); for v2 the only one, which moves whole processes."""
        leaf = "tasks" if self.version == 1 else "cgroup.procs"
        return tuple(f"{directory}/{leaf}" for directory in self.directories(name))

    def create(self, name: str) -> None:
        for directory in self.directories(name):
            directory.mkdir(exist_ok=True)
        if self.version == 1 and "cpuset" in self.layout.hierarchies:
            cpuset = self.path(name, "cpuset")
            _copy_cpuset(cpuset.parent, cpuset)

    def apply(self, name: str, resources: Resources, *, before: Resources | None = None) -> None:
        """Write limits; with `before` only what differs. Raises HostError naming the file that refused."""
        translate = writes_v1 if self.version == 1 else writes_v2
        old = set(translate(before)) if before is not None else set(translate(Resources()))
        changed = [write for write in translate(resources) if write not in old]
        if before is not None and self.version == 1 and _raises_memory(before, resources):
            # memory+swap may never be below memory: when limits grow it has to grow first
            changed.sort(key=lambda write: "memsw" not in write.file)
        self._write_all(name, changed)

    def apply_devices(self, name: str, rules: Iterable[str]) -> None:
        """v1 only: allow exactly these (`c 1:3 rwm`). With v2 the filter is a program that crun attaches."""
        if self.version == 1 and "devices" in self.layout.hierarchies:
            self._write_all(name, device_writes_v1(rules))

    def _write_all(self, name: str, writes: Iterable[FileWrite]) -> None:
        for write in writes:
            if self.version == 1 and write.controller not in self.layout.hierarchies:
                raise HostError(
                    f"this host has no cgroup controller {write.controller}, which the limit {write.limit} needs"
                )
            target = self.path(name, write.controller) / write.file
            try:
                target.write_text(write.value)
            except FileNotFoundError as error:
                if write.optional:
                    continue
                raise Unsupported(
                    f"--{write.limit.replace(' ', '-')} is not supported on this host",
                    details=f"{target} does not exist",
                ) from error
            except OSError as error:
                raise HostError(
                    f"the kernel refused the limit {write.limit}",
                    details=f"{write.value!r} → {target}: {error.strerror}",
                ) from error

    def narrow(self, name: str) -> frozenset[int]:
        """Confine the group to one of its processors for a while; answers all that it has, empty where nothing was done.

        For a start that is a dialogue between processes (Wine's and its server): on one processor each question costs a
        switch, across two a wake-up of the other one, several times as much. It is an optimisation: what stands in its way
        (no cpuset controller, a single processor) leaves things as they are.
        """
        if "cpuset" not in self.layout.hierarchies:
            return frozenset()
        cpuset = self.path(name, "cpuset")
        try:
            allowed = parse_processors((cpuset / self._effective_processors).read_text())
            if len(allowed) < 2:
                return frozenset()
            self._turn += 1
            (cpuset / "cpuset.cpus").write_text(str(sorted(allowed)[self._turn % len(allowed)]))
        except (OSError, ValueError):
            return frozenset()
        return allowed

    def widen(self, name: str, resources: Resources) -> None:
        """Undo `narrow`; right as well where it was not called. Raises HostError."""
        if "cpuset" not in self.layout.hierarchies:
            return
        cpuset = self.path(name, "cpuset")
        wanted = resources.cpuset_cpus
        try:
            if not wanted:
                wanted = "" if self.version == 2 else (cpuset.parent / "cpuset.cpus").read_text().strip()
            (cpuset / "cpuset.cpus").write_text(f"{wanted}\n")
        except FileNotFoundError:
            return
        except OSError as error:
            raise HostError(
                "a container could not be given all its processors after its start",
                details=f"{wanted!r} → {cpuset / 'cpuset.cpus'}: {error.strerror}",
            ) from error

    @property
    def _effective_processors(self) -> str:
        return "cpuset.cpus" if self.version == 1 else "cpuset.cpus.effective"

    def remove(self, name: str, *, patience_s: float = 5.0) -> None:
        """Kill what is left and remove the group; idempotent. Raises HostError when processes do not die."""
        end = time.monotonic() + patience_s
        pause = 0.001
        while True:
            left = [directory for directory in self.directories(name) if not _remove_directory(directory)]
            if not left:
                return
            self.kill(name)
            if time.monotonic() > end:
                raise HostError(f"the cgroup {left[0]} cannot be removed", details=f"processes: {self.pids(name)}")
            time.sleep(pause)
            pause = min(pause * 2, 0.1)

    def kill(self, name: str) -> None:
        """SIGKILL to every process of the group, also frozen ones."""
        if self.version == 2:
            with contextlib.suppress(OSError):
                (self.path(name) / "cgroup.kill").write_text("1")
                return
        for pid in self.pids(name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.thaw(name)

    def pids(self, name: str) -> tuple[int, ...]:
        """Processes of the group and of groups made inside it."""
        found: set[int] = set()
        controller = "pids" if self.version == 1 else ""
        for directory, _, _ in os.walk(self.path(name, controller)):
            with contextlib.suppress(OSError):
                found |= {int(word) for word in Path(directory, "cgroup.procs").read_text().split()}
        return tuple(sorted(found))

    def freeze(self, name: str) -> None:
        self._set_frozen(name, frozen=True)

    def thaw(self, name: str) -> None:
        try:
            self._set_frozen(name, frozen=False)
        except OSError as error:
            # gone, or going just now: an open file of a group that is removed has no device
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    def is_frozen(self, name: str) -> bool:
        try:
            if self.version == 1:
                return (self.path(name, "freezer") / "freezer.state").read_text().strip() != "THAWED"
            return (self.path(name) / "cgroup.freeze").read_text().strip() == "1"
        except OSError:
            return False

    def _set_frozen(self, name: str, *, frozen: bool) -> None:
        if self.version == 2:
            (self.path(name) / "cgroup.freeze").write_text("1" if frozen else "0")
            _wait_until(lambda: f"frozen {int(frozen)}" in (self.path(name) / "cgroup.events").read_text())
            return
        state = self.path(name, "freezer") / "freezer.state"
        wanted = "FROZEN" if frozen else "THAWED"

        def settled() -> bool:
            # a process that forks meanwhile can leave the group half frozen: asking again completes it
            state.write_text(wanted)
            return state.read_text().strip() == wanted

        _wait_until(settled)

    def out_of_memory_kills(self, name: str) -> int:
        leaf = "memory.oom_control" if self.version == 1 else "memory.events"
        return _number_after("oom_kill", self.path(name, "memory") / leaf)

    def out_of_memory_file(self, name: str) -> str:
        """Where `oom_kill N` is counted, for the keeper."""
        leaf = "memory.oom_control" if self.version == 1 else "memory.events"
        return str(self.path(name, "memory") / leaf) if "memory" in self.layout.hierarchies else ""

    def statistics(self, name: str) -> Statistics:
        if self.version == 2:
            return load_v2(self.path(name))
        return load_v1({controller: self.path(name, controller) for controller in self.layout.hierarchies})

    def existing(self) -> tuple[str, ...]:
        """Names of all groups there are, to find orphans."""
        names: set[str] = set()
        for root in self._roots:
            with contextlib.suppress(OSError):
                names |= {entry.name for entry in os.scandir(root / self.parent) if entry.is_dir()}
        return tuple(sorted(names))


def parse_processors(text: str) -> frozenset[int]:
    """`0-2,5` as the kernel writes a list of processors. Raises ValueError."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _copy_cpuset(parent: Path, child: Path) -> None:
    for leaf in ("cpuset.cpus", "cpuset.mems"):
        if not (child / leaf).read_text().strip():
            (child / leaf).write_text((parent / leaf).read_text())


def _raises_memory(before: Resources, after: Resources) -> bool:
    infinite = 1 << 62
    return (after.memory_bytes or infinite) > (before.memory_bytes or infinite)


def _remove_directory(directory: Path) -> bool:
    """Remove a group and those inside it; False when processes are still there."""
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        children = [entry for entry in directory.iterdir() if entry.is_dir()]
        if not children or [child for child in children if not _remove_directory(child)]:
            return False
        with contextlib.suppress(OSError):
            directory.rmdir()
        return not directory.exists()
    return True


def _wait_until(done: Callable[[], bool], *, patience_s: float = 5.0) -> None:
    end = time.monotonic() + patience_s
    while not done():
        if time.monotonic() > end:
            raise HostError("the kernel did not freeze or thaw the container in time")
        time.sleep(0.001)


def _number_after(key: str, file: Path) -> int:
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            words = line.split()
            if len(words) == 2 and words[0] == key:
                return int(words[1])
    return 0
