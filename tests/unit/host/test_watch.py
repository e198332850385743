"""run_watched: output, failures, ticks that stop the program."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from silo.errors import CommandFailed, HostError, ToolMissing
from silo.host.watch import run_watched


def silent(_: Path) -> None:
    return


def test_output_status_and_ticks(tmp_path: Path) -> None:
    seen: list[str] = []
    done = run_watched(
        ["sh", "-c", "echo one; sleep 0.3; echo two; echo err >&2"],
        on_tick=lambda output: seen.append(output.read_text()),
        every_s=0.05,
        directory=tmp_path,
    )
    assert (done.stdout, done.stderr, done.status) == (b"one\ntwo\n", b"err\n", 0)
    assert "one\n" in seen and seen[-1] == "one\ntwo\n"
    assert list(tmp_path.iterdir()) == []


def test_failures(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed) as caught:
        run_watched(["sh", "-c", "echo why >&2; exit 3"], on_tick=silent, directory=tmp_path)
    assert caught.value.status == 3 and caught.value.stderr == "why\n"
    with pytest.raises(ToolMissing):
        run_watched(["no-such-program-here"], on_tick=silent, directory=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_tick_or_the_time_limit_ends_the_program(tmp_path: Path) -> None:
    def refuse(_: Path) -> None:
        raise InterruptedError

    mark = tmp_path / "survived"
    begun = time.monotonic()
    with pytest.raises(InterruptedError):
        run_watched(["sh", "-c", f"sleep 2; touch {mark}"], on_tick=refuse, every_s=0.05, directory=tmp_path)
    with pytest.raises(HostError, match="did not end within"):
        run_watched(["sleep", "20"], on_tick=silent, every_s=0.05, time_limit_s=0.2, directory=tmp_path)
    assert time.monotonic() - begun < 2
    assert not mark.exists()
