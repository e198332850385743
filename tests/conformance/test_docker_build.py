"""`docker build` by the real client in its classic protocol: what is printed, what is in the image, what is kept for next time."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from tests.support.building import Builder, context_tar, member, silo, write_context
from tests.support.daemon import Docker

pytestmark = pytest.mark.system

APPLICATION = """
ARG BASE=busybox
FROM ${BASE} AS build
ARG VERSION=1
WORKDIR /src
COPY . .
RUN mkdir out && cat main.txt > out/app && echo "version $VERSION" >> out/app

FROM busybox
ENV HOME_OF_APP=/srv/app
WORKDIR $HOME_OF_APP
COPY --from=build --chown=app:app /src/out/ ./
USER app
RUN id -u > /tmp/who && ls -l app
LABEL kind=test
EXPOSE 8080
CMD cat app /tmp/who
"""


@pytest.fixture
def build(docker: Docker) -> Iterator[Builder]:
    """Removes the images that a test makes."""
    before = set(docker("images", "-aq", "--no-trunc").split())
    yield Builder(docker)
    if left := docker("ps", "-aq").split():
        docker("rm", "-f", *left)
    for _ in range(3):
        left = [image for image in docker("images", "-aq", "--no-trunc").split() if image not in before]
        if left:
            docker.try_("rmi", "-f", *dict.fromkeys(left))


def test_an_application_is_built_and_runs(build: Builder, docker: Docker, tmp_path: Path) -> None:
    context = write_context(tmp_path, {"Dockerfile": APPLICATION, "main.txt": "hello\n"})
    printed = build(context, "-t", "app:1", "-t", "registry.example/app", "--build-arg", "VERSION=7")
    assert "Step 1/15 : ARG BASE=busybox\n" in printed
    assert " ---> Running in " in printed and " ---> Removed intermediate container " in printed
    assert "-rw-r--r--    1 app      app " in printed
    lines = printed.rstrip().splitlines()
    assert lines[-3].startswith("Successfully built ")
    assert lines[-2:] == ["Successfully tagged app:1", "Successfully tagged registry.example/app:latest"]
    assert docker("run", "--rm", "app:1") == "hello\nversion 7\n1000"
    assert docker("ps", "-aq") == ""
    config = json.loads(docker("inspect", "-f", "{{json .Config}}", "app:1"))
    assert config["WorkingDir"] == "/srv/app" and config["User"] == "app"
    assert config["Labels"] == {"kind": "test"} and list(config["ExposedPorts"]) == ["8080/tcp"]
    assert config["Cmd"] == ["/bin/sh", "-c", "cat app /tmp/who"]


@pytest.mark.process_level
class TestCache:
    """What was made before is taken again, and nothing else is."""

    def test_everything_is_cached_the_second_time(self, build: Builder, tmp_path: Path) -> None:
        context = write_context(tmp_path, {"Dockerfile": APPLICATION, "main.txt": "hello\n"})
        first = build(context, "-t", "app")
        os.utime(context / "main.txt", (1, 1))
        second = build(context, "-t", "app")
        assert second.count(" ---> Using cache") == 12
        assert first.splitlines()[-2:] == second.splitlines()[-2:]

    def test_a_changed_file_is_noticed(self, build: Builder, docker: Docker, tmp_path: Path) -> None:
        context = write_context(tmp_path, {"Dockerfile": APPLICATION, "main.txt": "hello\n"})
        build(context, "-t", "app")
        (context / "main.txt").write_text("changed\n")
        printed = build(context, "-t", "app")
        assert printed.count(" ---> Using cache") == 4
        assert docker("run", "--rm", "app").startswith("changed\n")

    def test_modes_and_names_count(self, build: Builder, tmp_path: Path) -> None:
        context = write_context(tmp_path, {"Dockerfile": "FROM busybox\nCOPY * /x/\n", "a": "1"})
        first = build.image_id(context)
        (context / "a").chmod(0o755)
        second = build.image_id(context)
        (context / "a").rename(context / "b")
        assert len({first, second, build.image_id(context)}) == 3

    def test_build_arguments_count_from_their_declaration_on(self, build: Builder) -> None:
        text = "FROM busybox\nRUN echo before\nARG V\nRUN echo $V\n"
        build.dockerfile(text, "--build-arg", "V=1")
        assert build.dockerfile(text, "--build-arg", "V=1").count("Using cache") == 3
        printed = build.dockerfile(text, "--build-arg", "V=2")
        assert printed.count("Using cache") == 2 and "\n2\n" in printed

    def test_no_cache(self, build: Builder) -> None:
        text = "FROM busybox\nENV a=b\nRUN echo made\n"
        build.dockerfile(text)
        assert "Using cache" not in build.dockerfile(text, "--no-cache")

    def test_an_expanded_chmod_is_part_of_the_step(self, build: Builder, docker: Docker, tmp_path: Path) -> None:
        text = "FROM busybox\nARG MODE\nCOPY --chmod=$MODE a /a\nCMD ls -l /a\n"
        context = write_context(tmp_path, {"Dockerfile": text, "a": ""})
        build(context, "-t", "modes", "--build-arg", "MODE=600")
        build(context, "-t", "modes", "--build-arg", "MODE=640")
        assert docker("run", "--rm", "modes").startswith("-rw-r-----")

    def test_steps_of_an_image_from_elsewhere(self, build: Builder, docker: Docker, tmp_path: Path) -> None:
        context = write_context(
            tmp_path, {"Dockerfile": "FROM busybox\nENV a=b\nCOPY a /a\nRUN cat /a > /b\nCMD cat /b\n", "a": "1"}
        )
        built = build.image_id(context, "-t", "origin:1")
        docker("save", "-o", str(tmp_path / "saved.tar"), "origin:1")
        docker("rmi", "origin:1")
        docker("load", "-i", str(tmp_path / "saved.tar"))
        printed = build(context, "-t", "again", "--cache-from", "origin:1")
        assert printed.count("Using cache") == 4
        assert docker("run", "--rm", "again") == "1"
        assert docker("inspect", "-f", "{{.Id}}", "again") == built

    def test_steps_are_hidden_and_pruned(self, build: Builder, docker: Docker) -> None:
        build.dockerfile("FROM busybox\nENV a=b\nENV c=d\n", "-t", "kept")
        build.dockerfile("FROM busybox\nENV e=f\nENV g=h\n")
        shown = docker("images", "-q", "--no-trunc").split()
        everything = docker("images", "-aq", "--no-trunc").split()
        assert len(set(everything) - set(shown)) == 2
        pruned = docker("builder", "prune", "-f")
        assert "Total" in pruned
        after = docker("images", "-aq", "--no-trunc").split()
        assert len(set(everything) - set(after)) == 2
        assert "Using cache" in build.dockerfile("FROM busybox\nENV a=b\n")


@pytest.mark.process_level
class TestFailures:
    """A failing build says where, with Docker's words and the command's own exit status."""

    def test_a_command_that_fails(self, build: Builder, docker: Docker) -> None:
        done = build.try_("-", stdin=b"FROM busybox\n\nRUN echo oops; \\\n  exit 3\n")
        assert done.returncode == 3
        assert "Dockerfile:3: The command '/bin/sh -c echo oops;   exit 3' returned a non-zero code: 3" in done.stderr
        assert "oops\n" in done.stdout
        assert len(docker("ps", "-aq").split()) == 1

    def test_its_container_is_removed_on_request(self, build: Builder, docker: Docker) -> None:
        assert build.try_("-", "--force-rm", stdin=b"FROM busybox\nRUN false\n").returncode == 1
        assert docker("ps", "-aq") == ""

    def test_a_program_that_is_not_there(self, build: Builder, docker: Docker) -> None:
        done = build.try_("-", stdin=b'FROM busybox\nRUN ["nothing-of-this-name"]\n')
        assert done.returncode == 1 and "Dockerfile:2: " in done.stderr and "nothing-of-this-name" in done.stderr
        assert docker("ps", "-aq") == ""

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("FROM busybox\nRUM x\n", "Dockerfile:2: unknown instruction: RUM (did you mean RUN?)"),
            ("FROM busybox\nCOPY nothing /x\n", "Dockerfile:2: COPY failed: file not found in build context"),
            ("FROM busybox\nCOPY ../x /x\n", "Dockerfile:2: forbidden path outside the build context"),
            ("FROM busybox\nENV a=${b:?needed}\n", "Dockerfile:2: b: needed"),
            ("FROM busybox\nRUN --security=insecure id\n", "Dockerfile:2: RUN --security=insecure is not supported"),
            ("FROM busybox\nADD https://example.com/x.git /x\n", "Dockerfile:2: ADD of a git repository"),
            ("FROM busybox\nCOPY --chown=nobody:here Dockerfile /x\n", "Dockerfile:2: unable to find user nobody"),
            ("FROM busybox\nCOPY Dockerfile Dockerfile /x\n", "Dockerfile:2: "),
            ("FROM nothing.invalid/there\n", "Dockerfile:1: "),
            ("FROM scratch\n", "No image was generated"),
            ("", "Dockerfile"),
        ],
    )
    def test_what_is_wrong_and_where(self, build: Builder, text: str, words: str) -> None:
        done = build.try_("-", stdin=context_tar([member("Dockerfile", text.encode())]))
        assert done.returncode == 1
        assert words in done.stderr, done.stderr

    def test_a_dockerfile_of_another_name(self, build: Builder, tmp_path: Path) -> None:
        context = write_context(tmp_path, {"deep/My.file": "FROM busybox\nRUN false\n"})
        assert "My.file:2: " in build.try_(context, "-f", str(context / "deep/My.file")).stderr
        tar = context_tar([member("x", b"")])
        assert "Cannot locate specified Dockerfile: Dockerfile" in build.try_("-", stdin=tar).stderr

    def test_options_that_are_not_there(self, build: Builder, docker: Docker) -> None:
        assert (
            "--cgroup-parent is not supported" in build.try_("-", "--cgroup-parent=x", stdin=b"FROM busybox\n").stderr
        )
        done = build.try_("-", "-t", "UPPER", stdin=b"FROM busybox\n")
        assert "must be lowercase" in done.stderr


@pytest.mark.process_level
class TestContexts:
    """The context is untrusted: nothing of it, and nothing through it, leads elsewhere."""

    HOSTILE: tuple[tuple[str, list[tuple[tarfile.TarInfo, bytes]]], ...] = (
        ("climbing", [member("../../evil", b"x")]),
        ("behind a link", [member("out", kind=tarfile.SYMTYPE, link="/tmp"), member("out/evil", b"x")]),
        ("hard link", [member("h", kind=tarfile.LNKTYPE, link="../../../etc/passwd")]),
        ("device", [member("d", kind=tarfile.CHRTYPE)]),
    )

    @pytest.mark.parametrize("members", [case[1] for case in HOSTILE], ids=[case[0] for case in HOSTILE])
    def test_hostile_members_are_refused(self, build: Builder, members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
        tar = context_tar([member("Dockerfile", b"FROM busybox\nCOPY . /x\n"), *members])
        done = build.try_("-", stdin=tar)
        assert done.returncode == 1 and "archive" in done.stderr, done.stderr

    def test_an_absolute_name_stays_within(self, build: Builder, docker: Docker) -> None:
        tar = context_tar(
            [member("Dockerfile", b"FROM busybox\nCOPY . /x\nCMD cat /x/tmp/a\n"), member("/tmp/a", b"1")]
        )
        build("-", "-t", "absolute", stdin=tar)
        assert docker("run", "--rm", "absolute") == "1"

    def test_a_link_out_of_the_context_leads_nowhere(self, build: Builder, tmp_path: Path) -> None:
        context = write_context(tmp_path / "context", {"Dockerfile": "FROM busybox\nCOPY out /x\n"})
        (context / "out").symlink_to("../../../../../etc/passwd")
        assert "file not found in build context" in build.try_(context).stderr

    def test_truncated_and_damaged_archives(self, build: Builder) -> None:
        whole = gzip.compress(context_tar([member("Dockerfile", b"FROM busybox\n"), member("a", os.urandom(100_000))]))
        for damaged in (whole[:60_000], whole[:5000] + b"damage" + whole[5006:]):
            done = build.try_("-", stdin=damaged)
            assert done.returncode == 1 and "archive" in done.stderr, done.stderr

    def test_dockerignore(self, build: Builder, docker: Docker, tmp_path: Path) -> None:
        files = {
            "Dockerfile": "FROM busybox\nCOPY . /x\nCMD find /x -type f | sort\n",
            ".dockerignore": "*.log\n!keep.log\nDockerfile\n.dockerignore\nnode_modules\n",
            "a.log": "", "keep.log": "", "src/a": "", "node_modules/b": "",
        }  # fmt: skip
        build(write_context(tmp_path, files), "-t", "ignoring")
        assert docker("run", "--rm", "ignoring").split() == ["/x/keep.log", "/x/src/a"]
        # Our own client packs the same.
        assert silo(docker, "build", "-t", "ignoring:2", str(tmp_path)).returncode == 0
        assert docker("inspect", "-f", "{{.Id}}", "ignoring") == docker("inspect", "-f", "{{.Id}}", "ignoring:2")

    def test_a_url_as_context(self, build: Builder, docker: Docker, tmp_path: Path, web: Callable[[Path], str]) -> None:
        (tmp_path / "Dockerfile").write_text("FROM busybox\nCMD echo from a file\n")
        (tmp_path / "context.tar.gz").write_bytes(
            gzip.compress(
                context_tar([member("Dockerfile", b"FROM busybox\nCOPY a /a\nCMD cat /a\n"), member("a", b"1")])
            )
        )
        address = web(tmp_path)
        for name, printed in (("Dockerfile", "from a file"), ("context.tar.gz", "1")):
            done = silo(docker, "build", "-t", "remote", f"{address}/{name}")
            assert done.returncode == 0, done.stderr
            assert docker("run", "--rm", "remote") == printed


@pytest.fixture
def web(docker: Docker) -> Iterator[Callable[[Path], str]]:
    """Serves a directory in the daemon's network; the address."""
    servers: list[subprocess.Popen[bytes]] = []

    def serve(directory: Path) -> str:
        words = (sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "8123")
        server = subprocess.Popen(
            docker.silod.within_network(*words), cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        servers.append(server)
        assert server.stdout is not None and server.stdout.readline()
        return "http://127.0.0.1:8123"

    yield serve
    for server in servers:
        server.kill()
        server.wait()


def _tar_of(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo(name)
        info.size, info.uid, info.gid = len(data), 1000, 1000
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.mark.process_level
class TestCopying:
    def test_added_archives_of_every_kind_are_unpacked(self, build: Builder, docker: Docker, tmp_path: Path) -> None:
        plain = _tar_of("inner/file", b"unpacked\n")
        files: dict[str, str | bytes] = {
            "a.tar": plain, "b.tgz": gzip.compress(plain), "c.tar.bz2": bz2.compress(plain),
            "d.tar.xz": lzma.compress(plain), "e.tar.zst": zstandard.compress(plain), "f.gz": gzip.compress(b"no archive"),
            "Dockerfile": "FROM busybox\n" + "".join(
                f"ADD {name} /{name[0]}/\n" for name in ("a.tar", "b.tgz", "c.tar.bz2", "d.tar.xz", "e.tar.zst", "f.gz")
            ) + "COPY b.tgz /copied/\nCMD cat /?/inner/file && ls -ln /a/inner/file && ls /f /copied\n",
        }  # fmt: skip
        build(write_context(tmp_path, files), "-t", "added")
        lines = docker("run", "--rm", "added").splitlines()
        assert lines[:5] == ["unpacked"] * 5
        assert lines[5].split()[2:4] == ["1000", "1000"]
        assert lines[6:] == ["/copied:", "b.tgz", "", "/f:", "f.gz"]

    def test_a_damaged_archive_is_an_error(self, build: Builder, tmp_path: Path) -> None:
        damaged = gzip.compress(_tar_of("a", os.urandom(100_000)))[:50_000]
        context = write_context(tmp_path, {"Dockerfile": "FROM busybox\nADD x.tgz /\n", "x.tgz": damaged})
        done = build.try_(context)
        assert done.returncode == 1 and "Dockerfile:2: the archive is damaged" in done.stderr

    def test_urls(self, build: Builder, docker: Docker, tmp_path: Path, web: Callable[[Path], str]) -> None:
        served = write_context(tmp_path / "web", {"file.txt": "from the web\n"})
        os.utime(served / "file.txt", (1_000_000_000, 1_000_000_000))
        address = web(served)
        digest = hashlib.sha256(b"from the web\n").hexdigest()
        text = (
            f"FROM busybox\nADD --checksum=sha256:{digest} {address}/file.txt /got/\nADD {address}/file.txt /named\n"
            "CMD cat /got/file.txt && stat -c '%a %Y' /named\n"
        )
        build.dockerfile(text, "-t", "web")
        assert docker("run", "--rm", "web").splitlines() == ["from the web", "600 1000000000"]
        assert build.dockerfile(text).count("Using cache") == 3
        (served / "file.txt").write_text("other\n")
        done = build.try_("-", stdin=text.encode())
        assert done.returncode == 1 and "is not what was expected" in done.stderr
        missing = build.try_("-", stdin=f"FROM busybox\nADD {address}/none /x\n".encode())
        assert "Dockerfile:2: cannot download" in missing.stderr and "404" in missing.stderr

    def test_destinations(self, build: Builder, docker: Docker, tmp_path: Path) -> None:
        files = {
            "Dockerfile": "FROM busybox\nRUN mkdir -m 1777 /there && ln -s there /link\nWORKDIR /w\n"
            "COPY a /new\nCOPY a /slash/\nCOPY a /there\nCOPY a /link/b\nCOPY d /fresh\nCOPY d/ /there\nCOPY [ab] ./m/\n"
            'COPY ["with space", "/out here/"]\nCOPY a .\nCOPY d/*/deep* /deep/\n'
            "CMD find / -xdev -newer /bin/busybox -type f -path '*' ! -path '/etc/*' ! -path '/proc/*' | sort; stat -c %a /there\n",
            "a": "", "b": "", "d/one": "", "d/two/deep1": "", "d/two/deep2": "", "with space": "",
        }  # fmt: skip
        build(write_context(tmp_path, files), "-t", "places")
        *found, mode = docker("run", "--rm", "places").splitlines()
        assert [name for name in found if not name.startswith(("/dev", "/sys"))] == [
            "/deep/deep1", "/deep/deep2", "/fresh/one", "/fresh/two/deep1", "/fresh/two/deep2", "/new", "/out here/with space",
            "/slash/a", "/there/a", "/there/b", "/there/one", "/there/two/deep1", "/there/two/deep2", "/w/a", "/w/m/a", "/w/m/b",
        ]  # fmt: skip
        assert mode == "1777"

    def test_copying_from_an_image_keeps_owners(self, build: Builder, docker: Docker) -> None:
        text = "FROM scratch\nCOPY --from=busybox /home /home\nCOPY --from=busybox /bin /bin\nCMD ls -ln /home\n"
        build.dockerfile(text, "-t", "from")
        assert "1000     1000" in docker("run", "--rm", "from")

    def test_heredocs(self, build: Builder, docker: Docker) -> None:
        text = (
            "FROM busybox\nARG who=me\nRUN <<EOF\nset -e\nfor i in 1 2; do echo line $i >> /run.txt; done\nEOF\n"
            "COPY <<a.txt <<'b.txt' /files/\nfor $who\na.txt\nfor $who\nb.txt\nRUN cat <<ONE >> /run.txt\nthree\nONE\n"
            "RUN <<PROGRAM\n#!/bin/busybox cat\nPROGRAM\nCMD cat /run.txt /files/*; ls -d /silo*\n"
        )
        printed = build.dockerfile(text, "-t", "here")
        assert "#!/bin/busybox cat\n" in printed
        assert docker.try_("run", "--rm", "here").stdout.splitlines() == [
            "line 1",
            "line 2",
            "three",
            "for me",
            "for $who",
        ]


@pytest.mark.process_level
class TestInstructions:
    def test_stages_that_the_target_does_not_need_are_not_built(self, build: Builder) -> None:
        text = "FROM busybox AS one\nRUN echo one\nFROM busybox AS bad\nRUN false\nFROM one AS last\nRUN echo last\n"
        printed = build.dockerfile(text)
        assert "Step 4/4 : RUN echo last" in printed and "RUN false" not in printed
        assert "Step 2/2 : RUN echo one" in build.dockerfile(text, "--target", "one")
        assert "failed to reach build target x" in build.try_("-", "--target", "x", stdin=text.encode()).stderr

    def test_triggers_run_in_the_child(self, build: Builder, docker: Docker, tmp_path: Path) -> None:
        build.dockerfile("FROM busybox\nONBUILD COPY a /a\nONBUILD RUN cat /a > /b\n", "-t", "parent")
        context = write_context(tmp_path, {"Dockerfile": "FROM parent\nCMD cat /b\n", "a": "triggered"})
        assert "# Executing 2 build triggers\n" in build(context, "-t", "child")
        assert docker("run", "--rm", "child") == "triggered"
        assert docker("inspect", "-f", "{{json .Config.OnBuild}}", "child") == "null"

    def test_platform_arguments_and_proxies(self, build: Builder) -> None:
        text = "FROM --platform=$BUILDPLATFORM busybox\nARG TARGETARCH TARGETOS\nRUN echo $TARGETOS/$TARGETARCH $http_proxy\n"
        printed = build.dockerfile(text, "--build-arg", "http_proxy=http://p:1")
        assert f"\nlinux/{'amd64'} http://p:1\n" in printed

    def test_volumes_keep_what_later_steps_write(self, build: Builder, docker: Docker) -> None:
        build.dockerfile(
            "FROM busybox\nVOLUME /data\nRUN mkdir /data; echo kept > /data/a\nCMD cat /data/a\n", "-t", "volumes"
        )
        assert docker("run", "--rm", "volumes") == "kept"
        assert docker("volume", "ls", "-q") == ""

    def test_mounts(self, build: Builder, docker: Docker, tmp_path: Path) -> None:
        text = (
            "FROM busybox AS tools\nRUN echo tool > /tool\nFROM busybox\n"
            "RUN --mount=type=bind,source=src,target=/mnt --mount=type=bind,from=tools,source=/tool,target=/t cat /mnt/a /t\n"
            "RUN --mount=type=cache,id=shared,target=/cache echo x >> /cache/count && wc -l < /cache/count && ls /mnt\n"
            "RUN --mount=type=secret,id=none --mount=type=tmpfs,target=/tm,size=1m df -k /tm | tail -1\n"
        )
        context = write_context(tmp_path, {"Dockerfile": text, "src/a": "bound\n"})
        assert "bound\ntool\n" in build(context)
        assert "Using cache" not in build(context, "--no-cache") and "\n3\n" in build(context, "--no-cache")
        write_context(tmp_path, {"src/a": "changed\n"})
        assert "changed\ntool\n" in build(context)
        assert docker("builder", "prune", "-af")
        assert docker("volume", "ls", "-q") == ""

    def test_limits_network_and_hosts_reach_the_steps(self, build: Builder) -> None:
        text = "FROM busybox\nRUN cat /etc/hosts; ulimit -n; df -k /dev/shm | tail -1; ip link | grep -c eth0 || true\n"
        words = ("--add-host", "me:10.9.8.7", "--ulimit", "nofile=123:123", "--shm-size", "2m", "--network", "none")
        printed = build.dockerfile(text, *words)
        assert "10.9.8.7\tme" in printed and "\n123\n" in printed and " 2048 " in printed and "\n0\n" in printed

    def test_labels_quiet_and_the_file_of_the_id(self, build: Builder, docker: Docker, tmp_path: Path) -> None:
        context = write_context(tmp_path, {"Dockerfile": "FROM busybox\n"})
        words = ("-q", "--label", "a=it's $1", "--iidfile", str(tmp_path / "id"))
        image = build(context, *words).strip()
        assert image.startswith("sha256:") and (tmp_path / "id").read_text().strip() == image
        assert json.loads(docker("inspect", "-f", "{{json .Config.Labels}}", image)) == {"a": "it's $1"}


@pytest.mark.process_level
class TestManyAtOnce:
    def test_two_builds_at_once(self, build: Builder, docker: Docker, tmp_path: Path) -> None:
        contexts = [
            write_context(tmp_path / str(n), {"Dockerfile": f"FROM busybox\nRUN sleep 1; echo {n} > /n\nCMD cat /n\n"})
            for n in range(3)
        ]
        began = time.monotonic()
        running = [build.start(context, "-t", f"many:{n}") for n, context in enumerate(contexts)]
        assert [process.wait(60) for process in running] == [0, 0, 0]
        assert time.monotonic() - began < 10
        assert [docker("run", "--rm", f"many:{n}") for n in range(3)] == ["0", "1", "2"]

    def test_a_cancelled_build_leaves_nothing(self, build: Builder, docker: Docker, tmp_path: Path) -> None:
        context = write_context(tmp_path, {"Dockerfile": "FROM busybox\nRUN echo begun; sleep 1000\n"})
        images = docker("images", "-aq")
        process = build.start(context, "-t", "cancelled")
        assert process.stdout is not None
        while b"begun" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        process.wait(20)
        deadline = time.monotonic() + 20
        while docker("ps", "-aq"):
            assert time.monotonic() < deadline, docker("ps", "-a")
            time.sleep(0.1)
        assert docker("images", "-aq") == images
        assert not any((docker.silod.data_root / "builds").iterdir())
