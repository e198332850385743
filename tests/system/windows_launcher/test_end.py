"""How a silo ends: in order, in a hurry, and by accident."""

from __future__ import annotations

import os
import signal
import time

import pytest

from silo.errors import GuestError
from silo.isolation.launcher_messages import FLAG_MAIN, FLAG_NO_FLUSH, RunRequest
from tests.system.windows_launcher.conftest import Make, Silo

pytestmark = pytest.mark.system
_SET = "reg add HKCU\\Software\\Kept /v Number /t REG_DWORD /d 42 /f"
_GET = "reg query HKCU\\Software\\Kept /v Number"


def _start_main(silo: Silo, command: str, flags: int = 0) -> None:
    async def start() -> None:
        (await silo.client.run(RunRequest(command_line=command, flags=FLAG_MAIN | flags))).close()

    silo.ask(start())


def _registry(silo: Silo) -> str:
    return (silo.upper_prefix / "user.reg").read_text(errors="replace")


def test_the_end_of_the_main_program_is_the_end_of_the_silo(make_silo: Make) -> None:
    silo = make_silo()
    _start_main(silo, "C:\\t\\streams.exe copy")
    os.write(silo.input, b"through the container's own streams")
    os.close(silo.input)
    silo.input = -1
    assert os.read(silo.output, 1000) == b"through the container's own streams"
    assert silo.status_code() == 0
    assert silo.wait() == 0
    assert os.read(silo.output, 1000) == b""


def test_the_whole_exit_code_goes_to_the_status_pipe(make_silo: Make) -> None:
    silo = make_silo()
    _start_main(silo, "C:\\t\\ends.exe 0x12345678", FLAG_NO_FLUSH)
    assert silo.status_code() == 0x12345678
    assert silo.wait() == 0x78


def test_a_second_main_program_is_refused(make_silo: Make) -> None:
    silo = make_silo()
    _start_main(silo, "C:\\t\\events.exe")
    with pytest.raises(Exception, match="refused"):
        _start_main(silo, "C:\\t\\events.exe")


def test_the_registry_is_written_and_read_again(make_silo: Make) -> None:
    silo = make_silo()
    assert silo.run(_SET)[0] == 0
    _start_main(silo, "C:\\t\\ends.exe 0")
    silo.wait()
    assert "[Software\\\\Kept]" in _registry(silo)
    again = make_silo(again=silo.directory)
    assert b"0x2a" in again.run(_GET)[1]


def test_nothing_is_written_for_a_container_that_is_removed(make_silo: Make) -> None:
    silo = make_silo()
    assert silo.run(_SET)[0] == 0
    _start_main(silo, "C:\\t\\ends.exe 0", FLAG_NO_FLUSH)
    silo.wait()
    registry = silo.upper_prefix / "user.reg"
    assert not registry.exists() or "Kept" not in _registry(silo)


def test_shutdown_writes_code_and_registry(make_silo: Make) -> None:
    silo = make_silo()
    assert silo.run(_SET)[0] == 0
    silo.ask(silo.client.shutdown(1234567))
    assert silo.status_code() == 1234567
    silo.wait()
    assert "[Software\\\\Kept]" in _registry(silo)


def test_a_silo_killed_at_any_moment_starts_again(make_silo: Make) -> None:
    silo = make_silo()
    for delay_s in (0.02, 0.1, 0.2, 0.4):
        time.sleep(delay_s)
        silo.close()
        silo = make_silo(again=silo.directory)
    assert silo.run(_SET)[0] == 0
    silo.process.kill()
    silo.wait()
    silo = make_silo(again=silo.directory)
    assert silo.run("cmd /c exit 7")[0] == 7


def test_a_silo_without_wines_server_ends(make_silo: Make) -> None:
    silo = make_silo()
    silo.ready()
    (server,) = [pid for pid, name in silo.inner_processes().items() if name.startswith("wineserver")]
    os.kill(server, signal.SIGKILL)
    assert silo.wait(10) != 0
    assert silo.status_code() is None
    with pytest.raises(GuestError):
        silo.ask(silo.client.ping(1))


def test_no_zombies_and_few_processes(make_silo: Make) -> None:
    silo = make_silo()
    for _ in range(5):
        assert silo.run("cmd /c exit 0")[0] == 0
    time.sleep(0.5)
    names = silo.inner_processes()
    states = {}
    for pid, name in names.items():
        with open(f"/proc/{pid}/stat") as stat:
            states[name, pid] = stat.read().rpartition(")")[2].split()[0]
    assert "Z" not in states.values(), states
    # launcher, wineserver, services.exe, winedevice.exe, conhost.exe, and one to spare for Wine
    assert len(names) <= 6, names
