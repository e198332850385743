"""QEMU's command line: a pure function from a machine to its words.

Measured choices (QEMU 7.2, TCG): q35 with everything unneeded left out; microvm boots as fast and failed under load. A template and
its clones get the same words but for `share` and `-incoming`: a saved state fits only the very machine that it was saved from.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath

from silo.isolation.vm.jail import FOLDERS, QEMU
from silo.model.guest_frames import PORT_NAME

_MACHINE = "q35,graphics=off,smbus=off,sata=off,hpet=off,vmport=off,usb=off,memory-backend=ram"
# With SMAP, every process of Wine's dies under TCG 7.2 (the guest's kernel complains "exited with irqs disabled").
_EMULATED_PROCESSOR = "max,-smap"
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


HOT_PLUGS = 4
"""Empty places of a template that its clones fill: further networks."""

FOLDERS_ID = "folders"
NIC_ID, NIC_HUB, NIC_MAC = "nic0", 0, "02:53:49:4c:4f:00"
"""The first network interface. Whatever shall carry its frames is plugged into its hub later; its address is set in the guest."""

MAPPED_BYTES = 1 << 30
"""The size of the slot for an image that is mapped into the guest; the guest pays 16 MiB for it, which all clones share."""
IMAGE_BYTES = 64 << 30
"""The size of the slot for an image that comes as a disk; like all slots it has one size, because a clone's devices must be
the template's. Files are sparse up to it."""


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
    """What the daemon has made and passes on; -1 stands for nothing.

    `monitor` and `agent` are listening sockets, which a daemon that comes again finds by their paths; `console` is connected, and
    lost with the daemon; `memory` holds the guest's memory (-1: QEMU makes its own); `scratch` is a disk to write to.
    """

    monitor: int
    agent: int
    console: int
    memory: int = -1
    scratch: int = -1

    def passed(self) -> tuple[int, ...]:
        every = (self.monitor, self.agent, self.console, self.memory, self.scratch)
        return tuple(descriptor for descriptor in every if descriptor >= 0)


@dataclass(frozen=True, slots=True)
class Machine:
    """A VM. Paths are the jail's.

    `root` is the guest's root image, mapped into it (virtio-pmem), its size a multiple of 2 MiB: /dev/pmem0. A machine with `slots`
    has what a container needs: /dev/pmem1 is the file MAPPED, /dev/vda the file IMAGE, /dev/vdb the scratch, FOLDERS_ID
    a 9p file system, and the first network interface.
    """

    memory_bytes: int
    accelerator: Accelerator
    kernel: PurePosixPath | None = None
    initrd: PurePosixPath | None = None
    append: str = ""
    root: PurePosixPath | None = None
    root_bytes: int = 0
    processors: int = 1
    slots: bool = False


MAPPED, IMAGE = "/guest/mapped", "/guest/image"


_ACCELERATORS = {
    Accelerator.KVM: "kvm",
    # translated code has to fit into the machine's control group (shapes.OVERHEAD_BYTES)
    Accelerator.TCG: "tcg,tb-size=512",
}


def build_qemu(machine: Machine, descriptors: Descriptors, role: Role) -> tuple[str, ...]:
    """QEMU's words, in the order of what they are about.

    It waits for `cont` on its monitor; a clone waits for its state (`migrate-incoming`).
    """
    words = [QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-name", "silo,process=silo-vm"]
    words += ["-M", _MACHINE, "-accel", _ACCELERATORS[machine.accelerator]]
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
    # Free pages of a clone cannot be given back: QEMU would take them out of the template's file, whose seals forbid it.
    reporting = ",free-page-reporting=on" if descriptors.memory < 0 else ""
    words += ["-device", "virtio-rng-pci", "-device", f"virtio-balloon-pci,id=balloon{reporting}"]
    for number in range(HOT_PLUGS):
        words += ["-device", f"pcie-root-port,id={hot_plug_bus(number)},chassis={number + 1},slot={number + 1}"]
    words += _boot(machine)
    if machine.slots:
        words += _slots(descriptors.scratch)
    words += ["-incoming", "defer"] if role is Role.CLONE else ["-S"]
    return tuple(words)


def _memory_words(machine: Machine) -> str:
    """Mapped images take addresses above the memory."""
    mebibytes = machine.memory_bytes >> 20
    if not machine.root:
        return f"{mebibytes}M"
    mapped = machine.root_bytes + (MAPPED_BYTES if machine.slots else 0)
    return f"{mebibytes}M,maxmem={mebibytes + (mapped >> 20) + 1024}M"


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
        words += _mapped("root", machine.root, machine.root_bytes)
    return words


def _mapped(name: str, path: PurePosixPath, size_bytes: int) -> list[str]:
    backend = f"memory-backend-file,id={name},mem-path={path},size={size_bytes},share=on,readonly=on"
    return ["-object", backend, "-device", f"virtio-pmem-pci,memdev={name},id=pmem-{name}"]


def _slots(scratch: int) -> list[str]:
    words = _mapped("mapped", PurePosixPath(MAPPED), MAPPED_BYTES)
    words += ["-blockdev", f"driver=file,node-name=image-file,filename={IMAGE},read-only=on,auto-read-only=off"]
    words += ["-blockdev", "driver=raw,node-name=image,file=image-file,read-only=on"]
    words += ["-device", "virtio-blk-pci,drive=image,serial=image"]
    words += ["-add-fd", f"fd={scratch},set=1"]
    words += ["-blockdev", "driver=file,node-name=scratch-file,filename=/dev/fdset/1,discard=unmap"]
    words += ["-blockdev", "driver=raw,node-name=scratch,file=scratch-file,discard=unmap"]
    words += ["-device", "virtio-blk-pci,drive=scratch,serial=scratch,discard=on"]
    words += ["-fsdev", f"local,id={FOLDERS_ID},path={FOLDERS},security_model=passthrough,multidevs=remap"]
    words += ["-device", f"virtio-9p-pci,fsdev={FOLDERS_ID},mount_tag={FOLDERS_ID}"]
    words += ["-netdev", f"hubport,id={NIC_ID},hubid={NIC_HUB}"]
    # A clone has been migrated, of which QEMU would have the guest tell its neighbours for half a second. Debian's 6.12 deadlocks
    # when the interface is taken down meanwhile (virtnet_close waits, with the lock of all interfaces, for who wants that lock).
    words += ["-device", f"virtio-net-pci,netdev={NIC_ID},mac={NIC_MAC},romfile="]
    words += ["-global", "virtio-net-device.guest_announce=off"]
    return words
