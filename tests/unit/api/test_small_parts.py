"""Framing, detach keys, durations, ports: the pure parts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.api.encode.configs import encode_host_config
from silo.api.encode.networks import encode_network, encode_port_map
from silo.api.encode.times import human_duration, unix_seconds
from silo.api.framing import DetachScanner, frame, parse_detach_keys
from silo.api.handlers.progress import render_bar
from silo.errors import InvalidRequest
from silo.model.container import ContainerConfig, Resources, Ulimit
from silo.model.mount import MountKind, MountRequest
from silo.model.network import NetworkConfig, PortBinding


def test_a_frame() -> None:
    assert frame(2, b"abc") == b"\x02\0\0\0\0\0\0\x03abc"


@pytest.mark.parametrize(
    ("text", "keys"),
    [("", b"\x10\x11"), ("ctrl-p,ctrl-q", b"\x10\x11"), ("a,b", b"ab"), ("ctrl-@,ctrl-[", b"\0\x1b"), ("DEL", b"\x7f")],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-ä", "ab", "ctrl-pp", "ctrl-P", ",", "ä"])
def test_bad_detach_keys(text: str) -> None:
    with pytest.raises(InvalidRequest, match="detach keys"):
        parse_detach_keys(text)


@given(st.lists(st.binary(max_size=5)), st.binary(min_size=1, max_size=3))
def test_detaching_does_not_depend_on_how_the_input_is_cut(pieces: list[bytes], keys: bytes) -> None:
    """What passes is everything before the keys; without them at most a beginning of the keys is held back."""
    scanner, passed, detached = DetachScanner(keys), b"", False
    for piece in pieces:
        if not detached:
            data, detached = scanner.feed(piece)
            passed += data
    whole = b"".join(pieces)
    at = whole.find(keys)
    if at >= 0:
        assert detached and passed == whole[:at]
    else:
        held = whole[len(passed) :]
        assert not detached and whole.startswith(passed) and keys.startswith(held)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (61, "About a minute"),
        (179, "2 minutes"),
        (3600, "About an hour"),
        (3 * 3600, "3 hours"),
        (3 * 86400, "3 days"),
        (15 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (3 * 365 * 86400, "3 years"),
    ],
)
def test_durations_as_docker_says_them(seconds: float, text: str) -> None:
    assert human_duration(seconds) == text


def test_times() -> None:
    assert unix_seconds("1970-01-01T00:01:00.5Z") == 60
    assert unix_seconds("") == unix_seconds("0001-01-01T00:00:00Z") == unix_seconds("not a time") == 0


def test_port_maps() -> None:
    ports = (
        PortBinding(container_port=80, host_port=8080),
        PortBinding(container_port=80, host_ip="::1", host_port=8080),
        PortBinding(container_port=53, protocol="udp"),
    )
    assert encode_port_map(ports, ("99/tcp",), any_address="0.0.0.0") == {
        "99/tcp": None,
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "::1", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "0.0.0.0", "HostPort": ""}],
    }


def test_a_network_with_two_families() -> None:
    network = NetworkConfig(
        id="i", name="n", subnet="10.0.0.0/24", gateway="10.0.0.1", ipv6=True, ipv6_subnet="fd00::/64"
    )
    shown = encode_network(network)
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1"}, {"Subnet": "fd00::/64"}]
    assert shown["EnableIPv6"] and shown["Containers"] == {}
    assert encode_network(NetworkConfig(id="i", name="none", driver="none"))["Driver"] == "null"


def test_host_config_shows_what_was_asked_for() -> None:
    config = ContainerConfig(
        image="bb",
        mounts=(
            MountRequest(
                kind=MountKind.BIND, source="/a", target="/b", read_only=True, propagation="rslave", from_bind=True
            ),
            MountRequest(kind=MountKind.VOLUME, source="v", target="C:\\v", no_copy=True, from_bind=True),
            MountRequest(kind=MountKind.BIND, source="/c", target="/d", create_source=True),
            MountRequest(kind=MountKind.TMPFS, target="/t", tmpfs_size_bytes=5, tmpfs_mode=0o700, from_bind=True),
            MountRequest(kind=MountKind.TMPFS, target="/u", tmpfs_size_bytes=6),
        ),
        resources=Resources(ulimits=(Ulimit(name="core", soft=1, hard=2),)),
    )
    shown = encode_host_config(config)
    assert shown["Binds"] == ["/a:/b:ro,rslave", "v:C:\\v:nocopy"]
    assert shown["Mounts"] == [
        {"Type": "bind", "Source": "/c", "Target": "/d", "BindOptions": {"CreateMountpoint": True}},
        {"Type": "tmpfs", "Target": "/u", "TmpfsOptions": {"SizeBytes": 6, "Mode": 0}},
    ]
    assert shown["Tmpfs"] == {"/t": "size=5,mode=700"}
    assert shown["Ulimits"] == [{"Name": "core", "Hard": 2, "Soft": 1}]


def test_progress_bars() -> None:
    assert render_bar(50, 100, in_bytes=True).startswith("[=========================>") and "50B/100B" in render_bar(
        50, 100, in_bytes=True
    )
    assert render_bar(1500, 0, in_bytes=True) == "1.5kB"
    assert render_bar(500, 1000, in_bytes=False).endswith(" 50 %")
