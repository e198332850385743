"""The shape of a VM: everything that a template is made of, and so what a clone of it cannot choose for itself."""

from __future__ import annotations

from dataclasses import dataclass

from silo.errors import InvalidRequest
from silo.isolation import run_files
from silo.isolation.vm.command import Accelerator
from silo.model.container import Resources
from silo.model.platform import PersonalityName
from silo.model.runtime import ContainerPlan
from silo.model.vm_image import VmImage

RESERVE_BYTES = 96 << 20
"""What the guest's kernel and agent need for themselves."""
OVERHEAD_BYTES = 704 << 20
"""What QEMU itself may take at most, under emulation most of it for translated code: a backstop, not what it needs."""
_SMALLEST_BYTES = {PersonalityName.LINUX: 256 << 20, PersonalityName.WINDOWS: 1 << 30}
_MOST_PROCESSORS = 64


@dataclass(frozen=True, slots=True)
class Shape:
    image: VmImage
    memory_bytes: int
    processors: int
    personality: PersonalityName
    accelerator: Accelerator
    begun: bytes = b""
    """The plan of the container that the template holds running (ahead.find_ahead), encoded; empty: none."""

    @property
    def maps_image(self) -> bool:
        """Mapped, Windows programs that write into others' text would break."""
        return self.personality is PersonalityName.LINUX

    @property
    def begun_plan(self) -> ContainerPlan | None:
        return run_files.decode(self.begun, ContainerPlan) if self.begun else None


def memory_of(resources: Resources, personality: PersonalityName, default_bytes: int) -> int:
    """The VM's memory: a power of two with room for the limit to be doubled later. What is not used costs the host nothing.

    Raises InvalidRequest for a limit that no container can start with.
    """
    limit = resources.memory_bytes
    if limit and limit < 16 << 20:
        raise InvalidRequest(
            f"--memory {limit} is too little for a container in a virtual machine", hint="at least 16m"
        )
    wanted = max(default_bytes, _SMALLEST_BYTES[personality], 2 * limit + RESERVE_BYTES if limit else 0)
    return 1 << (wanted - 1).bit_length()


def processors_of(resources: Resources, default: int) -> int:
    """`--cpu-count`, or `--cpus` rounded up. Raises InvalidRequest."""
    wanted = resources.cpu_count or -(-resources.nano_cpus // 1_000_000_000) or default
    if resources.cpu_quota_us > 0 and not resources.nano_cpus:
        wanted = max(1, -(-resources.cpu_quota_us // (resources.cpu_period_us or 100_000)))
    if wanted > _MOST_PROCESSORS:
        raise InvalidRequest(f"a virtual machine has at most {_MOST_PROCESSORS} processors, not {wanted}")
    return wanted


def check_update(resources: Resources, shape_memory_bytes: int, shape_processors: int) -> None:
    """A running VM keeps its size. Raises InvalidRequest for what does not fit into it."""
    most = shape_memory_bytes - RESERVE_BYTES
    if resources.memory_bytes > most:
        raise InvalidRequest(
            f"the container's virtual machine has {shape_memory_bytes >> 20} MiB: its memory limit can be at most {most >> 20} MiB",
            hint="restart it with the larger limit",
        )
    if processors_of(resources, 1) > shape_processors:
        raise InvalidRequest(
            f"the container's virtual machine has {shape_processors} processor{'s' * (shape_processors > 1)}",
            hint="restart it with more --cpus",
        )


def host_limits(resources: Resources, memory_bytes: int) -> Resources:
    """Of QEMU's cgroup: the container's limits from outside, where no guest can change them."""
    memory = (resources.memory_bytes or memory_bytes) + RESERVE_BYTES + OVERHEAD_BYTES
    return Resources(
        memory_bytes=memory,
        nano_cpus=resources.nano_cpus,
        cpu_shares=resources.cpu_shares,
        cpu_period_us=resources.cpu_period_us,
        cpu_quota_us=resources.cpu_quota_us,
        cpuset_cpus=resources.cpuset_cpus,
        cpuset_mems=resources.cpuset_mems,
        pids_limit=256,
    )
