"""From the flags of `run` and `create` to the body of POST /containers/create. Only what was said is sent.

Pure but for the files that flags name (--env-file, --label-file, seccomp=FILE); tests/golden/cli_bodies holds the outcome for
every flag, compared with what Docker's own client sends.
"""

from __future__ import annotations

import os

from silo.cli.failure import UsageError
from silo.cli.grammar import parse_decimal, parse_size
from silo.cli.mounts import parse_mounts, parse_tmpfs, parse_volumes
from silo.cli.ports import parse_expose, parse_publish
from silo.cli.words import read_environment, read_file, read_labels, read_map, split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from silo.cli.grammar import Values

    Body = dict[str, Any]

# (flag, member) of what goes over unchanged
_CONFIG_TEXT = (("hostname", "Hostname"), ("domainname", "Domainname"), ("user", "User"), ("workdir", "WorkingDir"),
                ("stop-signal", "StopSignal"))  # fmt: skip
_HOST_TEXT = (
    ("cidfile", "ContainerIDFile"), ("volume-driver", "VolumeDriver"), ("cgroupns", "CgroupnsMode"), ("ipc", "IpcMode"),
    ("pid", "PidMode"), ("uts", "UTSMode"), ("userns", "UsernsMode"), ("isolation", "Isolation"), ("runtime", "Runtime"),
    ("cgroup-parent", "CgroupParent"), ("cpuset-cpus", "CpusetCpus"), ("cpuset-mems", "CpusetMems"),
)  # fmt: skip
_HOST_LISTS = (
    ("volumes-from", "VolumesFrom"), ("dns", "Dns"),
    ("dns-option", "DnsOptions"), ("dns-search", "DnsSearch"), ("group-add", "GroupAdd"), ("link", "Links"),
    ("device-cgroup-rule", "DeviceCgroupRules"),
)  # fmt: skip
_HOST_FLAGS = (
    ("rm", "AutoRemove"), ("privileged", "Privileged"), ("publish-all", "PublishAllPorts"), ("read-only", "ReadonlyRootfs"),
    ("oom-kill-disable", "OomKillDisable"),
)  # fmt: skip
_HOST_MAPS = (("sysctl", "Sysctls"), ("annotation", "Annotations"), ("storage-opt", "StorageOpt"))
_HOST_NUMBERS = (
    ("oom-score-adj", "OomScoreAdj"), ("blkio-weight", "BlkioWeight"), ("cpu-shares", "CpuShares"),
    ("cpu-period", "CpuPeriod"), ("cpu-quota", "CpuQuota"), ("cpu-rt-period", "CpuRealtimePeriod"),
    ("cpu-rt-runtime", "CpuRealtimeRuntime"), ("pids-limit", "PidsLimit"), ("cpu-count", "CpuCount"),
    ("cpu-percent", "CpuPercent"), ("io-maxiops", "IOMaximumIOps"),
)  # fmt: skip
_HOST_SIZES = (
    ("memory", "Memory"), ("memory-reservation", "MemoryReservation"), ("memory-swap", "MemorySwap"),
    ("shm-size", "ShmSize"), ("kernel-memory", "KernelMemory"), ("io-maxbandwidth", "IOMaximumBandwidth"),
)  # fmt: skip
_DEVICE_RATES = (
    ("device-read-bps", "BlkioDeviceReadBps", True), ("device-write-bps", "BlkioDeviceWriteBps", True),
    ("device-read-iops", "BlkioDeviceReadIOps", False), ("device-write-iops", "BlkioDeviceWriteIOps", False),
)  # fmt: skip

_DISK_LABELS = (
    ("disk", "com.silo.disk"), ("disk-format", "com.silo.disk.format"), ("disk-bus", "com.silo.disk.bus"),
    ("firmware", "com.silo.disk.firmware"), ("nic", "com.silo.disk.nic"),
)  # fmt: skip
_DISK_SWITCHES = (("tpm", "com.silo.disk.tpm"), ("persist", "com.silo.disk.persist"))


def build_body(values: Values, *, detached: bool = False) -> Body:
    """The whole body. Raises UsageError. `detached`: run -d, which attaches to nothing."""
    disk = _disk_labels(values)
    image, *command = values.arguments or [disk["com.silo.disk"]]
    binds, anonymous = parse_volumes(values.words("volume"))
    bindings = parse_publish(values.words("publish"))
    exposed = dict.fromkeys([*parse_expose(values.words("expose")), *bindings])
    body: Body = {"Image": image, **_streams(values, detached=detached)}
    _put(body, "Cmd", command)
    _put(body, "Env", read_environment(values.words("env-file"), values.words("env")))
    _put(body, "Labels", _labels(values))
    _put(body, "Volumes", anonymous)
    _put(body, "ExposedPorts", {name: {} for name in exposed})
    _put(body, "Healthcheck", build_healthcheck(values))
    for flag, member in _CONFIG_TEXT:
        _put(body, member, values.text(flag))
    if "entrypoint" in values.given:
        body["Entrypoint"] = [values.text("entrypoint")]
    if "stop-timeout" in values.given:
        body["StopTimeout"] = values.number("stop-timeout")
    if not values.flag("disable-content-trust"):
        raise UsageError("--disable-content-trust=false: content trust is not supported")
    host = _host_config(values)
    _put(host, "Binds", binds)
    _put(host, "PortBindings", bindings)
    mode, endpoints = build_endpoints(values)
    host["NetworkMode"] = mode
    body["HostConfig"] = host
    _put(body, "NetworkingConfig", {"EndpointsConfig": endpoints} if endpoints else {})
    return body


def _put(body: Body, member: str, value: Any) -> None:
    if value:
        body[member] = value


def _labels(values: Values) -> dict[str, str]:
    """Docker's API has no words for the utility VM to run in: they are labels (docs/api.md)."""
    labels = read_labels(values.words("label-file"), values.words("label"))
    if values.text("vm"):
        labels["com.silo.vm"] = values.text("vm")
    if values.flag("vm-parked"):
        labels["com.silo.vm.parked"] = "true"
    return labels | _disk_labels(values)


def _disk_labels(values: Values) -> dict[str, str]:
    """A disk to boot instead of an image, which Docker's API has no words for, either."""
    labels = {label: values.text(flag) for flag, label in _DISK_LABELS if values.text(flag)}
    labels |= {label: "true" for flag, label in _DISK_SWITCHES if values.flag(flag)}
    if "disk" in values.given and not values.text("disk"):
        raise UsageError("--disk needs a file")
    if labels and not values.text("disk"):
        flag = next(flag for flag, label in (*_DISK_LABELS, *_DISK_SWITCHES) if label in labels)
        raise UsageError(f"--{flag} needs --disk")
    if values.text("disk"):
        labels["com.silo.disk"] = os.path.abspath(values.text("disk"))
    return labels


def _streams(values: Values, *, detached: bool) -> Body:
    tty, interactive = values.flag("tty"), values.flag("interactive")
    wanted = [word.lower() for word in values.words("attach")]
    if any(word not in ("stdin", "stdout", "stderr") for word in wanted):
        raise UsageError("invalid argument for --attach: stdin, stdout or stderr")
    if detached and wanted:
        raise UsageError("conflicting options: -a and -d")
    body: Body = {}
    if not detached:
        _put(body, "AttachStdin", "stdin" in wanted or interactive)
        _put(body, "AttachStdout", "stdout" in wanted if wanted else True)
        _put(body, "AttachStderr", "stderr" in wanted if wanted else True)
    _put(body, "Tty", tty)
    _put(body, "OpenStdin", interactive)
    _put(body, "StdinOnce", interactive and bool(body.get("AttachStdin")))
    return body


def build_healthcheck(values: Values) -> Body:
    durations = (
        ("health-interval", "Interval"), ("health-timeout", "Timeout"), ("health-start-period", "StartPeriod"),
        ("health-start-interval", "StartInterval"),
    )  # fmt: skip
    check: Body = {}
    if values.text("health-cmd"):
        check["Test"] = ["CMD-SHELL", values.text("health-cmd")]
    for flag, member in durations:
        _put(check, member, values.duration_ns(flag))
    _put(check, "Retries", values.number("health-retries"))
    if values.flag("no-healthcheck"):
        if check:
            raise UsageError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    return check


def _host_config(values: Values) -> Body:
    host: Body = build_resources(values)
    for flag, member in _HOST_TEXT:
        _put(host, member, values.text(flag))
    for flag, member in _HOST_LISTS:
        _put(host, member, values.words(flag))
    for flag, member in _HOST_FLAGS:
        _put(host, member, values.flag(flag))
    for flag, member in _HOST_MAPS:
        _put(host, member, read_map(values.words(flag), f"--{flag}", need_value=flag != "annotation"))
    host["RestartPolicy"] = parse_restart(values.text("restart"))
    if values.flag("rm") and host["RestartPolicy"]["Name"] not in ("", "no"):
        raise UsageError("conflicting options: cannot specify both --restart and --rm")
    if "init" in values.given:
        host["Init"] = values.flag("init")
    _put(host, "SecurityOpt", [_security_option(word) for word in values.words("security-opt")])
    for flag, member in (("cap-add", "CapAdd"), ("cap-drop", "CapDrop")):
        _put(host, member, sorted({_capability(word) for word in values.words(flag)}))
    _put(host, "Tmpfs", parse_tmpfs(values.words("tmpfs")))
    _put(host, "Mounts", parse_mounts(values.words("mount")))
    _put(host, "ExtraHosts", [_extra_host(word) for word in values.words("add-host")])
    _put(host, "Devices", [_device(word) for word in values.words("device")])
    _put(host, "Ulimits", [parse_ulimit(word) for word in values.words("ulimit")])
    _put(host, "DeviceRequests", [_gpus(values.text("gpus"))] if values.text("gpus") else [])
    log: Body = {}
    _put(log, "Type", values.text("log-driver"))
    _put(log, "Config", read_map(values.words("log-opt"), "--log-opt"))
    _put(host, "LogConfig", log)
    _put(
        host,
        "BlkioWeightDevice",
        [_device_number(word, "Weight", False) for word in values.words("blkio-weight-device")],
    )
    for flag, member, sized in _DEVICE_RATES:
        _put(host, member, [_device_number(word, "Rate", sized) for word in values.words(flag)])
    return host


def build_resources(values: Values, *, names: tuple[str, ...] = ()) -> Body:
    """Limits. `names`: the flags that the command has, if not all."""
    host: Body = {}
    for flag, member in _HOST_NUMBERS:
        if not names or flag in names:
            _put(host, member, values.number(flag))
    for flag, member in _HOST_SIZES:
        if not names or flag in names:
            _put(host, member, values.size(flag))
    if values.text("cpus"):
        host["NanoCpus"] = parse_decimal(values.text("cpus"), 9)
    if not names and values.number("memory-swappiness") != -1:
        host["MemorySwappiness"] = values.number("memory-swappiness")
    return host


def parse_restart(text: str) -> Body:
    """`on-failure:3` → name and count."""
    name, colon, count = text.partition(":")
    if colon and not (count.isascii() and count.isdigit()):
        raise UsageError(f"invalid restart policy {text!r}: on-failure[:max-retries], always, unless-stopped or no")
    return {"Name": name or "no", "MaximumRetryCount": int(count or "0")}


def _security_option(word: str) -> str:
    """A seccomp profile is a file of this side: its text is sent."""
    name, equals, value = word.partition("=") if "=" in word else word.partition(":")
    if name == "seccomp" and equals and value not in ("unconfined", "builtin", "default"):
        from silo.cli.json_text import dumps, loads

        try:
            return f"seccomp={dumps(loads(read_file(value, '--security-opt seccomp')))}"
        except ValueError:
            raise UsageError(f"--security-opt seccomp={value}: the file is not JSON") from None
    return word


def _capability(word: str) -> str:
    """`net_admin` → CAP_NET_ADMIN; ALL and RESET are words of their own."""
    name = word.strip().upper()
    return name if name in ("ALL", "RESET") or name.startswith("CAP_") else f"CAP_{name}"


def _extra_host(word: str) -> str:
    for separator in ("=", ":"):
        name, found, address = word.partition(separator)
        if found and name and address:
            return f"{name}:{address.removeprefix('[').removesuffix(']')}"
    raise UsageError(f"bad format for add-host: {word!r} (host:ip)")


def _device(word: str) -> Body:
    parts = word.split(":")
    host, inside, permissions = parts[0], parts[0], "rwm"
    if len(parts) > 3 or not host:
        raise UsageError(f"invalid device specification: {word!r} (host[:container[:rwm]])")
    if len(parts) == 2 and parts[1] and set(parts[1]) <= set("rwm"):
        permissions = parts[1]
    elif len(parts) >= 2:
        inside = parts[1] or host
        permissions = parts[2] if len(parts) == 3 else permissions
    return {"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": permissions}


def parse_ulimit(word: str) -> Body:
    """`nofile=1024:2048`."""
    name, equals, limits = word.partition("=")
    soft, _, hard = limits.partition(":")
    try:
        first = int(soft)
        last = int(hard) if hard else first
    except ValueError:
        raise UsageError(f"invalid ulimit argument: {word!r} (name=soft[:hard])") from None
    if not name or not equals or (last != -1 and (first == -1 or first > last)):
        raise UsageError(f"invalid ulimit argument: {word!r} (the soft limit must not be above the hard one)")
    return {"Name": name, "Soft": first, "Hard": last}


def _device_number(word: str, member: str, sized: bool) -> Body:
    path, _, text = word.rpartition(":")
    try:
        if not path.startswith("/dev/"):
            raise ValueError
        return {"Path": path, member: parse_size(text) if sized else int(text)}
    except ValueError:
        raise UsageError(f"bad format: {word!r} (device path:number)") from None


def _gpus(text: str) -> Body:
    count = -1 if text == "all" else int(text) if text.isdigit() else 0
    if not count:
        raise UsageError(f"invalid --gpus {text!r}: all, or a number")
    return {"Count": count, "Capabilities": [["gpu"]]}


def build_endpoints(values: Values) -> tuple[str, Body]:
    """The network mode, and endpoint settings by network."""
    words = [*values.words("network"), *values.words("net")] or ["default"]
    networks = [_network(word) for word in words]
    aliases = [*values.words("network-alias"), *values.words("net-alias")]
    mode, first = networks[0]
    plain = mode in ("default", "bridge", "host", "none") or mode.startswith("container:")
    if aliases and mode in ("host", "none"):
        raise UsageError(f"conflicting options: --network-alias does not fit the network {mode}")
    if aliases:
        first.setdefault("Aliases", []).extend(aliases)
    if values.words("link") and not plain:
        first.setdefault("Links", []).extend(values.words("link"))
    for flag, member in (("ip", "IPv4Address"), ("ip6", "IPv6Address")):
        if values.text(flag):
            first.setdefault("IPAMConfig", {})[member] = values.text(flag)
    if values.words("link-local-ip"):
        first.setdefault("IPAMConfig", {})["LinkLocalIPs"] = values.words("link-local-ip")
    _put(first, "MacAddress", values.text("mac-address"))
    if len({name for name, _ in networks}) != len(networks):
        raise UsageError("conflicting options: a network is named twice")
    if len(networks) == 1 and not first:
        # One network without wishes: the mode says it all.
        return mode, {}
    return mode, dict(networks)


def _network(word: str) -> tuple[str, Body]:
    """`name`, or `name=…,alias=…,ip=…`."""
    if "=" not in word:
        return word, {}
    name, settings = "", {}  # type: str, Body
    for field in split_csv(word):
        key, _, value = field.partition("=")
        match key.strip().lower():
            case "name":
                name = value
            case "alias":
                settings.setdefault("Aliases", []).append(value)
            case "ip":
                settings.setdefault("IPAMConfig", {})["IPv4Address"] = value
            case "ip6":
                settings.setdefault("IPAMConfig", {})["IPv6Address"] = value
            case "mac-address":
                settings["MacAddress"] = value
            case "link-local-ip":
                settings.setdefault("IPAMConfig", {}).setdefault("LinkLocalIPs", []).append(value)
            case "driver-opt":
                option, _, text = value.partition("=")
                settings.setdefault("DriverOpts", {})[option] = text
            case "gw-priority" if value.lstrip("-").isdigit():
                settings["GwPriority"] = int(value)
            case _:
                raise UsageError(f"invalid field {field!r} in --network {word!r}")
    if not name:
        raise UsageError(f"--network {word!r}: name=… is missing")
    return name, settings
