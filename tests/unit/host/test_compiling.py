"""Programs compiled once: what is there is kept, what fails leaves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from silo.errors import CommandFailed, ToolMissing
from silo.host.compiling import compile_once


def test_it_is_compiled_once(tmp_path: Path) -> None:
    worked: list[Path] = []

    def compile_in(work: Path) -> Path:
        worked.append(work)
        (work / "out").write_text("program")
        return work / "out"

    finished = tmp_path / "digest" / "program"
    assert compile_once(finished, "gcc", compile_in) == compile_once(finished, "gcc", compile_in) == finished
    assert finished.read_text() == "program" and len(worked) == 1 and not worked[0].exists()


@pytest.mark.parametrize(
    ("failure", "told"), [(ToolMissing("cc"), ToolMissing), (CommandFailed(["cc"], 1, "no"), CommandFailed)]
)
def test_a_failure_leaves_nothing(tmp_path: Path, failure: Exception, told: type[Exception]) -> None:
    def compile_in(work: Path) -> Path:
        (work / "half").write_text("pro")
        raise failure

    with pytest.raises(told) as caught:
        compile_once(tmp_path / "digest" / "program", "the-package", compile_in)
    assert not list((tmp_path / "digest").iterdir())
    if isinstance(caught.value, ToolMissing):
        assert caught.value.tool == "cc" and "the-package" in caught.value.hint
