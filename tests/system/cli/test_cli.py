"""The silo program against a real daemon: what it prints is what docker prints, and what it runs, runs."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from silo.host.namespaces import start_time
from tests.support.daemon import Docker, Silod
from tests.support.probes import require_program, require_root
from tests.system.cli.conftest import PROGRAM, Silo

pytestmark = pytest.mark.system


@pytest.mark.parametrize(
    "words",
    [
        "ps", "ps -a --no-trunc", "ps -aq", "ps -n 1", "ps -l --format {{.Names}}|{{.Image}}|{{.Ports}}|{{.Networks}}",
        "ps --filter name=shown --format table·{{.ID}}\\t{{.Command}}", "images", "images --digests", "images -q --no-trunc",
        "history busybox", "history --no-trunc -q busybox", "network ls", "network ls --no-trunc", "network inspect bridge",
        "volume ls", "volume inspect data", "inspect shown", "inspect busybox", "port shown", "port shown 80", "top shown",
        "top shown -o pid,comm", "logs shown", "logs -n 1 shown", "diff shown", "system df", "version --format {{.Server.Version}}",
        "info --format {{.Driver}}·{{.NCPU}}", "inspect -f {{.State.Status}}{{json·.Config.Cmd}} shown", "inspect nope",
        "container ls", "image ls", "rm nope", "rm -f nope", "rmi nope", "rmi -f nope", "network rm -f nope", "volume rm nope",
        "stop nope", "exec shown nope", "run busybox /etc", "start nope", "port shown 99", "inspect -f {{.Nope}} shown",
    ],
)  # fmt: skip
def test_output_and_status_are_dockers(silo: Silo, docker_program_here: Docker, words: str) -> None:
    silo("run", "-d", "--name", "shown", "-p", "18080:80", "-p", "1000-1001:1000-1001/udp", "-v", "data:/data", "busybox",
         "sh", "-c", "echo one; echo two; touch /new; exec sleep 1000")  # fmt: skip
    deadline = time.monotonic() + 10
    while "/new" not in silo("diff", "shown") and time.monotonic() < deadline:
        time.sleep(0.05)
    split = [word.replace("·", " ") for word in words.split()]
    ours = silo.try_(*split)
    theirs = docker_program_here.try_(*split)
    assert _ageless(ours.stdout.decode()) == _ageless(theirs.stdout).rstrip("\n") + ("\n" if ours.stdout else "")
    assert ours.returncode == theirs.returncode
    assert bool(ours.stderr) == bool(theirs.stderr)


def _ageless(text: str) -> str:
    """Ages may turn between two calls, and a column is as wide as they are.

    Created containers of `run busybox /etc` are left out by -a's own filter.
    """
    narrow = re.sub(" {2,}", "  ", text)
    return re.sub(r"(Up )?(Less than a second|\d+ seconds?|About a minute)( ago)?", "<age>", narrow)


def test_run_and_its_statuses(silo: Silo) -> None:
    assert silo("run", "--rm", "busybox", "echo", "hello") == "hello"
    assert silo.try_("run", "--rm", "busybox", "sh", "-c", "exit 7").returncode == 7
    assert silo.try_("run", "--rm", "busybox", "nonexistent").returncode == 127
    done = silo.try_("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
    assert silo("ps", "-aq") == ""


def test_much_goes_through_in_both_directions(silo: Silo) -> None:
    data = os.urandom(8 << 20)
    assert silo.try_("run", "--rm", "-i", "busybox", "cat", stdin=data).stdout == data
    silo("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    assert silo.try_("exec", "-i", "box", "cat", stdin=data).stdout == data
    assert silo.try_("exec", "box", "sh", "-c", "exit 9").returncode == 9


def test_signals_reach_the_program(silo: Silo) -> None:
    script = "trap 'echo got; exit 8' INT; echo ready; while :; do sleep 0.05; done"
    program = subprocess.Popen(
        [PROGRAM, "run", "--rm", "busybox", "sh", "-c", script], env=silo.environment, stdout=subprocess.PIPE
    )
    assert program.stdout is not None
    assert program.stdout.readline() == b"ready\n"
    program.send_signal(signal.SIGINT)
    assert program.stdout.read() == b"got\n"
    assert program.wait(20) == 8


def _in_terminal(silo: Silo, words: Sequence[str], typed: Sequence[bytes]) -> tuple[bytes, int]:
    """Type each text once a prompt has come; the output and the status."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(PROGRAM, ["silo", *words], silo.environment)
    output = b""
    for text in [*typed, None]:
        deadline = time.monotonic() + 20
        seen = len(output)
        while time.monotonic() < deadline:
            if text is not None and b"# " in output[seen:]:
                break
            if not select.select([terminal], [], [], 0.1)[0]:
                continue
            try:
                output += os.read(terminal, 65536)
            except OSError:
                break
        if text is not None:
            os.write(terminal, text)
    os.close(terminal)
    return output, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_terminal(silo: Silo) -> None:
    output, status = _in_terminal(silo, ["run", "--rm", "-it", "busybox", "sh"], [b"tty; stty size\r", b"exit 5\r"])
    assert status == 5
    assert b"/dev/pts/0" in output


def test_detach_keys_leave_the_container_running(silo: Silo) -> None:
    output, status = _in_terminal(silo, ["run", "-it", "--name", "left", "busybox", "sh"], [b"\x10\x11"])
    assert (status, output.endswith(b"read escape sequence\r\n")) == (0, True)
    assert silo("inspect", "-f", "{{.State.Running}}", "left") == "true"
    output, status = _in_terminal(silo, ["attach", "left"], [b"exit 3\r"])
    assert status == 3


def test_cp_both_ways(silo: Silo, tmp_path: Path) -> None:
    (tmp_path / "tree/sub").mkdir(parents=True)
    (tmp_path / "tree/sub/f").write_bytes(b"content")
    (tmp_path / "tree/out").symlink_to("/etc/passwd")
    silo("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    silo("cp", str(tmp_path / "tree"), "box:/tmp/new")
    assert silo("exec", "box", "cat", "/tmp/new/sub/f") == "content"
    silo("cp", "box:/tmp/new/sub/f", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b"content"
    done = silo.try_("cp", "box:/tmp/new", str(tmp_path / "copy"))
    assert (tmp_path / "copy/sub/f").read_bytes() == b"content"
    assert done.returncode == 1
    assert b"out -> /etc/passwd: the link leads out" in done.stderr
    listing = subprocess.run(
        ["tar", "-t"], input=silo.try_("cp", "box:/tmp/new/.", "-").stdout, capture_output=True, check=True
    )
    assert b"sub/f" in listing.stdout
    assert silo.try_("cp", "box:/nope", str(tmp_path)).returncode == 1


def test_a_life_of_a_container(silo: Silo) -> None:
    silo("create", "--name", "box", "busybox", "sleep", "1000")
    silo("start", "box")
    silo("pause", "box")
    assert "(Paused)" in silo("ps")
    silo("unpause", "box")
    silo("rename", "box", "crate")
    silo("update", "--pids-limit", "50", "crate")
    assert silo("inspect", "-f", "{{.HostConfig.PidsLimit}}", "crate") == "50"
    silo("restart", "-t", "0", "crate")
    silo("stop", "-t", "0", "crate")
    assert silo("wait", "crate") == "137"
    assert silo("rm", "crate") == "crate"


def test_images_travel(silo: Silo, tmp_path: Path) -> None:
    silo("run", "--name", "box", "busybox", "touch", "/made")
    silo("commit", "-c", "CMD ls /made", "box", "made:1")
    assert silo("run", "--rm", "made:1") == "/made"
    silo("save", "-o", str(tmp_path / "made.tar"), "made:1")
    silo("rmi", "-f", "made:1")
    assert silo("load", "-i", str(tmp_path / "made.tar")) == "Loaded image: made:1"
    silo("export", "-o", str(tmp_path / "box.tar"), "box")
    silo("import", "-c", 'CMD ["/bin/ls", "/made"]', str(tmp_path / "box.tar"), "flat:1")
    assert silo("run", "--rm", "flat:1") == "/made"
    silo("tag", "flat:1", "flat:2")
    assert "Untagged: flat:1" in silo("rmi", "flat:1")


def test_following_logs_and_events(silo: Silo) -> None:
    silo("run", "-d", "--name", "box", "busybox", "sh", "-c", "echo one; sleep 0.5; echo two >&2")
    done = silo.try_("logs", "-f", "-t", "box")
    assert re.fullmatch(rb"\d{4}-\S+Z one\n", done.stdout)
    assert done.stderr.endswith(b" two\n")
    events = [
        json.loads(line) for line in silo("events", "--since", "1m", "--until", "0s", "--format", "json").splitlines()
    ]
    assert {"create", "start", "die"} <= {event["Action"] for event in events if event["Type"] == "container"}


def test_stats_and_disk_usage(silo: Silo) -> None:
    silo("run", "-d", "--name", "box", "busybox", "sleep", "1000")
    rows = [json.loads(line) for line in silo("stats", "--no-stream", "--format", "json").splitlines()]
    assert [(row["Name"], row["PIDs"]) for row in rows] == [("box", "1")]
    assert re.fullmatch(r"[\d.]+%", rows[0]["CPUPerc"])
    verbose = silo("system", "df", "-v")
    assert "Images space usage:" in verbose
    assert "box" in verbose


def test_networks_and_volumes(silo: Silo) -> None:
    silo("network", "create", "--subnet", "10.209.0.0/24", "--label", "a=b", "lab")
    silo("volume", "create", "data2")
    silo(
        "run",
        "-d",
        "--name",
        "peer",
        "--network",
        "lab",
        "--ip",
        "10.209.0.9",
        "-v",
        "data2:/d",
        "busybox",
        "sleep",
        "1000",
    )
    assert "10.209.0.9" in silo("run", "--rm", "--network", "lab", "busybox", "ping", "-c1", "peer")
    silo("network", "disconnect", "lab", "peer")
    silo("network", "connect", "--alias", "other", "lab", "peer")
    assert "10.209.0" in silo("run", "--rm", "--network", "lab", "busybox", "ping", "-c1", "other")
    silo("rm", "-f", "peer")
    silo("network", "rm", "lab")
    assert silo("volume", "rm", "data2") == "data2"


def test_the_daemon_is_started_when_none_runs(cli_silod: Silod, tmp_path: Path) -> None:
    require_root()
    require_program("ip", "iproute2")
    name = f"{cli_silod.network}-2"
    # A Unix socket's path is short.
    root = cli_silod.root / "2"
    environment = {key: value for key, value in os.environ.items() if key != "SILO_HOST"}
    environment |= {"SILO_RUN_ROOT": f"{root}/run", "SILO_DATA_ROOT": f"{root}/data", "SILO_WINDOWS_POOL": "0"}
    command = ["nsenter", f"--net=/run/netns/{name}", PROGRAM, "ps", "-q"]
    root.mkdir()
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        daemon = int((root / "data/silod.lock").read_text())
        assert subprocess.run(command, env=environment, check=False).returncode == 0
        assert os.getsid(daemon) == daemon
        os.kill(daemon, signal.SIGTERM)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as keeper:
            keeper.connect(f"{root}/run/keeper.sock")
            keeper.settimeout(10)
            keeper.send(b'{"op": "shutdown", "id": 1, "force": true}')
            keeper.recv(4096)
        deadline = time.monotonic() + 10
        # 0: gone, or a zombie that a container's process 1 does not reap
        while start_time(daemon) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not start_time(daemon)
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_a_daemon_that_cannot_start_says_why(tmp_path: Path) -> None:
    require_root()
    environment = {key: value for key, value in os.environ.items() if key != "SILO_HOST"}
    environment |= {
        "SILO_RUN_ROOT": str(tmp_path / "run"),
        "SILO_BRIDGE": "far-too-long-a-name",
        "SILO_DATA_ROOT": str(tmp_path),
    }
    done = subprocess.run([PROGRAM, "ps"], env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "silod did not start" in done.stderr
    assert "SILO_BRIDGE" in done.stderr
