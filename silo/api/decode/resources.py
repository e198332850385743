"""Limits, devices and restart policy: what `create` and `update` share."""

from __future__ import annotations

from silo.api.decode.shapes import says_something
from silo.api.decode.wire import ResourcesBody, RestartPolicyBody
from silo.errors import InvalidRequest, Unsupported
from silo.model.container import Device, Resources, RestartPolicy, Ulimit

_UNSUPPORTED = (
    ("CgroupParent", "--cgroup-parent"),
    ("BlkioWeightDevice", "--blkio-weight-device"),
    ("BlkioDeviceReadBps", "--device-read-bps"),
    ("BlkioDeviceWriteBps", "--device-write-bps"),
    ("BlkioDeviceReadIOps", "--device-read-iops"),
    ("BlkioDeviceWriteIOps", "--device-write-iops"),
    ("CpuRealtimePeriod", "--cpu-rt-period"),
    ("CpuRealtimeRuntime", "--cpu-rt-runtime"),
    ("DeviceRequests", "--gpus"),
    ("KernelMemory", "--kernel-memory"),
    ("KernelMemoryTCP", "KernelMemoryTCP"),
    ("IOMaximumIOps", "--io-maxiops"),
    ("IOMaximumBandwidth", "--io-maxbandwidth"),
)


def parse_resources(body: ResourcesBody, *, shm_size_bytes: int = 0, oom_score_adj: int = 0) -> Resources:
    """Raises InvalidRequest and Unsupported."""
    for member, option in _UNSUPPORTED:
        if says_something(getattr(body, member)):
            raise Unsupported(f"{option} is not supported")
    check_sizes(body.Memory, "--memory")
    check_sizes(body.MemoryReservation, "--memory-reservation")
    check_sizes(body.NanoCpus, "--cpus")
    check_sizes(body.CpuCount, "--cpu-count")
    if body.MemorySwap < -1:
        raise InvalidRequest(f"invalid value for --memory-swap: {body.MemorySwap}")
    swappiness = None if body.MemorySwappiness == -1 else body.MemorySwappiness
    if swappiness is not None and not 0 <= swappiness <= 100:
        raise InvalidRequest(f"Invalid value: {swappiness}, valid memory swappiness range is 0-100")
    if body.BlkioWeight and not 10 <= body.BlkioWeight <= 1000:
        raise InvalidRequest("Range of blkio weight is from 10 to 1000")
    if not -1000 <= oom_score_adj <= 1000:
        raise InvalidRequest(f"Invalid value {oom_score_adj}, range for oom score adj is [-1000, 1000]")
    return Resources(
        memory_bytes=body.Memory,
        memory_swap_bytes=body.MemorySwap,
        memory_reservation_bytes=body.MemoryReservation,
        nano_cpus=body.NanoCpus,
        cpu_shares=body.CpuShares,
        cpu_count=body.CpuCount,
        cpu_percent=body.CpuPercent,
        cpu_period_us=body.CpuPeriod,
        cpu_quota_us=body.CpuQuota,
        cpuset_cpus=body.CpusetCpus,
        cpuset_mems=body.CpusetMems,
        pids_limit=max(body.PidsLimit, -1),
        blkio_weight=body.BlkioWeight,
        oom_kill_disable=body.OomKillDisable,
        oom_score_adj=oom_score_adj,
        memory_swappiness=swappiness,
        shm_size_bytes=shm_size_bytes or Resources().shm_size_bytes,
        ulimits=tuple(Ulimit(name=limit.Name, soft=limit.Soft, hard=limit.Hard) for limit in body.Ulimits),
        devices=tuple(
            Device(
                host_path=device.PathOnHost,
                container_path=device.PathInContainer or device.PathOnHost,
                permissions=device.CgroupPermissions or "rwm",
            )
            for device in body.Devices
        ),
        device_cgroup_rules=body.DeviceCgroupRules,
    )


def parse_restart(body: RestartPolicyBody) -> RestartPolicy:
    if body.MaximumRetryCount < 0:
        raise InvalidRequest("maximum retry count cannot be negative")
    return RestartPolicy(name=body.Name or "no", maximum_retries=body.MaximumRetryCount)


def check_sizes(value: int, option: str) -> None:
    if value < 0:
        raise InvalidRequest(f"invalid value for {option}: {value}", hint="it cannot be negative")
