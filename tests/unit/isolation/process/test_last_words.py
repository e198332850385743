"""Why a start failed is read from a log of any size."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from silo.errors import ProcessStartFailed
from silo.isolation.process import silo, starting
from silo.isolation.process.failures import EXEC_FAILED
from silo.model.runtime import ProcessPlan

FORMER_RUNS_BYTES = 1 << 40


def make_live(directory: Path) -> Any:
    plan = SimpleNamespace(directory=directory, process=ProcessPlan(args=("/no/program",)))
    return SimpleNamespace(record=SimpleNamespace(plan=plan))


def make_log(file: Path, words: bytes) -> None:
    file.touch()
    os.truncate(file, FORMER_RUNS_BYTES)
    with file.open("ab") as log:
        log.write(words)


def test_the_words_of_this_start_leave_a_long_log(tmp_path: Path) -> None:
    make_log(tmp_path / "log", EXEC_FAILED + b" `/no/program`: No such file or directory")
    error = starting._explain(make_live(tmp_path), tmp_path / "log", FORMER_RUNS_BYTES)
    assert isinstance(error, ProcessStartFailed) and error.kind == "not_found"
    assert (tmp_path / "log").stat().st_size == FORMER_RUNS_BYTES


def test_the_last_words_of_a_silo_with_a_long_log(tmp_path: Path) -> None:
    make_log(tmp_path / "log", b"the end")
    assert silo._last_words(make_live(tmp_path)).endswith("the end")
    assert silo._last_words(make_live(tmp_path / "nothing")) == ""
