"""Disks that a user may bring, looked at by a real QEMU in its jail: what is run, and what is refused with the way out."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest

from silo.errors import Conflict, InvalidRequest, NotFound
from silo.isolation.vm.whole.disk import OpenDisk, ensure_overlay, open_disk
from silo.model.disk_guest import DiskFormat, DiskGuest
from tests.support.processes import until_gone
from tests.system.vm_whole.machines import UID, require_machines

SIZE = 64 << 20


@pytest.fixture(autouse=True)
def machines() -> None:
    require_machines()


def image(*words: str | Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", *words], check=True, capture_output=True)


def make(folder: Path, disk_format: str, *options: str) -> Path:
    disk = folder / f"disk.{disk_format}"
    image("-f", disk_format, *options, disk, str(SIZE))
    if disk_format == "raw":
        with open(disk, "r+b") as file:
            file.seek(510)
            file.write(b"\x55\xaa")
    disk.chmod(0o600)
    return disk


def look(disk: Path, disk_format: str, *, persist: bool = False) -> OpenDisk:
    """Nothing of the look is left."""
    guest = DiskGuest(path=disk, format=DiskFormat(disk_format), persist=persist)
    opened = asyncio.run(open_disk(guest, uid=UID))
    until_gone(UID)
    return opened


def refused(disk: Path, disk_format: str, *, persist: bool = False) -> str:
    with pytest.raises(InvalidRequest) as raised:
        look(disk, disk_format, persist=persist)
    return str(raised.value)


@pytest.mark.parametrize("disk_format", list(DiskFormat))
def test_every_format_whoever_the_file_belongs_to(tmp_path: Path, disk_format: DiskFormat) -> None:
    tmp_path.chmod(0o700)
    disk = make(tmp_path, disk_format)
    for persist in (False, True):
        opened = look(disk, disk_format, persist=persist)
        assert (opened.format, opened.size_bytes) == (disk_format, SIZE)
        opened.close()


def test_a_compressed_vmdk_can_be_read_and_not_written(tmp_path: Path) -> None:
    disk = make(tmp_path, "vmdk", "-o", "subformat=streamOptimized")
    look(disk, "vmdk").close()
    assert "compressed VMDK" in refused(disk, "vmdk", persist=True)


@pytest.mark.parametrize("disk_format", ["qcow2", "vmdk"])
def test_a_backing_file_is_refused(tmp_path: Path, disk_format: str) -> None:
    base, disk = make(tmp_path, disk_format), tmp_path / "top"
    image("-f", disk_format, "-b", base, "-F", disk_format, disk)
    message = refused(disk, disk_format)
    assert "names a backing file" in message and "qemu-img convert" in message


def test_contents_in_other_files_are_refused(tmp_path: Path) -> None:
    image("-f", "qcow2", "-o", f"data_file={tmp_path}/data,data_file_raw=on", tmp_path / "external.qcow2", str(SIZE))
    assert "contents in another file" in refused(tmp_path / "external.qcow2", "qcow2")
    image("-f", "vmdk", "-o", "subformat=monolithicFlat", tmp_path / "flat.vmdk", str(SIZE))
    assert "contents lie in other files" in refused(tmp_path / "flat.vmdk", "vmdk")


def test_a_vmdk_whose_embedded_description_names_another_file(tmp_path: Path) -> None:
    """A sparse VMDK of no capacity is a description alone; this one wants the host's own files."""
    disk = make(tmp_path, "vmdk")
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(SIZE))
    data = bytearray(disk.read_bytes())
    data[12:20] = bytes(8)
    sectors = SIZE // 512
    text = (
        "# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=ffffffff\n"
        f'createType="monolithicFlat"\nRW {sectors} FLAT "{secret}" 0\n'
    )
    start = int.from_bytes(data[28:36], "little") * 512
    length = int.from_bytes(data[36:44], "little") * 512
    data[start : start + length] = text.encode().ljust(length, b"\0")
    disk.write_bytes(data)
    message = refused(disk, "vmdk")
    assert "vmdk" in message and "cannot be opened" in message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#!/bin/sh\n" * 100,
        b"QFI\xfb",
        b"QFI\xfb" + bytes(4096),
        b"QFI\xfb\0\0\0\3" + b"\xff" * 4096,
        b"KDMV" + b"\xff" * 65536,
        b"vhdxfile" + bytes(1 << 20),
        bytes(SIZE),
        bytes(510) + b"\x55\xaa" + b"x",
    ],
    ids=["empty", "script", "cut", "zeros", "ones", "vmdk", "vhdx", "blank", "uneven"],
)
def test_what_is_no_disk(tmp_path: Path, content: bytes) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(content)
    for disk_format in DiskFormat:
        refused(disk, disk_format)


def test_places_that_are_no_files(tmp_path: Path) -> None:
    assert "a directory" in refused(tmp_path, "raw")
    os.mkfifo(tmp_path / "fifo")
    assert "a disk is a file" in refused(tmp_path / "fifo", "raw")
    assert "a disk is a file" in refused(Path("/dev/zero"), "raw")
    with pytest.raises(NotFound):
        look(tmp_path / "nothing", "raw")


def test_one_may_write_and_many_may_read(tmp_path: Path) -> None:
    disk = make(tmp_path, "qcow2")
    first, second = look(disk, "qcow2"), look(disk, "qcow2")
    with pytest.raises(Conflict, match="used by another machine"):
        look(disk, "qcow2", persist=True)
    first.close()
    second.close()
    writer = look(disk, "qcow2", persist=True)
    with pytest.raises(Conflict, match="written to by another machine"):
        look(disk, "qcow2")
    writer.close()


def test_an_overlay_belongs_to_the_disk_as_it_was(tmp_path: Path) -> None:
    disk, store = make(tmp_path, "raw"), tmp_path / "store"
    store.mkdir()
    opened = look(disk, "raw")
    overlay = ensure_overlay(store, opened)
    inode = overlay.stat().st_ino
    assert ensure_overlay(store, opened) == overlay and overlay.stat().st_ino == inode
    opened.close()
    with open(disk, "r+b") as file:
        file.write(b"changed")
    opened = look(disk, "raw")
    with pytest.raises(Conflict, match="has changed since"):
        ensure_overlay(store, opened)
    opened.close()
