"""The words of machines that boot a user's disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from silo.isolation.vm.command import Accelerator
from silo.isolation.vm.whole.command import WholeDescriptors, WholeMachine, build_look, build_whole
from silo.model.disk_guest import DiskBus, DiskFormat, DiskGuest, Firmware, NetworkCard


def machine(disk_format: DiskFormat = DiskFormat.RAW, **options: Any) -> WholeMachine:
    """By BIOS; `options` are WholeMachine's and DiskGuest's."""
    own = {name: options.pop(name) for name in WholeMachine.__slots__ if name in options}
    disk = DiskGuest(path=Path("/disk"), format=disk_format, **{"firmware": Firmware.BIOS, **options})
    return WholeMachine(**{"disk": disk, "memory_bytes": 512 << 20, "accelerator": Accelerator.TCG, **own})


SNAPSHOT = WholeDescriptors(monitor=3, agent=4, serial=5, disk=6, overlay=7)
PERSISTENT = WholeDescriptors(monitor=3, agent=4, serial=5, disk=6)


def after(words: tuple[str, ...], option: str) -> list[str]:
    return [words[place + 1] for place, word in enumerate(words) if word == option]


def nodes(words: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Block devices by name."""
    return {node["node-name"]: node for node in map(json.loads, after(words, "-blockdev"))}


def test_the_whole_line_of_a_plain_machine() -> None:
    assert build_whole(machine(DiskFormat.QCOW2), SNAPSHOT) == (
        *("/usr/bin/qemu-system-x86_64", "-nodefaults", "-no-user-config", "-name", "silo,process=silo-vm", "-S"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-M", "q35,hpet=off,vmport=off,usb=off,sata=off", "-accel", "tcg,tb-size=512", "-cpu", "max,-smap"),
        *("-smp", "1", "-m", "512M", "-rtc", "base=utc,clock=host,driftfix=slew"),
        *("-chardev", "socket,id=monitor,fd=3,server=on,wait=off", "-mon", "chardev=monitor,mode=control"),
        *("-chardev", "socket,id=serial,fd=5,server=on,wait=off", "-serial", "chardev:serial"),
        *("-device", "virtio-serial-pci,id=ports,max_ports=2"),
        *("-chardev", "socket,id=agent,fd=4,server=on,wait=off"),
        *("-device", "virtserialport,bus=ports.0,chardev=agent,name=org.qemu.guest_agent.0"),
        *("-device", "virtio-rng-pci", "-device", "virtio-balloon-pci,id=balloon"),
        *("-vnc", "none", "-device", "VGA", "-device", "qemu-xhci", "-device", "usb-tablet"),
        *("-add-fd", "fd=6,set=1"),
        "-blockdev",
        '{"driver": "file", "node-name": "base-file", "read-only": true, "discard": "unmap", "filename": "/dev/fdset/1"}',
        "-blockdev",
        '{"driver": "qcow2", "node-name": "base", "read-only": true, "discard": "unmap", "file": "base-file", "backing": null}',
        *("-add-fd", "fd=7,set=2"),
        "-blockdev",
        '{"driver": "file", "node-name": "overlay", "read-only": false, "discard": "unmap", "filename": "/dev/fdset/2"}',
        "-blockdev",
        '{"driver": "qcow2", "node-name": "disk", "read-only": false, "discard": "unmap", "file": "overlay", "backing": "base"}',
        *("-device", "virtio-blk-pci,drive=disk,id=disk0,bootindex=0"),
        *("-netdev", "hubport,id=net0,hubid=0", "-device", "virtio-net-pci,netdev=net0,id=nic0,romfile="),
    )


@pytest.mark.parametrize("disk_format", list(DiskFormat))
def test_the_users_disk_has_its_format_by_name_and_no_backing_file(disk_format: DiskFormat) -> None:
    snapshot, persistent = (nodes(build_whole(machine(disk_format), each)) for each in (SNAPSHOT, PERSISTENT))
    look = nodes(build_look(disk_format, 3, 6))
    for node, read_only in ((snapshot["base"], True), (persistent["disk"], False), (look["disk"], True)):
        assert (node["driver"], node["read-only"]) == (disk_format, read_only)
        assert ("backing" in node) == (disk_format in ("qcow2", "vmdk")) and node.get("backing") is None
    assert snapshot["base-file"]["read-only"] and look["disk-file"]["read-only"]
    assert "overlay" not in persistent


def test_every_file_is_a_descriptor_but_the_firmware() -> None:
    every = WholeDescriptors(monitor=3, agent=4, serial=5, disk=6, overlay=7, variables=8, tpm=9, tap=10)
    words = build_whole(machine(firmware=Firmware.UEFI, tpm=True), every)
    names = {node["filename"] for node in nodes(words).values() if "filename" in node}
    assert names == {"/dev/fdset/1", "/dev/fdset/2", "/dev/fdset/3", "/guest/firmware.fd"}
    assert nodes(words)["firmware"]["read-only"] and not nodes(words)["variables"]["read-only"]
    assert after(words, "-M")[0].endswith("pflash0=firmware,pflash1=variables")
    assert not any("path=" in word or "unix:" in word for word in words)
    assert every.passed() == (3, 4, 5, 6, 7, 8, 9, 10) and PERSISTENT.passed() == (3, 4, 5, 6)


def test_a_system_without_drivers() -> None:
    wanted = {"bus": DiskBus.SATA, "nic": NetworkCard.E1000, "processors": 2, "local_time": True}
    words = build_whole(machine(**wanted, accelerator=Accelerator.KVM, mac="02:00:00:00:00:07"), PERSISTENT)
    devices = after(words, "-device")
    assert "ide-hd,bus=ide.0,drive=disk,id=disk0,bootindex=0" in devices and "sata=on" in after(words, "-M")[0]
    assert "e1000,netdev=net0,id=nic0,romfile=,mac=02:00:00:00:00:07" in devices
    assert after(words, "-cpu") == ["host"] and after(words, "-smp") == ["2"]
    assert after(words, "-rtc") == ["base=localtime,clock=host,driftfix=slew"]


def test_tpm_and_tap_are_there_when_they_are_given() -> None:
    words = build_whole(machine(), WholeDescriptors(3, 4, 5, 6, tpm=9, tap=10))
    assert "socket,id=tpm,fd=9" in after(words, "-chardev") and after(words, "-tpmdev") == [
        "emulator,id=tpm0,chardev=tpm"
    ]
    assert after(words, "-netdev") == ["tap,id=net0,fd=10"]
    assert "-tpmdev" not in build_whole(machine(), PERSISTENT)


def test_a_machine_may_restart_itself_and_a_look_has_no_machine() -> None:
    assert "-no-reboot" not in build_whole(machine(), PERSISTENT)
    words = build_look(DiskFormat.VMDK, 3, 6)
    assert after(words, "-M") == ["none"] and "-sandbox" in words and "-device" not in words
