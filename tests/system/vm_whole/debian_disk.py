"""A small real Debian on a disk of its own, as a user would bring one: GPT, bootable by UEFI (systemd-boot) and by BIOS (syslinux).

Made without loop devices and mounts: the parts are written into one file at their offsets. Kept under SILO_TEST_BASE_ROOT by the
hash of this file, so that only the first run fetches packages.

    <SILO_TEST_BASE_ROOT>/whole-disk/<hash>/debian.raw
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from silo.debian.mirror import SUITE, find_mirror

# in packages: what has to be installed on the host to make the disk
TOOLS = {
    "mmdebstrap": "mmdebstrap",
    "mcopy": "mtools",
    "mkfs.vfat": "dosfstools",
    "sfdisk": "fdisk",
    "syslinux": "syslinux",
    "mke2fs": "e2fsprogs",
}
BOOT_LOADER = Path("/usr/lib/systemd/boot/efi/systemd-bootx64.efi")
"""Of the package systemd-boot-efi."""
BIOS_CODE = Path("/usr/lib/syslinux/mbr/gptmbr.bin")
"""Of the package syslinux-common."""

_PACKAGES = "systemd-sysv,udev,kmod,initramfs-tools,zstd,busybox-static,linux-image-cloud-amd64,qemu-guest-agent"
_UNWANTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_MIB = 1 << 20
_BOOT_START, _BOOT_BYTES, _ROOT_BYTES = _MIB, 96 * _MIB, 400 * _MIB
_ROOT_START = _BOOT_START + _BOOT_BYTES
_DISK_BYTES = _ROOT_START + _ROOT_BYTES + _MIB
_ROOT_UUID = "5f1d9f0e-6a0c-4f0b-9d53-0d15c0de5110"
_COMMAND_LINE = (
    f"root=UUID={_ROOT_UUID} rw console=ttyS0 quiet panic=-1 systemd.default_timeout_start_sec=300 "
    "fsck.mode=skip net.ifnames=0"
)
# Everything that a small guest without a user does not need costs seconds of emulated time.
_MASKED = (
    "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer getty@tty1.service "
    "e2scrub_reap.service systemd-pcrphase.service systemd-pcrphase-sysinit.service systemd-tpm2-setup.service "
    "systemd-tpm2-setup-early.service systemd-pcrmachine.service systemd-timesyncd.service systemd-networkd.service "
    "systemd-update-utmp.service systemd-random-seed.service systemd-journal-flush.service systemd-binfmt.service "
    "serial-getty@ttyS0.service"
)
_MODULES = "virtio_pci virtio_blk virtio_net virtio_balloon ahci sd_mod ext4"


def ensure_disk(base_root: Path) -> Path:
    """The raw disk; it is to be left as it is. Raises CalledProcessError with what the tools said."""
    key = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    results = base_root / "whole-disk"
    results.mkdir(parents=True, exist_ok=True)
    with open(results / ".lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finished = results / key / "debian.raw"
        if not finished.exists():
            for outdated in results.iterdir():
                if outdated.is_dir():
                    shutil.rmtree(outdated)
            with tempfile.TemporaryDirectory(prefix=".building-", dir=results) as scratch:
                _make_disk(Path(scratch))
                finished.parent.mkdir()
                (Path(scratch) / "debian.raw").rename(finished)
    return finished


def _run(*argv: str | Path, text: str = "") -> None:
    done = subprocess.run(argv, input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def _make_disk(scratch: Path) -> None:
    root, disk = scratch / "root", scratch / "debian.raw"
    _install(root)
    kernel, initrd = (next((root / "boot").glob(f"{name}-*")) for name in ("vmlinuz", "initrd.img"))
    with open(disk, "wb") as file:
        file.truncate(_DISK_BYTES)
    _run("sfdisk", "--quiet", disk, text=_partitions())
    with open(disk, "r+b") as file:
        file.write(BIOS_CODE.read_bytes())
    _fill_boot(disk, scratch, kernel, initrd)
    for file_in_boot in (root / "boot").iterdir():
        file_in_boot.unlink()
    place = ("-E", f"offset={_ROOT_START},root_owner=0:0", "-U", _ROOT_UUID)
    _run("mke2fs", "-q", "-t", "ext4", "-F", *place, "-d", root, disk, f"{_ROOT_BYTES // 1024}k")
    shutil.rmtree(root)


def _install(root: Path) -> None:
    modules = f'echo "{_MODULES}" | tr " " "\\n" >> "$1/etc/initramfs-tools/modules"'
    hooks = (
        'mkdir -p "$1/etc/initramfs-tools/conf.d"',
        'printf "MODULES=list\\nCOMPRESS=zstd\\n" > "$1/etc/initramfs-tools/conf.d/small"',
        modules,
        'chroot "$1" update-initramfs -u',
        f'for unit in {_MASKED}; do ln -sf /dev/null "$1/etc/systemd/system/$unit"; done',
        'echo whole-guest > "$1/etc/hostname"',
    )
    words = [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        "--mode=root",
        "--format=directory",
        f"--include={_PACKAGES}",
    ]
    words += [f"--dpkgopt=path-exclude={pattern}" for pattern in _UNWANTED]
    words += [f"--customize-hook={hook}" for hook in hooks]
    _run(*words, SUITE, root, find_mirror())


def _partitions() -> str:
    """`LegacyBIOSBootable` is how syslinux's boot code finds its partition."""
    boot = f"start={_BOOT_START // 512}, size={_BOOT_BYTES // 512}, type=uefi, attrs=LegacyBIOSBootable"
    root = f"start={_ROOT_START // 512}, size={_ROOT_BYTES // 512}, type=linux"
    return f"label: gpt\n{boot}\n{root}\n"


def _fill_boot(disk: Path, scratch: Path, kernel: Path, initrd: Path) -> None:
    """One FAT for both: the UEFI boot loader at its fixed place, syslinux, and the same kernel."""
    part = scratch / "boot.fat"
    with open(part, "wb") as file:
        file.truncate(_BOOT_BYTES)
    _run("mkfs.vfat", "-F", "32", "-n", "BOOT", part)
    entry = f"title Debian\nlinux /vmlinuz\ninitrd /initrd.img\noptions {_COMMAND_LINE}\n"
    syslinux = (
        f"DEFAULT debian\nPROMPT 0\nLABEL debian\n  LINUX /vmlinuz\n  INITRD /initrd.img\n  APPEND {_COMMAND_LINE}\n"
    )
    texts = {"loader.conf": "timeout 0\neditor no\n", "debian.conf": entry, "syslinux.cfg": syslinux}
    for name, text in texts.items():
        (scratch / name).write_text(text)
    _run("mmd", "-i", part, "::/EFI", "::/EFI/BOOT", "::/loader", "::/loader/entries")
    places = {
        "EFI/BOOT/BOOTX64.EFI": BOOT_LOADER,
        "loader/loader.conf": scratch / "loader.conf",
        "loader/entries/debian.conf": scratch / "debian.conf",
        "syslinux.cfg": scratch / "syslinux.cfg",
        "vmlinuz": kernel,
        "initrd.img": initrd,
    }
    for place, source in places.items():
        _run("mcopy", "-i", part, source, f"::/{place}")
    _run("syslinux", "--install", part)
    _run("dd", f"if={part}", f"of={disk}", "bs=1M", f"seek={_BOOT_START // _MIB}", "conv=notrunc,sparse", "status=none")
