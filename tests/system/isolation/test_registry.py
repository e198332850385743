"""`silo registry` reads a container's registry at both levels, running or not; and no silo's registry is Linux' business."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.daemon import Docker
from tests.support.windows import ROOT

pytestmark = pytest.mark.system

KEY = "HKLM\\Software\\Acme"


def silo(docker: Docker, *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "bin" / "silo"), "-H", f"unix://{docker.silod.socket}", "registry", *words]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)


def test_a_container_running_and_stopped(docker: Docker, level: str) -> None:
    name = f"registry-{level}"
    docker("run", "-di", "--name", name, "--isolation", level, "windows", "cmd")
    try:
        assert silo(docker, "diff", name).stdout == ""
        docker("exec", name, "cmd", "/c", f"reg add {KEY} /v Name /d x /f & setx OWN mine")
        shown = f"HKEY_LOCAL_MACHINE{KEY[4:]}\n    Name    REG_SZ    x\n"
        queried = silo(docker, "query", name, KEY)
        assert queried.stdout == shown, queried.stderr
        changed = silo(docker, "diff", name).stdout
        assert changed.count("[") == 2 and '[HKEY_CURRENT_USER\\Environment]\n"OWN"="mine"\n' in changed
        docker("stop", "-t", "1", name)
        assert silo(docker, "query", name, KEY).stdout == shown
        assert silo(docker, "diff", name).stdout == changed
        assert silo(docker, "diff", "--base", "windows", name, KEY).stdout in changed
    finally:
        docker("rm", "-f", name)


def test_a_linux_container_has_none(docker: Docker) -> None:
    docker("create", "--name", "no-registry", "busybox", "true")
    try:
        for name in ("no-registry", "busybox"):
            done = silo(docker, "query", name, KEY)
            assert done.returncode == 1 and f"{name} is not a Windows one: it has no registry" in done.stderr
    finally:
        docker("rm", "no-registry")
