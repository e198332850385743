"""What users of Windows containers say: arguments, variables, directories, mounts, users, exit codes, programs that are none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.system.windows.conftest import Windows

pytestmark = pytest.mark.system

WORDS = (
    "two words",
    'a "quoted" word',
    "ends\\",
    "two words\\",
    "",
    'slash\\"quote',
    "\\\\server\\share\\\\",
    "ü€😀",
    "%PATH% ^& | > <",
    "a\ttab",
    "'single'",
    "-flag=value with space",
)


def test_every_word_arrives_as_it_was(windows: Windows) -> None:
    said = windows.say("args", *WORDS)
    assert said[0].startswith("line C:\\tests\\say.exe args ")
    assert said[1:] == [f"word <{word}>" for word in WORDS]


def test_exec_and_silo_pass_the_same_words(windows: Windows) -> None:
    windows.docker("run", "-di", "--name", "words", *windows.mount, "windows", "cmd")
    by_docker = windows.docker("exec", "words", "C:\\tests\\say.exe", "args", *WORDS).splitlines()
    by_silo = windows.silo("exec", "words", "C:\\tests\\say.exe", "args", *WORDS).stdout.splitlines()
    assert by_docker == by_silo == windows.say("args", *WORDS)


def test_a_shell_command_is_one_for_cmd(windows: Windows) -> None:
    assert windows.docker("run", "--rm", "windows", "cmd", "/S", "/C", "echo one& echo two").split() == ["one", "two"]


@pytest.mark.parametrize(
    ("given", "cwd"), [("C:\\work\\deep", "C:\\work\\deep"), ("c:/work", "C:\\work"), ("\\work", "C:\\work")]
)
def test_working_directory(windows: Windows, given: str, cwd: str) -> None:
    assert windows.docker("run", "--rm", "-w", given, "windows", "cmd", "/c", "cd").strip().lower() == cwd.lower()


def test_directory_of_an_exec(windows: Windows) -> None:
    windows.docker("run", "-di", "--name", "place", "-w", "C:\\one", "windows", "cmd")
    assert windows.docker("exec", "place", "cmd", "/c", "cd").strip() == "C:\\one"
    assert windows.docker("exec", "-w", "C:\\windows", "place", "cmd", "/c", "cd").strip().lower() == "c:\\windows"


def test_variables(windows: Windows) -> None:
    flags = ("-e", "PLAIN=value", "-e", "SPACED=two words", "-e", "SIGNS=%PATH%;ü", "-e", "lower=x")
    said = windows.say("env", "PLAIN", "SPACED", "SIGNS", "LOWER", "MISSING", flags=flags)
    assert said == ["value", "two words", "%PATH%;ü", "x", "(unset)"]


def test_path_of_registry_image_and_user(windows: Windows) -> None:
    docker = windows.docker
    (plain,) = windows.say("env", "PATH")
    assert plain.lower().startswith("c:\\windows\\system32;c:\\windows")
    docker("run", "--name", "paths", "windows", "setx", "/m", "PATH", "%PATH%;C:\\registry")
    docker("commit", "paths", "paths:registry")
    docker("commit", "-c", "ENV PATH=C:\\\\image;C:\\\\windows\\\\system32", "paths", "paths:image")
    run = ("run", "--rm", *windows.mount)
    say = ("C:\\tests\\say.exe", "env", "PATH")
    assert docker(*run, "paths:registry", *say).strip().endswith(";C:\\registry")
    assert docker(*run, "paths:image", *say).strip() == "C:\\image;C:\\windows\\system32"
    given = "C:\\given;C:\\tests"
    assert docker(*run, "-e", f"PATH={given}", "paths:image", "say", "env", "PATH").strip() == given
    docker("rm", "paths")
    docker("rmi", "paths:registry", "paths:image")


@pytest.mark.parametrize("flag", [("-v", "{}:C:\\data"), ("--mount", "type=bind,source={},target=C:\\data")])
def test_a_folder(windows: Windows, tmp_path: Path, flag: tuple[str, str]) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "Given.txt").write_text("given\n")
    script = "type C:\\DATA\\given.TXT & echo made> C:\\data\\Made.txt & mkdir C:\\data\\sub & dir /b C:\\data"
    said = windows.docker("run", "--rm", flag[0], flag[1].format(tmp_path), "windows", "cmd", "/c", script)
    assert said.split() == ["given", "Given.txt", "Made.txt", "sub"]
    assert (tmp_path / "Made.txt").read_text().strip() == "made"
    assert (tmp_path / "Made.txt").stat().st_uid == 0
    assert (tmp_path / "sub").is_dir()


def test_a_folder_to_read_only(windows: Windows, tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "kept.txt").write_text("kept")
    script = "del C:\\data\\kept.txt & echo x> C:\\data\\new.txt"
    done = windows.docker.try_("run", "--rm", "-v", f"{tmp_path}:C:\\data:ro", "windows", "cmd", "/c", script)
    assert "Access denied" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.txt"]


def test_one_file(windows: Windows, tmp_path: Path) -> None:
    file = tmp_path / "one.txt"
    file.write_text("only this\n")
    file.chmod(0o644)
    tmp_path.chmod(0o755)
    script = "type C:\\conf\\one.txt & dir /b C:\\conf"
    said = windows.docker("run", "--rm", "-v", f"{file}:C:\\conf\\one.txt", "windows", "cmd", "/c", script)
    assert said.split() == ["only", "this", "one.txt"]


def test_a_named_volume_lives_on(windows: Windows) -> None:
    flag = ("-v", "silo-words:C:\\state")
    windows.docker("run", "--rm", *flag, "windows", "cmd", "/c", "echo first>> C:\\state\\log.txt")
    windows.docker("run", "--rm", *flag, "windows", "cmd", "/c", "echo second>> C:\\state\\log.txt")
    said = windows.docker("run", "--rm", *flag, "windows", "cmd", "/c", "type C:\\state\\log.txt")
    windows.docker("volume", "rm", "silo-words")
    assert said.split() == ["first", "second"]


@pytest.mark.parametrize("code", [0, 1, 300, 65536, 0xC0000005, 0xFFFFFFFF])
def test_exit_codes_of_32_bits(windows: Windows, code: int) -> None:
    windows.docker.try_("run", "--name", "code", *windows.mount, "windows", "C:\\tests\\say.exe", "exit", str(code))
    assert windows.exit_code("code") == code
    assert windows.docker("wait", "code") == str(code)


def test_a_crash_has_the_code_of_its_exception(windows: Windows) -> None:
    windows.docker.try_("run", "--name", "crash", *windows.mount, "windows", "C:\\tests\\say.exe", "crash")
    assert windows.exit_code("crash") == 0xC0000005
    assert windows.docker("logs", "crash") == ""


def test_exit_code_of_an_exec(windows: Windows) -> None:
    windows.docker("run", "-di", "--name", "codes", *windows.mount, "windows", "cmd")
    done = windows.docker.try_("exec", "codes", "C:\\tests\\say.exe", "exit", "7")
    assert done.returncode == 7
    assert windows.silo("exec", "codes", "C:\\tests\\say.exe", "exit", "300").returncode == 300 % 256


def test_output_and_error_stay_apart(windows: Windows) -> None:
    done = windows.docker.try_("run", "--rm", *windows.mount, "windows", "C:\\tests\\say.exe", "both")
    assert (done.stdout, done.stderr) == ("to output\n", "to error\n")


@pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
def test_input_piped_in(windows: Windows, size: int) -> None:
    assert windows.say("input", flags=("-i",), stdin=b"x" * size) == [f"input {size}"]


def test_input_of_an_exec(windows: Windows) -> None:
    windows.docker("run", "-di", "--name", "reader", *windows.mount, "windows", "cmd")
    said = windows.docker("exec", "-i", "reader", "C:\\tests\\say.exe", "input", stdin=b"y" * 70_000)
    assert said.strip() == "input 70000"


def test_names(windows: Windows) -> None:
    assert windows.say("env", "COMPUTERNAME", flags=("--hostname", "my-box")) == ["MY-BOX"]
    assert windows.say("env", "USERNAME", "USERPROFILE", flags=("-u", "ContainerUser")) == [
        "ContainerUser",
        "C:\\Users\\ContainerUser",
    ]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("C:\\tests\\junk.exe", ("not a Windows program", "193")),
        ("C:\\tests\\small.exe", ("32-bit", "216")),
        ("C:\\tests\\missing.exe", ("not found", "2")),
        ("missing", ("not found", "2")),
        ("C:\\tests", ("C:\\\\tests",)),
    ],
)
def test_programs_that_are_none(windows: Windows, program: str, words: tuple[str, ...]) -> None:
    by_docker = windows.docker.try_("run", "--name", "none", *windows.mount, "windows", program)
    by_silo = windows.silo("run", "--rm", *windows.mount, "windows", program)
    for done in (by_docker, by_silo):
        assert done.returncode in (125, 126, 127)
        assert all(word in done.stderr for word in words), done.stderr
    assert windows.docker.inspect("none")["State"]["Status"] == "created"
    windows.docker("rm", "none")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("-u", "nobody"), "nobody"),
        (("-w", "relative\\path"), "relative\\path"),
        (("-v", "/tmp:C:\\"), "c:\\"),
        (("-v", "/tmp:D:\\data"), "D:"),
        (("-v", "/tmp:C:\\con"), "con"),
        (("--tmpfs", "C:\\x"), "tmpfs"),
        (("--read-only",), "--read-only"),
        (("--privileged",), "--privileged"),
        (("--ulimit", "nofile=5"), "--ulimit"),
        (("--storage-opt", "inodes=5"), "--storage-opt"),
    ],
)
def test_options_that_cannot_be_are_named(windows: Windows, flags: tuple[str, ...], words: str) -> None:
    done = windows.docker.try_("run", "--rm", *flags, "windows", "cmd", "/c", "ver")
    assert done.returncode == 125
    assert words in done.stderr
    assert windows.docker("ps", "-aq", "--filter", "status=created") == ""


def test_silo_is_the_same(windows: Windows) -> None:
    done: subprocess.CompletedProcess[str] = windows.silo("run", "--rm", "windows", "cmd", "/c", "ver & exit 9")
    assert (done.returncode, done.stdout.strip()) == (9, "Microsoft Windows 10.0.20348")
