"""Every command of docs/registry.md, typed in its order, prints what is written there."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from tests.support.windows import windows_docker
from tests.system.readme.test_readme import CONSOLE, ROOT, matches, steps

DOCUMENT = ROOT / "docs" / "registry.md"


def test_every_command_prints_what_is_written(tmp_path: Path) -> None:
    blocks = CONSOLE.findall(DOCUMENT.read_text())
    assert len(blocks) == 3
    wrong = []
    with windows_docker() as docker:
        environment = os.environ | {
            "SILO_HOST": f"unix://{docker.silod.socket}",
            "PATH": f"{ROOT / 'bin'}:{os.environ['PATH']}",
        }
        for command, expected in (step for block in blocks for step in steps(block)):
            done = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
            )
            if done.returncode != 0 or not matches(expected, done.stdout):
                wrong.append(f"$ {command}\nexpected: {expected!r}\nprinted:  {done.stdout!r} {done.stderr[-800:]!r}")
    assert not wrong, "\n".join(wrong)
    assert (tmp_path / "acme.reg").read_bytes().decode("utf-16").endswith('"Name"="Anvil"\r\n')
