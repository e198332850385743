"""The program itself, against canned answers: output, errors and exit statuses as a user meets them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from silo.api.decode.disks import parse_disk
from silo.cli import reference
from silo.cli.commands.completion import FILES, candidates
from silo.cli.credentials import find_credentials, registry_of
from silo.model.disk_guest import DiskBus, DiskFormat, DiskGuest, Firmware, NetworkCard
from tests.unit.cli.conftest import PROGRAM, Silo
from tests.unit.cli.fake_daemon import FakeDaemon

ROOT = PROGRAM.parents[1]


def _container(**more: Any) -> dict[str, Any]:
    base = {
        "Id": "f" * 64,
        "Names": ["/web"],
        "Image": "busybox",
        "Command": "sleep 1000",
        "Created": int(time.time()) - 7200,
    }
    return base | {"Status": "Up 2 hours", "State": "running", "Ports": [], "Labels": {}, "Mounts": []} | more


def test_ps(daemon: FakeDaemon, silo: Silo) -> None:
    daemon.answers["GET", "/containers/json"] = (200, [_container()])
    done = silo("ps", "-a", "-f", "name=web", "--filter", "status=running")
    assert done.stdout.splitlines() == [
        "CONTAINER ID   IMAGE     COMMAND        CREATED       STATUS       PORTS     NAMES",
        'ffffffffffff   busybox   "sleep 1000"   2 hours ago   Up 2 hours             web',
    ]
    assert daemon.asked[0].query["all"] == ["1"]
    assert json.loads(daemon.asked[0].query["filters"][0]) == {"name": {"web": True}, "status": {"running": True}}


def test_hostile_names_stay_on_their_line(daemon: FakeDaemon, silo: Silo) -> None:
    daemon.answers["GET", "/containers/json"] = (200, [_container(Image="x\x1b[2Jy\nz")])
    done = silo("ps")
    assert "x\\x1b[2Jy\\x0az" in done.stdout
    assert len(done.stdout.splitlines()) == 2


def test_errors_are_the_daemons_words(daemon: FakeDaemon, silo: Silo) -> None:
    daemon.answers["POST", "/containers/nope/stop"] = (
        404,
        {"message": "No such container: nope (silo ps -a lists all)"},
    )
    done = silo("stop", "nope", "web")
    assert (done.returncode, done.stdout) == (1, "web\n")
    assert done.stderr == "silo: No such container: nope (silo ps -a lists all)\n"


@pytest.mark.parametrize(("variable", "prefix"), [("NOTHING", "\x1b[31msilo:\x1b[0m "), ("NO_COLOR", "silo: ")])
def test_colour_is_for_terminals_that_want_it(variable: str, prefix: str) -> None:
    leader, follower = os.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {
        "TERM": "xterm",
        variable: "1",
    }
    subprocess.run([PROGRAM, "-H", "unix:///nonexistent", "stop", "x"], env=environment, stderr=follower, check=False)
    assert os.read(leader, 1000).decode().startswith(prefix)
    os.close(leader)
    os.close(follower)


def test_no_daemon_on_a_named_host() -> None:
    done = subprocess.run(
        [PROGRAM, "-H", "unix:///nonexistent.sock", "ps"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "silo: no Silo daemon answers on /nonexistent.sock; start it with: silo daemon\n"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("-H", "tcp://1.2.3.4", "ps"), 125, "listens on a Unix socket"),
        (("run", "--nam", "x", "busybox"), 125, "did you mean --name"),
        (("rnu",), 1, "did you mean run"),
        (("run",), 125, "requires at least 1 argument"),
        (("run", "--pull", "perhaps", "x"), 125, "invalid pull option"),
        (("cp", "a:b", "c:d"), 125, "between containers"),
        (("completion", "csh"), 125, "bash, zsh, fish"),
    ],
)
def test_usage_errors(silo: Silo, words: tuple[str, ...], status: int, said: str) -> None:
    done = silo(*words)
    assert done.returncode == status
    assert said in done.stderr
    assert done.stderr.startswith("silo: ")
    assert "Traceback" not in done.stderr


def _frames(*frames: tuple[int, bytes]) -> bytes:
    return b"".join(bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for stream, data in frames)


def _hijacked(data: bytes, *, echo: bool = False) -> Any:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(
            b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n" + data
        )
        if echo:
            handler.wfile.write(_frames((1, handler.rfile.read())))

    return answer


def _ready_to_run(daemon: FakeDaemon, code: int, output: bytes = b"", *, echo: bool = False) -> None:
    daemon.answers["POST", "/containers/create"] = (201, {"Id": "c1", "Warnings": ["mind the gap"]})
    daemon.answers["POST", "/containers/c1/attach"] = _hijacked(output, echo=echo)
    daemon.answers["POST", "/containers/c1/wait"] = (200, {"StatusCode": code})
    daemon.answers["POST", "/containers/c1/start"] = (204, None)


def test_run_in_the_order_that_loses_nothing(daemon: FakeDaemon, silo: Silo) -> None:
    _ready_to_run(daemon, 0xC0000005, _frames((1, b"out\n"), (2, b"err\n")))
    done = silo("run", "--rm", "busybox", "true")
    assert (done.returncode, done.stdout, done.stderr) == (5, "out\n", "WARNING: mind the gap\nerr\n")
    assert [asked.path for asked in daemon.asked] == [
        "/containers/create", "/containers/c1/attach", "/containers/c1/wait", "/containers/c1/start",
    ]  # fmt: skip
    assert daemon.asked[2].query == {"condition": ["removed"]}


def test_run_pipes_its_input_and_ends_it(daemon: FakeDaemon, silo: Silo) -> None:
    _ready_to_run(daemon, 0, echo=True)
    done = silo("run", "-i", "busybox", "cat", stdin="some input\n")
    assert (done.returncode, done.stdout) == (0, "some input\n")


def test_run_detached_prints_the_id(daemon: FakeDaemon, silo: Silo) -> None:
    _ready_to_run(daemon, 0)
    assert silo("run", "-d", "--name", "web", "busybox").stdout == "c1\n"
    assert daemon.asked[0].query == {"name": ["web"]}


@pytest.mark.parametrize(("message", "status"), [("executable file not found in $PATH", 127), ("port is taken", 125)])
def test_run_that_cannot_start(daemon: FakeDaemon, silo: Silo, message: str, status: int) -> None:
    _ready_to_run(daemon, 0)
    daemon.answers["POST", "/containers/c1/start"] = (400, {"message": message})
    done = silo("run", "busybox", "x")
    assert done.returncode == status
    assert done.stderr.endswith(f"silo: {message}\n")


@pytest.mark.parametrize(("image", "path"), [("nope", "/images/create"), ("windows", "/silo/v1/base/windows")])
def test_a_missing_image_is_pulled_or_built_once(daemon: FakeDaemon, silo: Silo, image: str, path: str) -> None:
    daemon.answers["POST", "/containers/create"] = (404, {"message": f"No such image: {image}:latest"})
    lines = [
        {"status": "Unpacking", "id": "wine", "progressDetail": {"current": 1, "total": 2}},
        {"aux": {"ID": "sha256:1"}},
    ]
    daemon.answers["POST", path] = (200, "\n".join(map(json.dumps, lines)).encode())
    done = silo("run", image)
    assert done.returncode == 125
    assert [asked.path for asked in daemon.asked] == ["/containers/create", path, "/containers/create"]
    assert done.stderr.splitlines()[:2] == [f"Unable to find image '{image}:latest' locally", "wine: Unpacking"]


def test_bases_are_built_by_name_and_listed(daemon: FakeDaemon, silo: Silo) -> None:
    lines = [{"status": "packing", "id": "vm"}, {"aux": {"ID": "ab" * 32}}]
    daemon.answers["POST", "/silo/v1/base/vm"] = (200, "\n".join(map(json.dumps, lines)).encode())
    assert silo("base", "build", "-q", "vm").stdout == "ab" * 32 + "\n"
    assert "windows, vm" in silo("base", "build", "other").stderr
    daemon.answers["GET", "/images/json"] = (
        200,
        [{"Id": "sha256:" + "cd" * 32, "RepoTags": ["windows:latest"], "Size": 1}],
    )
    daemon.answers["GET", "/silo/v1/base/vm"] = (200, [])
    form = ("--format", "{{.Repository}}:{{.Tag}} {{.ID}}")
    assert silo("base", "ls", *form).stdout == "windows:latest cdcdcdcdcdcd\n"
    vm = {"Id": "ab" * 32, "Kernel": "6.12.1", "Created": 1, "Size": 2}
    daemon.answers["GET", "/silo/v1/base/vm"] = (200, [{**vm, "Name": "default"}, {**vm, "Name": "rt"}])
    listed = silo("base", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}} {{.Kernel}}").stdout.splitlines()
    assert listed == [
        "windows:latest cdcdcdcdcdcd -",
        "vm:default abababababab 6.12.1",
        "vm:rt abababababab 6.12.1",
    ]


def test_utility_vms_are_named_imported_and_removed(daemon: FakeDaemon, silo: Silo) -> None:
    daemon.answers["POST", "/silo/v1/base/vm"] = (200, json.dumps({"aux": {"ID": "ab"}}).encode())
    assert silo("base", "build", "-q", "vm", "--name", "rt", "--kernel", "linux-image-rt-amd64").returncode == 0
    assert daemon.asked[-1].query == {"name": ["rt"], "kernel": ["linux-image-rt-amd64"]}
    assert "--kernel is for utility VMs" in silo("base", "build", "windows", "--kernel", "x").stderr
    daemon.answers["POST", "/silo/v1/base/vm/import"] = (201, {"Id": "cd" * 32})
    assert silo("base", "import", "vm", "/srv/../srv/vm", "--name", "mine").stdout == "cd" * 32 + "\n"
    assert daemon.asked[-1].query == {"name": ["mine"], "directory": ["/srv/vm"]}
    assert "needs --name" in silo("base", "import", "vm", "folder").stderr
    daemon.answers["DELETE", "/silo/v1/base/vm/mine"] = (204, b"")
    assert silo("base", "rm", "-f", "vm", "mine").stdout == "mine\n"
    assert daemon.asked[-1].query == {"force": ["1"]}
    assert "silo base rm vm" in silo("base", "rm", "windows", "latest").stderr


def test_the_utility_vm_to_run_in_is_a_label(daemon: FakeDaemon, silo: Silo) -> None:
    daemon.answers["POST", "/containers/create"] = (201, {"Id": "c1"})
    silo("create", "--isolation", "hyperv", "--vm", "rt", "--label", "a=b", "--label", "com.silo.vm=no", "bb")
    assert daemon.asked[-1].json()["Labels"] == {"a": "b", "com.silo.vm": "rt"}
    silo("create", "--isolation", "hyperv", "--vm-parked", "bb")
    assert daemon.asked[-1].json()["Labels"] == {"com.silo.vm.parked": "true"}


def test_a_disk_takes_the_place_of_image_and_command(daemon: FakeDaemon, silo: Silo) -> None:
    daemon.answers["POST", "/containers/create"] = (201, {"Id": "c1"})
    words = ("--disk-format", "raw", "--disk-bus", "sata", "--firmware", "bios", "--nic", "e1000", "--tpm", "--persist")
    silo("create", "--isolation", "hyperv", "--disk", "/srv/../srv/os.bin", *words, "--label", "a=b")
    body = daemon.asked[-1].json()
    assert body["Image"] == "/srv/os.bin" and "Cmd" not in body and body["Labels"].pop("a") == "b"
    disk = parse_disk(body["Labels"])
    assert disk == DiskGuest(
        path=Path("/srv/os.bin"),
        format=DiskFormat.RAW,
        bus=DiskBus.SATA,
        firmware=Firmware.BIOS,
        nic=NetworkCard.E1000,
        tpm=True,
        persist=True,
    )


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--disk", "/d.img", "busybox"), "--disk stands for IMAGE"),
        (("--disk", ""), "--disk needs a file"),
        (("--tpm", "busybox"), "--tpm needs --disk"),
        (("--nic", "e1000", "busybox"), "--nic needs --disk"),
        (("--pull", "always", "--disk", "/d.img"), "a disk has no image"),
        ((), "requires at least 1 argument"),
    ],
)
def test_what_does_not_fit_a_disk(silo: Silo, words: tuple[str, ...], complaint: str) -> None:
    assert complaint in silo("run", *words).stderr


def test_an_error_in_a_stream_is_an_error(daemon: FakeDaemon, silo: Silo) -> None:
    daemon.answers["POST", "/images/create"] = (200, b'{"status":"Pulling"}\n{"errorDetail":{"message":"no space"}}\n')
    done = silo("pull", "debian")
    assert done.returncode == 1
    assert done.stderr == "silo: no space\n"


def test_inspect_asks_for_all_kinds(daemon: FakeDaemon, silo: Silo) -> None:
    for path in ("/containers/v/json", "/images/v/json", "/networks/v"):
        daemon.answers["GET", path] = (404, {"message": "no"})
    daemon.answers["GET", "/volumes/v"] = (200, {"Name": "v"})
    assert silo("inspect", "v").stdout == '[\n    {\n        "Name": "v"\n    }\n]\n'
    assert silo("inspect", "-f", "{{.Name}}", "v").stdout == "v\n"


def test_prune_asks_first(daemon: FakeDaemon, silo: Silo) -> None:
    daemon.answers["POST", "/containers/prune"] = (200, {"ContainersDeleted": ["c1"], "SpaceReclaimed": 2048})
    assert silo("container", "prune", stdin="n\n").returncode == 0
    assert silo("container", "prune").returncode == 0
    assert daemon.asked == []
    assert silo("container", "prune", "-f").stdout == "Deleted Containers:\nc1\n\nTotal reclaimed space: 2.048kB\n"


def test_load_streams_a_file(daemon: FakeDaemon, silo: Silo, tmp_path: Path) -> None:
    data = os.urandom(700_000)
    (tmp_path / "a.tar").write_bytes(data)
    daemon.answers["POST", "/images/load"] = (200, b'{"stream":"Loaded image: a:1\\n"}\n')
    assert silo("load", "-i", "a.tar").stdout == "Loaded image: a:1\n"
    assert daemon.asked[0].body == data


def test_save_leaves_no_half_file(daemon: FakeDaemon, silo: Silo, tmp_path: Path) -> None:
    def breaks_off(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    daemon.answers["GET", "/images/get"] = breaks_off
    assert silo("save", "-o", "out.tar", "a").returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_login_keeps_credentials_to_its_owner(
    daemon: FakeDaemon, silo: Silo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.answers["POST", "/auth"] = (200, {"Status": "Login Succeeded"})
    done = silo("login", "-u", "ada", "--password-stdin", "registry.example:5000", stdin="s3cret\n", XDG_CONFIG_HOME="")
    assert done.stdout == "Login Succeeded\n"
    path = tmp_path / ".config/silo/auth.json"
    assert path.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert find_credentials("registry.example:5000") == ("ada", "s3cret")
    assert registry_of("registry.example:5000/a:1") == "registry.example:5000"
    silo("pull", "registry.example:5000/a:1")
    assert "X-Registry-Auth" in daemon.asked[-1].headers
    assert silo("logout", "registry.example:5000").returncode == 0
    assert silo("logout", "registry.example:5000").returncode == 1


def test_a_reader_that_leaves_is_no_traceback(daemon: FakeDaemon) -> None:
    daemon.answers["GET", "/containers/json"] = (200, [_container(Names=[f"/n{index}"]) for index in range(5000)])
    program = subprocess.Popen([PROGRAM, "-H", daemon.host, "ps"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stderr is not None
    program.stdout.close()
    assert program.wait(20) == 141
    assert program.stderr.read() == b""


def test_start_up_loads_little() -> None:
    words = ["python3", "-I", "-S", "-X", "importtime", str(PROGRAM), "-H", "unix:///nonexistent", "ps"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    before_the_error = loaded & {
        "re",
        "enum",
        "typing",
        "argparse",
        "socket",
        "json",
        "http.client",
        "subprocess",
        "pathlib",
    }
    assert before_the_error == set()
    assert "silo.cli.commands.containers" in loaded
    assert "silo.cli.commands.running" not in loaded


def test_the_reference_is_current() -> None:
    assert (ROOT / "docs/commands.md").read_text() == reference.render(), (
        "run: python -m silo.cli.reference > docs/commands.md"
    )


def test_help_has_examples(silo: Silo) -> None:
    assert "silo run --rm windows cmd /c ver" in silo("help", "run").stdout
    assert silo("run", "--help").stdout == silo("help", "run").stdout
    assert "Commands:" in silo("network", "--help").stdout
    assert "--cap-add list" in silo("container", "create", "--help").stdout


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["ru"], ["run"]),
        (["network", "pr"], ["prune"]),
        (["run", "--net"], ["--net", "--net-alias", "--network", "--network-alias"]),
        (["run", "--network", "la"], ["lab"]),
        (["run", "--isolation", "p"], ["process"]),
        (["run", "-it", "bus"], ["busybox:latest"]),
        (["run", "busybox", "sh", ""], [FILES]),
        (["stop", "w"], ["web", "worker"]),
        (["container", "stop", "web", "wo"], ["worker"]),
        (["network", "connect", "lab", "we"], ["web"]),
        (["cp", "w"], ["web:", "worker:"]),
        (["load", "-i", ""], [FILES]),
        (["base", "build", ""], ["windows", "vm"]),
        (["base", "rm", ""], ["vm"]),
        (["base", "rm", "vm", "r"], ["rt"]),
        (["base", "import", "vm", ""], [FILES]),
        (["run", "--vm", "r"], ["rt"]),
        (["run", "--isolation", "v"], ["vm"]),
        (["run", "--disk", ""], [FILES]),
        (["run", "--disk-format", "v"], ["vhdx", "vmdk"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["nonsense", ""], []),
    ],
)
def test_completion(words: list[str], found: list[str]) -> None:
    names = {
        "containers": ["web", "worker"],
        "images": ["busybox:latest"],
        "networks": ["lab"],
        "volumes": [],
        "vms": ["rt"],
    }
    assert candidates(words, lambda kind: names[kind]) == found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(silo: Silo, shell: str) -> None:
    assert "__complete" in silo("completion", shell).stdout


def test_bash_completes(daemon: FakeDaemon, silo: Silo, tmp_path: Path) -> None:
    daemon.answers["GET", "/containers/json"] = (200, [_container()])
    (tmp_path / "completion").write_text(silo("completion", "bash").stdout)
    script = "source ./completion; COMP_WORDS=(silo stop w); COMP_CWORD=2; _silo; echo ${COMPREPLY[@]}"
    environment = {**os.environ, "SILO_HOST": daemon.host, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "web"
