"""The OCI runtime spec of a container: a pure function from a plan and what has been made for it.

Source: the OCI runtime specification 1.0 (config.md, config-linux.md). What stands here is what Docker's users know, with the
container's root behind a user namespace. Golden tests: tests/golden/spec_*.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from silo.host.cgroup_files import DEFAULT_DEVICE_RULES
from silo.model.accounts import Identity
from silo.model.container import Device, Ulimit
from silo.model.mount import MountKind
from silo.model.runtime import ContainerPlan, ProcessPlan

Json = dict[str, Any]

INIT_PATH = "/sbin/docker-init"
SECCOMP_ANNOTATION = "run.oci.seccomp_bpf_data"


@dataclass(frozen=True, slots=True)
class StagedMount:
    """A planned mount whose source is ready: `source` is a path for crun to bind, empty for a tmpfs."""

    target: str
    source: str
    kind: MountKind
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A device for the container; `uid` and `gid` as the container sees them."""

    path: str
    type: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class SpecInputs:
    """What the plan's words have become on this host.

    `namespaces`: kind → path to join, "" to make a new one; a kind that is missing is the host's. `seccomp_filter` is base64
    BPF for crun's annotation, `seccomp_section` the spec's own form; at most one of them is set.
    """

    root: str
    identity: Identity
    namespaces: dict[str, str]
    mounts: tuple[StagedMount, ...] = ()
    cgroup_path: str = ""
    shm_source: str = ""
    seccomp_filter: str = ""
    seccomp_section: Json | None = None
    devices: tuple[DeviceNode, ...] = ()
    device_rules: tuple[str, ...] = DEFAULT_DEVICE_RULES
    init_source: str = ""
    oom_score_adj: int | None = None
    host_message_queues: bool = True
    """The host has /dev/mqueue to show to a container in its IPC namespace."""
    annotations: dict[str, str] = field(default_factory=dict)


def build_spec(plan: ContainerPlan, inputs: SpecInputs) -> Json:
    """The content of config.json."""
    spec: Json = {
        "ociVersion": "1.0.0",
        "root": {"path": inputs.root, "readonly": plan.rootfs.read_only},
        "process": _main_process(plan, inputs),
        "mounts": _mounts(plan, inputs),
        "linux": _linux(plan, inputs),
    }
    if "uts" in inputs.namespaces and not inputs.namespaces["uts"]:
        spec["hostname"] = plan.hostname
        if plan.domainname:
            spec["domainname"] = plan.domainname
    annotations = dict(inputs.annotations)
    if inputs.seccomp_filter:
        annotations[SECCOMP_ANNOTATION] = inputs.seccomp_filter
    if annotations:
        spec["annotations"] = annotations
    return spec


def build_process(plan: ProcessPlan, identity: Identity) -> Json:
    """The `process` object, also for `crun exec --process`."""
    env = list(plan.env)
    if not any(word.startswith("HOME=") for word in env):
        env.append(f"HOME={identity.home}")
    if plan.tty and not any(word.startswith("TERM=") for word in env):
        env.append("TERM=xterm")
    capabilities = list(plan.capabilities)
    # a program of another user than root has none in effect, as execve would leave it
    in_effect = capabilities if identity.uid == 0 else []
    process: Json = {
        "terminal": plan.tty,
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups)},
        "args": list(plan.args),
        "env": env,
        "cwd": plan.cwd or "/",
        "capabilities": {"bounding": capabilities, "effective": in_effect, "permitted": in_effect},
        "noNewPrivileges": plan.no_new_privileges,
    }
    if plan.tty and plan.console_size:
        process["consoleSize"] = {"height": plan.console_size[0], "width": plan.console_size[1]}
    return process


def _main_process(plan: ContainerPlan, inputs: SpecInputs) -> Json:
    process = build_process(plan.process, inputs.identity)
    if inputs.init_source:
        process["args"] = [INIT_PATH, "--", *process["args"]]
    process["rlimits"] = build_rlimits(plan.resources.ulimits)
    if inputs.oom_score_adj is not None:
        process["oomScoreAdj"] = inputs.oom_score_adj
    return process


def build_rlimits(ulimits: Sequence[Ulimit]) -> list[Json]:
    """`process.rlimits`: of a container's main program, and of what is executed in it later."""
    return [
        {"type": f"RLIMIT_{limit.name.upper()}", "soft": _rlimit(limit.soft), "hard": _rlimit(limit.hard)}
        for limit in ulimits
    ]


def _rlimit(value: int) -> int:
    return 2**64 - 1 if value < 0 else value


def _mounts(plan: ContainerPlan, inputs: SpecInputs) -> list[Json]:
    own = [*_base_mounts(plan, inputs)]
    taken = {mount.target.rstrip("/") or "/" for mount in inputs.mounts}
    kept = [mount for mount in own if not _is_covered(mount["destination"], taken)]
    # parents before children, else a child's mount would be hidden
    ordered = sorted(inputs.mounts, key=lambda mount: mount.target.rstrip("/").count("/"))
    return [*kept, *(_planned_mount(mount) for mount in ordered), *_init_mount(inputs)]


def _is_covered(destination: str, taken: set[str]) -> bool:
    """A user's mount at the same place, or of all of /dev, /proc or /sys, takes the place of ours."""
    return destination in taken or any(
        destination.startswith(f"{target}/") for target in taken & {"/dev", "/proc", "/sys"}
    )


def _base_mounts(plan: ContainerPlan, inputs: SpecInputs) -> list[Json]:
    joined = inputs.namespaces
    user = "user" in joined
    read_only = [] if plan.privileged else ["ro"]
    mounts = [
        # proc shows a pid namespace and sysfs a network namespace: of a foreign one only the host's own mount can be had
        _bind("/proc", "/proc") if user and "pid" not in joined else _kernel("proc", "/proc"),
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        _bind("/sys", "/sys", *read_only) if user and "network" not in joined else _kernel("sysfs", "/sys", *read_only),
        _kernel("cgroup", "/sys/fs/cgroup", *read_only),
    ]
    if "ipc" in joined or not user:
        mounts.append(_kernel("mqueue", "/dev/mqueue"))
    elif inputs.host_message_queues:
        mounts.append(_bind("/dev/mqueue", "/dev/mqueue"))
    if plan.namespaces.ipc == "host":
        mounts.append(_bind("/dev/shm", "/dev/shm"))
    elif inputs.shm_source:
        mounts.append(_bind(inputs.shm_source, "/dev/shm"))
    elif plan.namespaces.ipc != "none":
        size = f"size={plan.resources.shm_size_bytes}"
        options = ["nosuid", "noexec", "nodev", "mode=1777", size]
        mounts.append({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": options})
    return mounts


def _kernel(kind: str, target: str, *options: str) -> Json:
    return {"destination": target, "type": kind, "source": kind, "options": ["nosuid", "noexec", "nodev", *options]}


def _bind(source: str, target: str, *options: str) -> Json:
    words = ["rbind", "nosuid", "noexec", "nodev", *options]
    return {"destination": target, "type": "bind", "source": source, "options": words}


def _planned_mount(mount: StagedMount) -> Json:
    if mount.kind is MountKind.TMPFS:
        defaults = ["nosuid", "nodev"]
        options = [*defaults, *mount.options]
        return {"destination": mount.target, "type": "tmpfs", "source": "tmpfs", "options": options}
    return {"destination": mount.target, "type": "bind", "source": mount.source, "options": ["rbind", *mount.options]}


def _init_mount(inputs: SpecInputs) -> list[Json]:
    if not inputs.init_source:
        return []
    return [
        {
            "destination": INIT_PATH,
            "type": "bind",
            "source": inputs.init_source,
            "options": ["bind", "ro", "nosuid", "nodev"],
        }
    ]


def _linux(plan: ContainerPlan, inputs: SpecInputs) -> Json:
    namespaces = [{"type": "mount"}]
    for kind, path in inputs.namespaces.items():
        namespaces.append({"type": kind, "path": path} if path else {"type": kind})
    linux: Json = {
        "namespaces": namespaces,
        "resources": {"devices": [_device_rule(rule) for rule in inputs.device_rules]},
        "sysctl": dict(plan.sysctls),
        "maskedPaths": list(plan.masked_paths),
        "readonlyPaths": list(plan.readonly_paths),
        "rootfsPropagation": "rslave" if _needs_slave(inputs) else "rprivate",
        "devices": [_device(device) for device in inputs.devices],
    }
    if inputs.cgroup_path:
        linux["cgroupsPath"] = inputs.cgroup_path
    if inputs.seccomp_section is not None:
        linux["seccomp"] = inputs.seccomp_section
    return linux


def _needs_slave(inputs: SpecInputs) -> bool:
    return any(word in ("slave", "rslave") for mount in inputs.mounts for word in mount.options)


def _device(node: DeviceNode) -> Json:
    return {
        "path": node.path,
        "type": node.type,
        "major": node.major,
        "minor": node.minor,
        "fileMode": node.mode,
        "uid": node.uid,
        "gid": node.gid,
    }


def _device_rule(rule: str) -> Json:
    """`c 1:3 rwm` or `a` as the spec writes it."""
    if rule == "a":
        return {"allow": True, "access": "rwm"}
    kind, numbers, access = rule.split(" ")
    allowed: Json = {"allow": True, "type": kind, "access": access}
    for name, number in zip(("major", "minor"), numbers.split(":"), strict=True):
        if number != "*":
            allowed[name] = int(number)
    return allowed


def device_rule(node: DeviceNode, device: Device) -> str:
    """The cgroup rule that lets a container use a device."""
    return f"{node.type} {node.major}:{node.minor} {device.permissions or 'rwm'}"
