"""QEMU's words for a machine that boots a disk which somebody else has made, and for a look at such a disk. Pure.

A utility VM (silo/isolation/vm/command.py) is as small as its own kernel allows. This one has what a system expects that was
installed elsewhere: firmware, a screen with keyboard and tablet, a serial line, a clock, a TPM where it asks for one. It may
restart itself. All that is not firmware comes as a descriptor; no file of the host's is named.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from silo.isolation.vm.command import Accelerator
from silo.isolation.vm.jail import QEMU
from silo.model.disk_guest import DiskBus, DiskFormat, DiskGuest, Firmware, NetworkCard

AGENT_PORT = "org.qemu.guest_agent.0"
BALLOON_ID, NIC_ID, DISK_NODE = "balloon", "nic0", "disk"
HUB = 0
"""Where a network interface without a tap waits for one."""
FIRMWARE_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
FIRMWARE_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
"""What a machine's own copy is made of."""
FIRMWARE_PLACE = "/guest/firmware.fd"
"""FIRMWARE_CODE as the jail shows it."""

_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"
_TRANSLATED_MIB = 512
_DISK_SET, _OVERLAY_SET, _VARIABLES_SET = 1, 2, 3
DISK_IN_JAIL = f"/dev/fdset/{_DISK_SET}"


@dataclass(frozen=True, slots=True)
class WholeMachine:
    """A machine for a disk. `local_time`: its clock shows the host's local time, as Windows expects."""

    disk: DiskGuest
    memory_bytes: int
    accelerator: Accelerator
    processors: int = 1
    mac: str = ""
    local_time: bool = False


@dataclass(frozen=True, slots=True)
class WholeDescriptors:
    """What the daemon has made and passes on; -1 stands for nothing.

    `monitor`, `agent` and `serial` are listening sockets. `disk` is the user's file; with an `overlay` (qcow2, without a backing
    file of its own) it is read only. `variables` is the copy of UEFI's, `tpm` a connection to swtpm, `tap` the network.
    """

    monitor: int
    agent: int
    serial: int
    disk: int
    overlay: int = -1
    variables: int = -1
    tpm: int = -1
    tap: int = -1

    def passed(self) -> tuple[int, ...]:
        every = (self.monitor, self.agent, self.serial, self.disk, self.overlay, self.variables, self.tpm, self.tap)
        return tuple(descriptor for descriptor in every if descriptor >= 0)


def build_whole(machine: WholeMachine, descriptors: WholeDescriptors) -> tuple[str, ...]:
    """The words of a machine that waits for `cont` on its monitor."""
    words = [QEMU, "-nodefaults", "-no-user-config", "-name", "silo,process=silo-vm", "-S", "-sandbox", _SANDBOX]
    words += ["-M", _board(machine), "-accel", _accelerator(machine)]
    # With SMAP, programs that change modes often crash the guest's kernel under QEMU 7.2's emulation.
    words += ["-cpu", "host" if machine.accelerator is Accelerator.KVM else "max,-smap"]
    words += ["-smp", str(machine.processors), "-m", f"{machine.memory_bytes >> 20}M"]
    words += ["-rtc", f"base={'localtime' if machine.local_time else 'utc'},clock=host,driftfix=slew"]
    words += [*_socket("monitor", descriptors.monitor), "-mon", "chardev=monitor,mode=control"]
    words += [*_socket("serial", descriptors.serial), "-serial", "chardev:serial"]
    words += ["-device", "virtio-serial-pci,id=ports,max_ports=2", *_socket("agent", descriptors.agent)]
    words += ["-device", f"virtserialport,bus=ports.0,chardev=agent,name={AGENT_PORT}"]
    words += ["-device", "virtio-rng-pci", "-device", f"virtio-balloon-pci,id={BALLOON_ID}"]
    # A screen that nobody listens for: connections are handed over on the monitor, one by one. Tablet: pointers that agree.
    words += ["-vnc", "none", "-device", "VGA", "-device", "qemu-xhci", "-device", "usb-tablet"]
    words += _disk(machine.disk, descriptors)
    words += _firmware(descriptors.variables) if machine.disk.firmware is Firmware.UEFI else []
    words += _network(machine, descriptors.tap)
    if descriptors.tpm >= 0:
        words += ["-chardev", f"socket,id=tpm,fd={descriptors.tpm}", "-tpmdev", "emulator,id=tpm0,chardev=tpm"]
        words += ["-device", "tpm-crb,tpmdev=tpm0"]
    return tuple(words)


def build_look(disk_format: DiskFormat, monitor: int, disk: int) -> tuple[str, ...]:
    """The words of a QEMU without a machine that opens a disk, read-only and as exactly this format, to report on it."""
    words = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-M", "none", "-accel", "tcg,tb-size=1"]
    words += ["-S", "-sandbox", _SANDBOX, *_socket("monitor", monitor), "-mon", "chardev=monitor,mode=control"]
    return (*words, *_descriptor(disk, _DISK_SET), *_user_disk(disk_format, DISK_NODE, read_only=True))


def _board(machine: WholeMachine) -> str:
    words = ["q35", "hpet=off", "vmport=off", "usb=off", f"sata={'on' if machine.disk.bus is DiskBus.SATA else 'off'}"]
    if machine.disk.firmware is Firmware.UEFI:
        words += ["pflash0=firmware", "pflash1=variables"]
    return ",".join(words)


def _accelerator(machine: WholeMachine) -> str:
    """QEMU keeps up to a gigabyte of translated code, and a whole system fills it: more than its control group allows."""
    return "kvm" if machine.accelerator is Accelerator.KVM else f"tcg,tb-size={_TRANSLATED_MIB}"


def _socket(name: str, descriptor: int) -> list[str]:
    return ["-chardev", f"socket,id={name},fd={descriptor},server=on,wait=off"]


def _descriptor(descriptor: int, number: int) -> list[str]:
    return ["-add-fd", f"fd={descriptor},set={number}"]


def _block(driver: str, name: str, *, read_only: bool, **options: object) -> list[str]:
    """Discarded blocks are given back to the host."""
    node = {"driver": driver, "node-name": name, "read-only": read_only, "discard": "unmap", **options}
    return ["-blockdev", json.dumps(node)]


def _user_disk(disk_format: DiskFormat, name: str, *, read_only: bool) -> list[str]:
    """No backing file, whatever the disk says of one."""
    words = _block("file", f"{name}-file", read_only=read_only, filename=DISK_IN_JAIL)
    backing = {"backing": None} if disk_format in (DiskFormat.QCOW2, DiskFormat.VMDK) else {}
    return words + _block(disk_format.value, name, read_only=read_only, file=f"{name}-file", **backing)


def _disk(disk: DiskGuest, descriptors: WholeDescriptors) -> list[str]:
    words = _descriptor(descriptors.disk, _DISK_SET)
    if descriptors.overlay < 0:
        words += _user_disk(disk.format, DISK_NODE, read_only=False)
    else:
        words += _user_disk(disk.format, "base", read_only=True) + _descriptor(descriptors.overlay, _OVERLAY_SET)
        words += _block("file", "overlay", read_only=False, filename=f"/dev/fdset/{_OVERLAY_SET}")
        words += _block("qcow2", DISK_NODE, read_only=False, file="overlay", backing="base")
    device = "virtio-blk-pci" if disk.bus is DiskBus.VIRTIO else "ide-hd,bus=ide.0"
    return [*words, "-device", f"{device},drive={DISK_NODE},id=disk0,bootindex=0"]


def _firmware(variables: int) -> list[str]:
    words = _block("file", "firmware-file", read_only=True, filename=FIRMWARE_PLACE)
    words += _block("raw", "firmware", read_only=True, file="firmware-file") + _descriptor(variables, _VARIABLES_SET)
    words += _block("file", "variables-file", read_only=False, filename=f"/dev/fdset/{_VARIABLES_SET}")
    return words + _block("raw", "variables", read_only=False, file="variables-file")


def _network(machine: WholeMachine, tap: int) -> list[str]:
    backend = f"tap,id=net0,fd={tap}" if tap >= 0 else f"hubport,id=net0,hubid={HUB}"
    device = "virtio-net-pci" if machine.disk.nic is NetworkCard.VIRTIO else "e1000"
    address = f",mac={machine.mac}" if machine.mac else ""
    # romfile: nothing is booted from the network
    return ["-netdev", backend, "-device", f"{device},netdev=net0,id={NIC_ID},romfile={address}"]
