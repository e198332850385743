"""`docker run` and its flags, by the real client against a real daemon."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.conformance.conftest import Docker
from tests.conformance.terminal import Terminal

pytestmark = pytest.mark.system


def test_attached_output_and_exit_code(docker: Docker) -> None:
    done = docker.try_("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_rm_leaves_nothing(docker: Docker) -> None:
    docker("run", "--rm", "--name", "gone", "busybox", "true")
    assert "gone" not in docker("ps", "-a", "--format", "{{.Names}}").split()


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (["/no/such/program"], 127, ""),
        (["nosuchprogram"], 127, "executable file not found"),
        (["/etc/passwd"], 126, "permission denied"),
        (["/tmp"], 126, ""),
    ],
)
def test_a_program_that_cannot_start(docker: Docker, command: list[str], status: int, words: str) -> None:
    done = docker.try_("run", "--rm", "busybox", *command)
    assert done.returncode == status, done.stderr
    assert words in done.stderr


def test_stdin_piped_in(docker: Docker) -> None:
    data = os.urandom(3_000_000)
    done = subprocess.run(
        [docker.program, "run", "-i", "--rm", "busybox", "md5sum"],
        input=data, capture_output=True, env=docker.environment, timeout=60, check=True,
    )  # fmt: skip
    import hashlib

    assert done.stdout.split()[0].decode() == hashlib.md5(data).hexdigest()


def test_large_output_arrives_whole(docker: Docker) -> None:
    done = subprocess.run(
        [docker.program, "run", "--rm", "busybox", "sh", "-c", "head -c 8000000 /dev/zero"],
        capture_output=True, env=docker.environment, timeout=60, check=True,
    )  # fmt: skip
    assert len(done.stdout) == 8_000_000


def test_detached_and_the_rest_of_a_life(docker: Docker) -> None:
    name = docker("run", "-d", "--name", "life", "busybox", "sh", "-c", "echo started; sleep 100")
    assert re.fullmatch(r"[0-9a-f]{64}", name)
    assert docker("ps", "--filter", "name=life", "--format", "{{.Names}} {{.State}}") == "life running"
    docker("pause", "life")
    assert docker.inspect("life")["State"]["Paused"]
    docker("unpause", "life")
    docker("rename", "life", "second")
    docker("restart", "-t", "1", "second")
    docker("stop", "-t", "1", "second")
    state = docker.inspect("second")["State"]
    assert state["Status"] == "exited" and state["ExitCode"] == 137
    assert docker("wait", "second") == "137"
    assert docker("logs", "second") == "started\nstarted"
    docker("start", "second")
    docker("kill", "-s", "KILL", "second")
    docker("rm", "-v", "second")
    assert docker.try_("inspect", "second").returncode == 1


@pytest.mark.parametrize(
    ("flags", "script", "wanted"),
    [
        (["-e", "A=1", "-e", "B=two words"], 'echo "$A,$B"', "1,two words"),
        (["-w", "/tmp"], "pwd", "/tmp"),
        (["-u", "1000:1000"], "id -u; id -g", "1000\n1000"),
        (["-u", "app"], "id -un", "app"),
        (["--hostname", "silo-host"], "hostname", "silo-host"),
        (["--read-only"], "touch /x 2>/dev/null || echo refused", "refused"),
        (["--read-only", "--tmpfs", "/t"], "touch /t/x && echo ok", "ok"),
        (["--tmpfs", "/t:size=1m,mode=0700"], "df -k /t | tail -1 | awk '{print $2}'; stat -c %a /t", "1024\n700"),
        (["--network", "none"], "ls /sys/class/net", "lo"),
        (["--add-host", "db:10.9.8.7"], "grep -w db /etc/hosts | cut -f1", "10.9.8.7"),
        (["--dns", "9.9.9.9"], "grep nameserver /etc/resolv.conf", "nameserver 9.9.9.9"),
        (["--init"], "readlink /proc/1/exe | grep -q busybox || echo init", "init"),
        (["--ulimit", "nofile=123:456"], "ulimit -n; ulimit -Hn", "123\n456"),
        (["--stop-timeout", "3", "--label", "a=b", "--cpus", "0.5"], "echo ok", "ok"),
        (["--shm-size", "1m"], "df -k /dev/shm | tail -1 | awk '{print $2}'", "1024"),
        (["--sysctl", "net.ipv4.ip_unprivileged_port_start=7"], "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "7"),
        (["--group-add", "5"], "id -G", "0 5"),
        (["--isolation", "process"], "echo ok", "ok"),
        (["--isolation", "DEFAULT"], "echo ok", "ok"),
        (["--platform", "linux/amd64"], "echo ok", "ok"),
        (["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status | cut -f2", "1"),
    ],
)  # fmt: skip
def test_flags_seen_from_inside(docker: Docker, flags: list[str], script: str, wanted: str) -> None:
    assert docker("run", "--rm", *flags, "busybox", "sh", "-c", script) == wanted


@pytest.mark.process_level  # in a machine the host's user ids are out of reach anyway
def test_the_hosts_user_namespace(docker: Docker) -> None:
    script = "cat /proc/self/uid_map | awk '{print $1,$2}'"
    assert docker("run", "--rm", "--userns", "host", "busybox", "sh", "-c", script) == "0 0"


@pytest.mark.process_level
def test_user_namespace_by_default(docker: Docker) -> None:
    inside, outside, _ = docker("run", "--rm", "busybox", "cat", "/proc/self/uid_map").split()
    assert inside == "0" and outside != "0"


def test_capabilities(docker: Docker) -> None:
    def effective(*flags: str) -> int:
        text = docker("run", "--rm", *flags, "busybox", "grep", "CapEff", "/proc/self/status")
        return int(text.split()[1], 16)

    default = effective()
    net_admin, chown = 1 << 12, 1
    assert default & chown and not default & net_admin
    assert effective("--cap-add", "NET_ADMIN") & net_admin
    assert not effective("--cap-drop", "CHOWN") & chown
    assert effective("--cap-drop", "ALL") == 0


def test_the_memory_limit_bites(docker: Docker) -> None:
    done = docker.try_("run", "--name", "oom", "--memory", "16m", "--memory-swap", "16m", "busybox", "sh", "-c",
                       "x=a; while true; do x=$x$x; done")  # fmt: skip
    assert done.returncode == 137
    assert docker.inspect("oom")["State"]["OOMKilled"]


def test_pids_limit_bites(docker: Docker) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 2 & done; wait"
    assert "fork" in docker.try_("run", "--rm", "--pids-limit", "6", "busybox", "sh", "-c", script).stderr


def test_binds_volumes_and_mounts(docker: Docker, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "file").write_text("from the host\n")
    where = str(tmp_path)
    assert docker("run", "--rm", "-v", f"{where}:/data:ro", "busybox", "cat", "/data/file") == "from the host"
    refused = docker.try_("run", "--rm", "-v", f"{where}:/data:ro", "busybox", "touch", "/data/x")
    assert refused.returncode != 0 and "Read-only" in refused.stderr
    docker("run", "--rm", "-v", f"{where}:/data", "busybox", "sh", "-c", "echo inside > /data/new")
    assert (tmp_path / "new").read_text() == "inside\n"
    assert (tmp_path / "new").stat().st_uid == 0, "ownership on disk stays unshifted"
    mount = f"type=bind,source={where}/file,target=/one,readonly"
    assert docker("run", "--rm", "--mount", mount, "busybox", "cat", "/one") == "from the host"
    docker("volume", "create", "--label", "a=b", "kept")
    docker("run", "--rm", "-v", "kept:/v", "busybox", "sh", "-c", "echo stays > /v/f")
    assert docker("run", "--rm", "--mount", "type=volume,src=kept,dst=/w", "busybox", "cat", "/w/f") == "stays"
    assert docker("volume", "ls", "-q", "--filter", "label=a=b") == "kept"
    docker("run", "-d", "--name", "holder", "-v", "kept:/v", "busybox", "sleep", "100")
    assert docker("run", "--rm", "--volumes-from", "holder", "busybox", "cat", "/v/f") == "stays"
    assert "in use" in docker.try_("volume", "rm", "kept").stderr
    docker("rm", "-f", "holder")
    docker("volume", "rm", "kept")


def test_a_mount_that_cannot_be(docker: Docker) -> None:
    done = docker.try_("run", "--rm", "--mount", "type=bind,src=/no/such,dst=/x", "busybox", "true")
    assert done.returncode == 125 and "/no/such" in done.stderr


def read_port(docker: Docker, port: int) -> str:
    """What a server on the host's loopback says; it may need a moment to listen."""
    deadline = time.monotonic() + 10
    while True:
        done = subprocess.run(
            docker.silod.within_network("busybox", "nc", "-w", "2", "127.0.0.1", str(port)),
            stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.stdout or time.monotonic() > deadline:
            return done.stdout
        time.sleep(0.1)


def test_published_ports(docker: Docker) -> None:
    port = 18080
    docker("run", "-d", "--name", "web", "-p", f"{port}:80", "-p", "127.0.0.1::81", "busybox", "sh", "-c",
           "while true; do echo hello | nc -l -p 80; done")  # fmt: skip
    assert docker("port", "web", "80/tcp").splitlines()[0] == f"0.0.0.0:{port}"
    assert re.fullmatch(r"127\.0\.0\.1:\d+", docker("port", "web", "81"))
    assert f"{port}->80/tcp" in docker("ps", "--filter", "name=web", "--format", "{{.Ports}}")
    assert read_port(docker, port) == "hello\n"
    taken = docker.try_("run", "--rm", "-p", f"{port}:80", "busybox", "true")
    assert taken.returncode == 125 and str(port) in taken.stderr


def test_names_networks_and_dns(docker: Docker) -> None:
    docker("network", "create", "--subnet", "10.214.9.0/24", "confnet")
    docker(
        "run", "-d", "--name", "server", "--network", "confnet", "--network-alias", "alias", "busybox", "sleep", "100"
    )
    for name in ("server", "alias"):
        found = docker("run", "--rm", "--network", "confnet", "busybox", "nslookup", name)
        assert docker.inspect("server")["NetworkSettings"]["Networks"]["confnet"]["IPAddress"] in found
    shown = docker("network", "inspect", "confnet", "--format", "{{range .Containers}}{{.Name}}{{end}}")
    assert shown == "server"
    docker("run", "-d", "--name", "late", "busybox", "sleep", "100")
    docker("network", "connect", "confnet", "late")
    assert "10.214.9." in docker("exec", "late", "ip", "addr")
    first = docker.inspect("late")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    docker("network", "disconnect", "bridge", "late")
    assert first not in docker("exec", "late", "sh", "-c", "ip addr; cat /etc/hosts")
    assert docker("exec", "late", "ip", "route", "show", "default").startswith("default via 10.214.9.")
    assert "10.214.9." in docker("exec", "late", "nslookup", "alias")
    docker("network", "disconnect", "confnet", "late")
    assert "10.214.9." not in docker("exec", "late", "ip", "addr")
    docker("create", "--name", "both", "--network", "confnet", "busybox", "sleep", "100")
    docker("network", "connect", "bridge", "both")
    docker("start", "both")
    had = docker.inspect("both")["NetworkSettings"]["Networks"]
    for name, network in (("eth0", "confnet"), ("eth1", "bridge")):
        assert had[network]["IPAddress"] in docker("exec", "both", "ip", "-o", "addr", "show", name)
    docker("rm", "-f", "server", "late", "both")
    docker("network", "rm", "confnet")
    assert "confnet" not in docker("network", "ls", "--format", "{{.Name}}").split()


@pytest.mark.process_level  # a machine's network is its own
def test_a_network_shared_with_a_container(docker: Docker) -> None:
    docker("run", "-d", "--name", "owner", "busybox", "sleep", "100")
    address = docker.inspect("owner")["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]
    assert address in docker("run", "--rm", "--network", "container:owner", "busybox", "ip", "addr", "show", "eth0")


def test_entrypoint(docker: Docker) -> None:
    assert docker("run", "--rm", "--entrypoint", "echo", "busybox", "a", "b") == "a b"


def test_restart_policy(docker: Docker) -> None:
    docker("run", "-d", "--name", "again", "--restart", "on-failure:2", "busybox", "false")
    deadline = time.monotonic() + 20
    while docker.inspect("again")["State"]["Status"] != "exited" or docker.inspect("again")["RestartCount"] < 2:
        assert time.monotonic() < deadline, docker.inspect("again")["State"]
        time.sleep(0.1)
    assert docker.inspect("again")["RestartCount"] == 2


def test_health(docker: Docker) -> None:
    docker("run", "-d", "--name", "well", "--health-cmd", "test -e /ok", "--health-interval", "200ms", "--health-retries",
           "1", "busybox", "sh", "-c", "sleep 1; touch /ok; sleep 100")  # fmt: skip
    deadline = time.monotonic() + 20
    while docker.inspect("well")["State"]["Health"]["Status"] != "healthy":
        assert time.monotonic() < deadline, docker.inspect("well")["State"]
        time.sleep(0.1)
    assert "(healthy)" in docker("ps", "--filter", "health=healthy", "--format", "{{.Status}}")


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--gpus", "all"], "--gpus"),
        (["--cgroup-parent", "/x"], "--cgroup-parent"),
        (["--cpu-rt-period", "1000"], "--cpu-rt-period"),  # not --device-read-bps: the client 26 loses it
        (["--log-driver", "syslog"], "--log-driver syslog"),
        (["--mount", "type=bind,src=/tmp,dst=/x,bind-recursive=disabled"], "bind-recursive"),
        (["--security-opt", "label=type:x"], "label=type:x"),
    ],
)
def test_an_unsupported_option_is_named(docker: Docker, flags: list[str], named: str) -> None:
    done = docker.try_("run", "--rm", *flags, "busybox", "true")
    assert done.returncode == 125 and named in done.stderr and "not supported" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--rm", "UPPER/case"], "invalid reference format"),
        (["run", "--rm", "--name", "a/b", "busybox"], "Invalid container name"),
        (["run", "--rm", "--memory", "1m", "busybox"], "Minimum memory limit"),
        (["run", "--rm", "--network", "no-such-net", "busybox", "true"], "no-such-net"),
        (["run", "--rm", "--isolation", "moon", "busybox"], "moon"),
        (["start", "no-such-container"], "No such container"),
        (["rmi", "no-such-image"], "No such image"),
        (["volume", "inspect", "no-such-volume"], "no-such-volume"),
        (["ps", "--filter", "nonsense=1"], "invalid filter"),
        (["swarm", "init"], "not supported"),
    ],
)
def test_bad_requests_get_clear_errors(docker: Docker, words: list[str], message: str) -> None:
    done = docker.try_(*words)
    assert done.returncode != 0 and message in done.stderr + done.stdout


def test_a_name_in_use(docker: Docker) -> None:
    docker("create", "--name", "twice", "busybox")
    done = docker.try_("create", "--name", "twice", "busybox")
    assert done.returncode == 1 and "already in use by container" in done.stderr


def test_a_terminal_with_resize_and_exit_code(docker: Docker) -> None:
    terminal = Terminal(docker, "run", "-it", "--rm", "busybox", "sh")
    terminal.expect(b"# ")
    terminal.type(b"stty size; echo do'ne'\n")
    terminal.expect(b"24 80")
    terminal.expect(b"done")
    terminal.resize(40, 100)
    terminal.process.send_signal(28)
    time.sleep(0.5)
    terminal.type(b"stty size\n")
    terminal.expect(b"40 100")
    terminal.type(b"exit 9\n")
    assert terminal.end() == 9


def test_detach_keys_and_attach_again(docker: Docker) -> None:
    terminal = Terminal(docker, "run", "-it", "--name", "detached", "busybox", "sh")
    terminal.expect(b"# ")
    terminal.type(b"\x10\x11")
    assert terminal.end() == 0
    assert docker.inspect("detached")["State"]["Running"]
    again = Terminal(docker, "attach", "--detach-keys", "ctrl-a,x", "detached")
    again.type(b"echo he'llo'\n")
    again.expect(b"hello")
    again.type(b"\x01x")
    again.end()
    assert docker.inspect("detached")["State"]["Running"]


def test_ctrl_c_reaches_the_program(docker: Docker) -> None:
    terminal = Terminal(
        docker,
        "run",
        "-it",
        "--rm",
        "busybox",
        "sh",
        "-c",
        "trap 'echo caught; exit 3' INT; echo re''ady; while :; do sleep 0.1; done",
    )
    terminal.expect(b"ready")
    terminal.type(b"\x03")
    terminal.expect(b"caught")
    assert terminal.end() == 3


def test_signals_are_proxied(docker: Docker) -> None:
    process = docker.start(
        "run", "--rm", "busybox", "sh", "-c", "trap 'echo term; exit 5' TERM; echo ready; while :; do sleep 0.1; done"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.terminate()
    assert process.stdout.readline() == b"term\n"
    assert process.wait(15) == 5
