"""Special files and mount checks."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from silo.engine.planning import (
    check_mount_targets,
    hostname_of,
    log_limit_bytes,
    network_of,
    plan_pipe,
    write_special_files,
)
from silo.engine.signals import parse_signal
from silo.errors import InvalidRequest
from silo.model.container import ContainerConfig, ContainerRecord, LogConfig
from silo.model.mount import MountKind, MountRequest, PlannedPipe
from silo.model.network import Endpoint
from silo.model.platform import Isolation, PersonalityName
from tests.unit.engine.fakes import Bench, FakePersonality
from tests.unit.engine.test_lifecycle import create, scenario

ENDPOINT = Endpoint(
    network_id="n",
    network_name="bridge",
    endpoint_id="e",
    ipv4_address="172.29.0.5",
    prefix_length=16,
    gateway="172.29.0.1",
    mac_address="02:42:ac:1d:00:05",
    interface="eth0",
    host_interface="veth",
)


def record(**config: object) -> ContainerRecord:
    return ContainerRecord(
        id="a" * 64,
        name="n",
        created="",
        config=ContainerConfig(image="i", **config),  # type: ignore[arg-type]
        image_id="",
        personality=PersonalityName.LINUX,
        isolation=Isolation.PROCESS,
    )


def test_special_files_name_the_container_and_keep_their_inode(tmp_path: Path) -> None:
    config = {"hostname": "web", "domainname": "example.test", "extra_hosts": ("db:10.0.0.1", "up:host-gateway")}
    first = write_special_files(record(**config), tmp_path, endpoints=(), resolver=None)
    inode = first["hosts"].stat().st_ino
    paths = write_special_files(record(**config), tmp_path, endpoints=(ENDPOINT,), resolver="172.29.0.1")
    hosts = paths["hosts"].read_text()
    assert "172.29.0.5\tweb.example.test web\n" in hosts
    assert "10.0.0.1\tdb\n" in hosts and "172.29.0.1\tup\n" in hosts
    assert paths["hosts"].stat().st_ino == inode
    assert paths["hostname"].read_text() == "web\n"
    assert paths["resolv.conf"].read_text().startswith("nameserver 172.29.0.1\n")


def test_given_servers_win(tmp_path: Path) -> None:
    given = record(dns=("9.9.9.9",), dns_search=("a.test",), dns_options=("ndots:2",))
    text = write_special_files(given, tmp_path, endpoints=(ENDPOINT,), resolver="172.29.0.1")["resolv.conf"].read_text()
    assert text == "nameserver 9.9.9.9\nsearch a.test\noptions ndots:2\n"


def test_names() -> None:
    assert hostname_of(record()) == "a" * 12
    assert network_of(record(network_mode="host").config) == "host"
    assert network_of(record(network_mode="bridge").config) == "private"


@pytest.mark.parametrize(("text", "size"), [("10m", 10 << 20), ("1k", 1024), ("3gb", 3 << 30), ("77", 77), ("-1", 0)])
def test_log_sizes(text: str, size: int) -> None:
    assert log_limit_bytes(record(log=LogConfig(options={"max-size": text})).config) == size


@pytest.mark.parametrize(("text", "number"), [("TERM", 15), ("sigint", 2), ("9", 9), ("SIGRTMIN+3", 37)])
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "NOPE", "0", "65", "SIGRTMIN+x"])
def test_bad_signals(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_signal(text)


def test_mount_targets() -> None:
    volume = MountRequest(kind=MountKind.VOLUME, source="v", target="/data")
    check_mount_targets(record(mounts=(volume,)).config, FakePersonality())  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="Duplicate"):
        check_mount_targets(record(mounts=(volume, volume)).config, FakePersonality())  # type: ignore[arg-type]


def _pipe(source: str, target: str = "\\\\.\\pipe\\x") -> MountRequest:
    return MountRequest(kind=MountKind.NAMED_PIPE, source=source, target=target)


def test_targets_of_pipes() -> None:
    pipe, same = _pipe("\\\\.\\pipe\\a"), _pipe("\\\\.\\pipe\\b", "//./PIPE/X")
    windows = FakePersonality()
    windows.name = PersonalityName.WINDOWS  # type: ignore[misc]
    check_mount_targets(record(mounts=(pipe,)).config, windows)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="Duplicate"):
        check_mount_targets(record(mounts=(pipe, same)).config, windows)  # type: ignore[arg-type]


def test_sources_of_pipes(tmp_path: Path) -> None:
    assert plan_pipe(_pipe("//./pipe/Host")) == PlannedPipe(name="\\\\.\\pipe\\x", host_pipe="\\\\.\\pipe\\Host")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
    (tmp_path / "link").symlink_to("s")
    (tmp_path / "file").touch()
    for name in ("s", "link"):
        assert plan_pipe(_pipe(str(tmp_path / name))).socket == tmp_path / name
    for name in ("file", "nothing", "file/below", "nul\0"):
        with pytest.raises(InvalidRequest, match="is no Unix socket of this host"):
            plan_pipe(_pipe(f"{tmp_path}/{name}"))


def test_a_container_takes_the_pipes_of_another_with_its_volumes() -> None:
    async def body(bench: Bench) -> None:
        pipe = _pipe("\\\\.\\pipe\\host")
        await create(bench, "first", mounts=(pipe,))
        second = await create(bench, "second", volumes_from=("first:ro",))
        made = bench.documents.get(second)
        assert made is not None
        assert made.config.mounts == (pipe,), "never read-only"
        assert [(point.kind, point.source, point.target) for point in made.mounts] == [
            (MountKind.NAMED_PIPE, pipe.source, pipe.target)
        ]
        await bench.engine.containers.start(second)
        assert bench.runtime.plans[second].pipes == (PlannedPipe(name=pipe.target, host_pipe=pipe.source),)
        assert bench.runtime.plans[second].mounts == ()

    scenario(body)
