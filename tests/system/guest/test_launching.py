"""The agent between the host and a Windows container's launcher: here a small program that speaks as one."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from silo.errors import Conflict, GuestError, InvalidRequest, NotFound, ProcessStartFailed
from silo.isolation.launcher_messages import ConsoleEvent
from silo.isolation.vm.programs import GuestProgram
from silo.model.runtime import LaunchPlan, ScratchOwner
from tests.support.probes import require_program
from tests.system.guest.conftest import Machine, read_all

LAUNCHER = Path(__file__).with_name("launcher.c")
CODE = 0x12345678
ALL = (True, True, True)


@pytest.fixture
def silo(machine: Machine, layer: Path) -> Iterator[Machine]:
    """The machine with the launcher in its layer."""
    compiler = require_program("gcc")
    program = layer / "bin" / "launcher"
    if not program.exists():
        subprocess.run([compiler, "-O1", "-static", "-Wall", "-Wextra", "-Werror", "-o", program, LAUNCHER], check=True)
    yield machine


async def begin(silo: Machine) -> GuestProgram:
    await silo.prepare()
    return await silo.guest.run("c1", silo.config("/bin/launcher"), stdin=False, launcher=True)


def plan(line: str, **fields: Any) -> LaunchPlan:
    return LaunchPlan(command_line=line, directory="C:\\", **fields)


async def test_the_main_programs_whole_exit_code(silo: Machine) -> None:
    main = await begin(silo)
    assert await silo.guest.start_main("c1", plan(f"end {CODE}")) == 0x1234
    assert await read_all(main.stdout) == b"main\n"
    assert (await main.wait()).code == CODE
    await silo.guest.release(main)
    with pytest.raises(NotFound):
        await silo.guest.until_ready("c1")


async def test_an_end_without_a_code_is_that_of_the_first_process(silo: Machine) -> None:
    main = await begin(silo)
    other = await silo.guest.launch("e1", "c1", plan("hang"), wanted=ALL)
    await silo.guest.launch("e2", "c1", plan("crash"), wanted=ALL)
    assert (await main.wait()).code == 3
    assert (await other.wait()).code == 137
    with pytest.raises(Conflict):
        await silo.guest.until_ready("c1")


async def test_further_programs_and_their_streams(silo: Machine) -> None:
    await begin(silo)
    first, second = await asyncio.gather(
        silo.guest.launch("e1", "c1", plan("say one"), wanted=(False, True, True)),
        silo.guest.launch("e2", "c1", plan("cat"), wanted=ALL),
    )
    assert (first.pid, second.pid) == (0x1234, 0x1234)
    await second.stdin.write(b"two")
    second.stdin.close()
    assert await read_all(first.stdout) == b"one\n"
    assert await read_all(second.stdout) == b"two"
    assert [(await program.wait()).code for program in (first, second)] == [CODE, CODE]
    with pytest.raises(InvalidRequest, match="signal"):
        other = await silo.guest.launch("e3", "c1", plan("hang"), wanted=(False, False, False))
        await silo.guest.signal(other.name, 15)
    for program in (first, second):
        await silo.guest.release(program)


async def test_a_terminal_has_its_size_from_the_start(silo: Machine) -> None:
    await begin(silo)
    program = await silo.guest.launch("e1", "c1", plan("size", tty=True, console_size=(31, 97)), wanted=ALL)
    assert program.stderr is None
    assert (await read_all(program.stdout)).split() == [b"31", b"97"]
    await silo.guest.resize_console("e1", "c1", 10, 20, pid=program.pid)


@pytest.mark.parametrize(("error", "kind"), [(2, "not_found"), (5, "permission"), (193, "not_executable")])
async def test_why_a_program_did_not_start(silo: Machine, error: int, kind: str) -> None:
    await begin(silo)
    for _ in range(2):
        # the same names and streams again: nothing is left of a start that failed
        with pytest.raises(ProcessStartFailed) as refused:
            await silo.guest.launch("e1", "c1", plan(f"fail {error}"), wanted=ALL)
        assert refused.value.kind == kind
    with pytest.raises(ProcessStartFailed):
        await silo.guest.start_main("c1", plan(f"fail {error}"))


async def test_what_else_a_launcher_is_asked(silo: Machine) -> None:
    main = await begin(silo)
    await silo.guest.until_ready("c1")
    await silo.guest.configure("c1", "BOX")
    await silo.guest.save("c1")
    assert await silo.guest.windows_processes("c1") == ()
    with pytest.raises(GuestError, match="deliver"):
        await silo.guest.send_event("c1", ConsoleEvent.CTRL_C)
    await silo.guest.shut_down("c1", CODE)
    assert (await main.wait()).code == CODE


async def test_only_a_container_with_a_launcher_has_one(silo: Machine) -> None:
    await silo.connect()
    with pytest.raises(Conflict, match="reseed"):
        await silo.guest.until_ready("c1")
    await silo.prepare()
    await silo.shell("sleep 100")
    with pytest.raises(InvalidRequest):
        await silo.guest.until_ready("c1")
    with pytest.raises(NotFound):
        await silo.guest.launch("e1", "nobody", plan("cat"), wanted=ALL)


async def test_programs_outlive_a_connection(silo: Machine) -> None:
    await begin(silo)
    program = await silo.guest.launch("e1", "c1", plan("cat"), wanted=ALL)
    await program.stdin.write(b"before")
    silo.port.unplug()
    await asyncio.sleep(0.2)
    greeting = await silo.connect()
    states = {task.task: task for task in greeting.tasks}
    assert (states["e1"].state, states["e1"].pid, states["e1"].container) == ("running", 0x1234, "c1")
    await program.stdin.write(b" and after")
    program.stdin.close()
    assert await read_all(program.stdout) == b"before and after"
    assert (await program.wait()).code == CODE


async def test_a_folder_is_attached_to_a_container_that_runs(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.shell(
        "while ! test -e /mnt/deep/text; do sleep 0.1; done; cat /mnt/deep/text; echo x >/mnt/deep/y"
    )
    source = f"{machine.place}/work-folder"
    await machine.client.request(
        "mount", {"mounts": [{"type": "tmpfs", "source": "t", "target": source, "mkdir": True}]}
    )
    await machine.client.request("write_files", {"files": [{"path": f"{source}/text", "data": "aGVsbG8K"}]})
    mounts = [{"source": source, "target": "/mnt/deep", "read_only": True}]
    await machine.client.request("attach", {"task": "c1", "mounts": mounts})
    assert await read_all(program.stdout) == b"hello\n"
    assert b"Read-only" in await read_all(program.stderr)
    with pytest.raises(NotFound):
        await machine.client.request("attach", {"task": "nobody", "mounts": mounts})


async def test_a_directory_is_given_away_once(machine: Machine) -> None:
    await machine.prepare()
    await (await machine.shell("mkdir -p /a/b; echo text >/a/from; echo old >/a/b/to; ln -s /a /link")).wait()
    owner = ScratchOwner(path="/link/b", uid=1000, gid=1001, copies=(("/link/from", "/link/b/to"), ("/no", "/a/b/z")))
    owner = msgspec.structs.replace(owner, keeps=((0, "/a/b/to", "/a/kept/to"), (7, "/a/b/to", "/a/kept/other")))
    assert await machine.guest.own(machine.root, owner)
    assert (await machine.guest.stat({"root": machine.root}, "/a/kept/to")).size == len("old\n")
    with pytest.raises(NotFound):
        await machine.guest.stat({"root": machine.root}, "/a/kept/other")
    assert not await machine.guest.own(machine.root, owner)
    for path, uid in (("/a/b", 1000), ("/a/b/to", 1000), ("/a/from", 0)):
        status = await machine.guest.stat({"root": machine.root}, path)
        assert (status.uid, status.gid) == (uid, uid and 1001)
    with pytest.raises(NotFound):
        await machine.guest.own(machine.root, ScratchOwner(path="/not/there", uid=1, gid=1))
    with pytest.raises(InvalidRequest):
        await machine.guest.own(machine.root, ScratchOwner(path="/a/from", uid=1, gid=1))
