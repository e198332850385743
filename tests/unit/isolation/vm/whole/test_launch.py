"""Words before a command's, and processes by pid and start time."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from silo.isolation.vm.machine import enter_groups
from silo.isolation.vm.process import Process
from silo.isolation.vm.whole.launch import limited


def test_a_command_enters_its_groups_itself(tmp_path: Path) -> None:
    files = [tmp_path / "b", tmp_path / "c"]
    assert enter_groups(()) == ()
    words = (*enter_groups(tuple(map(str, files))), "printf", "%s|", "x y", "$z")
    done = subprocess.run(words, capture_output=True, check=True)
    assert done.stdout == b"x y|$z|" and [file.read_text() for file in files] == ["0\n", "0\n"]
    wrong = (*enter_groups((str(tmp_path / "no/such"),)), "true")
    assert subprocess.run(wrong, capture_output=True).returncode == 1


def test_limits_are_the_kernels() -> None:
    words = limited(("sh", "-c", "ulimit -v; ulimit -t; ulimit -c"), memory_bytes=1 << 30, processor_s=7)
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout.split() == ["1048576", "7", "0"]


def test_a_process_is_the_one_that_was_meant() -> None:
    async def body() -> None:
        started = subprocess.Popen(["sleep", "60"])
        try:
            process, other = Process(started.pid), Process(started.pid, 1)
            assert process.is_alive and not other.is_alive
            await other.kill()
            assert process.is_alive
            await other.until_dead(1)
            await process.kill()
            assert not process.is_alive
            await process.kill()
        finally:
            started.kill()
            started.wait()
        assert not Process(0, 0).is_alive
        await Process(0, 0).kill()

    asyncio.run(body())
