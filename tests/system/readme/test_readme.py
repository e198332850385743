"""Every command of the README, typed in its order, prints what the README says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Silod, docker_program, running_silod
from tests.support.probes import require_program

ROOT = Path(__file__).resolve().parents[3]
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[str]:
    return CONSOLE.findall((ROOT / "README.md").read_text())


def steps(block: str) -> list[tuple[str, str]]:
    """(command, expected output) pairs of one block."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in parts]


def matches(expected: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(piece) for piece in expected.rstrip("\n").split("…"))
    return re.fullmatch(pattern, printed.replace("\r\n", "\n").rstrip("\n"), re.DOTALL) is not None


@pytest.fixture(scope="module")
def daemon() -> Iterator[Silod]:
    require_program("curl")
    subprocess.run(
        [str(ROOT / ".venv/bin/python"), str(ROOT / "setup/programs.py"), str(ROOT / ".cache/programs")], check=True
    )
    with running_silod() as silod:
        yield silod
    for folder in ("/tmp/tiny", "/tmp/greeter"):
        shutil.rmtree(folder, ignore_errors=True)


def test_every_command_prints_what_is_written(daemon: Silod) -> None:
    environment = os.environ | {
        "SILO_HOST": f"unix://{daemon.socket}",
        "DOCKER_HOST": f"unix://{daemon.socket}",
        "PATH": f"{Path(docker_program()).parent}:{os.environ['PATH']}",
    }
    wrong = []
    for block in blocks():
        for command, expected in steps(block):
            if command.startswith("export DOCKER_HOST="):
                assert command.endswith("=unix:///run/silo/silo.sock")
                continue
            argv = daemon.within_network("bash", "-c", command)
            done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
            if done.returncode != 0 or not matches(expected, done.stdout):
                wrong.append(f"$ {command}\nexpected: {expected!r}\nprinted:  {done.stdout!r} {done.stderr[-800:]!r}")
    assert not wrong, "\n".join(wrong)


def test_the_readme_has_seven_things_to_try() -> None:
    assert len(blocks()) == 7
    assert all(steps(block) for block in blocks())


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        if "://" not in target:
            assert (ROOT / target).exists(), target
