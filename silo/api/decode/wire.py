"""The request bodies as Docker's API 1.50 spells them."""

from __future__ import annotations

from typing import Any

import msgspec

Words = tuple[str, ...] | str


class HealthcheckBody(msgspec.Struct):
    Test: tuple[str, ...] = ()
    Interval: int = 0
    Timeout: int = 0
    StartPeriod: int = 0
    StartInterval: int = 0
    Retries: int = 0


class LogConfigBody(msgspec.Struct):
    Type: str = ""
    Config: dict[str, str] = {}


class RestartPolicyBody(msgspec.Struct):
    Name: str = ""
    MaximumRetryCount: int = 0


class DeviceBody(msgspec.Struct):
    PathOnHost: str = ""
    PathInContainer: str = ""
    CgroupPermissions: str = ""


class UlimitBody(msgspec.Struct):
    Name: str = ""
    Soft: int = 0
    Hard: int = 0


class BindOptionsBody(msgspec.Struct):
    Propagation: str = ""
    NonRecursive: bool = False
    CreateMountpoint: bool = False
    ReadOnlyNonRecursive: bool = False
    ReadOnlyForceRecursive: bool = False


class DriverBody(msgspec.Struct):
    Name: str = ""
    Options: dict[str, str] = {}


class VolumeOptionsBody(msgspec.Struct):
    NoCopy: bool = False
    Labels: dict[str, str] = {}
    DriverConfig: DriverBody = msgspec.field(default_factory=DriverBody)
    Subpath: str = ""


class TmpfsOptionsBody(msgspec.Struct):
    SizeBytes: int = 0
    Mode: int = 0
    Options: tuple[tuple[str, ...], ...] = ()


class MountBody(msgspec.Struct):
    Type: str = ""
    Source: str = ""
    Target: str = ""
    ReadOnly: bool = False
    Consistency: str = ""
    BindOptions: BindOptionsBody = msgspec.field(default_factory=BindOptionsBody)
    VolumeOptions: VolumeOptionsBody = msgspec.field(default_factory=VolumeOptionsBody)
    TmpfsOptions: TmpfsOptionsBody = msgspec.field(default_factory=TmpfsOptionsBody)


class ResourcesBody(msgspec.Struct):
    """What `create` and `update` share."""

    CpuShares: int = 0
    Memory: int = 0
    NanoCpus: int = 0
    CgroupParent: str = ""
    BlkioWeight: int = 0
    BlkioWeightDevice: Any = None
    BlkioDeviceReadBps: Any = None
    BlkioDeviceWriteBps: Any = None
    BlkioDeviceReadIOps: Any = None
    BlkioDeviceWriteIOps: Any = None
    CpuPeriod: int = 0
    CpuQuota: int = 0
    CpuRealtimePeriod: int = 0
    CpuRealtimeRuntime: int = 0
    CpusetCpus: str = ""
    CpusetMems: str = ""
    Devices: tuple[DeviceBody, ...] = ()
    DeviceCgroupRules: tuple[str, ...] = ()
    DeviceRequests: Any = None
    KernelMemory: int = 0
    KernelMemoryTCP: int = 0
    MemoryReservation: int = 0
    MemorySwap: int = 0
    MemorySwappiness: int | None = None
    OomKillDisable: bool = False
    PidsLimit: int = 0
    Ulimits: tuple[UlimitBody, ...] = ()
    CpuCount: int = 0
    CpuPercent: int = 0
    IOMaximumIOps: int = 0
    IOMaximumBandwidth: int = 0


class UpdateBody(ResourcesBody):
    RestartPolicy: RestartPolicyBody = msgspec.field(default_factory=RestartPolicyBody)


class HostConfigBody(ResourcesBody):
    Binds: tuple[str, ...] = ()
    ContainerIDFile: str = ""
    LogConfig: LogConfigBody = msgspec.field(default_factory=LogConfigBody)
    NetworkMode: str = ""
    PortBindings: dict[str, Any] = {}
    RestartPolicy: RestartPolicyBody = msgspec.field(default_factory=RestartPolicyBody)
    AutoRemove: bool = False
    VolumeDriver: str = ""
    VolumesFrom: tuple[str, ...] = ()
    ConsoleSize: tuple[int, int] = (0, 0)
    Annotations: dict[str, str] = {}
    CapAdd: tuple[str, ...] = ()
    CapDrop: tuple[str, ...] = ()
    CgroupnsMode: str = ""
    Dns: tuple[str, ...] = ()
    DnsOptions: tuple[str, ...] = ()
    DnsSearch: tuple[str, ...] = ()
    ExtraHosts: tuple[str, ...] = ()
    GroupAdd: tuple[str, ...] = ()
    IpcMode: str = ""
    Cgroup: str = ""
    Links: tuple[str, ...] = ()
    OomScoreAdj: int = 0
    PidMode: str = ""
    Privileged: bool = False
    PublishAllPorts: bool = False
    ReadonlyRootfs: bool = False
    SecurityOpt: tuple[str, ...] = ()
    StorageOpt: dict[str, str] = {}
    Tmpfs: dict[str, str] = {}
    UTSMode: str = ""
    UsernsMode: str = ""
    ShmSize: int = 0
    Sysctls: dict[str, str] = {}
    Runtime: str = ""
    Isolation: str = ""
    Mounts: tuple[MountBody, ...] = ()
    MaskedPaths: tuple[str, ...] | None = None
    ReadonlyPaths: tuple[str, ...] | None = None
    Init: bool | None = None


class IpamBody(msgspec.Struct):
    IPv4Address: str = ""
    IPv6Address: str = ""
    LinkLocalIPs: Any = None


class EndpointBody(msgspec.Struct):
    """The members after DriverOpts are what a running container reports; Docker ignores them in a request, too."""

    IPAMConfig: IpamBody = msgspec.field(default_factory=IpamBody)
    Links: tuple[str, ...] = ()
    Aliases: tuple[str, ...] = ()
    MacAddress: str = ""
    DriverOpts: Any = None
    GwPriority: int = 0
    NetworkID: Any = None
    EndpointID: Any = None
    Gateway: Any = None
    IPAddress: Any = None
    IPPrefixLen: Any = None
    IPv6Gateway: Any = None
    GlobalIPv6Address: Any = None
    GlobalIPv6PrefixLen: Any = None
    DNSNames: Any = None


class NetworkingBody(msgspec.Struct):
    EndpointsConfig: dict[str, EndpointBody] = {}


class ConfigBody(msgspec.Struct):
    Hostname: str = ""
    Domainname: str = ""
    User: str = ""
    AttachStdin: bool = False
    AttachStdout: bool = False
    AttachStderr: bool = False
    ExposedPorts: dict[str, Any] = {}
    Tty: bool = False
    OpenStdin: bool = False
    StdinOnce: bool = False
    Env: tuple[str, ...] = ()
    Cmd: Words = ()
    Healthcheck: HealthcheckBody | None = None
    ArgsEscaped: bool | None = None
    Image: str = ""
    Volumes: dict[str, Any] = {}
    WorkingDir: str = ""
    Entrypoint: Words = ()
    NetworkDisabled: bool = False
    MacAddress: str = ""
    OnBuild: Any = None
    Labels: dict[str, str] = {}
    StopSignal: str = ""
    StopTimeout: int | None = None
    Shell: tuple[str, ...] = ()


class CreateBody(ConfigBody):
    HostConfig: HostConfigBody = msgspec.field(default_factory=HostConfigBody)
    NetworkingConfig: NetworkingBody = msgspec.field(default_factory=NetworkingBody)


class ExecCreateBody(msgspec.Struct):
    User: str = ""
    Privileged: bool = False
    Tty: bool = False
    ConsoleSize: tuple[int, int] = (0, 0)
    AttachStdin: bool = False
    AttachStderr: bool = False
    AttachStdout: bool = False
    Detach: bool = False
    DetachKeys: str = ""
    Env: tuple[str, ...] = ()
    WorkingDir: str = ""
    Cmd: tuple[str, ...] = ()
    Container: Any = None


class ExecStartBody(msgspec.Struct):
    Detach: bool = False
    Tty: bool = False
    ConsoleSize: tuple[int, int] = (0, 0)


class IpamPoolBody(msgspec.Struct):
    Subnet: str = ""
    IPRange: str = ""
    Gateway: str = ""
    AuxiliaryAddresses: dict[str, str] = {}


class IpamConfigBody(msgspec.Struct):
    Driver: str = ""
    Options: dict[str, str] = {}
    Config: tuple[IpamPoolBody, ...] = ()


class NetworkCreateBody(msgspec.Struct):
    Name: str = ""
    CheckDuplicate: bool = False
    Driver: str = ""
    Scope: str = ""
    EnableIPv4: bool | None = None
    EnableIPv6: bool = False
    IPAM: IpamConfigBody = msgspec.field(default_factory=IpamConfigBody)
    Internal: bool = False
    Attachable: bool = False
    Ingress: bool = False
    ConfigOnly: bool = False
    ConfigFrom: Any = None
    Options: dict[str, str] = {}
    Labels: dict[str, str] = {}


class NetworkConnectBody(msgspec.Struct):
    Container: str = ""
    EndpointConfig: EndpointBody = msgspec.field(default_factory=EndpointBody)


class NetworkDisconnectBody(msgspec.Struct):
    Container: str = ""
    Force: bool = False


class VolumeCreateBody(msgspec.Struct):
    Name: str = ""
    Driver: str = ""
    DriverOpts: dict[str, str] = {}
    Labels: dict[str, str] = {}
    ClusterVolumeSpec: Any = None


class AuthBody(msgspec.Struct):
    username: str = ""
    password: str = ""
    email: str = ""
    serveraddress: str = ""
    auth: str = ""
    identitytoken: str = ""
    registrytoken: str = ""
