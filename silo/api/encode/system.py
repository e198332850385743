"""`docker version`, `docker info`, `docker events`."""

from __future__ import annotations

import platform
from typing import Any

from silo.api.routing import MAX_VERSION, MIN_VERSION, version_text
from silo.engine.events import Event
from silo.engine.system import SystemInfo

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def encode_version(info: SystemInfo) -> dict[str, Any]:
    architecture = _ARCHITECTURES.get(info.architecture, info.architecture)
    details = {
        "ApiVersion": version_text(MAX_VERSION),
        "Arch": architecture,
        "Experimental": "false",
        "KernelVersion": info.kernel_version,
        "MinAPIVersion": version_text(MIN_VERSION),
        "Os": "linux",
        "PythonVersion": platform.python_version(),
    }
    components: list[dict[str, Any]] = [{"Name": "Engine", "Version": info.version, "Details": details}]
    components += [
        {"Name": report.name, "Version": report.version, "Details": dict(report.facts)} for report in info.runtimes
    ]
    return {
        "Platform": {"Name": "Silo"},
        "Components": components,
        "Version": info.version,
        "ApiVersion": version_text(MAX_VERSION),
        "MinAPIVersion": version_text(MIN_VERSION),
        "GitCommit": "",
        "GoVersion": "",
        "Os": "linux",
        "Arch": architecture,
        "KernelVersion": info.kernel_version,
        "BuildTime": "",
    }


def encode_info(info: SystemInfo) -> dict[str, Any]:
    """Facts that Docker has no member for go into DriverStatus, which every client prints."""
    first = info.runtimes[0] if info.runtimes else None
    facts = [[f"{report.name}: {key}", value] for report in info.runtimes for key, value in report.facts.items()]
    facts += [[f"network: {key}", value] for key, value in info.network.items()]
    security = dict.fromkeys(option for report in info.runtimes for option in report.security_options)
    shown: dict[str, Any] = {
        "ID": info.id,
        "Containers": info.containers,
        "ContainersRunning": info.running,
        "ContainersPaused": info.paused,
        "ContainersStopped": info.stopped,
        "Images": info.images,
        "Driver": "overlay2",
        "DriverStatus": [["Personalities", ", ".join(info.personalities)], *facts],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": None,
            "Log": ["json-file", "local", "none"],
        },
        "MemoryLimit": True,
        "SwapLimit": True,
        "CpuCfsPeriod": True,
        "CpuCfsQuota": True,
        "CPUShares": True,
        "CPUSet": True,
        "PidsLimit": True,
        "IPv4Forwarding": True,
        "Debug": False,
        "NFd": 0,
        "OomKillDisable": False,
        "NGoroutines": 0,
        "SystemTime": info.system_time,
        "LoggingDriver": "json-file",
        "CgroupDriver": first.cgroup_driver if first else "",
        "CgroupVersion": first.cgroup_version if first else "",
        "NEventsListener": info.event_followers,
        "KernelVersion": info.kernel_version,
        "OperatingSystem": info.operating_system,
        "OSVersion": info.os_version,
        "OSType": "linux",
        "Architecture": info.architecture,
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": {
            "InsecureRegistryCIDRs": ["127.0.0.0/8"],
            "IndexConfigs": {},
            "Mirrors": None,
        },
        "NCPU": info.cpus,
        "MemTotal": info.memory_bytes,
        "GenericResources": None,
        "DockerRootDir": str(info.data_root),
        "HttpProxy": "",
        "HttpsProxy": "",
        "NoProxy": "",
        "Name": info.name,
        "Labels": [],
        "ExperimentalBuild": False,
        "ServerVersion": info.version,
        "Runtimes": {"silo": {"path": first.name if first else ""}},
        "DefaultRuntime": "silo",
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "LiveRestoreEnabled": True,
        "Isolation": info.default_isolation.value,
        "InitBinary": "silo-init",
        "ContainerdCommit": {"ID": ""},
        "RuncCommit": {"ID": first.version if first else ""},
        "InitCommit": {"ID": ""},
        "SecurityOptions": list(security),
        "CDISpecDirs": [],
        "Warnings": list(info.warnings) or None,
    }
    return shown


def encode_event(event: Event) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    if event.type in ("container", "image"):
        # Members of the time before Actor, which scripts still read.
        shown = {"status": event.action, "id": event.actor_id}
        if "image" in event.attributes:
            shown["from"] = event.attributes["image"]
    return shown | {
        "Type": event.type,
        "Action": event.action,
        "Actor": {"ID": event.actor_id, "Attributes": event.attributes},
        "scope": "local",
        "time": event.time_ns // 1_000_000_000,
        "timeNano": event.time_ns,
    }
