"""Every command of docs/building.md, typed in its order, prints what the page says."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.conftest import find_vm_image
from tests.support.daemon import Silod, docker_for, docker_program, running_silod
from tests.support.images import busybox_image_tar
from tests.support.probes import require_program
from tests.support.windows import cache_root, load_windows
from tests.system.readme.test_readme import ROOT, matches, steps

pytestmark = pytest.mark.system

PAGE = (ROOT / "docs" / "building.md").read_text()
EXAMPLES = re.compile(
    r"^```dockerfile\n(.*?)^```\n\n(?:(?!```).*\n)*?^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL
)


@pytest.fixture(scope="module")
def daemon() -> Iterator[Silod]:
    """With what a registry would give (busybox), and the Windows base."""
    require_program("qemu-system-x86_64", "qemu-system-x86")
    find_vm_image()
    with running_silod(cache_root=str(cache_root()), vm_pool="0") as silod:
        load_windows(silod)
        docker_for(silod)("load", "-i", str(busybox_image_tar(silod.root / "busybox.tar")))
        yield silod


@pytest.mark.parametrize(("dockerfile", "console"), EXAMPLES.findall(PAGE))
def test_an_example(daemon: Silod, tmp_path: Path, dockerfile: str, console: str) -> None:
    (tmp_path / "Dockerfile").write_text(dockerfile)
    environment = os.environ | {
        "SILO_HOST": f"unix://{daemon.socket}",
        "DOCKER_HOST": f"unix://{daemon.socket}",
        "PATH": f"{ROOT / 'bin'}:{Path(docker_program()).parent}:{os.environ['PATH']}",
    }
    for command, expected in steps(console):
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        assert matches(expected, done.stdout), f"$ {command}\nexpected: {expected!r}\nprinted: {done.stdout!r}"


def test_every_example_of_the_page_is_run() -> None:
    assert PAGE.count("```dockerfile\n") == PAGE.count("```console\n") == len(EXAMPLES.findall(PAGE)) == 4


def test_the_options_of_the_page_are_those_of_the_command() -> None:
    from silo.cli.commands.building import COMMANDS

    known = {f"--{row[0]}" for row in COMMANDS[0].flags}
    row = next(line for line in PAGE.splitlines() if line.startswith("| options |"))
    named = set(re.findall(r"--[a-z-]+", row)) - {"--cpu"}
    assert named <= known
