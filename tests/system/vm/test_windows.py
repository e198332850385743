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

import msgspec
import pytest

from silo.errors import Conflict, GuestError, NotFound, ProcessStartFailed
from silo.isolation.launcher_messages import ConsoleEvent
from silo.isolation.vm.guest_spec import MAIN
from silo.isolation.vm.programs import GuestProgram
from silo.isolation.vm.session import ROOT, SCRATCH
from silo.isolation.vm.template import Template
from silo.model.mount import MountKind, PlannedMount
from silo.model.runtime import LaunchPlan, ScratchOwner
from silo.windows.base.environment import DRIVE_C, PREFIX, USER, USER_REGISTRY_DIRECTORY, USER_UID
from silo.wiring import AGENT_FILES, UtilityVm
from tests.support.probes import require, require_program, require_root
from tests.system.vm.windows_clones import Place, Silo, build_plan, launch, make_layers, read_stream

Opened = Callable[..., AbstractAsyncContextManager[Silo]]
CTRL_C_EXIT = 0xC000013A
LONG = "0123456789" * 7
KEY = "HKCU\\Software\\SiloTest"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    require_root()
    require_program("qemu-system-x86_64", "qemu-system-x86")
    require_program("bwrap", "bubblewrap")
    require_program("mkfs.erofs", "erofs-utils")
    require_program("mke2fs", "e2fsprogs")
    cache = os.environ.get("SILO_CACHE_ROOT", "")
    require("a cache for the utility VM's image", bool(cache), "SILO_CACHE_ROOT is not set")
    image = UtilityVm(Path(cache), AGENT_FILES).build(lambda step, fraction: None, refresh=False).directory
    made = Place(tmp_path_factory.mktemp("place"), image)
    yield made
    made.ranges.close()


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    words = os.environ.get("SILO_WINDOWS_LAYERS", "")
    base = tuple(Path(word) for word in words.split(":") if word)
    found = any((layer / "silo" / "start").exists() for layer in base)
    require("a Windows base", found, f"no silo/start in SILO_WINDOWS_LAYERS ({words})")
    compiler = require_program("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64")
    return make_layers(tmp_path_factory.mktemp("layers"), base, compiler)


@pytest.fixture(scope="module")
def cold(place: Place) -> Iterator[Template]:
    made = asyncio.run(place.cold_template())
    yield made
    made.close()


@pytest.fixture(scope="module")
def warm(
    place: Place, layers: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Template, Path]]:
    made = asyncio.run(place.warm_template(build_plan(layers, tmp_path_factory.mktemp("learnt"))))
    yield made
    made[0].close()


@pytest.fixture(params=["cold", "warm"])
def silo(request: pytest.FixtureRequest, place: Place, layers: tuple[Path, ...], tmp_path: Path) -> Opened:
    """A silo whose main program can be started, begun in the clone or in its template."""
    template: Any = request.getfixturevalue(request.param)

    @asynccontextmanager
    async def opened(**fields: Any) -> AsyncIterator[Silo]:
        plan = build_plan(layers, tmp_path / "container", **fields)
        made = place.warm(template[0], plan, template[1]) if request.param == "warm" else place.cold(template, plan)
        async with made as silo:
            yield silo

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
            await session.start(launch("exit", "0x12345678"))
            assert await session.finish(session.main) == ("", "", 0x12345678)

    scenario(body())


def test_input_reaches_the_program_and_ends(silo: Opened) -> None:
    async def body() -> None:
        async with silo(open_stdin=True) as session:
            await session.start(launch("echo"))
            assert session.main.stdin is not None
            await session.main.stdin.write(b"one\ntwo\n")
            session.main.stdin.close()
            assert await session.finish(session.main) == ("one\ntwo\nend of input\n", "", 0)

    scenario(body())


def test_further_programs(silo: Opened) -> None:
    async def body() -> None:
        async with silo() as session:
            guest = session.guest
            await session.start(launch("sleep", "100"))
            await until(session.main, "sleeping")
            assert await session.execute(launch("say", "from within")) == ("from within\n", "", 0)
            assert await session.execute(launch("fail", "oh dear")) == ("", "oh dear\n", 0)
            assert await session.execute(launch("env", "A", environment=("A=b c",))) == ("b c\n", "", 0)
            assert (await session.execute(launch("exit", "0x12345678")))[2] == 0x12345678
            typed = await guest.launch("e2", MAIN, launch("echo"), wanted=(True, True, False))
            assert typed.stdin is not None
            await typed.stdin.write(b"typed\n")
            typed.stdin.close()
            assert (await session.finish(typed))[0] == "typed\nend of input\n"
            names = [process.name for process in await guest.windows_processes(MAIN)]
            assert names.count("program.exe") == 1
            await guest.send_event(MAIN, ConsoleEvent.TERMINATE)
            assert (await session.finish(session.main))[2] == 137

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
                await session.start(missing)
            assert refused.value.kind == "not_found"
            # nothing is left of them
            assert (await session.execute(launch("say", "x"))) == ("x\n", "", 0)
            with pytest.raises(NotFound):
                await session.guest.launch("e3", "nobody", launch("say", "x"), wanted=(False, False, False))

    scenario(body())


def test_ctrl_c_and_a_program_of_its_own(silo: Opened) -> None:
    async def body() -> None:
        async with silo() as session:
            await session.start(launch("sleep", "100"))
            await until(session.main, "sleeping")
            other = await session.guest.launch("e1", MAIN, launch("sleep", "100"), wanted=(False, True, False))
            await until(other, "sleeping")
            await session.guest.send_event(MAIN, ConsoleEvent.TERMINATE, pid=other.pid)
            assert (await session.finish(other))[2] == 137
            with pytest.raises(GuestError, match="signal"):
                await session.guest.send_event(MAIN, ConsoleEvent.CTRL_C, pid=4095)
            await session.guest.send_event(MAIN, ConsoleEvent.CTRL_C)
            assert (await session.finish(session.main))[2] == CTRL_C_EXIT

    scenario(body())


def test_programs_end_with_their_container(silo: Opened) -> None:
    async def body() -> None:
        async with silo() as session:
            await session.start(launch("sleep", "100"))
            other = await session.guest.launch("e1", MAIN, launch("sleep", "100"), wanted=(False, True, False))
            await session.guest.signal(MAIN, signal.SIGKILL)
            assert (await session.finish(other))[2] == 137
            assert (await session.finish(session.main))[2] == 137
            with pytest.raises((Conflict, NotFound)):
                await session.execute(launch("say", "x"))

    scenario(body())


def test_a_terminal_of_a_further_program_and_its_size(silo: Opened) -> None:
    async def body() -> None:
        async with silo() as session:
            await session.guest.until_ready(MAIN)
            plan = LaunchPlan(command_line="cmd", directory="C:\\", tty=True, console_size=(25, 80))
            program = await session.guest.launch("e1", MAIN, plan, wanted=(True, True, True))
            assert program.stderr is None and program.stdin is not None
            await until(program, "C:\\>")
            await program.stdin.write(f"echo {LONG}\r".encode())
            await until(program, f"\n{LONG}\r\n\r\nC:\\>")
            await session.guest.resize_console("e1", MAIN, 10, 40, pid=program.pid)
            await program.stdin.write(f"echo {LONG}\r".encode())
            await until(program, f"\n{LONG[:40]}\r\n{LONG[40:]}\r\n\r\nC:\\>")
            await program.stdin.write(b"exit 7\r")
            await read_stream(program.stdout)
            assert (await program.wait()).code == 7

    scenario(body())


def test_a_terminal_of_the_main_program(cold: Template, place: Place, layers: tuple[Path, ...], tmp_path: Path) -> None:
    async def body() -> None:
        async with place.cold(cold, build_plan(layers, tmp_path, tty=True, open_stdin=True)) as session:
            main = session.main
            assert main.stderr is None and main.stdin is not None
            await session.start(LaunchPlan(command_line="cmd", directory="C:\\", tty=True, console_size=(25, 80)))
            await until(main, "C:\\>")
            await session.guest.resize_console(MAIN, MAIN, 10, 40)
            await main.stdin.write(f"echo {LONG}\r".encode())
            await until(main, f"\n{LONG[:40]}\r\n{LONG[40:]}\r\n")
            await main.stdin.write(b"exit 5\r")
            await read_stream(main.stdout)
            assert (await main.wait()).code == 5

    scenario(body())


def test_programs_outlive_the_daemons_connection(silo: Opened) -> None:
    async def body() -> None:
        async with silo() as session:
            await session.start(launch("ticks", "15"))
            other = await session.guest.launch("e1", MAIN, launch("ticks", "8"), wanted=(False, True, False))
            await until(session.main, "tick 1")
            session.lose()
            await asyncio.sleep(3)
            await session.session.connect(limit_s=30)
            out, _, code = await session.finish(other)
            assert code == 0 and out.splitlines()[-1] == "tick 7"
            out, _, code = await session.finish(session.main)
            assert code == 0 and out.splitlines()[-1] == "tick 14"

    scenario(body())


def test_what_the_container_writes_survives_a_cold_start(
    silo: Opened, cold: Template, place: Place, layers: tuple[Path, ...], tmp_path: Path
) -> None:
    """Files and registry lie on the scratch disk, however the silo was begun."""

    async def first() -> Path:
        async with silo() as session:
            await session.start(launch("sleep", "100"))
            assert (await session.execute(launch("write", "C:\\kept.txt", "kept")))[2] == 0
            added = await session.execute(_command(f"reg add {KEY} /v one /t REG_DWORD /d 11 /f"))
            assert added[2] == 0, added
            await session.guest.save(MAIN)
            (saved,) = await session.session.read_files(f"{SCRATCH}/upper{PREFIX}", ["user.reg"])
            assert b"SiloTest" in saved
            assert (await session.execute(_command(f"reg add {KEY} /v two /t REG_DWORD /d 22 /f")))[2] == 0
            await session.guest.shut_down(MAIN, 9)
            assert (await session.finish(session.main))[2] == 9
            await session.session.client.request("sync")
            return session.scratch

    async def body() -> None:
        scratch = await first()
        async with place.cold(cold, build_plan(layers, tmp_path / "again"), scratch) as session:
            await session.start(launch("sleep", "100"))
            assert (await session.execute(launch("read", "C:\\kept.txt")))[0] == "kept"
            for name, value in (("one", "0xb"), ("two", "0x16")):
                out, _, _ = await session.execute(_command(f"reg query {KEY} /v {name}"))
                assert value in out

    scenario(body())


def test_a_warm_silo_becomes_the_containers_own(
    warm: tuple[Template, Path], place: Place, layers: tuple[Path, ...], tmp_path: Path
) -> None:
    """Names, randomness, folders, special files."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "text").write_text("of the host")

    async def of(name: str) -> tuple[list[str], str]:
        target = f"{DRIVE_C}/folder"
        folder = PlannedMount(target=target, source=tmp_path / "folder", kind=MountKind.BIND)
        plan = build_plan(layers, tmp_path / name, hostname=name, folders=(folder,))
        async with place.warm(warm[0], plan, warm[1]) as session:
            await session.start(launch("sleep", "100"))
            names, _, _ = await session.execute(_command("echo %COMPUTERNAME%& hostname& ping -n 1 -w 1 nobody"))
            shown, _, _ = await session.execute(launch("read", "C:\\folder\\text"))
            assert shown == "of the host"
            assert (await session.execute(launch("write", f"C:\\folder\\{name}", "back")))[2] == 0
            (hosts,) = await session.session.read_files(f"/proc/{session.main.pid}/root", ["/etc/hosts"])
            assert name in hosts.decode()
            (seed,) = await session.session.read_files("/proc/sys/kernel/random", ["uuid"])
            return names.splitlines()[:2], seed.decode()

    async def body() -> None:
        first, second = await of("box-1"), await of("box-2")
        assert first[0][0] == "BOX-1" and second[0][0] == "BOX-2"
        assert first[1] != second[1]
        assert (tmp_path / "folder" / "box-1").read_text() == "back"

    scenario(body())


def test_the_prefix_is_given_to_another_user(
    cold: Template, place: Place, layers: tuple[Path, ...], tmp_path: Path
) -> None:
    async def body() -> None:
        copies = ((f"{USER_REGISTRY_DIRECTORY}/{USER}/user.reg", f"{PREFIX}/user.reg"),)
        owner = ScratchOwner(path=PREFIX, uid=USER_UID, gid=USER_UID, copies=copies)
        plan = build_plan(layers, tmp_path, scratch_owner=owner)
        plan = msgspec.structs.replace(
            plan, process=msgspec.structs.replace(plan.process, user=f"{USER_UID}:{USER_UID}")
        )
        async with place.cold(cold, plan) as session:
            await session.start(_command("echo %USERNAME%"))
            assert (await session.finish(session.main))[0].strip() == USER
            assert not await session.guest.own(ROOT, owner)

    scenario(body())


def _command(line: str) -> LaunchPlan:
    return LaunchPlan(command_line=f"C:\\windows\\system32\\cmd.exe /c {line}", directory="C:\\")
