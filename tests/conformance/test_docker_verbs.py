"""The docker client's other verbs: exec, logs, cp, images, networks, volumes, what the engine says of itself."""

from __future__ import annotations

import io
import json
import re
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.conformance.conftest import Docker
from tests.conformance.terminal import Terminal

pytestmark = pytest.mark.system


@pytest.fixture
def sleeper(docker: Docker) -> str:
    """The name of a running container."""
    docker("run", "-d", "--name", "sleeper", "--label", "role=sleeper", "busybox", "sleep", "1000")
    return "sleeper"


# exec


def test_exec(docker: Docker, sleeper: str) -> None:
    done = docker.try_("exec", sleeper, "sh", "-c", "echo out; echo err >&2; exit 9")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 9)
    assert docker("exec", "-i", sleeper, "cat", stdin=b"piped") == "piped"
    flags = ("-e", "A=1", "-w", "/tmp", "-u", "app")
    assert docker("exec", *flags, sleeper, "sh", "-c", "echo $A; pwd; id -un") == "1\n/tmp\napp"
    docker("exec", "-d", sleeper, "touch", "/tmp/by-exec")
    deadline = time.monotonic() + 10
    while docker.try_("exec", sleeper, "test", "-e", "/tmp/by-exec").returncode != 0:
        assert time.monotonic() < deadline


def test_exec_exit_codes_are_never_lost(docker: Docker, sleeper: str) -> None:
    for code in (0, 1, 42, 255) * 5:
        assert docker.try_("exec", sleeper, "sh", "-c", f"exit {code}").returncode == code


def test_exec_of_what_is_not_there(docker: Docker, sleeper: str) -> None:
    done = docker.try_("exec", sleeper, "nosuchprogram")
    assert done.returncode == 127 and "not found" in done.stdout + done.stderr
    assert docker.try_("exec", sleeper, "/etc/passwd").returncode == 126
    docker("stop", "-t", "0", sleeper)
    done = docker.try_("exec", sleeper, "true")
    assert done.returncode == 1 and "is not running" in done.stderr


def test_exec_on_a_terminal(docker: Docker, sleeper: str) -> None:
    terminal = Terminal(docker, "exec", "-it", sleeper, "sh")
    terminal.expect(b"# ")
    terminal.type(b"stty size; exit 3\n")
    terminal.expect(b"24 80")
    assert terminal.end() == 3
    leaving = Terminal(docker, "exec", "-it", "--detach-keys", "ctrl-x", sleeper, "sh")
    leaving.expect(b"# ")
    leaving.type(b"\x18")
    leaving.end()
    assert docker.inspect(sleeper)["State"]["Running"]


# logs and attach


def test_logs(docker: Docker) -> None:
    docker("run", "--name", "talker", "busybox", "sh", "-c", "for i in 1 2 3 4 5; do echo line $i; done; echo oops >&2")
    done = docker.try_("logs", "talker")
    assert done.stdout == "".join(f"line {n}\n" for n in range(1, 6)) and done.stderr == "oops\n"
    assert docker("logs", "--tail", "1", "talker") + docker.try_("logs", "--tail", "1", "talker").stderr.strip() != ""
    stamped = docker("logs", "-t", "talker").splitlines()[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z line 1", stamped)
    assert docker("logs", "--since", "1h", "talker").startswith("line 1")
    assert docker("logs", "--until", "1h", "talker") == ""
    assert docker.try_("logs", "--since", "yesterday-ish", "talker").returncode == 1


def test_logs_follow_until_the_end(docker: Docker) -> None:
    docker("run", "-d", "--name", "counter", "busybox", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done")
    assert docker("logs", "-f", "counter") == "1\n2\n3"


def test_attach_to_a_running_container(docker: Docker) -> None:
    docker("create", "-i", "--name", "cat", "busybox", "cat")
    docker("start", "cat")
    done = subprocess.run(
        [docker.program, "attach", "cat"], input=b"typed\n", capture_output=True, env=docker.environment, timeout=20,
        check=False,
    )  # fmt: skip
    assert done.stdout == b"typed\n"
    assert docker("wait", "cat") == "0"


def test_start_attached(docker: Docker) -> None:
    docker("create", "--name", "later", "busybox", "sh", "-c", "echo now; exit 4")
    done = docker.try_("start", "-a", "later")
    assert (done.stdout, done.returncode) == ("now\n", 4)


# look


def test_top_stats_and_port(docker: Docker, sleeper: str) -> None:
    assert "sleep 1000" in docker("top", sleeper)
    assert docker("top", sleeper, "-o", "pid,comm").split()[0] == "PID"
    name, memory = docker("stats", "--no-stream", "--format", "{{.Name}} {{.MemUsage}}", sleeper).split(" ", 1)
    assert name == sleeper and re.match(r"[\d.]+[KMG]iB / ", memory)
    assert docker("port", sleeper) == ""


def test_ps_and_its_filters(docker: Docker, sleeper: str, level: str) -> None:
    docker.try_("run", "--name", "ended", "busybox", "sh", "-c", "exit 3")

    def names(*flags: str) -> set[str]:
        return set(docker("ps", "--format", "{{.Names}}", *flags).split())

    assert sleeper in names() and "ended" not in names()
    assert {sleeper, "ended"} <= names("-a")
    assert names("-f", "exited=3") == {"ended"}
    assert names("-f", "label=role=sleeper") == {sleeper}
    assert names("-f", "name=^/sleeper$") == {sleeper}
    assert names("-a", "-f", "since=sleeper") == {"ended"}
    assert sleeper in names("-a", "-f", "before=ended")
    assert {sleeper, "ended"} <= names("-a", "-f", "ancestor=busybox")
    assert sleeper in names("-f", f"isolation={level}") and names("-f", "health=healthy") == set()
    assert names("-a", "-f", "status=running", "-f", "label=role") == {sleeper}
    assert len(names("-a", "-n", "1")) == 1
    row = docker(
        "ps", "-a", "-s", "--filter", "name=ended", "--format", "{{.Status}}|{{.Size}}|{{.Command}}", "--no-trunc"
    )
    assert re.match(r"Exited \(3\) .* ago\|[\d.]+k?B \(virtual [\d.]+MB\)\|\"sh -c 'exit 3'\"|Exited \(3\).*", row)


def test_inspect_by_format_and_kind(docker: Docker, sleeper: str) -> None:
    assert docker("inspect", "-f", "{{.State.Running}} {{.Config.Image}}", sleeper) == "true busybox"
    assert docker("inspect", "-f", "{{.HostConfig.NetworkMode}}", sleeper) in ("bridge", "default")
    assert docker("inspect", "--type", "image", "-f", "{{.Os}}/{{.Architecture}}", "busybox") == "linux/amd64"
    assert "SizeRw" in docker("inspect", "-s", sleeper)
    assert docker("network", "inspect", "-f", "{{.Driver}}", "bridge") == "bridge"


def test_events(docker: Docker) -> None:
    begin = str(time.time())
    following = docker.start(
        "events", "--since", begin, "--format", "{{.Type}} {{.Action}}", "--filter", "container=short"
    )
    docker("run", "--rm", "--name", "short", "busybox", "true")
    time.sleep(0.5)
    following.terminate()
    assert following.stdout is not None
    live = following.stdout.read().decode().split("\n")
    past = docker("events", "--since", begin, "--until", str(time.time()), "--format", "{{.Type}} {{.Action}}").split(
        "\n"
    )
    for seen in (live, past):
        wanted = ["container create", "container start", "container die", "container destroy"]
        assert [line for line in seen if line in wanted] == wanted
    assert docker.try_("events", "--since", begin, "--until", begin, "--filter", "nonsense=1").returncode == 1


def test_update(docker: Docker, sleeper: str, level: str) -> None:
    # a machine has no swap
    swap = "128m" if level == "process" else "64m"
    docker("update", "--memory", "64m", "--memory-swap", swap, "--cpus", "0.5", "--restart", "no", sleeper)
    host = docker.inspect(sleeper)["HostConfig"]
    assert (host["Memory"], host["NanoCpus"]) == (64 << 20, 500_000_000)
    assert host["MemorySwap"] == int(swap[:-1]) << 20
    limit = docker("stats", "--no-stream", "--format", "{{.MemUsage}}", sleeper).split(" / ")[1]
    assert limit == "64MiB"


# files


def names_in(archive: io.BytesIO) -> set[str]:
    with tarfile.open(fileobj=archive) as tar:
        return {name.removeprefix("./") for name in tar.getnames()}


def test_cp_diff_and_export(docker: Docker, sleeper: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "file").write_text("content")
    docker("cp", str(source), f"{sleeper}:/copied")
    assert docker("exec", sleeper, "cat", "/copied/sub/file") == "content"
    docker("cp", f"{sleeper}:/copied/.", str(tmp_path / "back"))
    assert (tmp_path / "back" / "sub" / "file").read_text() == "content"
    docker("cp", f"{sleeper}:/etc/passwd", str(tmp_path))
    assert "root" in (tmp_path / "passwd").read_text()
    assert "Could not find the file" in docker.try_("cp", f"{sleeper}:/no/such", str(tmp_path)).stderr
    piped = subprocess.run(
        [docker.program, "cp", f"{sleeper}:/copied", "-"], capture_output=True, env=docker.environment, check=True
    )
    assert "copied/sub/file" in names_in(io.BytesIO(piped.stdout))
    docker("exec", sleeper, "rm", "/etc/group")
    changes = docker("diff", sleeper).splitlines()
    assert {"A /copied", "A /copied/sub/file", "D /etc/group"} <= set(changes)
    docker("export", "-o", str(tmp_path / "root.tar"), sleeper)
    names = names_in(io.BytesIO((tmp_path / "root.tar").read_bytes()))
    assert "copied/sub/file" in names and "etc/group" not in names
    docker("stop", "-t", "0", sleeper)
    docker("cp", str(source / "sub" / "file"), f"{sleeper}:/while-stopped")
    docker("start", sleeper)
    assert docker("exec", sleeper, "cat", "/while-stopped") == "content"


def test_a_hostile_archive_writes_nothing_outside(docker: Docker, sleeper: str) -> None:
    for entry, link in (("../../../../tmp/silo-escaped", ""), ("link", "/etc"), ("link/escaped", "")):
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            info = tarfile.TarInfo(entry)
            if link:
                info.type, info.linkname = tarfile.SYMTYPE, link
            tar.addfile(info, io.BytesIO(b""))
        docker.try_("cp", "-", f"{sleeper}:/tmp", stdin=archive.getvalue())
    assert not Path("/tmp/silo-escaped").exists() and not Path("/etc/escaped").exists()


# images


def test_commit_tag_history_and_rmi(docker: Docker, sleeper: str) -> None:
    docker("exec", sleeper, "sh", "-c", "echo kept > /kept")
    docker("commit", "-m", "a message", "-a", "me", "-c", 'CMD ["cat", "/kept"]', "-c", "ENV A=1", sleeper, "made:1")
    assert docker("run", "--rm", "made:1") == "kept"
    image = docker.inspect("made:1")
    assert image["Author"] == "me" and "A=1" in image["Config"]["Env"] and image["Config"]["Cmd"] == ["cat", "/kept"]
    assert "a message" in docker("history", "--no-trunc", "made:1")
    docker("tag", "made:1", "made:2")
    rows = docker("images", "--format", "{{.Repository}}:{{.Tag}}", "made").split()
    assert rows == ["made:1", "made:2"] or rows == ["made:2", "made:1"]
    assert "Untagged: made:2" in docker("rmi", "made:2")
    docker("rmi", "made:1")
    assert docker.try_("run", "--rm", "--pull", "never", "made:1").returncode == 125
    busy = docker.try_("rmi", "busybox")
    assert busy.returncode == 1 and "container" in busy.stderr


def test_save_load_and_import(docker: Docker, tmp_path: Path) -> None:
    archive = tmp_path / "saved.tar"
    docker("tag", "busybox", "again:1")
    docker("save", "-o", str(archive), "again:1")
    docker("rmi", "again:1")
    assert "again:1" in docker("load", "-i", str(archive))
    docker("rmi", "again:1")
    docker("create", "--name", "source", "busybox")
    exported = subprocess.run(
        [docker.program, "export", "source"], capture_output=True, env=docker.environment, check=True
    )
    docker("import", "-c", "CMD echo imported", "-", "imported:x", stdin=exported.stdout)
    assert docker("run", "--rm", "imported:x") == "imported"
    docker("rmi", "imported:x")
    broken = docker.try_("load", stdin=b"this is not an archive")
    assert broken.returncode == 1 and broken.stderr


def test_prune(docker: Docker) -> None:
    docker("run", "--name", "old", "busybox", "true")
    docker("network", "create", "unused")
    text = docker("system", "prune", "-f")
    assert "Deleted Containers" in text and "unused" in text
    assert "old" not in docker("ps", "-a", "--format", "{{.Names}}").split()
    docker("volume", "create", "idle")
    assert "idle" in docker("volume", "prune", "-af")


# the engine itself


def test_version_and_info(docker: Docker) -> None:
    version = json.loads(docker("version", "--format", "{{json .Server}}"))
    assert version["ApiVersion"] == "1.50" and version["Os"] == "linux"
    info = json.loads(docker("info", "--format", "{{json .}}"))
    assert info["Images"] >= 1 and info["OSType"] == "linux" and info["Driver"] == "overlay2"
    assert docker.try_("info").returncode == 0
    assert "ERROR" not in docker("info")


def test_disk_usage(docker: Docker, sleeper: str) -> None:
    kinds = docker("system", "df", "--format", "{{.Type}}={{.TotalCount}}").splitlines()
    assert any(re.match(r"Images=[1-9]", kind) for kind in kinds)
    assert sleeper in docker("system", "df", "-v")


def test_networks(docker: Docker) -> None:
    docker("network", "create", "--label", "a=b", "--internal", "closed")
    assert docker("network", "ls", "-q", "-f", "label=a=b", "-f", "name=closed") != ""
    assert docker("network", "inspect", "-f", "{{.Internal}}", "closed") == "true"
    again = docker.try_("network", "create", "closed")
    assert again.returncode == 1 and "already exists" in again.stderr
    docker("network", "rm", "closed")
    for name in ("bridge", "host", "none"):
        assert name in docker("network", "ls", "--format", "{{.Name}}").split()
        assert docker.try_("network", "rm", name).returncode == 1
    refused = docker.try_("network", "create", "-d", "overlay", "far")
    assert refused.returncode == 1 and "overlay" in refused.stderr


def test_volumes(docker: Docker) -> None:
    docker("volume", "create", "one")
    assert json.loads(docker("volume", "inspect", "one"))[0]["Driver"] == "local"
    docker("volume", "rm", "one")
    assert "one" not in docker("volume", "ls", "-q").split()
    assert docker.try_("volume", "create", "-d", "nosuch", "two").returncode == 1


def test_images_filters(docker: Docker) -> None:
    assert docker("images", "-q", "-f", "reference=busy*") != ""
    assert docker("images", "-q", "-f", "dangling=true") == ""
    assert docker.try_("images", "-f", "nonsense=1").returncode == 1


def test_a_client_without_buildx_builds_by_the_classic_protocol_by_itself(docker: Docker) -> None:
    assert "buildx" not in docker("info", "-f", "{{.ClientInfo.Plugins}}")
    done = docker.try_("build", "-", stdin=b"FROM busybox\n")
    assert done.returncode == 0 and "Successfully built" in done.stdout
