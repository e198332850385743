"""Containers that are a whole disk with somebody's operating system: what they refuse, for nothing of ours runs inside."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Sequence

import msgspec

from silo.engine.ports import ExecRequest
from silo.errors import Conflict, HostError, InvalidRequest, Unsupported
from silo.model.container import ContainerConfig, ContainerRecord, Resources, Status
from silo.model.disk_guest import DiskGuest
from silo.model.network import EndpointRequest
from silo.model.runtime import ProcessPlan
from silo.model.vm_image import PARKED_LABEL, VM_LABEL


def check_disk(config: ContainerConfig, disk: DiskGuest) -> None:
    """Raises Unsupported naming the option, InvalidRequest or HostError for the file."""
    for option, given in (*_image_words(config), *_limits_inside(config.resources)):
        if given:
            raise Unsupported(
                f"{option} is not supported with --disk",
                details="the disk boots an operating system of its own, and no program of Silo's runs in it",
            )
    try:
        status = disk.path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidRequest(f"--disk {disk.path}: there is no such file") from None
    except OSError as error:
        raise HostError(f"cannot look at the disk {disk.path}", details=error.strerror or "") from error
    if not stat.S_ISREG(status.st_mode):
        raise InvalidRequest(f"--disk {disk.path} is not a regular file")
    if not status.st_size:
        raise InvalidRequest(f"--disk {disk.path} is empty")


def _image_words(config: ContainerConfig) -> tuple[tuple[str, bool], ...]:
    """What is said to a program, to its files or to its kernel. Hostname and servers stay: DHCP and other containers use them."""
    security = config.security
    return (
        ("a command", config.cmd is not None),
        ("--entrypoint", config.entrypoint is not None),
        ("--user", config.user is not None),
        ("--workdir", config.working_dir is not None),
        ("--env", bool(config.env)),
        ("--init", config.init),
        ("--group-add", bool(config.group_add)),
        ("--stop-signal", bool(config.stop_signal)),
        ("--health-cmd", config.healthcheck is not None and config.healthcheck.test != ("NONE",)),
        ("--add-host", bool(config.extra_hosts)),
        ("--read-only", config.read_only_root),
        ("--volume", bool(config.mounts or config.volumes)),
        ("--volumes-from", bool(config.volumes_from)),
        ("--storage-opt", bool(config.storage_options)),
        ("--sysctl", bool(config.sysctls)),
        ("--privileged", security.privileged),
        ("--cap-add", bool(security.cap_add)),
        ("--cap-drop", bool(security.cap_drop)),
        ("--security-opt", bool(security.options)),
        ("--platform", bool(config.platform)),
        ("--vm", VM_LABEL in config.labels),
        ("--vm-parked", PARKED_LABEL in config.labels),
    )


def _limits_inside(limits: Resources) -> tuple[tuple[str, bool], ...]:
    usual = Resources()
    return (
        ("--memory-reservation", bool(limits.memory_reservation_bytes)),
        ("--pids-limit", limits.pids_limit > 0),
        ("--oom-score-adj", bool(limits.oom_score_adj)),
        ("--shm-size", limits.shm_size_bytes != usual.shm_size_bytes),
        ("--ulimit", bool(limits.ulimits)),
    )


def refuse_inside(record: ContainerRecord, what: str) -> None:
    """Raises Unsupported for what needs to know a container's file systems, where those are a disk's own operating system's."""
    if record.config.disk is not None:
        raise Unsupported(
            f"{what} is not possible with container {record.name}",
            details=f"it boots the disk {record.config.disk.path}, whose file systems only its own system knows",
            hint="cp and exec work while it runs, if it has a guest agent; else use its console (silo attach) or its network",
        )


def check_running_disk(record: ContainerRecord, what: str) -> None:
    """Raises Conflict for a disk whose system does not run: nobody else reads it."""
    if record.config.disk is not None and record.state.status is not Status.RUNNING:
        raise Conflict(
            f"{what}: container {record.name} is {record.state.status}, and only its own system can read its disk",
            hint="start it, or unpause it",
        )


def plan_program(request: ExecRequest) -> ProcessPlan:
    """`exec` in a disk's own system: what is not said is that system's choice. Raises InvalidRequest."""
    if not request.args or not request.args[0]:
        raise InvalidRequest("No exec command specified")
    return ProcessPlan(args=request.args, env=request.env, cwd=request.working_dir, user=request.user, tty=request.tty)


# --- the network card


def card_address(record: ContainerRecord) -> str:
    """The MAC address of a disk's machine, "" of any other container.

    It is there before its network is, and stays what it is: a Windows takes a new one for another network.
    """
    if record.config.disk is None:
        return ""
    given = next((request.mac_address for request in record.config.endpoints[:1]), "")
    octets = hashlib.sha256(record.id.encode()).digest()[:5]
    return given or ":".join(f"{octet:02x}" for octet in (0x02, *octets))


def for_card(record: ContainerRecord, requests: Sequence[EndpointRequest]) -> tuple[EndpointRequest, ...]:
    """The requests, for an interface with the card's own address where there is one."""
    address = card_address(record)
    return tuple(msgspec.structs.replace(request, mac_address=address) if address else request for request in requests)


def check_card(config: ContainerConfig, networks: int) -> None:
    """Raises Unsupported for more networks than a disk's machine has cards."""
    if config.disk is not None and networks > 1:
        raise Unsupported(
            "a second network is not supported with --disk",
            details="the machine has one network card",
            hint="disconnect it from the other network",
        )
