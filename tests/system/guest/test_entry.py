"""Containers that are begun ahead of their order: their process waits, and becomes the program that it is told."""

from __future__ import annotations

import signal

import pytest

from silo.errors import Conflict, InvalidRequest, ProcessStartFailed
from tests.system.guest.conftest import Machine, read_all


async def test_it_becomes_the_program_with_its_words_and_variables(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.begin(stdin=True, env=("BEFORE=1",))
    words = ["sh", "-c", 'echo "$1|$2|$NAME|$BEFORE|$$"; cat; exit 7', "sh", "with blanks", "ü\n"]
    process = {"args": words, "env": ["PATH=/nowhere:/bin", "NAME=a=b"]}
    await machine.guest.enter("c1", process)
    await program.stdin.write(b"typed")
    program.stdin.close()
    assert await read_all(program.stdout) == "with blanks|ü\n|a=b||1\ntyped".encode()
    assert (await program.wait()).code == 7


async def test_nothing_of_what_waited_is_left_to_the_program(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.begin()
    await machine.guest.enter("c1", machine.process_of("sh", "-c", "ls /proc/$$/fd; cat /proc/$$/comm; :"))
    assert (await read_all(program.stdout)).split() == [b"0", b"1", b"2", b"sh"]
    assert (await program.wait()).code == 0


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        ("missing", "not_found"),
        ("/no/where", "not_found"),
        ("plain", "permission"),
        ("/bin/plain", "permission"),
        ("/bin", "permission"),
        ("/bin/broken", "not_executable"),
    ],
)
@pytest.mark.parametrize("tty", [False, True])
async def test_why_a_program_does_not_start(machine: Machine, program: str, kind: str, tty: bool) -> None:
    await machine.prepare()
    await machine.begin(tty=tty)
    with pytest.raises(ProcessStartFailed) as failure:
        await machine.guest.enter("c1", machine.process_of(program))
    assert failure.value.kind == kind
    # nothing of it is left: the name is free
    again = await machine.begin()
    await machine.guest.enter("c1", machine.process_of("echo", "again"))
    assert await read_all(again.stdout) == b"again\n"


async def test_user_and_terminal_are_those_that_it_was_begun_with(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.begin(tty=True, stdin=True, uid=1000)
    await machine.guest.resize("c1", 30, 100)
    await machine.guest.enter("c1", machine.process_of("sh", "-c", "stty size; id -u; read x; echo $x"))
    await program.stdin.write(b"line\n")
    seen = await read_all(program.stdout)
    assert {b"30 100", b"1000"} < set(seen.splitlines()) and seen.splitlines()[-1] == b"line"


async def test_long_words(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.begin()
    env = [f"V{number}={'x' * 1000}" for number in range(500)]
    await machine.guest.enter("c1", {"args": ["sh", "-c", "echo ${#V499}", *["y" * 100_000] * 3], "env": env})
    # there is no PATH among the variables: the usual places are looked at
    assert await read_all(program.stdout) == b"1000\n"
    assert (await program.wait()).code == 0


async def test_words_that_no_program_can_have_are_refused(machine: Machine) -> None:
    await machine.prepare()
    await machine.begin(name="waits")
    with pytest.raises(InvalidRequest):
        await machine.guest.enter("waits", {"args": ["a\0b"], "env": []})


async def test_it_is_entered_once(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.begin()
    await machine.guest.enter("c1", machine.process_of("sleep", "100"))
    order = {"task": "c1", "process": {"args": ["true"], "env": []}}
    with pytest.raises(Conflict):
        await machine.client.request("enter", order)
    await machine.guest.signal("c1", signal.SIGKILL)
    assert (await program.wait()).code == 137


async def test_what_was_not_begun_ahead_cannot_be_entered(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.shell("sleep 100")
    with pytest.raises(InvalidRequest):
        await machine.client.request("enter", {"task": "c1", "process": {"args": ["true"], "env": []}})
    await machine.guest.signal("c1", signal.SIGKILL)
    await program.wait()


async def test_one_that_is_ended_while_it_waits(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.begin()
    await machine.guest.signal("c1", signal.SIGKILL)
    assert (await program.wait()).code == 137
    with pytest.raises(Conflict):
        await machine.client.request("enter", {"task": "c1", "process": {"args": ["true"], "env": []}})


async def test_a_container_that_waits_is_entered_after_the_reseeding_only(machine: Machine) -> None:
    await machine.prepare()
    program = await machine.begin()
    await machine.client.request("void_seed")
    order = {"task": "c1", "process": machine.process_of("echo", "on")}
    with pytest.raises(Conflict):
        await machine.client.request("enter", order)
    await machine.client.request("reseed", {"entropy": "00" * 32})
    await machine.client.request("enter", order)
    assert await read_all(program.stdout) == b"on\n"
