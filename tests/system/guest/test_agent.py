"""What a daemon relies on of the agent, with real programs in a real crun container."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from silo.errors import Conflict, InvalidRequest, NotFound, ProcessStartFailed, SiloError, Unsupported
from silo.model.guest_frames import REQUEST, SYNC, encode_frame
from tests.system.guest.conftest import Machine, read_all


async def test_a_program_runs_and_its_output_and_exit_code_are_known(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.shell("echo out; echo err >&2; id -u; exit 7")
    assert await read_all(program.stdout) == b"out\n0\n"
    assert await read_all(program.stderr) == b"err\n"
    exit = await program.wait()
    assert exit.code == 7
    assert exit.ends == {str(program.stdout.number): 6, str(program.stderr.number): 4}
    await machine.guest.release(program)
    again = await machine.shell("echo again")
    assert await read_all(again.stdout) == b"again\n"


async def test_a_container_waits_for_the_reseeding(machine: Machine) -> None:
    greeting = await machine.connect()
    assert not greeting.reseeded
    with pytest.raises(Conflict):
        await machine.shell("true")
    with pytest.raises(InvalidRequest):
        await machine.client.request("reseed", {"entropy": "00" * 8})
    params = {"entropy": os.urandom(32).hex(), "hostname": "clone-1", "machine_id": "0123456789abcdef" * 2}
    await machine.client.request("reseed", params)
    assert (machine.place / "etc/machine-id").read_text() == "0123456789abcdef" * 2 + "\n"


async def test_input_reaches_the_program_and_ends(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.shell("wc -c; exit 3", stdin=True)
    data = SYNC + os.urandom(700_000) + SYNC[:13]
    await program.stdin.write(data)
    program.stdin.close()
    assert (await read_all(program.stdout)).strip() == str(len(data)).encode()
    assert (await program.wait()).code == 3


async def test_a_terminal_and_its_size(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.shell("stty size; read line; stty size; echo got $line", tty=True, stdin=True)
    assert program.stderr is None
    assert (await program.stdout.read()).startswith(b"24 80")
    await machine.guest.resize("c1", 30, 100)
    await program.stdin.write(b"hello\n")
    rest = await read_all(program.stdout)
    assert b"30 100" in rest
    assert b"got hello" in rest
    assert (await program.wait()).code == 0


async def test_programs_in_the_running_container(machine: Machine) -> None:
    await machine.prepare()
    main = await machine.shell("sleep 100")
    first, second = await asyncio.gather(
        machine.guest.execute("e1", "c1", machine.process_of("echo", "one"), wanted=(False, True, True)),
        machine.guest.execute("e2", "c1", machine.process_of("sh", "-c", "cat; exit 9"), wanted=(True, True, False)),
    )
    await second.stdin.write(b"two")
    second.stdin.close()
    assert await read_all(first.stdout) == b"one\n"
    assert await read_all(second.stdout) == b"two"
    assert [(await program.wait()).code for program in (first, second)] == [0, 9]
    table = await machine.guest.processes("c1")
    # the shell has become its only command
    assert [(row.ns_pid, row.command, row.uid) for row in table.processes] == [(1, "sleep 100", 0)]
    assert (await machine.guest.statistics("c1")).cpu_total_ns >= 0
    await machine.guest.signal("c1", signal.SIGKILL)
    assert (await main.wait()).code == 137
    with pytest.raises(Conflict):
        await machine.guest.execute("e3", "c1", machine.process_of("echo"), wanted=(False, True, True))


async def test_a_signal_is_handled_by_the_program(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.shell("trap 'echo caught; exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    assert await program.stdout.read() == b"ready\n"
    await machine.guest.signal("c1", signal.SIGTERM)
    assert await program.stdout.read() == b"caught\n"
    assert (await program.wait()).code == 5


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize(
    ("program", "kind"), [("missing", "not_found"), ("/bin/plain", "permission"), ("/bin/broken", "not_executable")]
)
async def test_why_a_program_does_not_start(machine: Machine, program: str, kind: str, tty: bool) -> None:
    await machine.prepare()
    with pytest.raises(ProcessStartFailed) as failure:
        await machine.run(program, tty=tty)
    assert failure.value.kind == kind
    main = await machine.shell("sleep 100")
    with pytest.raises(ProcessStartFailed) as failure:
        await machine.guest.execute("e1", "c1", machine.process_of(program, tty=tty), wanted=(False, True, True))
    assert failure.value.kind == kind
    await machine.guest.signal("c1", signal.SIGKILL)
    await main.wait()


async def test_a_flood_with_a_slow_reader_is_whole_and_bounded(machine: Machine) -> None:
    await machine.prepare()
    total = 50_000_000
    program = await machine.shell(f"yes 0123456789abcde | head -c {total}")
    received = 0
    for count in range(10_000):
        piece = await program.stdout.read()
        if not piece:
            break
        assert piece[: 16 - received % 16] == b"0123456789abcde\n"[received % 16 :][: len(piece)]
        received += len(piece)
        if count < 20:
            await asyncio.sleep(0.02)
    assert received == total
    assert (await program.wait()).code == 0
    pid = int(Path(f"/proc/{machine.process.pid}/task/{machine.process.pid}/children").read_text().split()[0])
    peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 64_000


async def test_a_lost_connection_in_a_flood_loses_and_repeats_nothing(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.shell("seq 1 4000000", name="flood")
    expected = b"".join(b"%d\n" % number for number in range(1, 4_000_001))
    kept = bytearray()
    # the same daemon twice, then one that knows only what the first had written down
    for round_ in range(3):
        while len(kept) < (round_ + 1) * 1_500_000:
            kept += await program.stdout.read()
        machine.port.unplug()
        await asyncio.sleep(0.05)
        if round_ < 2:
            await machine.connect()
    machine.forget()
    greeting = await machine.connect()
    assert [task.task for task in greeting.tasks] == ["flood"]
    adopted = machine.guest.adopt(greeting.tasks[0], (len(kept), 0))
    kept += await read_all(adopted.stdout)
    assert len(kept) == len(expected)
    assert bytes(kept) == expected
    assert (await adopted.wait()).code == 0


async def test_an_exit_while_nobody_was_connected_is_told(machine: Machine) -> None:
    await machine.prepare()
    await machine.shell("sleep 0.3; echo late; exit 42")
    machine.port.unplug()
    machine.forget()
    await asyncio.sleep(0.8)
    greeting = await machine.connect()
    state = greeting.tasks[0]
    assert (state.state, state.exit.code) == ("exited", 42)
    program = machine.guest.adopt(state)
    assert await read_all(program.stdout) == b"late\n"
    # until it is released, the next daemon is told as well
    machine.forget()
    assert (await machine.connect()).tasks[0].exit.code == 42
    await machine.client.request("release", {"task": "c1"})
    assert (await machine.connect()).tasks == ()


async def test_a_host_that_died_in_the_middle_of_a_frame(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.shell("cat", stdin=True)
    await program.stdin.write(b"before ")
    assert await program.stdout.read() == b"before "
    machine.port.unplug()
    machine.port.write_to_guest(encode_frame(REQUEST, 9, b"x" * 60_000)[:50_000])
    await asyncio.sleep(0.05)
    await machine.connect()
    await program.stdin.write(b"after")
    program.stdin.close()
    assert await read_all(program.stdout) == b"after"
    machine.port.unplug()
    machine.port.write_to_guest(os.urandom(3) + SYNC[:9])
    assert (await machine.connect()).tasks[0].exit.code == 0


async def test_malformed_requests_are_refused_and_nothing_else_happens(machine: Machine) -> None:
    await machine.prepare()
    wrong: list[tuple[str, dict[str, object], type[SiloError]]] = [
        ("fly", {}, Unsupported),
        ("__init__", {}, Unsupported),
        ("mount", {}, InvalidRequest),
        ("mount", {"mounts": [{"type": "debugfs", "target": "/"}]}, InvalidRequest),
        ("run", {"task": "../x", "config": machine.config("sh")}, InvalidRequest),
        ("run", {"task": "x", "config": []}, InvalidRequest),
        ("run", {"task": "x", "config": machine.config("sh"), "streams": {"stdout": 0}}, InvalidRequest),
        ("run", {"task": "x", "config": machine.config("sh"), "streams": {"stdout": 5, "stderr": 5}}, SiloError),
        ("signal", {"task": "none", "signal": 9}, NotFound),
        ("resize", {"task": "none", "rows": "many"}, SiloError),
        ("stat", {"root": "/nowhere", "path": "/"}, NotFound),
        ("network", {"interfaces": [{"name": "eth77"}]}, NotFound),
        ("release", {}, InvalidRequest),
        ("archive_in", {"root": "/", "stream": 900}, InvalidRequest),
        ("archive_out", {"root": "/", "stream": 900}, InvalidRequest),
    ]
    for name, params, error in wrong:
        with pytest.raises(error):
            await machine.client.request(name, params)
    number = machine.client.begin("ping")
    machine.port.write_to_guest(encode_frame(REQUEST, 4000, b"{not json"))
    with pytest.raises(SiloError):  # the answer to a request that this client never made
        await machine.client.finish(number, "ping", dict)
        await machine.client.request("ping")
    await machine.connect()
    await machine.client.request("ping")


def _tar(*members: tuple[str, bytes | str]) -> bytes:
    """name → content, or a link's target as text."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size, info.mode, info.uid = len(content), 0o640, 12
                archive.addfile(info, io.BytesIO(content))
    return target.getvalue()


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 30_000):
        yield data[start : start + 30_000]


async def test_archives_go_in_and_come_out(machine: Machine) -> None:
    await machine.prepare()
    main = await machine.shell("sleep 100")
    big = os.urandom(1_000_000)
    place = {"task": "c1"}
    await machine.guest.archive_in(place, "/tmp", _pieces(_tar(("a/big", big), ("a/link", "big"))))
    checked = await machine.guest.execute(
        "e1", "c1", machine.process_of("sh", "-c", "wc -c < /tmp/a/link; ls -ln /tmp/a/big"), wanted=(False, True, True)
    )
    output = await read_all(checked.stdout)
    assert output.startswith(b"1000000\n-rw-r-----")
    assert b" 12 " in output
    status = await machine.guest.stat(place, "/tmp/a/link")
    assert (status.name, status.link, status.target_mode & 0o777) == ("link", "big", 0o640)
    data = b"".join([piece async for piece in machine.guest.archive_out(place, "/tmp/a", name="renamed")])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["renamed", "renamed/big", "renamed/link"]
        assert archive.extractfile("renamed/big").read() == big
    # an archive that nobody reads to its end
    async for _ in machine.guest.archive_out(place, "/tmp/a", name="x"):
        break
    await machine.client.request("ping")
    await machine.guest.signal("c1", signal.SIGKILL)
    await main.wait()


async def test_names_on_a_windows_drive_are_found_without_case(machine: Machine) -> None:
    """The archive is as Docker's client on Unix sends it: with a whole Windows path in the name."""
    await machine.prepare()
    drive = "/silo/prefix/drive_c"
    await (await machine.shell(f"mkdir -p {drive}/Windows/Temp; echo old > {drive}/Windows/Temp/File.txt")).wait()
    place = {"root": machine.root}
    sent = _tar(("C:\\windows\\TEMP\\FILE.TXT", b"newer"), ("c:\\New\\one.txt", b"1"), ("C:\\NEW\\ONE.TXT", b"12"))
    await machine.guest.archive_in(place, drive, _pieces(sent))
    assert (await machine.guest.stat(place, f"{drive}/Windows/Temp/File.txt")).size == 5
    data = b"".join([piece async for piece in machine.guest.archive_out(place, drive, name="c")])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert [name for name in archive.getnames() if name.casefold().endswith("txt")] == [
            "c/New/one.txt",
            "c/Windows/Temp/File.txt",
        ]
    with pytest.raises(InvalidRequest):
        await machine.guest.archive_in(place, drive, _pieces(_tar(("C:\\..\\..\\x", b"x"))))


async def test_a_layer_holds_whiteouts(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.shell("rm /bin/touch; rm -r /etc; mkdir /etc; echo x > /etc/new")
    assert (await program.wait()).code == 0
    upper = {"root": f"{machine.place}/scratch/upper-x/u"}
    data = b"".join([piece async for piece in machine.guest.archive_out(upper, "/", layer=True)])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert {"bin/.wh.touch", "etc/.wh..wh..opq", "etc/new"} <= set(archive.getnames())


async def test_a_layer_holds_what_is_in_a_moved_directory(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.shell(
        "mv /bin /moved && PATH=/moved && echo x > /moved/new && mkdir /bin && echo y > /bin/own"
    )
    assert (await program.wait()).code == 0
    upper = {"root": f"{machine.place}/scratch/upper-x/u"}
    pieces = machine.guest.archive_out(upper, "/", layer=True, whole=machine.root)
    with tarfile.open(fileobj=io.BytesIO(b"".join([piece async for piece in pieces]))) as archive:
        names = archive.getnames()
    assert names.index("moved/.wh..wh..opq") < names.index("moved/new") and names.count("moved/new") == 1
    assert {"moved/sh", "bin/.wh..wh..opq", "bin/own"} <= set(names) and "bin/sh" not in names
    # never half of it
    with pytest.raises(InvalidRequest, match="moved"):
        async for _ in machine.guest.archive_out(upper, "/", layer=True):
            pass


async def test_paths_that_would_lead_out(machine: Machine) -> None:
    await machine.prepare()
    main = await machine.shell("echo secret > /tmp/inside; echo ready; sleep 100")
    await main.stdout.read()
    place = {"task": "c1"}
    # the archive's own link to the host's root, and a file behind it
    inside = _tar(("out", "/"), ("out/tmp/written", b"here"), ("up", "../../../.."), ("up/tmp/second", b"here"))
    await machine.guest.archive_in(place, "/tmp", _pieces(inside))
    for name in ("written", "second"):
        assert (await machine.guest.stat(place, f"/tmp/{name}")).size == 4
        assert not Path("/tmp", name).exists()
    with pytest.raises(InvalidRequest):
        await machine.guest.archive_in(place, "/tmp", _pieces(_tar(("../../x", b"x"))))
    with pytest.raises(InvalidRequest):
        await machine.guest.archive_in(place, "/tmp", _pieces(b"no archive at all" * 100))
    with pytest.raises(NotFound):
        await machine.guest.archive_in(place, "/none", _pieces(_tar(("x", b"x"))))
    # as in a chroot: upwards ends at the root
    assert (await machine.guest.stat(place, "/tmp/../../..")).name == "/"
    data = b"".join([p async for p in machine.guest.archive_out(place, "/tmp/out/tmp/inside", name="i")])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.extractfile("i").read() == b"secret\n"
    with pytest.raises(NotFound):
        [p async for p in machine.guest.archive_out(place, "/tmp/none")]
    link = {"type": "tmpfs", "source": "t", "target": "/out/deep/dir", "mkdir": True, "beneath": f"{machine.root}/tmp"}
    await machine.client.request("mount", {"mounts": [link]})
    assert not Path("/deep").exists()


async def test_the_network_of_the_guest(machine: Machine) -> None:
    await machine.prepare()
    entry = {"name": "lo", "mtu": 1400, "addresses": ["10.9.8.7/24", "fd00::7/64"]}
    entry["routes"] = [{"destination": "10.1.0.0/16", "gateway": "10.9.8.1"}]
    await machine.client.request("network", {"interfaces": [entry]})
    program = await machine.shell("cat /proc/net/route /proc/net/if_inet6")
    output = await read_all(program.stdout)
    assert b"0000010A\t0108090A" in output
    assert b"fd000000000000000000000000000007" in output


async def test_sync_and_shutdown(machine: Machine) -> None:
    await machine.prepare()
    await machine.client.request("sync")
    await machine.client.request("shutdown")
    assert machine.process.wait(20) != 0
