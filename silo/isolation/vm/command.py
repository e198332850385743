"""QEMU's command line: a pure function from a machine to its words.

Measured choices (QEMU 7.2, TCG): q35 with everything unneeded left out; microvm boots as fast and failed under load. A template and
its clones get the same words but for `share` and `-incoming`: a saved state fits only the very machine that it was saved from.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from silo.isolation.vm.jail import QEMU
from silo.model.guest_frames import PORT_NAME

_MACHINE = "q35,graphics=off,smbus=off,sata=off,hpet=off,vmport=off,usb=off,memory-backend=ram"
# With SMAP, every process of Wine's dies under TCG 7.2 (the guest's kernel complains "exited with irqs disabled").
_EMULATED_PROCESSOR = "max,-smap"
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


HOT_PLUGS = 4
"""Empty places of a template that its clones fill: disks of a container's image and scratch, its folders, its network."""


IMAGE, SCRATCH = "image", "scratch"
"""Serials of a container's disks."""

_SCRATCH_SET = 100


def hot_plug_bus(number: int) -> str:
    return f"plug{number}"


class Accelerator(StrEnum):
    KVM = "kvm"
    TCG = "tcg"


class Role(StrEnum):
    """A template's memory is written to its file; a clone's is a private copy of it; a machine without a file has its own."""

    TEMPLATE = "template"
    CLONE = "clone"
    COLD = "cold"


@dataclass(frozen=True, slots=True)
class Descriptors:
    """What the daemon has made and passes on.

    `monitor` and `agent` are listening sockets, which a daemon that comes again finds by their paths; `console` is connected, and
    lost with the daemon; `memory` holds the guest's memory (-1: QEMU makes its own). `scratch` is the disk of a machine with
    scratch, open twice: for reading, and for both.
    """

    monitor: int
    agent: int
    console: int
    memory: int = -1
    scratch: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """A VM. Paths are the jail's. `root` is the guest's root image, mapped into it (virtio-pmem); its size a multiple of 2 MiB.

    `image` and `scratch` are disks from the beginning, for a template that saves a container which runs already; their serials
    are IMAGE and SCRATCH. `image` is read-only, every clone has a scratch of its own.
    """

    memory_bytes: int
    accelerator: Accelerator
    kernel: PurePosixPath | None = None
    initrd: PurePosixPath | None = None
    append: str = ""
    root: PurePosixPath | None = None
    root_bytes: int = 0
    processors: int = 1
    image: PurePosixPath | None = None
    scratch: bool = False


def build_qemu(machine: Machine, descriptors: Descriptors, role: Role) -> tuple[str, ...]:
    """QEMU's words, in the order of what they are about.

    It waits for `cont` on its monitor; a clone waits for its state (`migrate-incoming`).
    """
    words = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-name", "silo,process=silo-vm"]
    words += ["-M", _MACHINE, "-accel", machine.accelerator.value]
    words += ["-cpu", "host" if machine.accelerator is Accelerator.KVM else _EMULATED_PROCESSOR]
    words += ["-smp", str(machine.processors)]
    words += ["-m", _memory_words(machine)]
    words += ["-object", _memory(machine, descriptors, role)]
    words += ["-sandbox", _SANDBOX]
    # A guest that resets itself has ended: containers are restarted by their policy, not by their guest.
    words += ["-no-reboot", "-rtc", "base=utc,clock=host"]
    words += [
        "-chardev",
        f"socket,id=monitor,fd={descriptors.monitor},server=on,wait=off",
        "-mon",
        "chardev=monitor,mode=control",
    ]
    words += ["-chardev", f"socket,id=console,fd={descriptors.console}", "-serial", "chardev:console"]
    words += ["-device", "virtio-serial-pci,id=serial,max_ports=2"]
    words += ["-chardev", f"socket,id=agent,fd={descriptors.agent},server=on,wait=off"]
    words += ["-device", f"virtserialport,bus=serial.0,chardev=agent,name={PORT_NAME}"]
    words += ["-device", "virtio-rng-pci", "-device", "virtio-balloon-pci,id=balloon,free-page-reporting=on"]
    for number in range(HOT_PLUGS):
        words += ["-device", f"pcie-root-port,id={hot_plug_bus(number)},chassis={number + 1},slot={number + 1}"]
    words += _boot(machine)
    words += _disks(machine, descriptors)
    words += ["-incoming", "defer"] if role is Role.CLONE else ["-S"]
    return tuple(words)


def _memory_words(machine: Machine) -> str:
    """A mapped root image takes addresses above the memory."""
    mebibytes = machine.memory_bytes >> 20
    if not machine.root:
        return f"{mebibytes}M"
    return f"{mebibytes}M,maxmem={mebibytes + (machine.root_bytes >> 20) + 1024}M"


def _memory(machine: Machine, descriptors: Descriptors, role: Role) -> str:
    size = f"id=ram,size={machine.memory_bytes}"
    if descriptors.memory < 0:
        return f"memory-backend-ram,{size}"
    share = "on" if role is Role.TEMPLATE else "off"
    return f"memory-backend-file,{size},mem-path=/dev/fd/{descriptors.memory},share={share}"


def _boot(machine: Machine) -> list[str]:
    words: list[str] = []
    if machine.kernel is not None:
        words += ["-kernel", str(machine.kernel)]
    if machine.initrd is not None:
        words += ["-initrd", str(machine.initrd)]
    if machine.append:
        words += ["-append", machine.append]
    if machine.root is not None:
        backend = f"id=root,mem-path={machine.root},size={machine.root_bytes}"
        words += ["-object", f"memory-backend-file,{backend},share=on,readonly=on"]
        words += ["-device", "virtio-pmem-pci,memdev=root,id=pmem-root"]
    return words


def _disks(machine: Machine, descriptors: Descriptors) -> list[str]:
    words: list[str] = []
    if machine.image is not None:
        words += ["-blockdev", f"raw,node-name={IMAGE},read-only=on,file.driver=file,file.filename={machine.image}"]
        words += ["-device", f"virtio-blk-pci,drive={IMAGE},serial={IMAGE},id=disk-{IMAGE}"]
    if machine.scratch:
        for descriptor in descriptors.scratch or ():
            words += ["-add-fd", f"fd={descriptor},set={_SCRATCH_SET}"]
        backend = f"file.driver=file,file.filename=/dev/fdset/{_SCRATCH_SET}"
        words += ["-blockdev", f"raw,node-name={SCRATCH},discard=unmap,{backend}"]
        words += ["-device", f"virtio-blk-pci,drive={SCRATCH},serial={SCRATCH},id=disk-{SCRATCH}"]
    return words
