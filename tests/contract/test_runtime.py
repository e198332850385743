"""The contract of silo.engine.ports.Runtime: what every isolation level does for both personalities."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
import signal
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from silo.errors import Conflict, InvalidRequest, NotFound, ProcessStartFailed, Unsupported
from silo.model.container import Resources
from silo.model.ids import new_id
from silo.model.platform import PersonalityName
from silo.model.runtime import LaunchPlan
from tests.contract.subjects import Subject, close_streams, collect


async def test_output_and_exit_code(subject: Subject) -> None:
    record, out, err = await subject.run(subject.plan("say", "hello world"))
    assert (record.exit_code, out, err) == (0, "hello world\n", "")
    assert record.finished_at.endswith("Z") and not record.oom_killed


async def test_standard_error_is_kept_apart(subject: Subject) -> None:
    _, out, err = await subject.run(subject.plan("fail", "oh dear"))
    assert (out, err) == ("", "oh dear\n")


async def test_exit_codes(subject: Subject) -> None:
    codes = {"7": 7, "255": 255}
    if subject.personality is PersonalityName.WINDOWS:
        codes |= {"300": 300, "0xC0000005": 0xC0000005}
    for word, code in codes.items():
        record, _, _ = await subject.run(subject.plan("exit", word))
        assert record.exit_code == code


async def test_the_exit_is_on_disk_and_told_once(subject: Subject) -> None:
    plan = subject.plan("exit", "3")
    async with subject.started(plan) as container_id:
        record = await subject.end(container_id)
        assert json.loads((plan.directory / "exit.json").read_text())["exit_code"] == 3
        assert record.exit_code == 3
    await asyncio.sleep(0.1)
    assert len(subject.listener.exits[plan.id]) == 1


async def test_environment(subject: Subject) -> None:
    _, out, _ = await subject.run(subject.plan("env", "CONTRACT", env=("CONTRACT=a b=c",)))
    assert out == "a b=c\n"


async def test_input_and_its_end(subject: Subject) -> None:
    plan = subject.plan("echo", open_stdin=True)
    async with subject.started(plan) as container_id:
        await subject.type(container_id, b"one\n")
        await subject.until_output(plan, "one")
        await subject.type(container_id, b"two\n")
        await subject.runtime.close_stdin(container_id)
        record = await subject.end(container_id)
        assert record.exit_code == 0
        assert subject.output(plan) == "one\ntwo\nend of input\n"


async def test_without_open_stdin_input_is_empty(subject: Subject) -> None:
    plan = subject.plan("echo")
    async with subject.started(plan) as container_id:
        await subject.end(container_id)
        assert subject.output(plan) == "end of input\n"
        with pytest.raises((Conflict, NotFound)):
            await subject.runtime.open_stdin(container_id)


async def test_a_terminal(subject: Subject) -> None:
    plan = subject.plan("say", "through-a-terminal", tty=True, open_stdin=True)
    record, out, err = await subject.run(plan)
    assert record.exit_code == 0 and err == ""
    # a Windows console draws: between the letters it moves and hides its cursor
    assert "through-a-terminal" in re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", out)


async def test_much_output_arrives_whole(subject: Subject) -> None:
    _, out, _ = await subject.run(subject.plan("flood", "40"))
    assert len(out) == 40 * 65536 and set(out) == {"x"}


async def test_the_log_is_bounded(subject: Subject) -> None:
    plan = subject.plan("flood", "40", log_max_bytes=300_000)
    async with subject.started(plan) as container_id:
        await subject.end(container_id)
        kept = len(subject.output(plan))
        assert 200_000 < kept <= 600_000
        sizes = [path.stat().st_size for path in plan.directory.glob("log*")]
        assert sum(sizes) <= 600_000


async def test_a_program_that_is_not_there(subject: Subject) -> None:
    plan = subject.plan()
    if plan.launch is None:
        plan = msgspec.structs.replace(plan, process=msgspec.structs.replace(plan.process, args=("/no/such/program",)))
    else:
        plan = msgspec.structs.replace(plan, launch=LaunchPlan(command_line="C:\\no\\such.exe", directory="C:\\"))
    await subject.runtime.prepare(plan)
    try:
        with pytest.raises(ProcessStartFailed) as raised:
            await subject.runtime.start(plan.id)
        assert raised.value.kind == "not_found"
    finally:
        await subject.runtime.release(plan.id)
    assert plan.id not in subject.listener.exits
    assert subject.output(plan) == "" and subject.output(plan, stream=2) == ""


async def test_a_file_that_is_no_program(subject: Subject) -> None:
    if subject.plan().launch is None:
        plan = subject.with_file("bad", b"this is not a program")
        plan = msgspec.structs.replace(plan, process=msgspec.structs.replace(plan.process, args=("/bad",)))
    else:
        plan = subject.with_file("silo/prefix/drive_c/bad.exe", b"this is not a program")
        plan = msgspec.structs.replace(plan, launch=LaunchPlan(command_line="C:\\bad.exe", directory="C:\\"))
    await subject.runtime.prepare(plan)
    try:
        with pytest.raises(ProcessStartFailed) as raised:
            await subject.runtime.start(plan.id)
        assert raised.value.kind == "not_executable"
    finally:
        await subject.runtime.release(plan.id)


async def test_sigkill(subject: Subject) -> None:
    plan = subject.plan("sleep", "100")
    async with subject.started(plan) as container_id:
        await subject.until_output(plan, "sleeping")
        await subject.runtime.signal(container_id, signal.SIGKILL)
        record = await subject.end(container_id)
        assert record.exit_code == 137


async def test_what_has_ended_cannot_be_signalled(subject: Subject) -> None:
    plan = subject.plan("exit", "0")
    async with subject.started(plan) as container_id:
        await subject.end(container_id)
        with pytest.raises((Conflict, NotFound)):
            await subject.runtime.signal(container_id, signal.SIGTERM)
    with pytest.raises(NotFound):
        await subject.runtime.signal(new_id(), signal.SIGTERM)


async def test_exec(subject: Subject) -> None:
    async with subject.started(subject.plan("sleep", "100")) as container_id:
        running = await subject.runtime.exec(
            container_id, subject.program("say", "from within"), stdin=False, stdout=True, stderr=True
        )
        out, err = await collect(running.streams)
        assert (out.strip(), err, await running.wait()) == (b"from within", b"", 0)
        close_streams(running.streams)
        failing = await subject.runtime.exec(
            container_id, subject.program("exit", "42"), stdin=False, stdout=False, stderr=False
        )
        assert await failing.wait() == 42


async def test_exec_with_input(subject: Subject) -> None:
    async with subject.started(subject.plan("sleep", "100")) as container_id:
        running = await subject.runtime.exec(
            container_id, subject.program("echo"), stdin=True, stdout=True, stderr=True
        )
        assert running.streams.stdin is not None
        os.write(running.streams.stdin, b"typed\n")
        os.close(running.streams.stdin)
        out, _ = await collect(msgspec.structs.replace(running.streams, stdin=None))
        assert out.replace(b"\r\n", b"\n") == b"typed\nend of input\n"
        assert await running.wait() == 0
        close_streams(msgspec.structs.replace(running.streams, stdin=None))


async def test_exec_of_nothing(subject: Subject) -> None:
    async with subject.started(subject.plan("sleep", "100")) as container_id:
        program = subject.program("say")
        if isinstance(program, LaunchPlan):
            program = LaunchPlan(command_line="C:\\no\\such.exe", directory="C:\\")
        else:
            program = msgspec.structs.replace(program, args=("/no/such/program",))
        with pytest.raises(ProcessStartFailed) as raised:
            await subject.runtime.exec(container_id, program, stdin=False, stdout=True, stderr=True)
        assert raised.value.kind == "not_found"


async def test_exec_ends_with_its_container(subject: Subject) -> None:
    async with subject.started(subject.plan("sleep", "100")) as container_id:
        running = await subject.runtime.exec(
            container_id, subject.program("sleep", "100"), stdin=False, stdout=False, stderr=False
        )
        await subject.runtime.signal(container_id, signal.SIGKILL)
        async with asyncio.timeout(30):
            assert await running.wait() == 137


async def test_pause(subject: Subject) -> None:
    plan = subject.plan("ticks", "1000")
    async with subject.started(plan) as container_id:
        await subject.until_output(plan, "tick 2")
        await subject.runtime.pause(container_id)
        await asyncio.sleep(0.1)
        before = subject.output(plan)
        await asyncio.sleep(0.5)
        assert subject.output(plan) == before
        await subject.runtime.unpause(container_id)
        await subject.listener.until(lambda: len(subject.output(plan)) > len(before))


async def test_statistics(subject: Subject) -> None:
    plan = subject.limited("burn", "1", pids_limit=400, memory_bytes=512 << 20)
    async with subject.started(plan) as container_id:
        await subject.until_output(plan, "burning")
        first = await subject.runtime.statistics(container_id)
        await asyncio.sleep(0.5)
        second = await subject.runtime.statistics(container_id)
        assert second.cpu_total_ns - first.cpu_total_ns > 5_000_000
        assert second.memory_bytes > 0 and second.pids >= 1
        assert second.memory_limit_bytes == 512 << 20 and second.pids_limit == 400


async def test_memory_limit(subject: Subject) -> None:
    plan = subject.limited("eat", "700", memory_bytes=256 << 20, memory_swap_bytes=256 << 20)
    async with subject.started(plan) as container_id:
        record = await subject.end(container_id)
        assert record.oom_killed and record.exit_code != 0
        assert container_id in subject.listener.out_of_memory
        assert "eaten" not in subject.output(plan)


async def test_limits_change_while_it_runs(subject: Subject) -> None:
    plan = subject.limited("sleep", "100", memory_bytes=256 << 20)
    async with subject.started(plan) as container_id:
        for size in (512 << 20, 300 << 20):
            await subject.runtime.update(container_id, Resources(memory_bytes=size, nano_cpus=500_000_000))
            assert (await subject.runtime.statistics(container_id)).memory_limit_bytes == size


async def test_processes(subject: Subject) -> None:
    plan = subject.plan("fork", "3")
    async with subject.started(plan) as container_id:
        await subject.until_output(plan, "made 3")
        table = await subject.runtime.processes(container_id, "")
        assert "PID" in table.titles and all(len(row) == len(table.titles) for row in table.rows)
        assert sum("program" in " ".join(row) for row in table.rows) == 4


async def test_a_folder_of_the_host(subject: Subject, places: Path) -> None:
    folder = places / f"folder-{new_id()[:8]}"
    folder.mkdir()
    (folder / "given").write_text("from the host")
    _, guest = subject.mount_target("shared")
    separator = "\\" if "\\" in guest else "/"
    _, out, _ = await subject.run(subject.with_folder(folder, "read", f"{guest}{separator}given"))
    assert out == "from the host"
    record, _, _ = await subject.run(subject.with_folder(folder, "write", f"{guest}{separator}made", "by the guest"))
    assert record.exit_code == 0
    assert (folder / "made").read_text() == "by the guest"
    assert (folder / "made").stat().st_uid == 0
    record, _, _ = await subject.run(
        subject.with_folder(folder, "write", f"{guest}{separator}more", "x", read_only=True)
    )
    assert record.exit_code == 4 and not (folder / "more").exists()


async def test_a_missing_folder_is_refused(subject: Subject, places: Path) -> None:
    plan = subject.with_folder(places / "not-there", "say", "x")
    with pytest.raises(InvalidRequest):
        await subject.runtime.prepare(plan)
    await subject.runtime.release(plan.id)


async def test_writes_stay_in_the_scratch(subject: Subject) -> None:
    plan = subject.plan("write", subject.guest_path("made"), "kept")
    plan = msgspec.structs.replace(plan, rootfs=msgspec.structs.replace(plan.rootfs, volatile=False))
    await subject.runtime.prepare(plan)
    await subject.runtime.start(plan.id)
    assert (await subject.end(plan.id)).exit_code == 0
    await subject.runtime.release(plan.id)
    assert await subject.read_scratch(plan, "made") == [("kept", 0)]


async def test_files_are_reached_through_a_runtime_that_keeps_them(subject: Subject) -> None:
    plan = subject.plan("write", subject.guest_path("made"), "kept")
    plan = msgspec.structs.replace(plan, rootfs=msgspec.structs.replace(plan.rootfs, volatile=False))
    if not subject.runtime.keeps_files:
        with pytest.raises(Unsupported):
            subject.runtime.open_files(plan.id, plan.rootfs, ())
        return
    await subject.runtime.prepare(plan)
    await subject.runtime.start(plan.id)
    await subject.end(plan.id)
    await subject.runtime.release(plan.id)
    try:
        made, elsewhere = subject.port_path("made"), "/var"
        async with subject.runtime.open_files(plan.id, plan.rootfs, ()) as files:
            assert (await files.stat(made))["size"] == 4
            _, chunks = await files.read(made)
            archive = b"".join([chunk async for chunk in chunks])
            with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
                (member,) = tar.getmembers()
                content = tar.extractfile(member)
                assert content is not None and content.read() == b"kept" and member.uid == 0
            with pytest.raises(NotFound):
                await files.stat("/nowhere")

            async def once() -> AsyncIterator[bytes]:
                yield archive

            await files.write(elsewhere, once(), no_overwrite_dir_non_dir=False, copy_uid_gid=False)
            assert (await files.stat(f"{elsewhere}/made"))["size"] == 4
            layer = b"".join([chunk async for chunk in files.layer()])
            with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
                assert made.lstrip("/") in tar.getnames()
    finally:
        shutil.rmtree(plan.directory, ignore_errors=True)


async def test_the_scratch_survives_a_restart(subject: Subject) -> None:
    plan = subject.plan("write", subject.guest_path("made"), "kept")
    plan = msgspec.structs.replace(plan, rootfs=msgspec.structs.replace(plan.rootfs, volatile=False))
    await subject.runtime.prepare(plan)
    await subject.runtime.start(plan.id)
    await subject.end(plan.id)
    await subject.runtime.release(plan.id)
    process, launch = subject.process("read", subject.guest_path("made"))
    again = msgspec.structs.replace(plan, process=process, launch=launch)
    subject.listener.exits.clear()
    record, out, _ = await subject.run(again)
    assert (record.exit_code, out) == (0, "kept")


async def test_release_is_idempotent_and_right_in_every_state(subject: Subject) -> None:
    await subject.runtime.release(new_id())
    prepared = subject.plan("say", "never")
    await subject.runtime.prepare(prepared)
    is_seen = subject.runtime.root_path(prepared.id) is not None
    assert is_seen or prepared.launch is not None or subject.runtime.keeps_files
    await subject.runtime.release(prepared.id)
    await subject.runtime.release(prepared.id)
    running = subject.plan("sleep", "100")
    await subject.runtime.prepare(running)
    await subject.runtime.start(running.id)
    await subject.runtime.release(running.id)
    assert subject.runtime.root_path(running.id) is None


async def test_containers_outlive_the_daemon(subject: Subject) -> None:
    living, dying = subject.plan("ticks", "1000"), subject.plan("echo", open_stdin=True)
    for plan in (living, dying):
        await subject.runtime.prepare(plan)
        await subject.runtime.start(plan.id)
    await subject.until_output(living, "tick 1")
    await subject.runtime.close_stdin(dying.id)
    await subject.runtime.close()
    before = len(subject.output(living))
    await asyncio.sleep(1.0)
    # a machine keeps what its programs write until the daemon comes again
    assert len(subject.output(living)) > before or subject.runtime.keeps_files
    await subject.connect()
    states = await subject.runtime.recover([living.id, dying.id])
    await subject.listener.until(lambda: len(subject.output(living)) > before + len("tick 10\n") * 5)
    # without the line that is being written
    ticks = subject.output(living).rpartition("\n")[0].splitlines()
    assert ticks == [f"tick {number}" for number in range(len(ticks))]
    assert states[living.id].pid > 0 and states[living.id].exit is None
    # its end may come at any time on a busy machine
    ended = states[dying.id].exit or await subject.end(dying.id)
    assert ended.exit_code == 0
    running = await subject.runtime.exec(
        living.id, subject.program("say", "still here"), stdin=False, stdout=True, stderr=True
    )
    assert (await collect(running.streams))[0].strip() == b"still here"
    close_streams(running.streams)
    await subject.runtime.signal(living.id, signal.SIGKILL)
    assert (await subject.end(living.id)).exit_code == 137
    for plan in (living, dying):
        await subject.runtime.release(plan.id)


async def test_what_no_record_names_is_cleaned_up(subject: Subject) -> None:
    plan = subject.plan("sleep", "100")
    await subject.runtime.prepare(plan)
    await subject.runtime.start(plan.id)
    await subject.runtime.close()
    await subject.connect()
    assert await subject.runtime.recover([]) == {}
    with pytest.raises(NotFound):
        await subject.runtime.statistics(plan.id)
    assert subject.runtime.root_path(plan.id) is None


async def test_many_at_once(subject: Subject) -> None:
    count = 10 if subject.personality is PersonalityName.LINUX else 3
    results = await asyncio.gather(*(subject.run(subject.plan("say", str(number))) for number in range(count)))
    assert [out for _, out, _ in results] == [f"{number}\n" for number in range(count)]
