"""Dockerfiles for Windows, in the manner of those that people publish: RUN under Wine, registry and PATH kept from step to step."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.conftest import find_vm_image
from tests.support.building import Builder, write_context
from tests.support.daemon import Docker
from tests.support.images import busybox_image_tar
from tests.support.probes import require_program
from tests.support.windows import compile_program

pytestmark = pytest.mark.system

TOOLS = r"""# escape=`
FROM windows
SHELL ["cmd", "/S", "/C"]
ENV TOOLS=C:\tools Greeting="hello there"
WORKDIR C:\tools
COPY say.exe .
COPY data\ c:/Tools/Data/
RUN setx /M PATH "%PATH%;C:\tools" && `
    reg add HKLM\Software\Tools /v Version /d 7 /f
RUN say.exe args from PATH && echo %GREETING% > %TOOLS%\greeting.txt
RUN ["cmd", "/C", "echo", "exec form"]
RUN dir /b C:\TOOLS\DATA && type c:\tools\data\deep\D.TXT
EXPOSE 8080
HEALTHCHECK CMD exit 0
CMD type %TOOLS%\greeting.txt && reg query HKLM\Software\Tools /v Version
"""
SCRIPT = r"""# escape=`
FROM windows
RUN <<EOF
set NAME=script
echo in a %NAME% of several lines
if not exist C:\made mkdir C:\made
echo %NAME%> C:\made\by.txt
EOF
USER ContainerUser
WORKDIR C:\Users\Public\work
RUN whoami && cd
ENTRYPOINT ["cmd", "/S", "/C"]
CMD ["type C:\\made\\by.txt"]
"""
MIXED = r"""# escape=`
FROM --platform=linux/amd64 busybox AS generate
RUN mkdir /out && for i in 1 2 3; do echo line $i; done > /out/generated.txt
FROM --platform=windows/amd64 windows
COPY --from=generate /out C:/site/
COPY --from=generate /out/*.txt /copies/
COPY --from=0 /bin/busybox C:/linux.bin
RUN find "line 2" C:\site\generated.txt & dir /b C:\copies
CMD type C:\SITE\Generated.TXT
"""
SERVICE = r"""# escape=`
FROM windows AS publish
WORKDIR C:\build
COPY say.exe service.exe
RUN copy service.exe C:\build\published.exe >nul && certutil -? >nul 2>nul & exit 0

FROM windows
LABEL maintainer="somebody@example.org" `
      description="a service"
ENV SERVICE_HOME C:\service
COPY --from=publish C:\build\published.exe C:\service\service.exe
COPY ["with space.txt", "C:/service/"]
WORKDIR C:/service
RUN setx /M PATH "C:\service;%PATH%" && if not exist logs mkdir logs
VOLUME C:\service\logs
HEALTHCHECK --interval=1s --timeout=20s --retries=3 CMD if exist C:\service\service.exe (exit 0) else (exit 1)
ENTRYPOINT ["service.exe"]
CMD ["events"]
"""


MOVES = r"""# escape=`
FROM windows
COPY tree C:/Tree
RUN ren C:\Tree Renamed && mkdir C:\Apps C:\Tree && move C:\Renamed\sub C:\Apps\Sub && echo new> C:\Apps\sub\new.txt
RUN ren C:\Apps\Sub\deep Deeper && del C:\Apps\Sub\new.txt && ren C:\Apps Programs && ren "C:\Program Files" Archive
CMD dir /b /s C:\Tree C:\Renamed C:\Programs & dir /b C:\ & type C:\programs\sub\deeper\file.txt
"""


@pytest.fixture(scope="module")
def build(docker: Docker) -> Iterator[Builder]:
    docker("load", "-i", str(busybox_image_tar(docker.silod.root / "busybox.tar")))
    yield Builder(docker)


def test_tools_registry_and_path(build: Builder, docker: Docker, tmp_path: Path) -> None:
    context = write_context(tmp_path, {"Dockerfile": TOOLS, "data/deep/d.txt": "deep\r\n"})
    compile_program("say", context)
    printed = build(context, "-t", "tools")
    assert "from" in printed and "exec form" in printed and "deep" in printed
    shown = docker("run", "--rm", "tools")
    assert "hello there" in shown and "Version    REG_SZ    7" in shown
    assert "PATH" in docker("run", "--rm", "tools", "cmd", "/C", "say.exe args from PATH")
    config = json.loads(docker("inspect", "-f", "{{json .Config}}", "tools"))
    assert config["ArgsEscaped"] is True and config["Cmd"][0].startswith("cmd /S /C type ")
    assert config["WorkingDir"] == "C:\\tools" and config["Env"] == ["TOOLS=C:\\tools", "Greeting=hello there"]
    assert build(context, "-t", "tools").count("Using cache") == 12


def test_a_script_and_another_user(build: Builder, docker: Docker) -> None:
    printed = build.dockerfile(SCRIPT, "-t", "script")
    assert "in a script of several lines" in printed and "ContainerUser" in printed
    assert "C:\\Users\\Public\\work" in printed
    assert docker("run", "--rm", "script").strip() == "script"
    assert "silo-build" not in docker("run", "--rm", "script", "dir /b C:\\")


def test_a_linux_stage_feeds_a_windows_one(build: Builder, docker: Docker) -> None:
    printed = build.dockerfile(MIXED, "-t", "mixed")
    assert "generated.txt" in printed
    assert docker("run", "--rm", "mixed").split() == ["line", "1", "line", "2", "line", "3"]
    assert docker("inspect", "-f", "{{.Os}}", "mixed") == "windows"


def test_a_service_that_is_healthy_and_found_by_path(build: Builder, docker: Docker, tmp_path: Path) -> None:
    context = write_context(tmp_path, {"Dockerfile": SERVICE, "with space.txt": "spaced"})
    compile_program("say", context)
    build(context, "-t", "service")
    docker("run", "-d", "--name", "service", "service")
    try:
        deadline = time.monotonic() + 30
        while docker("inspect", "-f", "{{.State.Health.Status}}", "service") != "healthy":
            assert time.monotonic() < deadline, docker("logs", "service")
            time.sleep(0.2)
        assert docker("logs", "service") == "ready"
        assert docker("exec", "service", "cmd", "/c", "type", "with space.txt") == "spaced"
    finally:
        docker("rm", "-f", "-v", "service")


@pytest.mark.parametrize("isolation", ["process", "hyperv"])
def test_directories_of_layers_below_are_moved(build: Builder, docker: Docker, tmp_path: Path, isolation: str) -> None:
    """By a later step and in a container, whose commit runs at the other level as well."""
    if isolation == "hyperv":
        require_program("qemu-system-x86_64", "qemu-system-x86")
        find_vm_image()
    level = ("--isolation", isolation)
    files = {"Dockerfile": MOVES, "tree/top.txt": "top", "tree/sub/deep/file.txt": "content\r\n"}
    build(write_context(tmp_path, files), "-t", "moves", *level)
    shown = [
        *("C:\\Renamed\\top.txt", "C:\\Programs\\Sub", "C:\\Programs\\Sub\\Deeper"),
        "C:\\Programs\\Sub\\Deeper\\file.txt",
    ]
    names = {"Archive", "Programs", "Renamed", "Tree"}

    def check(image: str, *options: str) -> None:
        lines = docker("run", "--rm", *options, image).splitlines()
        assert lines[: len(shown)] == shown and lines[-1] == "content", lines
        found = set(lines[len(shown) : -1])
        assert names <= found and not {"Apps", "Program Files"} & found, lines

    check("moves", *level)
    script = "ren C:\\Renamed Again && ren C:\\Again Renamed && ren C:\\Programs\\Sub\\Deeper x && ren C:\\Programs\\Sub\\x Deeper"
    docker("run", "--name", "mover", *level, "moves", "cmd", "/c", script)
    changed = docker("diff", "mover").splitlines()
    assert "C C:\\Programs\\Sub\\Deeper\\file.txt" in changed and not any(line[0] != "C" for line in changed), changed
    docker("commit", "-c", f"CMD {MOVES.rpartition('CMD ')[2].strip()}", "mover", "again")
    docker("rm", "mover")
    check("again", "--isolation", "hyperv" if isolation == "process" else "process")


def test_windows_errors(build: Builder) -> None:
    done = build.try_("-", "--force-rm", stdin=b"FROM windows\nRUN exit 300\n")
    assert "Dockerfile:2: The command 'cmd /S /C exit 300' returned a non-zero code: 300" in done.stderr
    assert done.returncode != 0
    for text, words in (
        ("COPY --chown=1 Dockerfile C:/x", "COPY --chown is not supported for Windows images"),
        ("WORKDIR D:/x", "Dockerfile:2: the drive D: of D:/x is not supported"),
        ("RUN more <<EOF\nx\nEOF", "Dockerfile:2: this heredoc is not supported for Windows"),
        ("USER somebody\nRUN ver", "unable to find user somebody"),
    ):
        done = build.try_("-", "--force-rm", stdin=f"FROM windows\n{text}\n".encode())
        assert done.returncode == 1 and words in done.stderr, done.stderr


def test_one_step_in_a_virtual_machine(build: Builder, docker: Docker) -> None:
    require_program("qemu-system-x86_64", "qemu-system-x86")
    find_vm_image()
    text = (
        "# escape=`\nFROM windows\n"
        "RUN reg add HKLM\\Software\\Made /v In /d machine && echo yes> C:\\made.txt\nCMD type C:\\made.txt\n"
    )
    assert "completed successfully" in build.dockerfile(text, "-t", "vm", "--isolation", "hyperv")
    assert docker("run", "--rm", "vm").strip() == "yes"
    assert "machine" in docker("run", "--rm", "vm", "reg", "query", "HKLM\\Software\\Made")
    assert docker("ps", "-aq") == ""
