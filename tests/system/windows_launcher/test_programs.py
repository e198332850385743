"""Programs through the launcher: which one, with what streams, environment and directory, and how it ended."""

from __future__ import annotations

import hashlib
import os
import struct
import threading
import time
from pathlib import Path

import pytest

from silo.errors import ProcessStartFailed
from silo.isolation.launcher_messages import RunRequest
from tests.system.windows_launcher.conftest import Make, Silo

pytestmark = pytest.mark.system


def test_output_and_error_stay_apart(silo: Silo) -> None:
    assert silo.run("C:\\t\\streams.exe both") == (0, b"to output\r\n", b"to error\n".replace(b"\n", b"\r\n"))


@pytest.mark.parametrize("code", [0, 1, 300, 0x12345678, 0xC000013A, 0xFFFFFFFF])
def test_exit_codes_have_32_bits(silo: Silo, code: int) -> None:
    assert silo.run(f"C:\\t\\ends.exe {code}")[0] == code


def test_cmd_reports_more_than_eight_bits(silo: Silo) -> None:
    assert silo.run("cmd /c exit 300")[0] == 300


def test_a_crash_is_its_exception_and_says_nothing(silo: Silo) -> None:
    assert silo.run("C:\\t\\ends.exe crash") == (0xC0000005, b"", b"")


def test_streams_are_pipes_that_libuv_accepts(silo: Silo) -> None:
    code, _, statuses = silo.run("C:\\t\\streams.exe uv")
    assert code == 0, statuses


def test_input_ends_and_everything_comes_back(silo: Silo) -> None:
    data = os.urandom(5_000_000)
    code, output, error = silo.run("C:\\t\\streams.exe copy", input=data)
    assert (code, error) == (0, b"")
    assert hashlib.sha256(output).digest() == hashlib.sha256(data).digest()


def test_output_written_before_the_end_is_complete(silo: Silo) -> None:
    code, output, _ = silo.run("C:\\t\\streams.exe flood 8")
    assert code == 0
    assert len(output) == 8 << 20


def test_a_program_does_not_wait_for_its_descendants(silo: Silo) -> None:
    began = time.monotonic()
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)

    async def start_and_wait() -> int:
        program = await silo.client.run(RunRequest(command_line="C:\\t\\streams.exe child"), (null, write, null))
        os.close(write)
        try:
            return await program.wait()
        finally:
            program.close()

    assert silo.ask(start_and_wait()) == 0
    assert time.monotonic() - began < 1
    seen = b""
    while data := os.read(read, 1000):  # ends when the last of them has ended
        seen += data
    assert seen == b"parent\r\nchild\r\n"
    os.close(read)
    os.close(null)


def test_files_and_devices_need_no_bridge(silo: Silo, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b"from a file")
    with (
        (tmp_path / "in").open("rb") as source,
        (tmp_path / "out").open("wb") as target,
        open(os.devnull, "wb") as null,
    ):

        async def start_and_wait() -> int:
            request = RunRequest(command_line="C:\\t\\streams.exe copy")
            program = await silo.client.run(request, (source.fileno(), target.fileno(), null.fileno()))
            return await program.wait()

        assert silo.ask(start_and_wait()) == 0
    assert (tmp_path / "out").read_bytes() == b"from a file"


def test_a_reader_that_goes_away_is_a_broken_pipe(silo: Silo) -> None:
    read, write = os.pipe()
    null = os.open(os.devnull, os.O_RDWR)

    async def start_and_wait() -> int:
        program = await silo.client.run(RunRequest(command_line="C:\\t\\streams.exe flood 8"), (null, write, null))
        os.close(write)
        os.read(read, 10)
        os.close(read)
        return await program.wait()

    assert silo.ask(start_and_wait()) == 9
    os.close(null)


def test_many_at_once(silo: Silo) -> None:
    codes: dict[int, int] = {}

    def one(number: int) -> None:
        codes[number] = silo.run(f"C:\\t\\ends.exe {number}")[0]

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {number: number for number in range(12)}


def test_a_program_has_a_console_without_a_terminal(silo: Silo) -> None:
    assert silo.run("C:\\t\\ends.exe console")[0] == 0


def test_the_environment_is_the_silos_with_the_requests_over_it(silo: Silo) -> None:
    code, output, _ = silo.run(
        "cmd /c set", environment=("Path=C:\\t;C:\\other", "GREETING=grüß dich = ja", "tmp=C:\\x")
    )
    variables = dict(line.split("=", 1) for line in output.decode("cp437", "replace").split("\r\n") if "=" in line)
    folded = {name.upper(): value for name, value in variables.items()}
    assert code == 0
    assert folded["PATH"] == "C:\\t;C:\\other"
    assert folded["TMP"] == "C:\\x"
    assert folded["GREETING"].endswith("= ja")
    assert folded["USERNAME"] == "ContainerAdministrator"
    assert folded["USERPROFILE"].upper() == "C:\\USERS\\CONTAINERADMINISTRATOR"
    assert folded["SYSTEMROOT"].upper() == "C:\\WINDOWS"
    assert not {"HOME", "LC_ALL", "PWD", "WINEPREFIX", "WINESERVER", "WINEDEBUG"} & set(folded)


def test_a_variable_set_for_the_machine_reaches_the_next_program(make_silo: Make) -> None:
    silo = make_silo()
    key = "HKLM\\System\\CurrentControlSet\\Control\\Session Manager\\Environment"
    assert silo.run(f'reg add "{key}" /v STAGE /t REG_EXPAND_SZ /d %SystemRoot%\\stage /f')[0] == 0
    assert silo.run("cmd /c echo %STAGE%")[1].strip().lower() == b"c:\\windows\\stage"
    # The launcher keeps what it read once the key has been left alone for a second, and sees every later change.
    time.sleep(1.1)
    for _ in range(2):
        assert silo.run("cmd /c echo %STAGE%")[1].strip().lower() == b"c:\\windows\\stage"
    assert silo.run(f'reg add "{key}" /v STAGE /d second /f')[0] == 0
    assert silo.run("cmd /c echo %STAGE%")[1].strip() == b"second"
    time.sleep(1.1)
    assert silo.run("cmd /c echo %STAGE%")[1].strip() == b"second"
    assert silo.run(f'reg delete "{key}" /v STAGE /f')[0] == 0
    assert silo.run("cmd /c echo %STAGE%")[1].strip() == b"%STAGE%"


def test_a_key_of_variables_that_goes_and_comes_again(make_silo: Make) -> None:
    silo = make_silo()
    key = "HKCU\\Environment"
    assert silo.run(f'reg add "{key}" /v MINE /d first /f')[0] == 0
    time.sleep(1.1)
    for _ in range(2):
        assert silo.run("cmd /c echo %MINE%")[1].strip() == b"first"
    assert silo.run(f'reg delete "{key}" /f')[0] == 0
    assert silo.run("cmd /c echo %MINE%")[1].strip() == b"%MINE%"
    assert silo.run(f'reg add "{key}" /v MINE /d again /f')[0] == 0
    assert silo.run("cmd /c echo %MINE%")[1].strip() == b"again"


def test_the_directory_is_made(make_silo: Make) -> None:
    silo = make_silo()
    assert silo.run("cmd /c cd", directory="C:\\app\\deep\\er") == (0, b"C:\\app\\deep\\er\r\n", b"")
    assert (silo.upper_prefix / "drive_c/app/deep/er").is_dir()


@pytest.mark.parametrize(
    ("command", "path", "environment", "expected"),
    [
        ("C:\\t\\ends.exe 1", "", (), 1),
        ("c:/t/ends.exe 2", "", (), 2),
        ('"C:\\t\\ends" 3', "", (), 3),
        ("ends 4", "", ("PATH=C:\\nowhere;C:\\t",), 4),
        ("C:\\with blank\\ends.exe 5", "", (), 5),
        ('"C:\\with blank\\ends.exe" 6', "", (), 6),
        ("odd-name 7", "C:\\t\\ends.exe", (), 7),
        ("script 8", "", ("PATH=C:\\with blank",), 8),
        ('"C:\\with blank\\script.bat" 9', "", (), 9),
        ("..\\t\\ends.exe 10", "", (), 10),
    ],
)
def test_how_a_program_is_found(
    found_silo: Silo, command: str, path: str, environment: tuple[str, ...], expected: int
) -> None:
    assert found_silo.run(command, path=path, environment=environment, directory="C:\\t")[0] == expected


@pytest.mark.parametrize(
    ("command", "kind", "words"),
    [
        ("nosuch.exe", "not_found", "not found"),
        ("nosuch", "not_found", "not found"),
        ("C:\\none\\x.exe", "not_found", "does not exist"),
        ("C:\\t", "permission", "denied"),
        ("C:\\broken\\text.exe", "not_executable", "not a Windows program"),
        ("C:\\broken\\empty.exe", "not_executable", "not a Windows program"),
        ("C:\\broken\\elf.exe", "not_executable", "not a Windows program"),
        ("C:\\broken\\short.exe", "not_executable", "not a Windows program"),
        ("C:\\windows\\system32\\kernel32.dll", "not_executable", "not a Windows program"),
        ("C:\\broken\\x86.exe", "not_executable", "another kind of machine"),
    ],
)
def test_what_cannot_be_started(found_silo: Silo, command: str, kind: str, words: str) -> None:
    with pytest.raises(ProcessStartFailed, match=words) as caught:
        found_silo.run(command)
    assert caught.value.kind == kind
    assert found_silo.run("C:\\t\\ends.exe 0")[0] == 0


def test_a_directory_that_cannot_be_one(silo: Silo) -> None:
    with pytest.raises(ProcessStartFailed, match="working directory"):
        silo.run("cmd /c exit", directory="C:\\windows\\system32\\cmd.exe")


@pytest.fixture(scope="module")
def found_silo(silo: Silo, layer: Path) -> Silo:
    """The silo with programs in odd places and with files that are none."""
    program = (layer / "silo/prefix/drive_c/t/ends.exe").read_bytes()
    x86 = bytearray(program)
    (offset,) = struct.unpack_from("<I", x86, 60)
    struct.pack_into("<H", x86, offset + 4, 0x14C)
    files = {
        "with blank\\ends.exe": program,
        "with blank\\script.bat": b"@exit /b %1\r\n",
        "broken\\text.exe": b"This is no program.\n" * 100,
        "broken\\empty.exe": b"",
        "broken\\elf.exe": Path("/bin/true").read_bytes(),
        "broken\\short.exe": program[:70],
        "broken\\x86.exe": bytes(x86),
    }
    for directory in ("C:\\with blank", "C:\\broken"):
        assert silo.run("cmd /c exit", directory=directory)[0] == 0
    for name, content in files.items():
        copy = f'cmd /c C:\\t\\streams.exe copy > "C:\\{name}"'
        assert silo.run(copy, input=content)[0] == 0
    return silo
