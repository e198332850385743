"""The client of qemu-guest-agent: in step with it, whatever was said before, and safe from all that it may say."""

from __future__ import annotations

import asyncio
import base64
import subprocess
from typing import Any

import pytest

from silo.errors import GuestError, ProcessStartFailed, SiloError, Unavailable, Unsupported
from silo.isolation.vm.whole.guest_agent import INPUT_BYTES, GuestAgent, wrap_posix
from tests.unit.isolation.vm.whole.fake_agent import FakeAgent, Refusal, scenario


def refuse(kind: str, text: str) -> Any:
    def answer(arguments: Any) -> None:
        raise Refusal(kind, text)

    return answer


def test_in_step_once_then_command_by_command() -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        fake.answers["guest-get-osinfo"] = lambda _: {"id": "mswindows", "pretty-name": "Windows"}
        assert (await agent.os_info()).is_windows
        await agent.ping()
        assert fake.commands() == ["guest-sync-delimited", "guest-get-osinfo", "guest-ping"]
        assert fake.connections == 1

    scenario(body)


def test_what_was_meant_for_an_earlier_client_is_skipped() -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        fake.greeting = b'ut-data": "x"}}\n{"return": {"pid": 1}}\n\xff{"return": 12}\n\xffnonsense\n'
        fake.answers["guest-exec"] = lambda _: {"pid": 77}
        assert await agent.start(("/bin/true",)) == 77

    scenario(body)


def test_a_late_answer_is_not_taken_for_the_next_ones() -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        fake.answers["guest-slow"] = lambda _: None
        with pytest.raises(Unavailable, match="did not answer guest-slow"):
            await agent.request("guest-slow", limit_s=0.1)
        fake.answers["guest-sync-delimited"] = lambda arguments: (
            b'{"return": "late"}\n\xff{"return": %d}\n' % arguments["id"]
        )
        fake.answers["guest-quick"] = lambda _: "quick"
        assert await agent.request("guest-quick") == "quick"
        assert fake.connections == 1

    scenario(body)


def test_commands_take_turns() -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        fake.answers["guest-echo"] = lambda arguments: arguments["word"]
        answers = await asyncio.gather(*(agent.request("guest-echo", word=number) for number in range(20)))
        assert list(answers) == list(range(20))

    scenario(body)


def test_a_guest_that_starts_is_waited_for() -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        fake.answers["guest-sync-delimited"] = lambda _: None
        with pytest.raises(Unavailable, match="qemu-guest-agent installed"):
            await agent.wait_until_ready(0.2)
        del fake.answers["guest-sync-delimited"]
        await agent.wait_until_ready(5)

    scenario(body)


@pytest.mark.parametrize(
    "answer",
    [b"nonsense\n", b"[1]\n", b"\xfe\xfd\n", b"[" * 100_000 + b"\n", b"x" * ((1 << 20) + 400_000)],
    ids=["words", "list", "bytes", "deep", "endless"],
)
def test_what_is_no_answer(answer: bytes) -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        fake.answers["guest-ping"] = lambda _: answer
        with pytest.raises(GuestError):
            await agent.ping()
        # with a new connection all is well
        del fake.answers["guest-ping"]
        await agent.ping()
        assert fake.connections == 2

    scenario(body)


def test_a_machine_that_ends() -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        fake.answers["guest-ping"] = lambda _: b"hang up"
        with pytest.raises(Unavailable, match="has ended"):
            await agent.ping()

    scenario(body)


@pytest.mark.parametrize(
    "answer", [{"pid": "x"}, {"pid": None}, {}, [], 7], ids=["text", "none", "empty", "list", "number"]
)
def test_answers_of_the_wrong_kind(answer: Any) -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        fake.answers["guest-exec"] = lambda _: answer
        with pytest.raises(GuestError, match="cannot be read"):
            await agent.start(("/bin/true",))

    scenario(body)


def status(**fields: Any) -> dict[str, Any]:
    return {"exited": True, **{name.replace("_", "-"): value for name, value in fields.items()}}


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (status(exitcode=300), 300),
        (status(exitcode=0x12345678), 0x12345678),
        (status(exitcode=-1), 0xFFFFFFFF),
        (status(signal=9), 137),
        (status(signal=0xC0000005), 0xC0000005),
        (status(), 0),
    ],
)
def test_exit_codes_have_32_bits(ended: dict[str, Any], code: int) -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        fake.answers |= {"guest-exec": lambda _: {"pid": 5}, "guest-exec-status": lambda _: ended}
        assert (await agent.run(("program",))).code == code

    scenario(body)


def test_a_program_is_asked_about_until_it_has_ended() -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        last = status(exitcode=0, out_data="b3V0", err_data="ZXJy", out_truncated=True)
        states = [{"exited": False}] * 4 + [last]
        fake.answers |= {"guest-exec": lambda _: {"pid": 5}, "guest-exec-status": lambda _: states.pop(0)}
        done = await agent.run(("program", "a b"), env=("X=1",), input=b"in")
        assert (done.untrusted_stdout, done.untrusted_stderr, done.truncated) == (b"out", b"err", True)
        (started,) = (arguments for command, arguments in fake.seen if command == "guest-exec")
        expected = {"path": "program", "arg": ["a b"], "capture-output": True, "env": ["X=1"]}
        assert started == {**expected, "input-data": base64.b64encode(b"in").decode()}

    scenario(body)


def test_output_that_is_no_base64() -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        fake.answers["guest-exec-status"] = lambda _: status(out_data="?")
        with pytest.raises(GuestError, match="base64"):
            await agent.poll(5)

    scenario(body)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('Failed to execute child process "/x" (No such file or directory)', "not_found"),
        ("Failed to execute child process “/etc” (Permission denied)", "permission"),
        ("Guest agent command failed, error was 'The system cannot find the file specified.'", "not_found"),
    ],
)
def test_programs_that_cannot_be_started(text: str, kind: str) -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        fake.answers["guest-exec"] = refuse("GenericError", text)
        with pytest.raises(ProcessStartFailed) as failed:
            await agent.start(("/x",))
        assert failed.value.kind == kind and failed.value.details == text

    scenario(body)


def test_refusals_explain_themselves_printably() -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        fake.answers["guest-exec"] = refuse("CommandNotFound", "The command guest-exec has been disabled")
        with pytest.raises(Unsupported, match="block-rpcs"):
            await agent.start(("/x",))
        fake.answers["guest-shutdown"] = refuse("GenericError", "\x1b[31mred" + "x" * 9000)
        with pytest.raises(SiloError) as refused:
            await agent.request("guest-shutdown")
        assert "\x1b" not in refused.value.details and len(refused.value.details) <= 500

    scenario(body)


def test_input_has_a_limit() -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        with pytest.raises(Unsupported, match="at most 8 MiB"):
            await agent.start(("cat",), input=bytes(INPUT_BYTES + 1))
        assert not fake.seen

    scenario(body)


def test_the_shutdown_is_not_answered_when_it_works() -> None:
    async def body(agent: GuestAgent, fake: FakeAgent) -> None:
        fake.answers["guest-shutdown"] = lambda _: b"hang up"
        await agent.shut_down()
        assert ("guest-shutdown", {"mode": "powerdown"}) in fake.seen

    scenario(body)


def shell(words: tuple[str, ...]) -> tuple[str, int]:
    done = subprocess.run(words, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "OWN": "kept"})
    return done.stdout, done.returncode


def test_environment_and_directory_by_the_shell() -> None:
    assert wrap_posix(("a", "b")) == ("a", "b")
    script = ("/bin/sh", "-c", 'printf "%s|" "$OWN" "$NAME" "$0" "$PWD"; exit 7', "x; y")
    assert shell(wrap_posix(script, env=("NAME=a 'b' $c",), cwd="/usr")) == ("kept|a 'b' $c|x; y|/usr|", 7)
    assert shell(wrap_posix(("true",), cwd="/no/such"))[1] == 126
    assert shell(wrap_posix(("no-such-program",), cwd="/"))[1] == 127
    # not taken for a variable
    assert shell(wrap_posix(("/usr/bin/a=b",), cwd="/"))[1] == 127
