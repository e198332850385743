"""`POST /containers/create`: Docker's body → ContainerConfig, or the reason why not."""

from __future__ import annotations

from collections.abc import Mapping

from silo.api.decode.disks import parse_disk
from silo.api.decode.mounts import parse_mounts
from silo.api.decode.ports import parse_bindings, parse_exposed
from silo.api.decode.resources import check_sizes, parse_resources, parse_restart
from silo.api.decode.security import parse_namespaces, parse_security
from silo.api.decode.shapes import decode_struct, says_something
from silo.api.decode.wire import CreateBody, EndpointBody, HealthcheckBody, HostConfigBody, Words
from silo.errors import InvalidRequest, Unsupported
from silo.model.container import ContainerConfig, LogConfig
from silo.model.image import Healthcheck
from silo.model.network import EndpointRequest
from silo.model.platform import Isolation

_ISOLATION = {
    "process": Isolation.PROCESS,
    "hyperv": Isolation.HYPERV,
    "vm": Isolation.HYPERV,
}
_SECOND_NS = 1_000_000_000


def parse_create(
    untrusted_body: bytes, *, platform: str = "", default_isolation: Isolation = Isolation.PROCESS
) -> ContainerConfig:
    """Raises InvalidRequest (with the member's path) and Unsupported (naming the option as users write it)."""
    body = decode_struct(untrusted_body, CreateBody)
    host = body.HostConfig
    disk = parse_disk(body.Labels)
    if not body.Image and disk is None:
        raise InvalidRequest("the image is missing", hint="Image: name[:tag]")
    if body.OnBuild:
        raise Unsupported("OnBuild of a container is not supported")
    if host.Cgroup:
        raise Unsupported("HostConfig.Cgroup is not supported")
    check_sizes(host.ShmSize, "--shm-size")
    return ContainerConfig(
        image=body.Image if disk is None else str(disk.path),
        platform=platform,
        hostname=body.Hostname,
        domainname=body.Domainname,
        user=body.User or None,
        tty=body.Tty,
        open_stdin=body.OpenStdin,
        stdin_once=body.StdinOnce,
        attach_stdin=body.AttachStdin,
        attach_stdout=body.AttachStdout,
        attach_stderr=body.AttachStderr,
        env=body.Env,
        cmd=_words(body.Cmd) or None,
        entrypoint=_entrypoint(body.Entrypoint),
        working_dir=body.WorkingDir or None,
        labels=body.Labels,
        stop_signal=body.StopSignal,
        stop_timeout_s=body.StopTimeout,
        healthcheck=parse_healthcheck(body.Healthcheck),
        exposed_ports=parse_exposed(body.ExposedPorts),
        volumes=tuple(body.Volumes),
        args_escaped=body.ArgsEscaped,
        shell=body.Shell,
        mounts=parse_mounts(host),
        volumes_from=host.VolumesFrom,
        ports=parse_bindings(host.PortBindings),
        publish_all=host.PublishAllPorts,
        network_mode="none" if body.NetworkDisabled else host.NetworkMode or "default",
        endpoints=parse_endpoints(host, body.NetworkingConfig.EndpointsConfig),
        mac_address=body.MacAddress,
        dns=host.Dns,
        dns_search=host.DnsSearch,
        dns_options=host.DnsOptions,
        extra_hosts=host.ExtraHosts,
        restart=parse_restart(host.RestartPolicy),
        auto_remove=host.AutoRemove,
        read_only_root=host.ReadonlyRootfs,
        init=bool(host.Init),
        disk=disk,
        isolation=parse_isolation(host.Isolation, default_isolation),
        resources=parse_resources(host, shm_size_bytes=host.ShmSize, oom_score_adj=host.OomScoreAdj),
        security=parse_security(host),
        namespaces=parse_namespaces(host),
        group_add=host.GroupAdd,
        sysctls=host.Sysctls,
        log=LogConfig(driver=host.LogConfig.Type or "json-file", options=host.LogConfig.Config),
        storage_options=host.StorageOpt,
        runtime=host.Runtime,
        annotations=host.Annotations,
        console_size=host.ConsoleSize if any(host.ConsoleSize) else None,
        container_id_file=host.ContainerIDFile,
    )


def _words(value: Words) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) and value else tuple(value)


def _entrypoint(value: Words) -> tuple[str, ...] | None:
    """`--entrypoint ""` arrives as [""] and means: none, not even the image's."""
    words = _words(value)
    if words == ("",):
        return ()
    return words or None


def parse_isolation(text: str, default: Isolation) -> Isolation:
    """Docker for Windows' words in any case, and `vm`. Raises InvalidRequest."""
    if text.lower() in ("", "default"):
        return default
    found = _ISOLATION.get(text.lower())
    if found is None:
        raise InvalidRequest(f"--isolation {text}: invalid isolation", hint="default, process or hyperv (vm)")
    return found


def parse_healthcheck(body: HealthcheckBody | None) -> Healthcheck | None:
    """Durations come in nanoseconds; 0 is the default. None when nothing is said."""
    if body is None or not says_something([body.Test, body.Interval, body.Timeout, body.StartPeriod, body.Retries]):
        return None
    for name in ("Interval", "Timeout", "StartPeriod", "StartInterval"):
        if 0 < getattr(body, name) < 1_000_000 or getattr(body, name) < 0:
            raise InvalidRequest(f"{name} in Healthcheck cannot be less than 1ms")
    if body.Retries < 0:
        raise InvalidRequest("Retries in Healthcheck cannot be negative")
    if body.Test and body.Test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidRequest(f"Healthcheck.Test: unknown type {body.Test[0]!r}", hint="NONE, CMD or CMD-SHELL")
    default = Healthcheck()
    return Healthcheck(
        test=body.Test,
        interval_s=body.Interval / _SECOND_NS or default.interval_s,
        timeout_s=body.Timeout / _SECOND_NS or default.timeout_s,
        start_period_s=body.StartPeriod / _SECOND_NS,
        start_interval_s=body.StartInterval / _SECOND_NS or default.start_interval_s,
        retries=body.Retries or default.retries,
    )


def parse_endpoints(host: HostConfigBody, endpoints: Mapping[str, EndpointBody]) -> tuple[EndpointRequest, ...]:
    """The networks of a request; `--link` belongs to the network of the mode."""
    found = {name: parse_endpoint(name, body) for name, body in endpoints.items()}
    if host.Links:
        main = host.NetworkMode or "default"
        if main in ("host", "none") or main.startswith("container:"):
            raise InvalidRequest(f"conflicting options: --link and the network mode {main}")
        known = found.get(main, EndpointRequest(network=main))
        found[main] = EndpointRequest(
            network=known.network,
            aliases=known.aliases,
            ipv4_address=known.ipv4_address,
            ipv6_address=known.ipv6_address,
            mac_address=known.mac_address,
            links=tuple(dict.fromkeys((*known.links, *map(_link, host.Links)))),
        )
    return tuple(found.values())


def _link(text: str) -> str:
    """`--link name[:alias]`."""
    name, _, alias = text.partition(":")
    if not name:
        raise InvalidRequest(f"invalid --link {text!r}", hint="name[:alias]")
    return f"{name.removeprefix('/')}:{alias or name.removeprefix('/')}"


def parse_endpoint(network: str, body: EndpointBody) -> EndpointRequest:
    """How a container wants to be on one network."""
    if says_something(body.DriverOpts):
        raise Unsupported(f"--network {network},driver-opt is not supported")
    if body.GwPriority:
        raise Unsupported(f"--network {network},gw-priority is not supported")
    if says_something(body.IPAMConfig.LinkLocalIPs):
        raise Unsupported("--link-local-ip is not supported")
    return EndpointRequest(
        network=network,
        aliases=body.Aliases,
        ipv4_address=body.IPAMConfig.IPv4Address,
        ipv6_address=body.IPAMConfig.IPv6Address,
        mac_address=body.MacAddress,
        links=tuple(map(_link, body.Links)),
    )
