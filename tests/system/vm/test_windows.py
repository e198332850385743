"""Windows containers in clones of the real utility VM, with real programs: what a runtime relies on."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from silo.errors import Conflict, GuestError, NotFound, ProcessStartFailed
from silo.isolation.launcher_messages import ConsoleEvent
from silo.isolation.vm.programs import GuestProgram
from silo.isolation.vm.template import Template
from silo.isolation.vm.windows import ROOT, SCRATCH_AT, SILO, exercise
from silo.model.runtime import LaunchPlan, ScratchOwner
from silo.windows.base.environment import PREFIX, USER, USER_REGISTRY_DIRECTORY, USER_UID
from silo.wiring import AGENT_FILES, UtilityVm
from tests.support.probes import require, require_program, require_root
from tests.system.vm.windows_clones import (
    WindowsSession,
    boot_template,
    finish,
    launch,
    make_image,
    make_scratch,
    read_stream,
    warm_template,
    windows_clone,
)

Opened = Callable[..., AbstractAsyncContextManager[WindowsSession]]
CTRL_C_EXIT = 0xC000013A
LONG = "0123456789" * 7
KEY = "HKCU\\Software\\SiloTest"


@pytest.fixture(scope="module")
def guest_image() -> Path:
    require_root()
    require_program("qemu-system-x86_64", "qemu-system-x86")
    require_program("bwrap", "bubblewrap")
    require_program("mkfs.erofs", "erofs-utils")
    require_program("mke2fs", "e2fsprogs")
    cache = os.environ.get("SILO_CACHE_ROOT", "")
    require("a cache for the utility VM's image", bool(cache), "SILO_CACHE_ROOT is not set")
    return UtilityVm(Path(cache), AGENT_FILES).build(lambda step, fraction: None, refresh=False).directory


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = os.environ.get("SILO_WINDOWS_LAYERS", "")
    layers = tuple(Path(word) for word in words.split(":") if word)
    found = any((layer / "silo" / "start").exists() for layer in layers)
    require("a Windows base", found, f"no silo/start in SILO_WINDOWS_LAYERS ({words})")
    compiler = require_program("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64")
    return make_image(tmp_path_factory.mktemp("image"), layers, compiler)


@pytest.fixture(scope="module")
def cold(guest_image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    made = asyncio.run(boot_template(guest_image, tmp_path_factory.mktemp("cold") / "vm"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def warm(guest_image: Path, image: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    made = asyncio.run(warm_template(guest_image, tmp_path_factory.mktemp("warm") / "vm", image))
    yield made
    made.close()


@pytest.fixture(params=["cold", "warm"])
def silo(request: pytest.FixtureRequest, image: Path, tmp_path: Path) -> Opened:
    """A silo whose main program can be started, begun in the clone or in its template."""
    template: Template = request.getfixturevalue(request.param)

    @asynccontextmanager
    async def opened(**options: Any) -> AsyncIterator[WindowsSession]:
        async with windows_clone(template, tmp_path / "vm") as session:
            if request.param == "warm":
                await session.dress(open_stdin=bool(options.get("stdin")))
            else:
                await session.plug(image, make_scratch(tmp_path / "scratch.img"))
                await session.begin(**options)
            yield session

    return opened


def scenario(body: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(body, 60))


def plain(output: str) -> str:
    """Without what a console draws with."""
    return re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", output)


async def until(program: GuestProgram, text: str) -> str:
    output = ""
    assert program.stdout is not None
    while text not in plain(output):
        piece = await program.stdout.read()
        assert piece, output
        output += piece.decode()
    return plain(output)


def test_output_and_a_whole_exit_code(silo: Opened) -> None:
    async def body() -> None:
        async with silo() as session:
            await session.guest.start_main(SILO, launch("exit", "0x12345678"))
            assert await finish(session, session.main) == ("", "", 0x12345678)

    scenario(body())


def test_input_reaches_the_program_and_ends(silo: Opened) -> None:
    async def body() -> None:
        async with silo(stdin=True) as session:
            await session.guest.start_main(SILO, launch("echo"))
            assert session.main.stdin is not None
            await session.main.stdin.write(b"one\ntwo\n")
            session.main.stdin.close()
            assert await finish(session, session.main) == ("one\ntwo\nend of input\n", "", 0)

    scenario(body())


def test_further_programs(silo: Opened) -> None:
    async def body() -> None:
        async with silo() as session:
            guest = session.guest
            await guest.start_main(SILO, launch("sleep", "100"))
            await until(session.main, "sleeping")
            assert await session.execute(launch("say", "from within")) == ("from within\n", "", 0)
            assert await session.execute(launch("fail", "oh dear")) == ("", "oh dear\n", 0)
            assert await session.execute(launch("env", "A", environment=("A=b c",))) == ("b c\n", "", 0)
            assert (await session.execute(launch("exit", "0x12345678")))[2] == 0x12345678
            typed = await guest.launch("e2", SILO, launch("echo"), wanted=(True, True, False))
            assert typed.stdin is not None
            await typed.stdin.write(b"typed\n")
            typed.stdin.close()
            assert (await finish(session, typed))[0] == "typed\nend of input\n"
            names = [process.name for process in await guest.windows_processes(SILO)]
            assert names.count("program.exe") == 1
            await guest.send_event(SILO, ConsoleEvent.TERMINATE)
            assert (await finish(session, session.main))[2] == 137

    scenario(body())


def test_programs_that_cannot_be_started(silo: Opened) -> None:
    async def body() -> None:
        async with silo() as session:
            missing = LaunchPlan(command_line="C:\\no\\such.exe", directory="C:\\")
            with pytest.raises(ProcessStartFailed) as refused:
                await session.execute(missing)
            assert refused.value.kind == "not_found"
            with pytest.raises(ProcessStartFailed) as refused:
                await session.execute(LaunchPlan(command_line="C:\\windows\\win.ini", directory="C:\\"))
            assert refused.value.kind == "not_executable"
            with pytest.raises(ProcessStartFailed) as refused:
                await session.guest.start_main(SILO, missing)
            assert refused.value.kind == "not_found"
            # nothing is left of them
            assert (await session.execute(launch("say", "x"))) == ("x\n", "", 0)
            with pytest.raises(NotFound):
                await session.guest.launch("e3", "nobody", launch("say", "x"), wanted=(False, False, False))

    scenario(body())


def test_ctrl_c_and_a_program_of_its_own(silo: Opened) -> None:
    async def body() -> None:
        async with silo() as session:
            await session.guest.start_main(SILO, launch("sleep", "100"))
            await until(session.main, "sleeping")
            other = await session.guest.launch("e1", SILO, launch("sleep", "100"), wanted=(False, True, False))
            await until(other, "sleeping")
            await session.guest.send_event(SILO, ConsoleEvent.TERMINATE, pid=other.pid)
            assert (await finish(session, other))[2] == 137
            with pytest.raises(GuestError, match="signal"):
                await session.guest.send_event(SILO, ConsoleEvent.CTRL_C, pid=4095)
            await session.guest.send_event(SILO, ConsoleEvent.CTRL_C)
            assert (await finish(session, session.main))[2] == CTRL_C_EXIT

    scenario(body())


def test_programs_end_with_their_container(silo: Opened) -> None:
    async def body() -> None:
        async with silo() as session:
            await session.guest.start_main(SILO, launch("sleep", "100"))
            other = await session.guest.launch("e1", SILO, launch("sleep", "100"), wanted=(False, True, False))
            await session.guest.signal(SILO, signal.SIGKILL)
            assert (await finish(session, other))[2] == 137
            assert (await finish(session, session.main))[2] == 137
            with pytest.raises((Conflict, NotFound)):
                await session.execute(launch("say", "x"))

    scenario(body())


def test_a_terminal_of_a_further_program_and_its_size(silo: Opened) -> None:
    async def body() -> None:
        async with silo() as session:
            await session.guest.until_ready(SILO)
            plan = LaunchPlan(command_line="cmd", directory="C:\\", tty=True, console_size=(25, 80))
            program = await session.guest.launch("e1", SILO, plan, wanted=(True, True, True))
            assert program.stderr is None and program.stdin is not None
            await until(program, "C:\\>")
            await program.stdin.write(f"echo {LONG}\r".encode())
            await until(program, f"\n{LONG}\r\n\r\nC:\\>")
            await session.guest.resize_console("e1", SILO, 10, 40, pid=program.pid)
            await program.stdin.write(f"echo {LONG}\r".encode())
            await until(program, f"\n{LONG[:40]}\r\n{LONG[40:]}\r\n\r\nC:\\>")
            await program.stdin.write(b"exit 7\r")
            await read_stream(program.stdout)
            assert (await program.wait()).code == 7

    scenario(body())


def test_a_terminal_of_the_main_program(cold: Template, image: Path, tmp_path: Path) -> None:
    async def body() -> None:
        async with windows_clone(cold, tmp_path / "vm") as session:
            await session.plug(image, make_scratch(tmp_path / "scratch.img"))
            await session.begin(tty=True, stdin=True)
            assert session.main.stderr is None and session.main.stdin is not None
            plan = LaunchPlan(command_line="cmd", directory="C:\\", tty=True, console_size=(25, 80))
            await session.guest.start_main(SILO, plan)
            await until(session.main, "C:\\>")
            await session.guest.resize_console(SILO, SILO, 10, 40)
            await session.main.stdin.write(f"echo {LONG}\r".encode())
            await until(session.main, f"\n{LONG[:40]}\r\n{LONG[40:]}\r\n")
            await session.main.stdin.write(b"exit 5\r")
            await read_stream(session.main.stdout)
            assert (await session.main.wait()).code == 5

    scenario(body())


def test_programs_outlive_the_daemons_connection(silo: Opened) -> None:
    async def body() -> None:
        async with silo() as session:
            await session.guest.start_main(SILO, launch("ticks", "15"))
            other = await session.guest.launch("e1", SILO, launch("ticks", "8"), wanted=(False, True, False))
            await until(session.main, "tick 1")
            session.lose()
            await asyncio.sleep(3)
            greeting = await session.connect()
            assert {task.task for task in greeting.tasks} == {SILO, "e1"}
            out, _, code = await finish(session, other)
            assert code == 0 and out.splitlines()[-1] == "tick 7"
            out, _, code = await finish(session, session.main)
            assert code == 0 and out.splitlines()[-1] == "tick 14"

    scenario(body())


def test_what_the_container_writes_survives_a_cold_start(
    silo: Opened, cold: Template, image: Path, tmp_path: Path
) -> None:
    """Files and registry lie on the scratch disk, however the silo was begun."""

    async def first() -> Path:
        async with silo() as session:
            await session.guest.start_main(SILO, launch("sleep", "100"))
            assert (await session.execute(launch("write", "C:\\kept.txt", "kept")))[2] == 0
            added = await session.execute(_command(f"reg add {KEY} /v one /t REG_DWORD /d 11 /f"))
            assert added[2] == 0, added
            await session.guest.save(SILO)
            prefix = {"root": f"{SCRATCH_AT}/upper{PREFIX}"}
            assert (await session.guest.stat(prefix, "user.reg")).size > 1000
            assert (await session.execute(_command(f"reg add {KEY} /v two /t REG_DWORD /d 22 /f")))[2] == 0
            await session.guest.shut_down(SILO, 9)
            assert (await session.main.wait()).code == 9
            await session.client.request("sync")
            return tmp_path / ("vm/scratch.img" if session.warm else "scratch.img")

    async def body() -> None:
        scratch = await first()
        async with windows_clone(cold, tmp_path / "again", 2) as session:
            await session.plug(image, scratch)
            await session.begin()
            await session.guest.start_main(SILO, launch("sleep", "100"))
            assert (await session.execute(launch("read", "C:\\kept.txt")))[0] == "kept"
            for name, value in (("one", "0xb"), ("two", "0x16")):
                out, _, _ = await session.execute(_command(f"reg query {KEY} /v {name}"))
                assert value in out

    scenario(body())


def test_a_warm_silo_is_the_containers_own(warm: Template, tmp_path: Path) -> None:
    """Names, files and randomness of a clone that has waited in a pool."""

    async def of(place: str, number: int) -> tuple[str, str]:
        async with windows_clone(warm, tmp_path / place, number) as session:
            await session.dress(hostname=f"pool{number}")
            await exercise(session.guest)
            await session.dress(hostname=f"box-{number}", machine_id="0123456789abcdef" * 2)
            await session.guest.start_main(SILO, launch("sleep", "100"))
            names, _, _ = await session.execute(_command("echo %COMPUTERNAME%& hostname& echo %RANDOM%%RANDOM%"))
            pipe = "hello from another clone"
            assert pipe not in names
            return names.splitlines()[0], "".join(names.splitlines()[2:])

    async def body() -> None:
        first, second = await of("a", 1), await of("b", 2)
        assert (first[0], second[0]) == ("BOX-1", "BOX-2")
        assert first[1] != second[1]

    scenario(body())


def test_the_prefix_is_given_to_another_user(cold: Template, image: Path, tmp_path: Path) -> None:
    async def body() -> None:
        async with windows_clone(cold, tmp_path / "vm") as session:
            await session.plug(image, make_scratch(tmp_path / "scratch.img"))
            copies = ((f"{USER_REGISTRY_DIRECTORY}/{USER}/user.reg", f"{PREFIX}/user.reg"),)
            owner = ScratchOwner(path=PREFIX, uid=USER_UID, gid=USER_UID, copies=copies)
            await session.begin(owner=owner)
            await session.guest.start_main(SILO, _command("echo %USERNAME%"))
            assert (await finish(session, session.main))[0].strip() == USER
            assert not await session.guest.own(ROOT, owner)

    scenario(body())


def _command(line: str) -> LaunchPlan:
    return LaunchPlan(command_line=f"C:\\windows\\system32\\cmd.exe /c {line}", directory="C:\\")
