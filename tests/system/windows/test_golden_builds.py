"""Dockerfiles as people publish them for Windows, with real programs: each builds, runs and does what it says."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from tests.support.building import Builder, write_context
from tests.support.daemon import Docker
from tests.support.windows import compile_program

pytestmark = pytest.mark.system

NANOSERVER = r"""# escape=`
ARG TAG=ltsc2022
FROM mcr.microsoft.com/windows/nanoserver:${TAG}
LABEL org.opencontainers.image.title="say"
WORKDIR C:\app
COPY say.exe .
ENV GREETING="from nano server"
ENTRYPOINT ["C:\\app\\say.exe"]
CMD ["args", "one", "two words"]
"""
PATH_TOOLS = r"""# escape=`
FROM mcr.microsoft.com/windows/servercore:ltsc2022

# Tools beside the system, found by every later step
COPY ruff.exe ninja.exe C:/tools/bin/
RUN setx /M PATH "%PATH%;C:\tools\bin" `
    # a comment between continued lines
    && setx /M TOOLS_HOME C:\tools
RUN ruff --version && ninja --version
WORKDIR C:\src
COPY bad.py .
RUN ruff check --exit-zero --output-format concise bad.py > C:\report.txt && `
    type C:\report.txt
USER ContainerUser
CMD type C:\report.txt & echo %TOOLS_HOME%
"""
STAGES = r"""# escape=`
FROM mcr.microsoft.com/windows/servercore:ltsc2019 AS node
COPY node.exe C:\nodejs\
RUN setx /M PATH "C:\nodejs;%PATH%"

FROM node AS bundle
WORKDIR C:\src
COPY app\ .
RUN node build.js

FROM mcr.microsoft.com/windows/nanoserver:1809
COPY python C:\Python
USER ContainerAdministrator
RUN setx /M PATH "C:\Python;%PATH%"
USER ContainerUser
WORKDIR C:\app
COPY --from=bundle C:\src\dist\ ./
COPY main.py ./
ENTRYPOINT ["python", "main.py"]
CMD ["nobody"]
"""
SERVICE = r"""# escape=`
FROM mcr.microsoft.com/windows/servercore:ltsc2022
COPY python C:\python
COPY service\ C:\service\
VOLUME C:\state
EXPOSE 8000
ENV PORT=8000
HEALTHCHECK --interval=1s --timeout=20s --start-period=1s --retries=2 `
    CMD C:\python\python.exe C:\service\probe.py || exit 1
WORKDIR C:\service
CMD ["C:\\python\\python.exe", "serve.py"]
"""
BUILD_JS = """
const fs = require('fs');
fs.mkdirSync('dist', { recursive: true });
fs.writeFileSync('dist/names.json', JSON.stringify({ built: process.version, system: process.platform }));
"""
MAIN_PY = """
import json, os, sys
names = json.load(open('names.json'))
print('hello', sys.argv[1], 'from', names['system'], names['built'], 'as', os.environ['USERNAME'])
"""
SERVE_PY = """
import http.server, os
open(r'C:\\state\\started', 'w').write('yes')
os.chdir(r'C:\\state')
http.server.HTTPServer(('', int(os.environ['PORT'])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
PROBE_PY = """
import os, urllib.request
assert urllib.request.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/started').read() == b'yes'
"""


@pytest.fixture
def build(docker: Docker) -> Builder:
    return Builder(docker)


def test_a_program_on_nano_server(build: Builder, docker: Docker, tmp_path: Path) -> None:
    context = write_context(tmp_path, {"Dockerfile": NANOSERVER})
    compile_program("say", context)
    build(context, "-t", "golden-nano")
    said = docker("run", "--rm", "golden-nano")
    assert "one" in said and "two words" in said
    assert "from nano server" in docker("run", "--rm", "golden-nano", "env", "GREETING")
    assert docker.inspect("golden-nano")["Config"]["User"] == "ContainerUser"


def test_tools_on_the_path_of_servercore(build: Builder, docker: Docker, programs: Path, tmp_path: Path) -> None:
    context = write_context(tmp_path, {"Dockerfile": PATH_TOOLS, "bad.py": "import os\r\n"})
    for name in ("ruff.exe", "ninja.exe"):
        shutil.copyfile(programs / name, context / name)
    printed = build(context, "-t", "golden-path")
    assert "ruff " in printed and "F401" in printed
    said = docker("run", "--rm", "golden-path")
    assert "F401" in said and "C:\\tools" in said
    assert "ruff " in docker("run", "--rm", "golden-path", "ruff", "--version")


def test_node_builds_what_python_runs(build: Builder, docker: Docker, programs: Path, tmp_path: Path) -> None:
    context = write_context(tmp_path, {"Dockerfile": STAGES, "app/build.js": BUILD_JS, "main.py": MAIN_PY})
    shutil.copyfile(programs / "node.exe", context / "node.exe")
    shutil.copytree(programs / "python", context / "python")
    build(context, "-t", "golden-stages")
    said = docker("run", "--rm", "golden-stages", "Ada")
    assert said.startswith("hello Ada from win32 v") and said.rstrip().endswith("as ContainerUser")
    assert "hello nobody" in docker("run", "--rm", "golden-stages")
    files = docker(
        "run", "--rm", "--entrypoint", "cmd", "golden-stages", "/c", "dir /b C:\\app & if exist C:\\nodejs echo node"
    )
    assert files.split() == ["main.py", "names.json"]


def test_a_service_that_is_asked_for_its_health(build: Builder, docker: Docker, programs: Path, tmp_path: Path) -> None:
    files = {"Dockerfile": SERVICE, "service/serve.py": SERVE_PY, "service/probe.py": PROBE_PY}
    context = write_context(tmp_path, files)
    shutil.copytree(programs / "python", context / "python")
    build(context, "-t", "golden-service")
    docker("run", "-d", "--name", "golden-service", "golden-service")
    try:
        deadline = time.monotonic() + 50
        while (health := docker.inspect("golden-service")["State"]["Health"])["Status"] != "healthy":
            assert time.monotonic() < deadline, health
            time.sleep(0.3)
        (mount,) = docker.inspect("golden-service")["Mounts"]
        assert (mount["Type"], mount["Destination"]) == ("volume", "C:\\state")
        docker("exec", "golden-service", "cmd", "/c", "del C:\\state\\started")
        while (health := docker.inspect("golden-service")["State"]["Health"])["Status"] != "unhealthy":
            assert time.monotonic() < deadline, health
            time.sleep(0.3)
        assert health["Log"][-1]["ExitCode"] == 1
    finally:
        docker("rm", "-f", "-v", "golden-service")
