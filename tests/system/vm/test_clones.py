"""A container in a clone of the real utility VM: its own kernel, its own randomness, and what becomes of it when things end."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from silo.errors import Conflict, GuestError, SiloError
from silo.isolation.vm.command import Accelerator
from silo.isolation.vm.guest import build_guest
from silo.isolation.vm.machine import VirtualMachine
from silo.isolation.vm.template import Template, make_template
from silo.wiring import AGENT_FILES, UtilityVm
from tests.support.probes import require, require_program, require_root
from tests.support.processes import processes_of, until_gone
from tests.system.vm.clones import (
    BOOT_LIMIT_S,
    FIRST_UID,
    MEMORY_BYTES,
    Session,
    cloned,
    make_layer,
    read_all,
    warm_template,
)


@pytest.fixture(scope="module")
def image() -> Path:
    require_root()
    require_program("qemu-system-x86_64", "qemu-system-x86")
    require_program("bwrap", "bubblewrap")
    require_program("mkfs.erofs", "erofs-utils")
    cache = os.environ.get("SILO_CACHE_ROOT", "")
    require("a cache for the utility VM's image", bool(cache), "SILO_CACHE_ROOT is not set")
    return UtilityVm(Path(cache), AGENT_FILES).build(lambda step, fraction: None, refresh=False).directory


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_program("busybox", "busybox-static")
    return make_layer(tmp_path_factory.mktemp("layer"))


@pytest.fixture(scope="module")
def template(image: Path, layer: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Template]:
    made = asyncio.run(warm_template(image, tmp_path_factory.mktemp("template") / "vm", layer))
    yield made
    made.close()


def scenario(body: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(body, 120))


def test_a_container_has_a_kernel_of_its_own(template: Template, layer: Path, tmp_path: Path) -> None:
    async def body() -> None:
        async with cloned(template, tmp_path / "a") as session:
            await session.prepare(layer)
            output, code = await session.run("uname -r; cat /proc/sys/kernel/random/boot_id; echo x >/tmp/x; exit 7")
            release, boot_id = output.splitlines()
            assert code == 7
            assert release != os.uname().release
            assert boot_id != Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    scenario(body())


def test_two_clones_share_no_random_number(template: Template, layer: Path, tmp_path: Path) -> None:
    async def numbers(place: str, number: int) -> set[str]:
        async with cloned(template, tmp_path / place, number) as session:
            await session.prepare(layer)
            read = "for i in 1 2 3 4 5; do cat /proc/sys/kernel/random/uuid; done; head -c 16 /dev/urandom | busybox xxd -p"
            output, code = await session.run(f"busybox mknod /dev/urandom c 1 9; {read}")
            assert code == 0
            return set(output.split())

    async def body() -> None:
        first, second = await asyncio.gather(numbers("a", 1), numbers("b", 2))
        assert len(first) == len(second) == 6
        assert not first & second

    scenario(body())


def test_nothing_runs_before_it_is_reseeded(template: Template, tmp_path: Path) -> None:
    async def body() -> None:
        async with cloned(template, tmp_path / "a") as session:
            with pytest.raises(Conflict, match="reseed"):
                await session.start("true")

    scenario(body())


def test_an_ended_clone_leaves_nothing(template: Template, layer: Path, tmp_path: Path) -> None:
    async def body() -> None:
        async with cloned(template, tmp_path / "a", 3) as session:
            await session.prepare(layer)
            await session.start("while :; do :; done")
            assert processes_of(FIRST_UID + 3)
        until_gone(FIRST_UID + 3)
        assert not list((tmp_path / "a").iterdir())

    scenario(body())


def test_output_and_exit_code_outlive_the_daemons_connection(template: Template, layer: Path, tmp_path: Path) -> None:
    async def body() -> None:
        async with cloned(template, tmp_path / "a") as session:
            await session.prepare(layer)
            program = await session.start("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; exit 9")
            assert program.stdout is not None
            begun = (await program.stdout.read()).decode()
            session.lose()
            await asyncio.sleep(1)  # it goes on, and ends, while nobody listens
            await session.connect()
            rest = await read_all(program)
            assert (begun + rest).splitlines() == [f"line {number}" for number in range(2000)]
            assert (await program.wait()).code == 9

    scenario(body())


def test_a_guest_without_an_agent_says_why(image: Path, tmp_path: Path) -> None:
    machine, files = build_guest(image, memory_bytes=MEMORY_BYTES, accelerator=Accelerator.TCG)
    broken = {**files, "/guest/root.erofs": tmp_path / "root.erofs"}
    with (tmp_path / "root.erofs").open("wb") as empty:
        empty.truncate(machine.root_bytes)

    async def warm(vm: VirtualMachine) -> None:
        await Session(vm).connect()

    async def body() -> None:
        with pytest.raises(SiloError) as failure:
            await make_template(tmp_path, machine, uid=FIRST_UID + 9, files=broken, warm=warm, limit_s=BOOT_LIMIT_S)
        assert isinstance(failure.value, GuestError)
        assert "panic" in failure.value.details.lower() or "silo:" in failure.value.details

    scenario(body())
    until_gone(FIRST_UID + 9)
