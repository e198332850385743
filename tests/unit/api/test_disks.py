"""A disk instead of an image: labels, record, plan, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from silo.api.decode.create import parse_create
from silo.api.decode.disks import parse_disk
from silo.errors import InvalidRequest
from silo.model.disk_guest import DiskBus, DiskFormat, DiskGuest, Firmware, NetworkCard
from tests.unit.api.test_routes import Site, run

LABEL = "com.silo.disk"


def test_a_path_says_it_all() -> None:
    assert parse_disk({"other": "x"}) is None
    assert parse_disk({LABEL: "/vm/os.QCOW2"}) == DiskGuest(
        path=Path("/vm/os.QCOW2"),
        format=DiskFormat.QCOW2,
        firmware=Firmware.UEFI,
        bus=DiskBus.VIRTIO,
        nic=NetworkCard.VIRTIO,
        tpm=False,
        persist=False,
    )
    formats = {"a.img": "raw", "a.raw": "raw", "a.vhdx": "vhdx", "a.vmdk": "vmdk"}
    for name, word in formats.items():
        found = parse_disk({LABEL: f"/{name}"})
        assert found is not None and found.format == word


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({LABEL: "os.img"}, "not an absolute path"),
        ({LABEL: "/os"}, "--disk-format raw"),
        ({LABEL: "/os", f"{LABEL}.format": "iso"}, "--disk-format iso: one of raw"),
        ({LABEL: "/os.img", f"{LABEL}.bus": "ide"}, "--disk-bus ide"),
        ({LABEL: "/os.img", f"{LABEL}.tpm": "maybe"}, "true or false"),
        ({LABEL: "/os.img", f"{LABEL}.colour": "red"}, "unknown label"),
        ({f"{LABEL}.nic": "e1000"}, "needs --disk"),
    ],
)
def test_bad_labels_are_refused_by_name(labels: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        parse_disk(labels)


def test_a_request_with_a_disk_needs_no_image() -> None:
    config = parse_create(json.dumps({"Labels": {LABEL: "/os.img"}}).encode())
    assert config.image == "/os.img" and config.disk is not None
    with pytest.raises(InvalidRequest, match="image is missing"):
        parse_create(b"{}")


def disk_body(path: Path, *, isolation: str = "hyperv", **members: Any) -> dict[str, Any]:
    labels = {LABEL: str(path)} | members.pop("Labels", {})
    host = {"Isolation": isolation} | members.pop("HostConfig", {})
    return {"Image": "anything", "Labels": labels, "HostConfig": host} | members


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "os.qcow2"
    path.write_bytes(b"QFI")
    return path


def test_a_container_without_an_image(disk: Path) -> None:
    async def work(site: Site) -> None:
        answer = await site.call("POST", "/containers/create?name=os", disk_body(disk, Tty=True, OpenStdin=True))
        assert answer.status == 201, answer.body
        container = answer.json()["Id"]
        shown = (await site.call("GET", "/containers/os/json")).json()
        assert shown["Config"]["Image"] == str(disk) == shown["Path"] and shown["Image"] == ""
        assert shown["HostConfig"]["Isolation"] == "hyperv" and shown["Config"]["Labels"][LABEL] == str(disk)
        assert (await site.call("POST", "/containers/os/start")).status == 204
        plan = site.bench.vm_runtime.plans[container]
        assert plan.disk is not None and plan.disk.path == disk and plan.disk.format is DiskFormat.QCOW2
        assert plan.process.args == () and plan.process.tty and plan.mounts == () and plan.vm == ""
        filters = quote(json.dumps({"isolation": ["vm"]}))
        (row,) = (await site.call("GET", f"/containers/json?all=1&filters={filters}")).json()
        assert row["Image"] == row["Command"] == str(disk)
        for refused, what in (
            (await site.call("GET", "/containers/os/changes"), "diff"),
            (await site.call("GET", "/containers/os/export"), "export"),
            (await site.call("POST", "/commit?container=os"), "commit"),
        ):
            assert refused.status == 501 and f"{what} is not possible with container os" in refused.message
        # the card is there before the network, which takes its address
        (network,) = (await site.call("GET", "/containers/os/json")).json()["NetworkSettings"]["Networks"].values()
        assert plan.mac_address.startswith("02:") and network["MacAddress"] == plan.mac_address
        await site.bench.vm_runtime.signal(container, 9)
        await site.call("POST", "/containers/os/wait")
        stopped = await site.call("GET", "/containers/os/archive?path=/etc")
        assert stopped.status == 409 and "only its own system can read its disk" in stopped.message
        assert (await site.call("DELETE", "/containers/os?force=1")).status == 204

    run(work)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"Cmd": ["sh"]}, "a command is not supported with --disk"),
        ({"Entrypoint": ["sh"]}, "--entrypoint"),
        ({"User": "app"}, "--user"),
        ({"WorkingDir": "/x"}, "--workdir"),
        ({"Env": ["A=1"]}, "--env"),
        ({"Healthcheck": {"Test": ["CMD", "x"]}}, "--health-cmd"),
        ({"Volumes": {"/data": {}}}, "--volume"),
        ({"Labels": {"com.silo.vm": "default"}}, "--vm"),
        ({"HostConfig": {"Binds": ["/srv:/srv"]}}, "--volume"),
        ({"HostConfig": {"Tmpfs": {"/t": ""}}}, "--volume"),
        ({"HostConfig": {"Privileged": True}}, "--privileged"),
        ({"HostConfig": {"CapAdd": ["ALL"]}}, "--cap-add"),
        ({"HostConfig": {"ReadonlyRootfs": True}}, "--read-only"),
        ({"HostConfig": {"PidsLimit": 5}}, "--pids-limit"),
        ({"HostConfig": {"NetworkMode": "host"}}, "--network host"),
        ({"NetworkingConfig": {"EndpointsConfig": {"bridge": {}, "none": {}}}}, "a second network"),
    ],
)
def test_what_is_said_to_a_program_is_refused(disk: Path, members: dict[str, Any], words: str) -> None:
    async def work(site: Site) -> None:
        answer = await site.call("POST", "/containers/create", disk_body(disk, **members))
        assert answer.status == 501 and words in answer.message, answer.message
        assert (await site.call("GET", "/containers/json?all=1")).json() == []

    run(work)


def test_a_disk_needs_a_virtual_machine_and_a_file(disk: Path) -> None:
    async def work(site: Site) -> None:
        empty = disk.with_name("empty.img")
        empty.write_bytes(b"")
        for body, words in (
            (disk_body(disk, isolation="process"), "add --isolation hyperv"),
            (disk_body(disk.with_name("none.img")), "no such file"),
            (disk_body(disk.parent, Labels={f"{LABEL}.format": "raw"}), "not a regular file"),
            (disk_body(empty), "is empty"),
        ):
            answer = await site.call("POST", "/containers/create", body)
            assert answer.status == 400 and words in answer.message

    run(work)


def test_an_images_label_opens_no_disk(disk: Path) -> None:
    async def work(site: Site) -> None:
        site.bench.images.image.config.labels[LABEL] = str(disk)
        container = await site.create("sleep", HostConfig={"Isolation": "hyperv"})
        assert site.bench.engine.containers.resolve(container).config.disk is None

    run(work)
