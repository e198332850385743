"""`silo build`: what is sent, what is printed, and the exit status of the failed command."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import subprocess
import tarfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from silo.cli.commands.building import parse_output
from silo.cli.failure import UsageError
from tests.unit.cli.conftest import PROGRAM, Silo
from tests.unit.cli.fake_daemon import FakeDaemon

IMAGE = "sha256:" + "1" * 64
LINES: list[dict[str, Any]] = [
    {"stream": "Step 1/1 : FROM x\n"},
    {"status": "Pulling", "id": "layer", "progressDetail": {}},
    {"stream": "par"},
    {"stream": "tial\n"},
    {"aux": {"ID": IMAGE}},
    {"stream": f"Successfully built {IMAGE[7:19]}\n"},
]


def answer(*lines: dict[str, Any]) -> tuple[int, bytes]:
    return 200, b"\r\n".join(json.dumps(line).encode() for line in lines)


def context_of(daemon: FakeDaemon) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(daemon.asked[-1].body)) as archive:
        return {member.name: member for member in archive}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in {
        "project/Dockerfile": "FROM x\n", "project/a.log": "", "project/keep.log": "", "project/src/deep/a.c": "",
        "project/out/b": "", "project/out/keep": "", "elsewhere/Other": "FROM other\n",
    }.items():  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (tmp_path / "project/.dockerignore").write_text(
        "*.log\n!keep.log\nout\n!out/keep\nDockerfile\n.dockerignore\nsrc/deep\n"
    )
    (tmp_path / "project/link").symlink_to("../elsewhere")
    return tmp_path / "project"


def test_a_directory_is_packed_by_its_ignore_file(daemon: FakeDaemon, silo: Silo, project: Path) -> None:
    daemon.answers["POST", "/build"] = answer(*LINES)
    done = silo("build", "-t", "a:1", "-t", "b", "project")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Step 1/1 : FROM x\nlayer: Pulling\npartial\nSuccessfully built {IMAGE[7:19]}\n"
    members = context_of(daemon)
    assert sorted(members) == [".dockerignore", "Dockerfile", "keep.log", "link", "out/keep", "src"]
    assert members["link"].issym() and {member.uid for member in members.values()} == {0}
    query = daemon.asked[-1].query
    assert query["t"] == ["a:1", "b"] and query["dockerfile"] == ["Dockerfile"] and query["version"] == ["1"]


def test_every_option_is_sent(daemon: FakeDaemon, silo: Silo, project: Path, tmp_path: Path) -> None:
    daemon.answers["POST", "/build"] = answer(*LINES)
    (tmp_path / ".docker").mkdir()
    login = {"auths": {"r.example": {"auth": base64.b64encode(b"me:secret").decode()}}}
    (tmp_path / ".docker/config.json").write_text(json.dumps(login))
    done = silo(
        "build", "--add-host", "a:1.2.3.4", "--build-arg", "A=1", "--build-arg", "MINE", "--build-arg", "NOT_SET",
        "--cache-from", "c", "--cpus", "1.5", "--cpuset-cpus", "0", "--force-rm", "--isolation", "vm", "--label", "k=v",
        "-m", "64m", "--network", "none", "--no-cache",
        "--platform", "windows/amd64", "--pull", "--rm=false", "--shm-size", "1m", "--target", "s", "--ulimit",
        "nofile=1:2", "--iidfile", "id", "--security-opt", "seccomp=unconfined", "project", MINE="own", DOCKER_CONFIG="",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    asked = daemon.asked[-1]
    query = {name: values[0] for name, values in asked.query.items()}
    assert query | {"version": "1"} == query
    for name, value in {
        "extrahosts": "a:1.2.3.4", "nanocpus": "1500000000", "cpusetcpus": "0", "forcerm": "1", "isolation": "vm",
        "memory": str(64 << 20), "networkmode": "none", "nocache": "1", "platform": "windows/amd64", "pull": "1", "rm": "0",
        "shmsize": str(1 << 20), "target": "s",
    }.items():  # fmt: skip
        assert query[name] == value, name
    for name, content in {
        "buildargs": {"A": "1", "MINE": "own"}, "labels": {"k": "v"}, "cachefrom": ["c"], "securityopt": ["seccomp=unconfined"],
        "ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
    }.items():  # fmt: skip
        assert json.loads(query[name]) == content, name
    assert (tmp_path / "id").read_text() == IMAGE
    sent = json.loads(base64.urlsafe_b64decode(asked.headers["X-Registry-Config"]))
    assert sent["r.example"]["username"] == "me"


def test_dockerfiles_from_elsewhere(daemon: FakeDaemon, silo: Silo, project: Path) -> None:
    daemon.answers["POST", "/build"] = answer(*LINES)
    for words, stdin in ((("-f", "elsewhere/Other"), ""), (("-f", "-"), "FROM other\n")):
        assert silo("build", *words, "project", stdin=stdin).returncode == 0
        name = daemon.asked[-1].query["dockerfile"][0]
        assert name.startswith(".dockerfile.") and name in context_of(daemon)
    (project / "src/My.file").write_text("FROM mine\n")
    (project / "src/My.file.dockerignore").write_text("*\n")
    assert silo("build", "-f", "project/src/My.file", "project").returncode == 0
    assert daemon.asked[-1].query["dockerfile"] == ["src/My.file"]
    assert sorted(context_of(daemon)) == [".dockerignore", "src/My.file"]


def test_stdin_is_an_archive_or_a_dockerfile(daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.answers["POST", "/build"] = answer(*LINES)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("x"))
    for data in (buffer.getvalue(), gzip.compress(buffer.getvalue())):
        environment = {**os.environ, "SILO_HOST": daemon.host}
        done = subprocess.run([PROGRAM, "build", "-"], input=data, capture_output=True, env=environment, check=False)
        assert done.returncode == 0 and daemon.asked[-1].body == data, done.stderr
    subprocess.run([PROGRAM, "build", "-"], input=b"FROM y\n", capture_output=True, env=environment, check=True)
    assert list(context_of(daemon)) == ["Dockerfile"]


def test_urls_are_the_daemons(daemon: FakeDaemon, silo: Silo) -> None:
    daemon.answers["POST", "/build"] = answer(*LINES)
    assert silo("build", "https://h.example/x.tar").returncode == 0
    assert daemon.asked[-1].query["remote"] == ["https://h.example/x.tar"] and daemon.asked[-1].body == b""


def test_a_failed_command_gives_its_status(daemon: FakeDaemon, silo: Silo, project: Path) -> None:
    message = "Dockerfile:2: The command '\x1b[2Jx' returned a non-zero code: 7"
    daemon.answers["POST", "/build"] = answer(
        LINES[0], {"errorDetail": {"code": 7, "message": message}, "error": message}
    )
    done = silo("build", "project")
    assert done.returncode == 7 and "Dockerfile:2: The command" in done.stderr and "\x1b" not in done.stderr
    daemon.answers["POST", "/build"] = (400, {"message": "Dockerfile:1: unknown instruction"})
    done = silo("build", "project")
    assert done.returncode == 1 and done.stderr == "silo: Dockerfile:1: unknown instruction\n"


def test_quiet_prints_the_id_only(daemon: FakeDaemon, silo: Silo, project: Path) -> None:
    daemon.answers["POST", "/build"] = answer({"aux": {"ID": IMAGE}}, {"stream": f"{IMAGE}\n"})
    assert silo("build", "-q", "project").stdout == f"{IMAGE}\n"


def test_the_files_of_the_image_are_written(daemon: FakeDaemon, silo: Silo, project: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        top = tarfile.TarInfo("./")
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(top)
        info = tarfile.TarInfo("./bin/app")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"app"))

    def export(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(buffer.getvalue())))
        handler.end_headers()
        handler.wfile.write(buffer.getvalue())

    daemon.answers["POST", "/build"] = answer(*LINES)
    daemon.answers["GET", "/containers/abc123/archive"] = export
    daemon.answers["DELETE", "/containers/abc123"] = (204, None)
    assert silo("build", "-o", "rootfs", "project").returncode == 0
    assert (tmp_path / "rootfs/bin/app").read_text() == "app"
    assert daemon.asked[-1].method == "DELETE"
    assert silo("build", "-o", "type=tar,dest=files.tar", "project").returncode == 0
    assert (tmp_path / "files.tar").read_bytes() == buffer.getvalue()


def test_outputs() -> None:
    assert parse_output("dir") == ("local", "dir") and parse_output("-") == ("tar", "-")
    assert parse_output('type=local,"dest=a,b"') == ("local", "a,b")
    for text in ("type=oci,dest=x", "type=local", "type=local,dest=x,odd=y"):
        with pytest.raises(UsageError):
            parse_output(text)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--secret", "id=x", "."), "--secret is not supported"),
        (("--ssh", "default", "."), "--ssh is not supported"),
        (("nowhere",), "is not a directory"),
        (("-f", "-", "-"), "can't use stdin for both"),
        (("--build-arg", "=x", "."), "the variable has no name"),
        ((".",), "Dockerfile"),
        (("-f", "none", "."), "none"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_sent(
    daemon: FakeDaemon, silo: Silo, words: tuple[str, ...], told: str
) -> None:
    done = silo("build", *words)
    assert done.returncode != 0 and told in done.stderr and not daemon.asked


def test_a_malformed_ignore_file(daemon: FakeDaemon, silo: Silo, project: Path) -> None:
    (project / ".dockerignore").write_text("a\n[\n")
    done = silo("build", "project")
    assert done.returncode == 1 and ".dockerignore:2" in done.stderr and not daemon.asked


def test_prune(daemon: FakeDaemon, silo: Silo) -> None:
    daemon.answers["POST", "/build/prune"] = (200, {"CachesDeleted": ["sha256:x"], "SpaceReclaimed": 1000})
    done = silo("builder", "prune", "-af")
    assert done.stdout == "Deleted build cache objects:\nsha256:x\n\nTotal reclaimed space: 1kB\n"
    assert daemon.asked[-1].query["all"] == ["1"]
