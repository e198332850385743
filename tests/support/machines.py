"""Plans and records of containers in machines, for tests in which no machine runs."""

from __future__ import annotations

from pathlib import Path

from silo.isolation.vm.container import Record
from silo.model.platform import PersonalityName
from silo.model.runtime import ContainerPlan, ProcessPlan, Rootfs


def machine_plan(root: Path, container_id: str = "c" * 64) -> ContainerPlan:
    """Of the plainest container there is; `root` is its directory."""
    return ContainerPlan(
        id=container_id,
        personality=PersonalityName.LINUX,
        image_id="",
        rootfs=Rootfs(layers=(), scratch=root),
        process=ProcessPlan(args=()),
        directory=root,
        hostname="box",
    )


def machine_record(root: Path, container_id: str = "c" * 64) -> Record:
    """Of one that has been started."""
    return Record(
        plan=machine_plan(root, container_id),
        first_id=1,
        pid=1,
        pid_started=1,
        memory_bytes=1 << 29,
        processors=1,
        image=root / "image",
        mapped=False,
        started=True,
    )
