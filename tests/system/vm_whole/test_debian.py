"""A real Debian on a disk of its own: booted by BIOS and by UEFI, spoken to by its agent, stopped, kept or not."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from silo.errors import Conflict, GuestError, NotFound, ProcessStartFailed, Unavailable
from silo.isolation.vm.whole.command import FIRMWARE_CODE
from silo.isolation.vm.whole.disk import open_disk
from silo.isolation.vm.whole.guest import WholeGuest
from silo.isolation.vm.whole.guest_files import one_piece
from silo.isolation.vm.whole.launch import SWTPM
from silo.model.disk_guest import DiskBus, DiskFormat, DiskGuest, Firmware, NetworkCard
from tests.support.probes import require
from tests.support.processes import until_gone
from tests.system.vm_whole.machines import (
    UID,
    booted,
    cgroup,
    debian,
    digest,
    network,
    plan,
    run,
    scenario,
)


@pytest.fixture(scope="module")
def disk() -> Path:
    return debian()


def raw(path: Path, *, persist: bool = False) -> DiskGuest:
    return DiskGuest(path=path, format=DiskFormat.RAW, persist=persist)


def check_jail(guest: WholeGuest, *, files: set[str]) -> None:
    """Nobody of the host's, without any file of the user's."""
    process = Path(f"/proc/{guest.process.pid}")
    assert {path.name for path in (process / "root/guest").iterdir()} == files
    fields = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    assert set(fields["Uid"].split()) == {str(UID)} and int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


async def check_programs(guest: WholeGuest) -> None:
    assert await run(guest, "echo out; echo err >&2; exit 37") == ("out\n", "err\n", 37)
    assert (await run(guest, "kill -9 $$"))[2] == 137
    assert await run(
        guest, "cat; echo $NAME; pwd; id -un", env=["NAME=a b"], cwd="/var", user="nobody", input=b"in\n"
    ) == (
        "in\na b\n/var\nnobody\n",
        "",
        0,
    )
    with pytest.raises(ProcessStartFailed) as failed:
        await guest.execute(("/no/such/program",))
    assert failed.value.kind == "not_found"
    long = await guest.execute(("/bin/sh", "-c", "head -c 3000000 /dev/zero"))
    assert long.untrusted_stdout == bytes(3_000_000) and not long.truncated
    pid = await guest.start_program(("/bin/sleep", "1000"))
    await guest.signal(pid, signal.SIGTERM)
    assert (await guest.agent.wait(pid)).code == 128 + 15


async def check_files(guest: WholeGuest) -> None:
    files = await guest.files()
    content = os.urandom(700_000)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in (("tree/one", b"1"), ("tree/sub/two", content)):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o640
            archive.addfile(entry, io.BytesIO(data))
    await files.archive_in("/root", one_piece(packed.getvalue()))
    assert (await run(guest, "stat -c '%a %U %s' /root/tree/sub/two"))[0] == "640 root 700000\n"
    back = b"".join([piece async for piece in files.archive_out("/root/tree")])
    with tarfile.open(fileobj=io.BytesIO(back)) as archive:
        assert set(archive.getnames()) == {"tree", "tree/one", "tree/sub", "tree/sub/two"}
        member = archive.extractfile("tree/sub/two")
        assert member is not None and member.read() == content
    assert b"".join([piece async for piece in files.read("/root/tree/one")]) == b"1"
    await run(guest, "ln -s /root/tree /root/link")
    status = await files.stat("/root/link")
    assert (status.name, status.link, status.target_mode & 0o170000) == ("link", "/root/tree", 0o040000)
    assert (await files.stat("/root/tree/sub/two")).size == len(content)
    with pytest.raises(NotFound):
        await files.stat("/no/such")
    with pytest.raises(NotFound):
        [piece async for piece in files.archive_out("/no/such")]
    with pytest.raises(GuestError):
        await files.archive_in("/root", one_piece(b"no archive" * 100))
    assert await run(guest, "ls /var/tmp | grep silo") == ("", "", 1)


async def check_statistics(guest: WholeGuest) -> None:
    first = await guest.statistics()
    await run(guest, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done")
    second = await guest.statistics()
    assert second.cpu_total_ns > first.cpu_total_ns > 0
    assert 0 < second.memory_bytes < second.memory_limit_bytes and second.block_read_bytes > 1 << 20
    names = {interface.name for interface in await guest.agent.interfaces()}
    assert "lo" in names


async def check_screen(guest: WholeGuest) -> None:
    loop = asyncio.get_running_loop()
    with await guest.screen.connect() as screen:
        assert await loop.sock_recv(screen, 12) == b"RFB 003.008\n"
    reader, writer = await asyncio.open_unix_connection(str(guest.directory / "screen.sock"))
    assert await reader.readexactly(12) == b"RFB 003.008\n"
    writer.close()


async def check_network(guest: WholeGuest) -> None:
    """A tap that comes later, goes, and comes again; what is sent without one is lost, and holds nothing up."""
    ping, carrier = "busybox ping -c 3 -W 2 10.77.0.1 > /dev/null", "cat /sys/class/net/eth0/carrier"
    await run(guest, "busybox ip link set eth0 up; busybox ip addr add 10.77.0.2/24 dev eth0")
    assert (await run(guest, f"{ping}; {carrier}"))[0] == "0\n"
    with network("10.77.0.1/24") as tap:
        await guest.plug_network(tap)
        assert (await run(guest, ping))[2] == 0
        await guest.unplug_network()
        assert (await run(guest, f"{ping}; {carrier}"))[0] == "0\n"
        await guest.plug_network(tap)
        assert (await run(guest, ping))[2] == 0
    (eth0,) = (interface for interface in await guest.agent.interfaces() if interface.name == "eth0")
    assert "10.77.0.2" in {address.ip_address for address in eth0.ip_addresses}


@pytest.mark.timeout(600)
def test_bios_virtio_exec_files_stats_adoption_stop_and_the_users_file_untouched(disk: Path, tmp_path: Path) -> None:
    before = digest(disk)

    async def body(entry_files: tuple[str, ...], members: Callable[[], tuple[int, ...]]) -> None:
        the_plan = plan(tmp_path, disk, cgroup_files=entry_files)
        async with booted(the_plan) as guest:
            assert guest.process.pid in members()
            check_jail(guest, files=set())
            assert (await guest.os_info()).id == "debian"
            await check_programs(guest)
            await check_files(guest)
            await check_statistics(guest)
            await check_screen(guest)
            await check_network(guest)
            # a snapshot's base may be read by others, not written to
            with contextlib.closing(await open_disk(raw(disk), uid=UID + 1)):
                pass
            with pytest.raises(Conflict, match="used by another machine"):
                await open_disk(raw(disk, persist=True), uid=UID + 1)
            guest.close()
            with pytest.raises(Unavailable):
                await guest.wait()
            again = await WholeGuest.adopt(the_plan.directory)
            assert again is not None and again.process.pid == guest.process.pid
            assert (await run(again, "ls /root/tree; echo kept > /root/kept; sync"))[2] == 0
            ending = asyncio.create_task(again.wait())
            began = time.monotonic()
            assert await again.stop(90), again.console.last_lines()
            print(f"stopped in {time.monotonic() - began:.1f} s")
            assert (await ending).code == 0
            assert await WholeGuest.adopt(the_plan.directory) is None

    with cgroup() as (entry_files, members):
        scenario(body(entry_files, members))
    until_gone(UID)
    assert {path.name for path in (tmp_path / "run").iterdir()} <= {"qemu.log"}
    assert digest(disk) == before
    assert (tmp_path / "store/overlay.qcow2").stat().st_size > 1 << 20

    async def again() -> None:
        """The container's own changes are there when it starts again; killed, nothing of it runs."""
        written = bytearray()
        with network("10.77.0.1/24") as tap:
            async with booted(plan(tmp_path, disk), tap=tap, on_output=written.extend) as guest:
                assert (await run(guest, "cat /root/kept"))[0] == "kept\n"
                await run(guest, "echo said > /dev/ttyS0; busybox ip link set eth0 up; sleep 1")
                assert b"said" in written
                assert (await run(guest, "cat /sys/class/net/eth0/carrier"))[0] == "1\n"
                ending = asyncio.create_task(guest.wait())
                os.kill(guest.process.pid, signal.SIGKILL)
                assert (await ending).code == 137
                with pytest.raises(Unavailable):
                    await guest.execute(("/bin/true",))

    scenario(again())
    until_gone(UID)


@pytest.mark.timeout(600)
def test_uefi_sata_e1000_tpm_and_a_persistent_disk(disk: Path, tmp_path: Path) -> None:
    require("OVMF", FIRMWARE_CODE.exists(), f"{FIRMWARE_CODE} is not there; apt-get install ovmf")
    require("swtpm", SWTPM.exists(), f"{SWTPM} is not there; apt-get install swtpm")
    own = tmp_path / "own.raw"
    shutil.copyfile(disk, own)
    before = digest(own)
    options = {"firmware": Firmware.UEFI, "bus": DiskBus.SATA, "nic": NetworkCard.E1000, "tpm": True, "persist": True}

    async def body() -> None:
        async with booted(plan(tmp_path, own, **options, mac="02:53:49:4c:4f:07")) as guest:
            check_jail(guest, files={"firmware.fd"})
            assert (await run(guest, "test -d /sys/firmware/efi && test -e /dev/tpm0 && echo both"))[0] == "both\n"
            # Intel's 82540EM, whose driver this kernel lacks
            assert "8086:100E" in (await run(guest, "cat /sys/bus/pci/devices/*/uevent"))[0].upper()
            assert (await run(guest, "test -b /dev/sda && echo sata"))[0] == "sata\n"
            with pytest.raises(Conflict, match="written to by another machine"):
                await open_disk(raw(own), uid=UID + 1)
            await run(guest, "echo kept > /root/kept; sync")
            await guest.pause()
            assert await guest.stop(90), guest.console.last_lines()

    scenario(body())
    until_gone(UID)
    assert digest(own) != before and b"kept\n" in own.read_bytes()
    names = {path.name for path in (tmp_path / "store").iterdir()}
    assert names == {"variables.fd", "tpm"} and any((tmp_path / "store/tpm").iterdir())


@pytest.mark.timeout(600)
def test_a_vmdk_by_uefi_and_the_power_button_where_the_agent_is_gone(disk: Path, tmp_path: Path) -> None:
    converted = tmp_path / "debian.vmdk"
    subprocess.run(["qemu-img", "convert", "-O", "vmdk", disk, converted], check=True)
    before = digest(converted)
    # this small guest has nobody who listens to the button; any event, of 24 bytes, is the button's
    there = "until grep -qs 'Power Button' /sys/class/input/event*/device/name; do sleep 0.2; done"
    listen = f"{there}; for each in /dev/input/event*; do (head -c 24 $each && systemctl poweroff --force) & done"
    leave = "(sleep 1; systemctl stop --no-block qemu-guest-agent) >/dev/null 2>&1 &"

    async def body() -> None:
        options = {"format": DiskFormat.VMDK, "firmware": Firmware.UEFI}
        async with booted(plan(tmp_path, converted, **options)) as guest:
            words = ("systemd-run", "--quiet", "--unit=button", "/bin/sh", "-c", f"{listen}; wait")
            assert (await guest.execute(words)).code == 0
            await run(guest, f"{leave} exit 0")
            with pytest.raises(Unavailable):
                # a busy host takes its time
                for _ in range(30):
                    await asyncio.sleep(1)
                    await guest.agent.ping(1)
            ending = asyncio.create_task(guest.wait())
            assert await guest.stop(90), guest.console.last_lines()
            assert (await ending).code == 0

    scenario(body())
    until_gone(UID)
    assert digest(converted) == before
