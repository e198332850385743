"""What the process level remembers of a container in the run directory, so that a restarted daemon can go on.

RUN_ROOT/
  keeper.sock  keeper.log
  crun-bin     crun, bound read-only (it then need not copy itself into memory at every start)
  crun/        crun's own states
  tty/         sockets on which crun hands over terminals
  containers/ID/
    record.json   this record
    config.json   the OCI spec (the directory is the bundle)
    merged/       the container's root
    mounts/N      sources of bind mounts, id-mapped
    pid  crun.log  launcher.sock
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import msgspec

from silo.isolation import run_files
from silo.isolation.slots import COUNT
from silo.model.runtime import ContainerPlan

USUAL_RUN_ROOT = "/run/silo"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One container. `first_host_uid` 0: no user namespace; it is another container's where its namespaces are joined."""

    plan: ContainerPlan
    first_host_uid: int = 0
    pid: int = 0
    pid_started: int = 0
    """The kernel's start time of pid (silo.host.namespaces.start_time): a reused pid is another process."""
    started: bool = False
    console: bool = False
    cgroup: str = ""
    """The name of its cgroup; not the id's when it came from a pool."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Where things lie in the run directory."""

    run_root: Path

    @property
    def first_slot(self) -> int:
        """Where to begin among the ranges of user ids, so that several daemons on one machine stay apart."""
        text = str(self.run_root)
        return (
            0 if text == USUAL_RUN_ROOT else int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % COUNT
        )

    @property
    def keeper_socket(self) -> Path:
        return self.run_root / "keeper.sock"

    @property
    def keeper_log(self) -> Path:
        return self.run_root / "keeper.log"

    @property
    def crun(self) -> Path:
        return self.run_root / "crun-bin"

    @property
    def crun_root(self) -> Path:
        return self.run_root / "crun"

    @property
    def containers(self) -> Path:
        return self.run_root / "containers"

    @property
    def terminals(self) -> Path:
        return self.run_root / "tty"

    def bundle(self, container_id: str) -> Path:
        return self.containers / container_id

    def root(self, container_id: str) -> Path:
        return self.containers / container_id / "merged"

    def record(self, container_id: str) -> Path:
        return self.containers / container_id / "record.json"


def save_record(paths: Paths, record: Record) -> None:
    run_files.save(paths.record(record.plan.id), record)


def load_record(paths: Paths, container_id: str) -> Record | None:
    """None when there is none or it is not whole (a container half made)."""
    return run_files.load(paths.record(container_id), Record)
