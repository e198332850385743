"""Which Windows programs run: trials, what came of them, and docs/compatibility.md, which is made of nothing else.

    python -m tests.support.compatibility      run all trials in a container and write the document

A trial works when its program ends with the code and prints what it should; partly, when it does what `partly` says instead; else
it does not work. tests/system/windows/test_compatibility.py runs them all and holds the committed document against the results.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.daemon import Docker
from tests.support.trials import TRIALS, Trial
from tests.support.windows import ROOT, real_programs, windows_docker

DOCUMENT = ROOT / "docs" / "compatibility.md"
SILO = "compatibility"

_LOCK = ROOT / "requirements" / "programs.txt"
_VERSION = re.compile(r"^([a-z-]+)==([0-9.]+)", re.MULTILINE)
_HEAD = """# Which Windows programs run

Each row is a trial that `./check` makes: a real, unmodified Windows program runs in a Windows container of Silo, and what it
prints and its exit code say whether that works. `python -m tests.support.compatibility` writes this file from the results, and a
test fails when it no longer tells the truth.
"""
_SCRATCH = {
    "untidy.py": "import os\nx = { 'a':1 }\n",
    "build.ninja": "rule copy\n  command = cmd /c copy $in $out\nbuild made.txt: copy given.txt\n",
    "given.txt": "given\r\n",
    "batch.cmd": "@echo %1-%2\r\n",
}


@dataclass(frozen=True)
class Result:
    """What came of a trial: works, partly or not. `said` is what its program printed, for a person who asks why."""

    trial: Trial
    outcome: str
    code: int
    said: str


def start_silo(docker: Docker, folder: Path) -> None:
    """The container that the trials run in; `folder` becomes its C:\\scratch."""
    folder.chmod(0o755)
    for name, text in _SCRATCH.items():
        (folder / name).write_text(text, newline="")
    mounts = ("-v", f"{folder}:C:\\scratch", "-v", f"{real_programs()}:C:\\programs:ro")
    docker("run", "-di", "--name", SILO, "--hostname", "trial", *mounts, "-w", "C:\\scratch", "windows", "cmd")


def run_trial(docker: Docker, trial: Trial) -> Result:
    try:
        done = docker.try_("exec", SILO, *trial.command)
    except subprocess.TimeoutExpired as error:
        return Result(trial, "not", -1, str(error))
    said = (done.stdout + done.stderr).replace("\r", "")
    if done.returncode == trial.code and re.search(trial.works, said, re.MULTILINE):
        outcome = "works"
    elif trial.partly and re.search(trial.partly, said, re.MULTILINE):
        outcome = "partly"
    else:
        outcome = "not"
    return Result(trial, outcome, done.returncode, said)


def render(results: Sequence[Result]) -> str:
    """The document."""
    versions = dict(_VERSION.findall(_LOCK.read_text()))
    count = {outcome: sum(result.outcome == outcome for result in results) for outcome in ("works", "partly", "not")}
    lines = [_HEAD, f"{count['works']} trials work, {count['partly']} work in part, {count['not']} do not.", ""]
    for program in dict.fromkeys(result.trial.program for result in results):
        version = versions.get(program.package, "")
        lines += [f"## {program.title} {version}".rstrip(), "", "| tried | result | note |", "|---|---|---|"]
        rows = (result for result in results if result.trial.program == program)
        lines += [f"| {row.trial.tried} | {row.outcome} | {row.trial.note} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    with windows_docker() as docker, tempfile.TemporaryDirectory(prefix="silo-trials-") as folder:
        start_silo(docker, Path(folder))
        results = [run_trial(docker, trial) for trial in TRIALS]
    for result in results:
        if result.outcome != "works":
            print(f"{result.outcome}: {result.trial.tried} ({result.code})\n{result.said[-600:]}", file=sys.stderr)
    DOCUMENT.write_text(render(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
