"""Containers as `docker ps` and `docker inspect` show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from silo.api.encode.configs import encode_config, encode_host_config
from silo.api.encode.networks import encode_endpoints, encode_port_map
from silo.api.encode.times import ago, unix_seconds
from silo.engine.states import ALIVE
from silo.model.container import ContainerRecord, Health, State, Status
from silo.model.image import Image
from silo.model.mount import MountPoint


def encode_container(
    record: ContainerRecord,
    image: Image | None,
    *,
    directory: Path,
    networks: Mapping[str, str],
    exec_ids: Sequence[str],
    sizes: tuple[int, int] | None,
) -> dict[str, Any]:
    """`docker inspect`. `networks`: id → name."""
    state = record.state
    shown: dict[str, Any] = {
        "Id": record.id,
        "Created": record.created,
        "Path": record.path,
        "Args": list(record.args),
        "State": encode_state(state),
        "Image": record.image_id,
        "ResolvConfPath": str(directory / "resolv.conf"),
        "HostnamePath": str(directory / "hostname"),
        "HostsPath": str(directory / "hosts"),
        "LogPath": str(directory / "log") if record.config.log.driver != "none" else "",
        "Name": f"/{record.name}",
        "RestartCount": state.restart_count,
        "Driver": "overlay2",
        "Platform": record.personality.value,
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(exec_ids) or None,
        "HostConfig": encode_host_config(record.config),
        "GraphDriver": {"Data": {"UpperDir": str(directory / "upper")}, "Name": "overlay2"},
        "Mounts": [encode_mount_point(point) for point in record.mounts],
        "Config": encode_config(record, image, short_id=record.id[:12]),
        "NetworkSettings": _network_settings(record, image, networks),
    }
    if sizes is not None:
        shown["SizeRw"], shown["SizeRootFs"] = sizes
    return shown


def encode_state(state: State) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Status": state.status.value,
        "Running": state.status in ALIVE or state.status is Status.RESTARTING,
        "Paused": state.status is Status.PAUSED,
        "Restarting": state.status is Status.RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": state.status is Status.DEAD,
        "Pid": state.pid,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": state.started_at,
        "FinishedAt": state.finished_at,
    }
    if state.health is not None:
        shown["Health"] = _health(state.health)
    return shown


def _health(health: Health) -> dict[str, Any]:
    return {
        "Status": health.status,
        "FailingStreak": health.failing_streak,
        "Log": [
            {"Start": result.start, "End": result.end, "ExitCode": result.exit_code, "Output": result.output}
            for result in health.log
        ],
    }


def encode_mount_point(point: MountPoint) -> dict[str, Any]:
    shown: dict[str, Any] = {"Type": point.kind.value}
    if point.name:
        shown["Name"] = point.name
    shown |= {"Source": point.source, "Destination": point.target}
    if point.driver:
        shown["Driver"] = point.driver
    return shown | {"Mode": point.mode, "RW": not point.read_only, "Propagation": point.propagation}


def _exposed(record: ContainerRecord, image: Image | None) -> tuple[str, ...]:
    return (*(image.config.exposed_ports if image else ()), *record.config.exposed_ports)


def _network_settings(record: ContainerRecord, image: Image | None, networks: Mapping[str, str]) -> dict[str, Any]:
    running = record.state.status in ALIVE
    endpoints = encode_endpoints(record, networks)
    bridge = endpoints.get("bridge", {})
    return {
        "Bridge": "",
        "SandboxID": record.id if running else "",
        "SandboxKey": f"/proc/{record.state.pid}/ns/net" if running and record.state.pid else "",
        "Ports": encode_port_map(record.bindings, _exposed(record, image), any_address="0.0.0.0") if running else {},
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "EndpointID": bridge.get("EndpointID", ""),
        "Gateway": bridge.get("Gateway", ""),
        "GlobalIPv6Address": bridge.get("GlobalIPv6Address", ""),
        "GlobalIPv6PrefixLen": bridge.get("GlobalIPv6PrefixLen", 0),
        "IPAddress": bridge.get("IPAddress", ""),
        "IPPrefixLen": bridge.get("IPPrefixLen", 0),
        "IPv6Gateway": bridge.get("IPv6Gateway", ""),
        "MacAddress": bridge.get("MacAddress", ""),
        "Networks": endpoints,
    }


def status_text(state: State) -> str:
    """The STATUS column."""
    match state.status:
        case Status.CREATED:
            return "Created"
        case Status.RUNNING:
            health = state.health
            tail = ""
            if health is not None and health.status:
                tail = " (health: starting)" if health.status == "starting" else f" ({health.status})"
            return f"Up {ago(state.started_at)}{tail}"
        case Status.PAUSED:
            return f"Up {ago(state.started_at)} (Paused)"
        case Status.RESTARTING:
            return f"Restarting ({state.exit_code}) {ago(state.finished_at)} ago"
        case Status.REMOVING:
            return "Removal In Progress"
        case Status.DEAD:
            return "Dead"
        case _:
            return f"Exited ({state.exit_code}) {ago(state.finished_at)} ago"


def encode_summary(
    record: ContainerRecord, image: Image | None, *, networks: Mapping[str, str], sizes: tuple[int, int] | None
) -> dict[str, Any]:
    """One row of `docker ps`."""
    running = record.state.status in ALIVE
    ports: list[dict[str, Any]] = []
    if running:
        published = {(port.container_port, port.protocol) for port in record.bindings}
        for port in record.bindings:
            ports.append(
                {
                    "IP": port.host_ip or "0.0.0.0",
                    "PrivatePort": port.container_port,
                    "PublicPort": port.host_port,
                    "Type": port.protocol,
                }
            )
        for text in dict.fromkeys(_exposed(record, image)):
            number, _, protocol = text.partition("/")
            if number.isdigit() and (int(number), protocol or "tcp") not in published:
                ports.append({"PrivatePort": int(number), "Type": protocol or "tcp"})
    shown: dict[str, Any] = {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": record.config.image if image is not None else record.image_id,
        "ImageID": record.image_id,
        "Command": " ".join((record.path, *record.args)),
        "Created": unix_seconds(record.created),
        "Ports": ports,
        "Labels": dict(record.config.labels),
        "State": record.state.status.value,
        "Status": status_text(record.state),
        "HostConfig": {"NetworkMode": record.config.network_mode},
        "NetworkSettings": {"Networks": encode_endpoints(record, networks)},
        "Mounts": [encode_mount_point(point) for point in record.mounts],
    }
    if sizes is not None:
        shown["SizeRw"], shown["SizeRootFs"] = sizes
    return shown
