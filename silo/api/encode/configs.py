"""Config and HostConfig of `docker inspect`: what a container was asked to be, in Docker's words again."""

from __future__ import annotations

from typing import Any

from silo.api.encode.networks import encode_port_map
from silo.model.container import ContainerConfig, ContainerRecord, Resources
from silo.model.image import Healthcheck, Image, ImageConfig
from silo.model.mount import MountKind, MountRequest


def encode_healthcheck(check: Healthcheck | None) -> dict[str, Any] | None:
    if check is None:
        return None
    shown: dict[str, Any] = {"Test": list(check.test)}
    durations = (
        ("Interval", check.interval_s),
        ("Timeout", check.timeout_s),
        ("StartPeriod", check.start_period_s),
        ("StartInterval", check.start_interval_s),
    )
    shown |= {name: int(seconds * 1e9) for name, seconds in durations if seconds}
    if check.retries:
        shown["Retries"] = check.retries
    return shown


def encode_config(record: ContainerRecord, image: Image | None, *, short_id: str) -> dict[str, Any]:
    """Config: the request merged with what the image says."""
    config = record.config
    base = image.config if image is not None else ImageConfig()
    entrypoint = base.entrypoint if config.entrypoint is None else config.entrypoint
    inherited = base.cmd if config.entrypoint is None else ()
    command = inherited if config.cmd is None else config.cmd
    names = {pair.partition("=")[0] for pair in config.env}
    env = [pair for pair in base.env if pair.partition("=")[0] not in names]
    shown: dict[str, Any] = {
        "Hostname": config.hostname or short_id,
        "Domainname": config.domainname,
        "User": base.user if config.user is None else config.user,
        "AttachStdin": config.attach_stdin,
        "AttachStdout": config.attach_stdout,
        "AttachStderr": config.attach_stderr,
        "ExposedPorts": {key: {} for key in (*base.exposed_ports, *config.exposed_ports)} or None,
        "Tty": config.tty,
        "OpenStdin": config.open_stdin,
        "StdinOnce": config.stdin_once,
        "Env": [pair for pair in config.env if "=" in pair] + env,
        "Cmd": list(command) or None,
        "Healthcheck": encode_healthcheck(config.healthcheck),
        "ArgsEscaped": base.args_escaped if config.args_escaped is None else config.args_escaped,
        "Image": config.image,
        "Volumes": {key: {} for key in (*base.volumes, *config.volumes)} or None,
        "WorkingDir": base.working_dir if config.working_dir is None else config.working_dir,
        "Entrypoint": list(entrypoint) or None,
        "MacAddress": config.mac_address,
        "OnBuild": None,
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal or base.stop_signal,
        "StopTimeout": config.stop_timeout_s,
        "Shell": list(config.shell or base.shell) or None,
    }
    optional = ("ExposedPorts", "Healthcheck", "ArgsEscaped", "MacAddress", "StopSignal", "StopTimeout", "Shell")
    return {key: value for key, value in shown.items() if value or key not in optional}


def encode_host_config(config: ContainerConfig) -> dict[str, Any]:
    """HostConfig."""
    security, namespaces = config.security, config.namespaces
    tmpfs = {mount.target: _tmpfs_text(mount) for mount in config.mounts if _is_plain_tmpfs(mount)}
    mounts = [_mount(mount) for mount in config.mounts if not mount.from_bind and mount.source]
    mounts += [_mount(mount) for mount in config.mounts if mount.kind is MountKind.TMPFS and not mount.from_bind]
    shown: dict[str, Any] = {
        "Binds": [_bind(mount) for mount in config.mounts if mount.from_bind and mount.source] or None,
        "ContainerIDFile": config.container_id_file,
        "LogConfig": {"Type": config.log.driver, "Config": dict(config.log.options)},
        "NetworkMode": config.network_mode,
        "PortBindings": encode_port_map(config.ports),
        "RestartPolicy": {
            "Name": config.restart.name or "no",
            "MaximumRetryCount": config.restart.maximum_retries,
        },
        "AutoRemove": config.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": list(config.volumes_from) or None,
        "ConsoleSize": list(config.console_size or (0, 0)),
        "CapAdd": list(security.cap_add) or None,
        "CapDrop": list(security.cap_drop) or None,
        "CgroupnsMode": namespaces.cgroup or "private",
        "Dns": list(config.dns),
        "DnsOptions": list(config.dns_options),
        "DnsSearch": list(config.dns_search),
        "ExtraHosts": list(config.extra_hosts) or None,
        "GroupAdd": list(config.group_add) or None,
        "IpcMode": namespaces.ipc or "private",
        "Cgroup": "",
        "Links": [link for endpoint in config.endpoints[:1] for link in endpoint.links] or None,
        "OomScoreAdj": config.resources.oom_score_adj,
        "PidMode": namespaces.pid,
        "Privileged": security.privileged,
        "PublishAllPorts": config.publish_all,
        "ReadonlyRootfs": config.read_only_root,
        "SecurityOpt": list(security.options) or None,
        "StorageOpt": dict(config.storage_options) or None,
        "UTSMode": namespaces.uts,
        "UsernsMode": namespaces.user,
        "ShmSize": config.resources.shm_size_bytes,
        "Sysctls": dict(config.sysctls) or None,
        "Runtime": config.runtime or "silo",
        "Isolation": config.isolation.value,
        **_encode_resources(config.resources),
        "MaskedPaths": None if security.masked_paths is None else list(security.masked_paths),
        "ReadonlyPaths": None if security.readonly_paths is None else list(security.readonly_paths),
    }
    optional = {
        "Tmpfs": tmpfs,
        "Mounts": mounts,
        "Annotations": dict(config.annotations),
        "Init": config.init or None,
    }
    shown |= {key: value for key, value in optional.items() if value}
    return {key: value for key, value in shown.items() if value is not None or key not in ("StorageOpt", "Sysctls")}


def _encode_resources(limits: Resources) -> dict[str, Any]:
    return {
        "CpuShares": limits.cpu_shares,
        "Memory": limits.memory_bytes,
        "NanoCpus": limits.nano_cpus,
        "CgroupParent": "",
        "BlkioWeight": limits.blkio_weight,
        "BlkioWeightDevice": [],
        "BlkioDeviceReadBps": [],
        "BlkioDeviceWriteBps": [],
        "BlkioDeviceReadIOps": [],
        "BlkioDeviceWriteIOps": [],
        "CpuPeriod": limits.cpu_period_us,
        "CpuQuota": limits.cpu_quota_us,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": limits.cpuset_cpus,
        "CpusetMems": limits.cpuset_mems,
        "Devices": [
            {
                "PathOnHost": device.host_path,
                "PathInContainer": device.container_path,
                "CgroupPermissions": device.permissions,
            }
            for device in limits.devices
        ],
        "DeviceCgroupRules": list(limits.device_cgroup_rules) or None,
        "DeviceRequests": None,
        "MemoryReservation": limits.memory_reservation_bytes,
        "MemorySwap": limits.memory_swap_bytes,
        "MemorySwappiness": limits.memory_swappiness,
        "OomKillDisable": limits.oom_kill_disable,
        "PidsLimit": limits.pids_limit or None,
        "Ulimits": [{"Name": limit.name, "Hard": limit.hard, "Soft": limit.soft} for limit in limits.ulimits],
        "CpuCount": limits.cpu_count,
        "CpuPercent": limits.cpu_percent,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def _is_plain_tmpfs(mount: MountRequest) -> bool:
    return mount.kind is MountKind.TMPFS and mount.from_bind


def _tmpfs_text(mount: MountRequest) -> str:
    words = ["ro"] if mount.read_only else []
    words += mount.tmpfs_options
    if mount.tmpfs_size_bytes:
        words.append(f"size={mount.tmpfs_size_bytes}")
    if mount.tmpfs_mode is not None:
        words.append(f"mode={mount.tmpfs_mode:o}")
    return ",".join(words)


def _bind(mount: MountRequest) -> str:
    words = ["ro"] if mount.read_only else []
    words += [mount.propagation] if mount.propagation else []
    words += ["nocopy"] if mount.no_copy else []
    tail = f":{','.join(words)}" if words else ""
    return f"{mount.source}:{mount.target}{tail}"


def _mount(mount: MountRequest) -> dict[str, Any]:
    shown: dict[str, Any] = {"Type": mount.kind.value}
    if mount.source:
        shown["Source"] = mount.source
    shown["Target"] = mount.target
    if mount.read_only:
        shown["ReadOnly"] = True
    if mount.kind is MountKind.BIND and (mount.propagation or mount.create_source):
        shown["BindOptions"] = {
            key: value
            for key, value in (("Propagation", mount.propagation), ("CreateMountpoint", mount.create_source))
            if value
        }
    if mount.kind is MountKind.VOLUME and (mount.no_copy or mount.labels or mount.subpath or mount.driver):
        shown["VolumeOptions"] = {
            "NoCopy": mount.no_copy,
            "Labels": dict(mount.labels),
            "Subpath": mount.subpath,
            "DriverConfig": {"Name": mount.driver, "Options": dict(mount.driver_options)},
        }
    if mount.kind is MountKind.TMPFS and (mount.tmpfs_size_bytes or mount.tmpfs_mode is not None):
        shown["TmpfsOptions"] = {"SizeBytes": mount.tmpfs_size_bytes, "Mode": mount.tmpfs_mode or 0}
    return shown
