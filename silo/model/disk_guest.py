"""A whole disk as a guest: a virtual machine that boots somebody's operating system, without an image and without our agent.

Asked for by labels of the request, because Docker's API, its client and compose have no other words for it; `silo run --disk` sets
them. Labels of images are never looked at: an image must not be able to open a disk of the host.
"""

from __future__ import annotations

import enum
from pathlib import Path

import msgspec

from silo.model.image import Image, ImageConfig
from silo.model.platform import Platform

DISK_LABEL = "com.silo.disk"
"""The path; options are labels beneath it (com.silo.disk.bus, …)."""
_SHUTDOWN_S = 60


class DiskFormat(enum.StrEnum):
    RAW = "raw"
    QCOW2 = "qcow2"
    VHDX = "vhdx"
    VMDK = "vmdk"


class Firmware(enum.StrEnum):
    UEFI = "uefi"
    BIOS = "bios"


class DiskBus(enum.StrEnum):
    VIRTIO = "virtio"
    SATA = "sata"


class NetworkCard(enum.StrEnum):
    VIRTIO = "virtio"
    E1000 = "e1000"


class DiskGuest(msgspec.Struct, frozen=True, kw_only=True):
    """`persist`: what the guest writes goes into the file itself; otherwise into the container's scratch, the file stays as it is.

    `tpm`: a TPM 2.0 of its own.
    """

    path: Path
    format: DiskFormat
    firmware: Firmware = Firmware.UEFI
    bus: DiskBus = DiskBus.VIRTIO
    nic: NetworkCard = NetworkCard.VIRTIO
    tpm: bool = False
    persist: bool = False


DISK_IMAGE = Image(
    id="",
    platform=Platform(os="linux", architecture="amd64"),
    # An operating system is shut down, which takes longer than a program's end.
    config=ImageConfig(stop_timeout_s=_SHUTDOWN_S),
)
"""Stands for the image of a container that has none."""
