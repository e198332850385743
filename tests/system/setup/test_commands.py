"""What ./demo and ./check do before they change anything, and the sentences that they end with."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.probes import require_program

ROOT = Path(__file__).resolve().parents[3]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def run(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], env=os.environ | variables, capture_output=True, text=True, timeout=60
    )


def in_set_up(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run bash with the functions of setup/common.sh."""
    return run("bash", "-c", f"source '{ROOT}/setup/common.sh'; {script}", "demo", **variables)


@pytest.mark.parametrize("command", ["demo", "check"])
def test_help(command: str) -> None:
    done = run(ROOT / command, "--help")
    assert done.returncode == 0 and f"./{command}" in done.stdout and done.stderr == ""


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("demo", "demo: unknown argument nonsense; run it without arguments\n"),
        ("check", "check: unknown step nonsense; there are: lint unit base contract system conformance\n"),
    ],
)
def test_a_wrong_word(command: str, sentence: str) -> None:
    done = run(ROOT / command, "nonsense")
    assert (done.returncode, done.stderr) == (1, sentence)


def test_no_root_and_no_sudo() -> None:
    done = in_set_up("id() { echo 1000; }; command() { return 1; }; become_root")
    assert done.returncode == 1
    assert done.stderr == "demo: must run as root, and sudo is not installed: log in as root and run it again\n"


def test_only_installed_packages_count_as_installed(tmp_path: Path) -> None:
    (tmp_path / "dpkg-query").write_text("#!/bin/sh\nprintf 'ii  crun\\nun  nftables\\nrc  iptables\\n'; exit 1\n")
    (tmp_path / "dpkg-query").chmod(0o755)
    variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SILO_CACHE": str(tmp_path)}
    done = in_set_up('run_apt() { echo apt "$@"; }; ensure_packages crun nftables iptables unheard-of', **variables)
    assert done.stdout.splitlines()[-1].endswith(" nftables iptables unheard-of"), done
    assert "crun" not in done.stdout
    assert in_set_up("run_apt() { echo apt; }; ensure_packages crun", **variables).stdout == ""


def test_sudo_gets_the_words_and_what_the_set_up_reads(tmp_path: Path) -> None:
    (tmp_path / "sudo").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "sudo").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = in_set_up("id() { echo 1000; }; become_root 'two words'", PATH=path, CI="true", SILO_CACHE="/c", HOME="/h")
    words = done.stdout.splitlines()
    assert words[:2] == ["--", "env"] and words[-2:] == [f"{ROOT}/demo", "two words"]
    assert {"CI=true", "SILO_CACHE=/c"} <= set(words) and "HOME=/h" not in words


def test_no_space() -> None:
    done = in_set_up("need_space /no/such/directory 9000000")
    assert done.returncode == 1
    assert re.fullmatch(r"demo: needs 9000000 GiB free on the disk of /, there are \d+\.\d\n", done.stderr)
    assert in_set_up("need_space / 0").returncode == 0


@pytest.mark.parametrize(
    ("function", "log", "reason"),
    [
        ("apt_reason", "Err:1 x\n  Temporary failure resolving 'x'\nE: Unable to fetch", "Temporary failure resolving"),
        ("apt_reason", "W: slow\nE: Unable to locate package tini\n", "E: Unable to locate package tini"),
        ("apt_reason", "dpkg: error: No space left on device\nE: Sub-process failed\n", "No space left on device"),
        ("apt_reason", "", "apt-get gave no reason"),
        (
            "pip_reason",
            "Collecting x\nERROR: Could not install packages: No space left on device: '/x'\n",
            "No space left",
        ),
        ("pip_reason", "ERROR: No matching distribution found for x==1\n", "No matching distribution found for x==1"),
        ("pip_reason", "Killed\n", "Killed"),
    ],
)
def test_the_reason_of_a_failure_is_found_in_its_log(tmp_path: Path, function: str, log: str, reason: str) -> None:
    (tmp_path / "log").write_text(log)
    done = in_set_up(f"{function} '{tmp_path}/log'")
    assert reason in done.stdout and done.stdout.count("\n") == 1


def test_progress_in_a_log_is_a_line_a_quarter() -> None:
    done = in_set_up('for percent in $(seq 0 100); do draw "$percent" things; done')
    assert done.stderr.split("\n") == ["things 0%", "things 25%", "things 50%", "things 75%", "things 100%", ""]


def test_installed_packages_need_no_apt(tmp_path: Path) -> None:
    """With an apt-get that only fails, packages that are there are found there, and others are asked for."""
    require_program("dpkg-query", "dpkg")
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho 'E: asked'\nexit 1\n")
    (tmp_path / "apt-get").chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert in_set_up("ensure_packages dpkg tar", PATH=path, SILO_CACHE=str(tmp_path)).returncode == 0
    done = in_set_up("ensure_packages dpkg no-such-package", PATH=path, SILO_CACHE=str(tmp_path))
    assert done.returncode == 1 and "demo: installing no-such-package failed: E: asked" in done.stderr


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_locks_have_hashes_and_no_addresses(lock: Path) -> None:
    text = lock.read_text()
    assert "://" not in text
    blocks = re.findall(r"^[A-Za-z0-9].*?(?=^[A-Za-z0-9#]|\Z)", text, re.MULTILINE | re.DOTALL)
    assert blocks and all("==" in block and "--hash=sha256:" in block for block in blocks)
