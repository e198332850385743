"""Decoding of what real clients sent (golden/, written by record_bodies.py), and of what none should send."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.api.decode.create import parse_create
from silo.api.decode.mounts import parse_bind, parse_mount, split_bind
from silo.api.decode.networks import parse_network
from silo.api.decode.ports import parse_bindings, parse_exposed
from silo.api.decode.registry import parse_registry_auth
from silo.api.decode.resources import parse_resources
from silo.api.decode.shapes import decode_struct
from silo.api.decode.wire import (
    BindOptionsBody,
    ExecCreateBody,
    MountBody,
    NetworkConnectBody,
    NetworkCreateBody,
    UpdateBody,
    VolumeCreateBody,
)
from silo.errors import InvalidRequest, SiloError, Unsupported
from silo.model.container import ContainerConfig, Namespaces, RestartPolicy, Ulimit
from silo.model.image import Healthcheck
from silo.model.mount import MountKind, MountRequest
from silo.model.network import PortBinding
from silo.model.platform import Isolation

GOLDEN = Path(__file__).parent / "golden"


def recorded(name: str) -> bytes:
    return json.dumps(json.loads((GOLDEN / f"{name}.json").read_text())["body"]).encode()


def create(name: str) -> ContainerConfig:
    return parse_create(recorded(name))


def body(**members: Any) -> bytes:
    return json.dumps({"Image": "bb"} | members).encode()


@pytest.mark.parametrize("client", ["cli", "py"])
def test_a_plain_run_is_nothing_but_defaults(client: str) -> None:
    config = create(f"{client}_run_plain")
    plain = ContainerConfig(image="busybox", cmd=("true",))
    assert {
        name: getattr(config, name)
        for name in config.__struct_fields__
        if name != "endpoints" and getattr(config, name) != getattr(plain, name)
    } == {}


def test_docker_run_with_many_flags() -> None:
    config = create("cli_run_many")
    assert config.hostname == "h" and config.domainname == "d.example" and config.user == "1000:1000"
    assert config.env == ("A=1", "B=two") and config.working_dir == "/work"
    assert config.entrypoint == ("/bin/sh",) and config.cmd == ("-c", "id")
    assert config.labels == {"a": "b", "c": ""}
    assert config.restart == RestartPolicy(name="on-failure", maximum_retries=3)
    assert config.stop_timeout_s == 5 and config.stop_signal == "SIGINT"
    assert config.healthcheck == Healthcheck(
        test=("CMD-SHELL", "true"), interval_s=5, timeout_s=3, start_period_s=1, retries=2
    )
    assert config.volumes == ("/anonymous",)
    mounts = {mount.target: mount for mount in config.mounts}
    assert mounts["/data"].kind is MountKind.BIND and mounts["/data"].read_only and mounts["/data"].create_source
    assert mounts["/vol"].kind is MountKind.VOLUME and mounts["/vol"].source == "named"
    assert mounts["/dst"].read_only and not mounts["/dst"].create_source and mounts["/dst"].source == "/src"
    assert mounts["/v2"].source == "vol" and not mounts["/v2"].from_bind
    assert mounts["/t"].tmpfs_size_bytes == 64 << 20 and mounts["/t"].tmpfs_mode == 0o1777
    assert mounts["/t2"].kind is MountKind.TMPFS and mounts["/t2"].tmpfs_size_bytes == 1 << 20
    assert set(config.ports) == {
        PortBinding(container_port=80, host_port=8080),
        PortBinding(container_port=53, protocol="udp", host_ip="127.0.0.1", host_port=53),
        PortBinding(container_port=443),
        *(PortBinding(container_port=port, host_port=port) for port in (9000, 9001, 9002)),
    }
    assert "99/tcp" in config.exposed_ports


def test_docker_run_with_limits() -> None:
    limits = create("cli_run_limits").resources
    assert limits.memory_bytes == 64 << 20 and limits.memory_swap_bytes == 128 << 20
    assert limits.memory_reservation_bytes == 32 << 20 and limits.nano_cpus == 1_500_000_000
    assert limits.cpu_shares == 512 and limits.cpuset_cpus == "0" and limits.pids_limit == 50
    assert limits.blkio_weight == 300 and limits.oom_score_adj == 100 and limits.shm_size_bytes == 32 << 20
    assert set(limits.ulimits) == {Ulimit(name="nofile", soft=100, hard=200), Ulimit(name="core", soft=0, hard=0)}
    assert [(d.host_path, d.container_path, d.permissions) for d in limits.devices] == [("/dev/fuse", "/dev/f", "r")]
    assert limits.device_cgroup_rules == ("c 1:3 mr",)


def test_docker_run_with_security() -> None:
    config = create("cli_run_security")
    assert config.security.privileged and config.read_only_root and config.init
    assert set(config.security.cap_add) == {"NET_ADMIN", "SYS_PTRACE"} and config.security.cap_drop == ("ALL",)
    assert config.security.masked_paths == () and config.security.readonly_paths == ()
    assert config.namespaces == Namespaces(user="host", ipc="host", pid="host", uts="host", cgroup="host")
    assert config.group_add == ("5",) and config.sysctls == {"net.ipv4.ip_forward": "1"}


def test_docker_run_with_networks() -> None:
    config = create("cli_run_network")
    assert config.network_mode == "net1"
    (endpoint,) = config.endpoints
    assert (endpoint.network, endpoint.ipv4_address, endpoint.mac_address) == (
        "net1",
        "172.30.1.5",
        "02:42:ac:11:00:09",
    )
    assert endpoint.aliases == ("al",) and endpoint.links == ("other:alias",)
    assert config.dns == ("1.1.1.1",) and config.dns_search == ("example.org",) and config.dns_options == ("ndots:2",)
    assert config.extra_hosts == ("db:10.0.0.1",)


def test_docker_run_for_windows() -> None:
    config = create("cli_run_windows")
    assert config.isolation is Isolation.PROCESS and config.user == "ContainerUser" and config.working_dir == "C:\\work"
    assert {(m.kind, m.source, m.target, m.read_only) for m in config.mounts} == {
        (MountKind.BIND, "C:\\host", "C:\\data", False),
        (MountKind.VOLUME, "named", "C:\\v", True),
    }


def test_other_recorded_runs() -> None:
    interactive = create("cli_run_interactive")
    assert interactive.tty and interactive.open_stdin and interactive.stdin_once and interactive.auto_remove
    assert create("cli_run_stdin").open_stdin and not create("cli_run_stdin").tty
    assert create("cli_run_reset_entrypoint").entrypoint == ()
    none = create("cli_run_no_network")
    assert none.network_mode == "none" and none.log.driver == "none"
    assert none.healthcheck is not None and none.healthcheck.test == ("NONE",)


def test_docker_py_with_many_options() -> None:
    config = create("py_run_many")
    assert config.env == ("A=1",) and config.user == "1000" and config.init and config.isolation is Isolation.PROCESS
    assert {mount.target for mount in config.mounts} == {"/data", "/v", "/m", "/t", "/x"}
    assert set(config.ports) >= {PortBinding(container_port=80, host_port=8080)}
    assert config.resources.memory_bytes == 64 << 20 and config.log.options == {"max-size": "1m"}
    assert config.extra_hosts == ("db:10.0.0.1",)


@pytest.mark.parametrize(("name", "option"), [("gpus", "--gpus"), ("cgroup_parent", "--cgroup-parent")])
def test_recorded_options_that_are_refused_are_named_as_users_write_them(name: str, option: str) -> None:
    with pytest.raises(Unsupported, match=option):
        create(f"cli_run_{name}")


@pytest.mark.parametrize(
    ("member", "value", "option"),
    [
        ("KernelMemory", 1, "--kernel-memory"),
        ("IOMaximumIOps", 1, "--io-maxiops"),
        ("IOMaximumBandwidth", 1, "--io-maxbandwidth"),
        ("CpuRealtimePeriod", 1, "--cpu-rt-period"),
        ("BlkioDeviceReadBps", [{"Path": "/dev/sda", "Rate": 1}], "--device-read-bps"),
        ("Mounts", [{"Type": "image", "Source": "a", "Target": "/a"}], "type=image"),
        ("SecurityOpt", ["apparmor=mine"], "apparmor=mine"),
        ("SecurityOpt", ["credentialspec=file://x"], "credentialspec"),
        ("PortBindings", {"80/sctp": [{"HostPort": "1"}]}, "sctp"),
        ("FutureOption", "x", "HostConfig.FutureOption"),
    ],
)
def test_unsupported_host_options_are_named(member: str, value: object, option: str) -> None:
    with pytest.raises(Unsupported, match=option):
        parse_create(body(HostConfig={member: value}))


@pytest.mark.parametrize(
    ("word", "level"), [("hyperv", "hyperv"), ("VM", "hyperv"), ("process", "process"), ("default", ""), ("", "")]
)
@pytest.mark.parametrize("default", Isolation)
def test_words_for_the_isolation(word: str, level: str, default: Isolation) -> None:
    found = parse_create(body(HostConfig={"Isolation": word}), default_isolation=default)
    assert found.isolation is (Isolation(level) if level else default)


def test_unknown_members_that_say_nothing_are_ignored() -> None:
    silent = {"A": None, "B": "", "C": 0, "D": [], "E": {"F": [0, 0]}, "G": False}
    assert parse_create(body(HostConfig=silent, **silent)) == parse_create(body())


def test_member_names_come_in_any_case_and_null_means_absent() -> None:
    found = parse_create(b'{"image":"bb","HOSTCONFIG":{"memory":null,"readonlyrootfs":true},"cmd":"one word"}')
    assert found.read_only_root and found.cmd == ("one word",)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"{", "invalid JSON"),
        (b"[]", "not an object"),
        (b"\xff\xfe", "invalid JSON"),
        (body(HostConfig={"Memory": "64m"}), r"\$\.HostConfig\.Memory"),
        (body(HostConfig={"Mounts": [{"Type": 1}]}), r"\$\.HostConfig\.Mounts"),
        (body(Env="A=1"), r"\$\.Env"),
        (b"{}", "image is missing"),
        (b"[" * 100_000, "invalid JSON"),
        (body(HostConfig={"Binds": ["/only"]}), "invalid volume specification"),
        (body(HostConfig={"Binds": ["/a:/b:wrong"]}), "invalid mode"),
        (body(HostConfig={"Isolation": "moon"}), "invalid isolation"),
        (body(HostConfig={"PidMode": "elsewhere"}), "--pid elsewhere"),
        (body(HostConfig={"PortBindings": {"99999/tcp": []}}), "Invalid port"),
        (body(HostConfig={"PortBindings": {"80/tcp": [{"HostIp": "x"}]}}), "invalid IP"),
        (body(HostConfig={"Tmpfs": {"/t": "size=big"}}), "size=big"),
        (body(HostConfig={"SecurityOpt": ["wrong"]}), "invalid --security-opt"),
        (body(HostConfig={"Memory": -5}), "--memory"),
        (body(HostConfig={"MemorySwappiness": 200}), "swappiness"),
        (body(Healthcheck={"Test": ["CMD"], "Interval": 5}), "Interval"),
    ],
)
def test_bad_bodies_are_refused_with_the_place(raw: bytes, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        parse_create(raw)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("/a:/b", ["/a", "/b"]),
        ("/a:/b:ro,rshared", ["/a", "/b", "ro,rshared"]),
        ("name:C:\\data", ["name", "C:\\data"]),
        ("/srv/x:C:\\data:ro", ["/srv/x", "C:\\data", "ro"]),
        ("C:\\a:D:\\b:ro", ["C:\\a", "D:\\b", "ro"]),
        ("c:/a:d:/b", ["c:/a", "d:/b"]),
        ("v:/x", ["v:/x"]),
        ("/x:D:", ["/x", "D:"]),
    ],
)
def test_binds_split_at_colons_that_are_no_drives(text: str, parts: list[str]) -> None:
    # A volume's name has two characters at least, so `v:/x` can only be a drive.
    assert split_bind(text) == parts


def test_bind_options() -> None:
    assert parse_bind("/a:/b:z,rslave").propagation == "rslave"
    assert parse_bind("v1:/b:nocopy", driver="local").no_copy


@pytest.mark.parametrize(
    ("text", "source", "read_only"),
    [
        ("\\\\.\\pipe\\docker:\\\\.\\pipe\\x", "\\\\.\\pipe\\docker", False),
        ("/run/a.sock:\\\\.\\pipe\\x", "/run/a.sock", False),
        ("/run/a.sock:\\\\.\\pipe\\x:ro", "/run/a.sock", True),
        ("volume:\\\\.\\pipe\\x", "volume", False),
    ],
)
def test_binds_of_pipes(text: str, source: str, read_only: bool) -> None:
    """Which of them can be is the personality's to say."""
    found = parse_bind(text, driver="local")
    assert found == MountRequest(
        kind=MountKind.NAMED_PIPE, source=source, target="\\\\.\\pipe\\x", read_only=read_only, from_bind=True
    )


@pytest.mark.parametrize("option", ["nocopy", "rslave", "shared"])
def test_a_pipe_has_no_options_of_files(option: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid mode"):
        parse_bind(f"\\\\.\\pipe\\x:\\\\.\\pipe\\x:{option}")


def test_mounts_of_pipes() -> None:
    body = MountBody(Type="npipe", Source="\\\\.\\pipe\\x", Target="\\\\.\\pipe\\y")
    found = parse_mount(body)
    assert (found.kind, found.source, found.target) == (MountKind.NAMED_PIPE, body.Source, body.Target)
    assert not found.from_bind
    with pytest.raises(InvalidRequest, match="Source must not be empty"):
        parse_mount(MountBody(Type="npipe", Target="\\\\.\\pipe\\y"))
    with pytest.raises(InvalidRequest, match="BindOptions"):
        parse_mount(MountBody(Type="npipe", Source="x", Target="y", BindOptions=BindOptionsBody(Propagation="rslave")))


def test_port_ranges() -> None:
    assert parse_exposed({"80/tcp": {}, "90-91/udp": {}}) == ("80/tcp", "90/udp", "91/udp")
    found = parse_bindings({"80-81/tcp": [{"HostPort": "90-91"}], "5": None, "6/udp": []})
    assert [(p.container_port, p.host_port, p.protocol) for p in found] == [
        (80, 90, "tcp"),
        (81, 91, "tcp"),
        (6, 0, "udp"),
    ]
    with pytest.raises(Unsupported, match="range"):
        parse_bindings({"80/tcp": [{"HostPort": "90-99"}]})


def test_update_and_exec_and_networks_as_the_cli_sends_them() -> None:
    update = decode_struct(recorded("cli_update"), UpdateBody)
    assert parse_resources(update).memory_bytes == 64 << 20 and update.RestartPolicy.Name == "always"
    run = decode_struct(recorded("cli_exec_many"), ExecCreateBody)
    assert run.Tty and run.AttachStdin and run.Privileged and run.DetachKeys == "ctrl-a" and run.Cmd == ("sh",)
    network = parse_network(decode_struct(recorded("cli_network_create"), NetworkCreateBody))
    assert (network.subnet, network.gateway, network.ip_range) == ("172.30.0.0/16", "172.30.0.1", "172.30.5.0/24")
    assert network.internal and network.attachable and network.options == {"com.example": "1"}
    connect = decode_struct(recorded("cli_network_connect"), NetworkConnectBody)
    assert connect.Container == "web" and connect.EndpointConfig.IPAMConfig.IPv4Address == "172.30.0.9"
    assert decode_struct(recorded("cli_volume_create"), VolumeCreateBody).DriverOpts == {"type": "tmpfs"}


@pytest.mark.parametrize("member", [{"Ingress": True}, {"ConfigOnly": True}, {"IPAM": {"Driver": "other"}}])
def test_network_options_that_are_refused(member: dict[str, Any]) -> None:
    with pytest.raises(Unsupported):
        parse_network(decode_struct(json.dumps({"Name": "n"} | member).encode(), NetworkCreateBody))


def test_registry_credentials() -> None:
    import base64

    text = base64.urlsafe_b64encode(b'{"username":"u","password":"p?>"}').decode()
    for header in (text, text.rstrip("=")):
        found = parse_registry_auth({"x-registry-auth": header})
        assert (found.username, found.password) == ("u", "p?>")
    assert parse_registry_auth({}).username == ""
    assert parse_registry_auth({"x-registry-auth": base64.b64encode(b"{}").decode()}).username == ""
    both = base64.b64encode(b'{"auth":"%b"}' % base64.b64encode(b"a:b:c")).decode()
    assert parse_registry_auth({"x-registry-auth": both}).password == "b:c"
    for bad in ("%%%", "A" * 20_000, base64.b64encode(b"[]").decode()):
        with pytest.raises(InvalidRequest):
            parse_registry_auth({"x-registry-auth": bad})
    with pytest.raises(Unsupported, match="token"):
        parse_registry_auth({"x-registry-auth": base64.b64encode(b'{"identitytoken":"t"}').decode()})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_MEMBERS = st.sampled_from(
    "Image Env Cmd Labels ExposedPorts Volumes Healthcheck Tty Entrypoint HostConfig NetworkingConfig".split()
)
_HOST_MEMBERS = st.sampled_from(
    "Binds Mounts PortBindings Tmpfs Ulimits Devices SecurityOpt Links Memory ConsoleSize LogConfig Isolation".split()
)


@given(st.dictionaries(_MEMBERS, _JSON, max_size=5), st.dictionaries(_HOST_MEMBERS, _JSON, max_size=5))
def test_no_body_raises_anything_but_an_error_of_ours(outer: dict[str, Any], host: dict[str, Any]) -> None:
    with contextlib.suppress(SiloError):
        parse_create(json.dumps({"HostConfig": host} | outer).encode())


@given(st.text(alphabet="abcC:\\/ro,z.", max_size=30))
def test_any_bind_text_is_parsed_or_refused(text: str) -> None:
    try:
        found = parse_bind(text)
    except SiloError:
        return
    assert found.source and found.target
