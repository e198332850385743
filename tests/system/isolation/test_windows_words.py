"""What an image and a command line say to a Windows container, each in every way it can be written, at both levels."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Docker
from tests.support.windows import ROOT, compile_program

pytestmark = pytest.mark.system

SPELLINGS = (
    "C:\\Some Dir\\sub",
    "c:\\some dir\\SUB",
    "C:/Some Dir/sub",
    "c:/some dir/Sub/",
    "\\Some Dir\\sub",
    "/some dir/sub",
)
SAY = "C:\\tests\\say.exe"


@pytest.fixture(scope="module")
def say(folder: Path) -> tuple[str, ...]:
    """The flags that bring say.exe."""
    compile_program("say", folder)
    return ("-v", f"{folder}:C:\\tests:ro")


@pytest.fixture
def image(docker: Docker, request: pytest.FixtureRequest) -> Iterator[str]:
    """`windows` with the instructions that a test is given by mark `parametrize(..., indirect)`."""
    docker("create", "--name", "changing", "windows")
    done = docker.try_("commit", *(word for line in request.param for word in ("-c", line)), "changing", "words:1")
    docker("rm", "changing")
    assert done.returncode == 0, done.stderr
    yield "words:1"
    docker("rmi", "-f", "words:1")


@pytest.mark.parametrize("given", SPELLINGS)
def test_a_directory_in_every_spelling(docker: Docker, level: str, given: str, tmp_path: Path) -> None:
    """-v, -w, exec -w, cp in and out: all the same place."""
    tmp_path.chmod(0o755)
    (tmp_path / "Given.txt").write_text("given\n")
    run = ("run", "-di", "--name", "spelled", "--isolation", level, "-v", f"{tmp_path}:{given}", "-w", given)
    docker(*run, "windows", "cmd", "/c", "cd & type given.TXT & cmd")
    said = docker("exec", "-w", given, "spelled", "cmd", "/c", "cd & type GIVEN.txt").splitlines()
    assert [line.strip().lower() for line in said] == ["c:\\some dir\\sub", "given"]
    deadline = time.monotonic() + 30
    while "given" not in docker("logs", "spelled") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert docker("logs", "spelled").splitlines()[0].strip().lower() == "c:\\some dir\\sub"
    copied = subprocess.run(
        [docker.program, "cp", f"spelled:{given.rstrip('/')}/GIVEN.TXT", "-"],
        capture_output=True,
        env=docker.environment,
    )
    assert copied.returncode == 0 and b"given" in copied.stdout, copied.stderr
    docker("rm", "-f", "spelled")


@pytest.mark.parametrize("given", SPELLINGS)
def test_a_working_directory_is_made(docker: Docker, level: str, given: str) -> None:
    said = docker("run", "--rm", "--isolation", level, "-w", given, "windows", "cmd", "/c", "cd").strip()
    assert said.lower() == "c:\\some dir\\sub"


@pytest.mark.parametrize(
    ("image", "words", "said"),
    [
        (['CMD ["cmd","/c","echo exec  form"]'], (), "exec  form"),
        (["CMD echo shell  form& echo two"], (), "shell  form\ntwo"),
        (['ENTRYPOINT ["cmd","/c","echo"]', 'CMD ["of cmd"]'], (), '"of cmd"'),
        (['ENTRYPOINT ["cmd","/c","echo"]', 'CMD ["of","cmd"]'], ("of", "run"), "of run"),
        (["ENTRYPOINT echo shell entry"], (), "shell entry"),
        (["WORKDIR C:\\made here", 'CMD ["cmd","/c","cd"]'], (), "C:\\made here"),
        (["WORKDIR c:/made/below", 'CMD ["cmd","/c","cd"]'], (), "C:\\made\\below"),
        (["ENV A=one", 'ENV B="two words"', "CMD echo %A%,%B%"], (), "one,two words"),
        (["USER ContainerUser", "CMD echo %USERNAME%"], (), "ContainerUser"),
        (["USER containeradministrator", "CMD echo %USERNAME%"], (), "ContainerAdministrator"),
    ],
    indirect=["image"],
)
def test_instructions(docker: Docker, level: str, image: str, words: tuple[str, ...], said: str) -> None:
    shown = docker("run", "--rm", "--isolation", level, image, *words)
    assert "\n".join(line.strip() for line in shown.splitlines()).lower() == said.lower()


def create(docker: Docker, **body: object) -> str:
    """A container as the API takes it: Docker's client has no word for ArgsEscaped."""
    request = ["curl", "-sS", "--unix-socket", str(docker.silod.socket), "-H", "Content-Type: application/json"]
    done = subprocess.run(
        [*request, "-d", json.dumps(body), "http://silo/v1.44/containers/create"], capture_output=True, check=True
    )
    return str(json.loads(done.stdout)["Id"])


@pytest.mark.parametrize(
    ("escaped", "words", "line"),
    [
        (True, [f'{SAY} args "a  b" c'], f'{SAY} args "a  b" c'),
        (True, [f"{SAY} args", "two words"], f'{SAY} args "two words"'),
        (False, [SAY, "args", "two words", 'a "quote"'], f'{SAY} args "two words" "a \\"quote\\""'),
    ],
)
def test_args_escaped(
    docker: Docker, say: tuple[str, ...], level: str, escaped: bool, words: list[str], line: str
) -> None:
    host = {"Binds": [say[1]], "Isolation": level}
    made = create(docker, Image="windows", Cmd=words, ArgsEscaped=escaped, HostConfig=host)
    said = docker("start", "-a", made).splitlines()[0]
    docker("rm", made)
    assert said == f"line {line}"


@pytest.mark.parametrize("image", [["STOPSIGNAL SIGINT"]], indirect=True)
def test_the_stop_signal_of_an_image(docker: Docker, say: tuple[str, ...], level: str, image: str) -> None:
    docker("run", "-d", "--name", "signalled", "--isolation", level, *say, image, SAY, "events")
    deadline = time.monotonic() + 30
    while "ready" not in docker("logs", "signalled"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    docker("stop", "-t", "20", "signalled")
    said = docker("logs", "signalled").split("\n")
    docker("rm", "signalled")
    assert said == ["ready", "event 0"]


@pytest.mark.parametrize(
    "image", [["VOLUME C:\\state", 'VOLUME ["c:/more state"]', "LABEL a=one b=two"]], indirect=True
)
def test_volumes_and_labels_of_an_image(docker: Docker, level: str, image: str) -> None:
    script = 'echo kept> C:\\STATE\\file.txt & echo kept> "C:\\More State\\file.txt"'
    docker("run", "--name", "holder", "--isolation", level, image, "cmd", "/c", script.replace('"', ""))
    found = docker.inspect("holder")
    assert {mount["Destination"].replace("/", "\\").lower() for mount in found["Mounts"]} == {
        "c:\\state",
        "c:\\more state",
    }
    assert {"a": "one", "b": "two"}.items() <= found["Config"]["Labels"].items()
    assert not [line for line in docker("diff", "holder").splitlines() if "file.txt" in line.lower()]
    again = ("run", "--rm", "--isolation", level, "--volumes-from", "holder", "windows")
    assert docker(*again, "cmd", "/c", "type C:\\state\\FILE.TXT").strip() == "kept"
    docker("rm", "-v", "holder")


@pytest.mark.parametrize(
    ("flags", "status"),
    [
        (("--health-cmd", "if exist C:\\windows (exit 0) else (exit 1)"), "healthy"),
        (("--health-cmd", "if exist C:\\nowhere (exit 0) else (exit 1)"), "unhealthy"),
    ],
)
def test_health(docker: Docker, level: str, flags: tuple[str, ...], status: str) -> None:
    every = ("--health-interval", "500ms", "--health-retries", "1")
    docker("run", "-di", "--name", "checked", "--isolation", level, *flags, *every, "windows", "cmd")
    deadline = time.monotonic() + 30
    while (found := docker.inspect("checked")["State"]["Health"]["Status"]) == "starting":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    docker("rm", "-f", "checked")
    assert found == status


@pytest.mark.parametrize("target", ["x:", "X:\\"])
def test_a_mount_that_is_a_drive(docker: Docker, level: str, target: str, folder: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "Given.txt").write_text("given\n")
    run = ("run", "--isolation", level, "-v", f"{folder}:C:\\tests:ro")
    script = "cd & type GIVEN.TXT & echo made> x:\\made.txt & C:\\tests\\places.exe"
    said = docker(
        *run,
        "--name",
        "driven",
        "-v",
        f"{tmp_path}:{target}",
        "-v",
        "silo-drive:q:",
        "-w",
        "x:\\",
        "windows",
        "cmd",
        "/c",
        script,
    ).splitlines()
    assert [line.strip() for line in said[:2]] == ["X:\\", "given"]
    assert "drives CQX" in said
    assert (tmp_path / "made.txt").read_text().strip() == "made"
    assert not [line for line in docker("diff", "driven").splitlines() if "made" in line]
    again = docker("start", "-a", "driven").splitlines()
    assert "drives CQX" in again
    copied = subprocess.run(
        [docker.program, "cp", "driven:X:\\Given.txt", "-"], capture_output=True, env=docker.environment
    )
    assert b"given" in copied.stdout, copied.stderr
    docker("commit", "driven", "driven:1")
    docker("rm", "driven")
    assert "drives C" in docker(*run, "--rm", "-w", "C:\\", "driven:1", "C:\\tests\\places.exe").splitlines()
    assert "drives C" in docker(*run, "--rm", "windows", "C:\\tests\\places.exe").splitlines()
    docker("rmi", "driven:1")
    docker("volume", "rm", "silo-drive")


def test_words_for_isolation(docker: Docker) -> None:
    words = {"first": "PROCESS", "second": "HyperV", "third": "default", "fourth": "vm"}
    for name, word in words.items():
        docker("create", "--name", name, "--isolation", word, "windows", "cmd")
    levels = {name: docker.inspect(name)["HostConfig"]["Isolation"] for name in words}
    lists = {
        word: set(docker("ps", "-a", "--filter", f"isolation={word}", "--format", "{{.Names}}").split())
        for word in ("process", "HYPERV", "default")
    }
    docker("rm", *words)
    assert levels == {"first": "process", "second": "hyperv", "third": "process", "fourth": "hyperv"}
    assert lists == {"process": {"first", "third"}, "HYPERV": {"second", "fourth"}, "default": {"first", "third"}}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--isolation", "strong"), "--isolation strong: invalid isolation"),
        (("--security-opt", "credentialspec=file://x.json"), "credentialspec=file://x.json is not supported"),
        (("--device", "class/5B45201D-F2F2-4F3B-85BB-30FF1F953599"), "--device"),
        (("-v", "/tmp:X:\\data"), "another drive than C: is mounted as a whole"),
        (("-v", "/tmp:C:"), "destination path cannot be 'c:' or 'c:\\'"),
        (("-v", "/tmp:c:/"), "destination path cannot be 'c:' or 'c:\\'"),
        (("-v", "/tmp:C:\\a", "-v", "/var:c:/A"), "Duplicate mount point"),
        (("-v", "/tmp:C:\\lpt1"), "reserved"),
        (("-v", "/tmp:\\\\server\\share"), "UNC"),
        (("-w", "D:\\work"), "the drive D:"),
        (("-w", "C:relative"), "relative"),
        (("-u", "nobody"), "unable to find user nobody"),
    ],
)
def test_what_is_refused_is_named(docker: Docker, flags: tuple[str, ...], words: str) -> None:
    command = [str(ROOT / "bin" / "silo"), "-H", f"unix://{docker.silod.socket}", "create", *flags, "windows", "cmd"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60)
    assert done.returncode != 0 and words in done.stderr
    assert docker("ps", "-aq", "--filter", "status=created") == ""
