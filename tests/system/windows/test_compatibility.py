"""Every trial of docs/compatibility.md, and the document itself."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.compatibility import DOCUMENT, SILO, Result, render, run_trial, start_silo
from tests.support.daemon import Docker
from tests.support.trials import TRIALS, Trial

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def results(docker: Docker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Trial, Result]]:
    start_silo(docker, tmp_path_factory.mktemp("scratch"))
    yield {trial: run_trial(docker, trial) for trial in TRIALS}
    docker("rm", "-f", SILO)


def _documented(trial: Trial) -> str:
    """What the document says about a trial: works, partly or not."""
    sections = re.split(r"^## ", DOCUMENT.read_text(), flags=re.MULTILINE)
    (section,) = (text for text in sections if text.startswith(trial.program.title))
    (row,) = (line for line in section.splitlines() if line.startswith(f"| {trial.tried} | "))
    return row.split(" | ")[1]


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: f"{trial.program.title}: {trial.tried}")
def test_the_document_says_what_came_of_it(results: dict[Trial, Result], trial: Trial) -> None:
    result = results[trial]
    assert result.outcome == _documented(trial), f"ended with {result.code}, printed: {result.said[-2000:]}"


def test_the_document_is_what_the_results_generate(results: dict[Trial, Result]) -> None:
    assert DOCUMENT.read_text() == render(list(results.values())), "python -m tests.support.compatibility"


def test_a_trial_can_fail(docker: Docker, results: dict[Trial, Result]) -> None:
    works = next(trial for trial, result in results.items() if result.outcome == "works")
    wrong = Trial(works.program, works.tried, works.command, works="never printed by anything", code=works.code)
    assert run_trial(docker, wrong).outcome == "not"
