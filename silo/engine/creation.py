"""Create containers: check the whole request, make scratch and volumes, store the record; all or nothing."""

from __future__ import annotations

import ipaddress
import re
from contextlib import ExitStack

import msgspec

from silo.engine.base import VmImageSource, get_vm_image
from silo.engine.disks import check_card, check_disk
from silo.engine.events import EventBus
from silo.engine.levels import check_joined, check_level, check_vm_words, is_parked
from silo.engine.limits import check_limits, check_sysctls
from silo.engine.parts import Parts
from silo.engine.planning import check_mount_targets, log_limit_bytes, mount_place, scratch_size_on_host
from silo.engine.ports import VolumeInfo
from silo.engine.roster import Roster
from silo.engine.signals import parse_signal
from silo.errors import InvalidRequest, NotFound, Unsupported
from silo.model.clock import now
from silo.model.container import ContainerConfig, ContainerRecord, Namespaces, RestartPolicy
from silo.model.disk_guest import DISK_IMAGE
from silo.model.ids import ID_PATTERN, new_id
from silo.model.image import Healthcheck, Image
from silo.model.mount import MountKind, MountPoint, MountRequest
from silo.model.network import EndpointRequest, PortBinding
from silo.model.platform import Isolation, PersonalityName
from silo.model.vm_image import DEFAULT_VM_IMAGE, VM_LABEL

MINIMUM_MEMORY_BYTES = 6 << 20
_LOG_DRIVERS = ("json-file", "local", "none")
_LOG_OPTIONS = ("max-size", "max-file")
_LOG_FILES = "2"
_RESTART_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")


class Created(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    warnings: tuple[str, ...] = ()


class Creator:
    """`docker create`."""

    def __init__(self, parts: Parts, roster: Roster, events: EventBus, vm_images: VmImageSource) -> None:
        self._parts = parts
        self._vm_images = vm_images
        self._roster = roster
        self._events = events

    def create(self, config: ContainerConfig, name: str) -> Created:
        """Raises ImageNotFound, InvalidRequest, Conflict, Unsupported, NoSpace; leaves nothing behind then."""
        image = DISK_IMAGE if config.disk else self._parts.images.get(config.image, platform=config.platform)
        personality = self._parts.personality(_personality_of(image))
        self._parts.runtime(config.isolation)
        check_vm_words(config)
        if config.disk is not None:
            check_disk(config, config.disk)
        try:
            config = self._settle(config, image)
        except NotFound as error:
            # Docker's client takes a 404 here for a missing image, and pulls.
            raise InvalidRequest(error.brief, details=error.details, hint=error.hint) from error
        check_level(config)
        check_card(config, len(config.endpoints))
        warnings = (*(() if config.disk else personality.check(config, image)), *_log_warnings(config))
        _check_form(config)
        check_mount_targets(config, personality)
        chosen = self._roster.choose_name(name)
        container_id = new_id()
        with ExitStack() as undo:
            config, points = self._make_volumes(config, undo)
            self._parts.storage.create_scratch(container_id, size_bytes=scratch_size_on_host(config))
            undo.callback(self._parts.storage.discard_scratch, container_id)
            path, args = (config.image, ()) if config.disk else personality.describe_command(config, image)
            record = ContainerRecord(
                id=container_id,
                name=chosen,
                created=now(),
                config=config,
                image_id=image.id,
                personality=personality.name,
                isolation=config.isolation,
                mounts=points,
                path=path,
                args=args,
            )
            self._roster.add(record)
            undo.pop_all()
        self._events.publish(
            "container", "create", container_id, config.labels | {"image": config.image, "name": chosen}
        )
        return Created(id=container_id, warnings=warnings)

    def _settle(self, config: ContainerConfig, image: Image) -> ContainerConfig:
        """Replace names by ids and inherit what the image and `--volumes-from` add, so that later steps need not ask."""
        mode = config.network_mode
        mode = "bridge" if mode in ("", "default") else mode
        endpoints: tuple[EndpointRequest, ...] = ()
        if mode.startswith("container:"):
            mode = f"container:{self._target(mode)}"
        elif mode not in ("host", "none"):
            endpoints = self._settle_endpoints(config, mode)
        namespaces = config.namespaces
        settled = Namespaces(
            user=namespaces.user,
            ipc=self._settle_mode(namespaces.ipc),
            pid=self._settle_mode(namespaces.pid),
            uts=namespaces.uts,
            cgroup=namespaces.cgroup,
        )
        labels = image.config.labels | config.labels
        needs_vm = config.isolation is Isolation.HYPERV and config.disk is None
        vm = labels.get(VM_LABEL, "") if needs_vm else ""
        wanted = vm or self._parts.vm_image
        if needs_vm and wanted != DEFAULT_VM_IMAGE:
            # The default one is built by whoever needs it first.
            get_vm_image(self._vm_images, wanted)
        return msgspec.structs.replace(
            config,
            network_mode=mode,
            endpoints=endpoints,
            namespaces=settled,
            mounts=self._settle_mounts(config, image),
            labels=labels,
            vm=vm,
            parked=needs_vm and is_parked(labels),
            healthcheck=_settle_health(config.healthcheck, image.config.healthcheck),
            ports=self._settle_ports(config, image, mode),
        )

    def _settle_mode(self, mode: str) -> str:
        return f"container:{self._target(mode)}" if mode.startswith("container:") else mode

    def _target(self, mode: str) -> str:
        owner = self._roster.resolve(mode.partition(":")[2]).record
        check_joined(owner)
        return owner.id

    def _settle_endpoints(self, config: ContainerConfig, mode: str) -> tuple[EndpointRequest, ...]:
        """The mode's network first; the rest as given. `default` in requests means the mode's network."""
        by_id: dict[str, EndpointRequest] = {}
        for request in config.endpoints:
            name = mode if request.network in ("", "default") else request.network
            network = self._parts.networks.get(name)
            by_id[network.id] = msgspec.structs.replace(request, network=network.id)
        main = self._parts.networks.get(mode)
        first = by_id.pop(main.id, EndpointRequest(network=main.id))
        if main.name == "bridge":
            # As in Docker: on a network of the user's a link is a name for whoever comes, here it is one for who is there.
            for link in first.links:
                self._check_link(link.partition(":")[0])
        if config.mac_address and not first.mac_address:
            first = msgspec.structs.replace(first, mac_address=config.mac_address)
        return (first, *by_id.values())

    def _check_link(self, name: str) -> None:
        try:
            self._roster.resolve(name)
        except NotFound as error:
            raise InvalidRequest(f"--link: could not get container for {name}", details=error.brief) from error

    def _settle_ports(self, config: ContainerConfig, image: Image, mode: str) -> tuple[PortBinding, ...]:
        if mode in ("host", "none") or mode.startswith("container:"):
            if config.ports and mode.startswith("container:"):
                raise InvalidRequest("conflicting options: port publishing and the container type network mode")
            return ()
        ports = list(config.ports)
        if config.publish_all:
            published = {(port.container_port, port.protocol) for port in ports}
            for text in dict.fromkeys((*image.config.exposed_ports, *config.exposed_ports)):
                number, _, protocol = text.partition("/")
                key = (int(number), protocol or "tcp")
                if key not in published:
                    ports.append(PortBinding(container_port=key[0], protocol=key[1]))
        return tuple(ports)

    def _settle_mounts(self, config: ContainerConfig, image: Image) -> tuple[MountRequest, ...]:
        mounts = list(config.mounts)
        personality = self._parts.personality(_personality_of(image))
        taken = {mount_place(mount, personality) for mount in mounts}
        for text in config.volumes_from:
            reference, _, mode = text.partition(":")
            if mode not in ("", "ro", "rw"):
                raise InvalidRequest(f"invalid mode in --volumes-from: {text}", hint="ro or rw")
            source = self._roster.resolve(reference).record
            for point, request in zip(source.mounts, source.config.mounts, strict=True):
                if request.kind is not MountKind.TMPFS and mount_place(request, personality) not in taken:
                    taken.add(mount_place(request, personality))
                    # a pipe is never read-only
                    read_only = request.kind is not MountKind.NAMED_PIPE and (request.read_only or mode == "ro")
                    mounts.append(
                        msgspec.structs.replace(request, source=point.name or request.source, read_only=read_only)
                    )
        image_volumes = () if config.build_step else image.config.volumes
        for target in dict.fromkeys((*config.volumes, *image_volumes)):
            if personality.map_path(target).rstrip("/") not in taken:
                mounts.append(MountRequest(kind=MountKind.VOLUME, target=target))
        return tuple(mounts)

    def _make_volumes(self, config: ContainerConfig, undo: ExitStack) -> tuple[ContainerConfig, tuple[MountPoint, ...]]:
        storage = self._parts.storage
        known = {volume.name for volume in storage.volumes()}
        mounts, points = [], []
        for request in config.mounts:
            if request.kind is MountKind.VOLUME:
                volume = storage.create_volume(
                    VolumeInfo(
                        name=request.source or new_id(),
                        path=self._parts.data_root,
                        created=now(),
                        driver=request.driver or "local",
                        labels=request.labels,
                        options=request.driver_options,
                        anonymous=not request.source,
                    )
                )
                if volume.name not in known:
                    undo.callback(storage.remove_volume, volume.name)
                    self._events.publish("volume", "create", volume.name, {"driver": volume.driver})
                request = msgspec.structs.replace(request, source=volume.name)
                points.append(_point(request, name=volume.name, source=str(volume.path), driver=volume.driver))
            else:
                points.append(_point(request, name="", source=request.source, driver=""))
            mounts.append(request)
        return msgspec.structs.replace(config, mounts=tuple(mounts)), tuple(points)


def _settle_health(asked: Healthcheck | None, inherited: Healthcheck | None) -> Healthcheck | None:
    """`--health-interval` and the like without `--health-cmd` change how often the image's own test runs."""
    if asked is None or asked.test or inherited is None:
        return asked or inherited
    return msgspec.structs.replace(asked, test=inherited.test)


def _personality_of(image: Image) -> PersonalityName:
    try:
        return PersonalityName(image.platform.os)
    except ValueError:
        raise Unsupported(f"images for {image.platform.os} cannot run here") from None


def _point(request: MountRequest, *, name: str, source: str, driver: str) -> MountPoint:
    return MountPoint(
        kind=request.kind,
        name=name,
        source=source,
        target=request.target,
        driver=driver,
        mode="ro" if request.read_only else "",
        read_only=request.read_only,
        propagation=(request.propagation or "rprivate") if request.kind is MountKind.BIND else "",
    )


def check_restart(policy: RestartPolicy) -> None:
    """Raises InvalidRequest."""
    if policy.name not in _RESTART_POLICIES:
        raise InvalidRequest(
            f"invalid restart policy '{policy.name}'", hint="no, always, unless-stopped or on-failure[:n]"
        )
    if policy.maximum_retries and policy.name != "on-failure":
        raise InvalidRequest("maximum retry count can only be used with 'on-failure'")


def _log_warnings(config: ContainerConfig) -> tuple[str, ...]:
    """What happens instead of `--log-opt max-file`. Raises InvalidRequest."""
    text = config.log.options.get("max-file", "")
    if text and not (text.isascii() and text.isdigit() and int(text)):
        raise InvalidRequest(f"--log-opt max-file={text} is not a number of files", hint="1 or more")
    if text in ("", _LOG_FILES):
        return ()
    return (f"--log-opt max-file={text}: a log that reaches max-size is kept in {_LOG_FILES} files",)


def _check_names_and_servers(config: ContainerConfig) -> None:
    """These words become lines of files in the container; a line break in one would be a line of its own."""
    for entry in config.extra_hosts:
        host, _, address = entry.replace("=", ":", 1).partition(":")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", host) or not (
            address == "host-gateway" or _is_address(address.strip("[]"))
        ):
            raise InvalidRequest(f"bad format for add-host: {entry!r}", hint="name:address, or name:host-gateway")
    for server in config.dns:
        if not _is_address(server):
            raise InvalidRequest(f"{server!r} is not an ip address", hint="--dns takes addresses")
    for word in (*config.dns_search, *config.dns_options, config.hostname, config.domainname):
        if word and not re.fullmatch(r"[A-Za-z0-9_.:-]+", word):
            raise InvalidRequest(f"{word!r} is not a name", hint="letters, digits, _ . : -")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _check_form(config: ContainerConfig) -> None:
    """What no personality or runtime has to know to refuse."""
    check_restart(config.restart)
    if config.auto_remove and config.restart.name not in ("", "no"):
        raise InvalidRequest("can't create 'AutoRemove' container with restart policy")
    if config.log.driver not in _LOG_DRIVERS:
        raise Unsupported(
            f"--log-driver {config.log.driver} is not supported", hint=f"one of {', '.join(_LOG_DRIVERS)}"
        )
    for option in config.log.options:
        if option not in _LOG_OPTIONS:
            raise Unsupported(f"--log-opt {option} is not supported", hint=f"one of {', '.join(_LOG_OPTIONS)}")
    _check_names_and_servers(config)
    check_limits(config.resources)
    check_sysctls(config)
    log_limit_bytes(config)
    if config.stop_signal:
        parse_signal(config.stop_signal)
    if 0 < config.resources.memory_bytes < MINIMUM_MEMORY_BYTES:
        raise InvalidRequest("Minimum memory limit allowed is 6MB")
    limits = config.resources
    if limits.memory_swap_bytes > 0 and limits.memory_swap_bytes < limits.memory_bytes:
        raise InvalidRequest("Minimum memoryswap limit should be larger than memory limit, see usage")
    if limits.memory_swap_bytes > 0 and not limits.memory_bytes:
        raise InvalidRequest("You should always set the Memory limit when using Memoryswap limit, see usage")
    if limits.nano_cpus and (limits.cpu_quota_us or limits.cpu_period_us):
        raise InvalidRequest("Conflicting options: Nano CPUs and CPU Period or Quota cannot both be set")
    if config.network_mode == "host" and config.hostname and config.namespaces.uts == "host":
        raise InvalidRequest("conflicting options: hostname and the UTS mode")
    if config.runtime not in ("", "silo", "crun", "runc", "io.containerd.runc.v2"):
        raise InvalidRequest(f"unknown or invalid runtime name: {config.runtime}", hint="leave --runtime out")
    for mode in (config.namespaces.ipc, config.namespaces.pid):
        if mode.startswith("container:") and not ID_PATTERN.match(mode.partition(":")[2]):
            raise InvalidRequest(f"No such container: {mode.partition(':')[2]}")
