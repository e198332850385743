from __future__ import annotations

from pathlib import Path

import pytest

from silo.isolation.vm.guest_log import GuestLog
from silo.model.log import STDERR, STDOUT, parse_records


def text(folder: Path, stream: int = STDOUT) -> bytes:
    data = b""
    for name in ("log.1", "log"):
        path = folder / name
        data += path.read_bytes() if path.exists() else b""
    return b"".join(payload for number, _, payload, _ in parse_records(data) if number == stream)


def resumed(folder: Path, maximum: int = 0) -> GuestLog:
    again = GuestLog(folder, maximum)
    again.resume()
    return again


def test_a_daemon_that_comes_again_knows_what_is_written(tmp_path: Path) -> None:
    log = GuestLog(tmp_path, 0)
    log.begin()
    log.append(STDOUT, b"one")
    log.append(STDERR, b"three")
    # killed: nothing is closed
    again = resumed(tmp_path)
    assert again.offsets == (3, 5)
    again.append(STDOUT, b"two")
    assert text(tmp_path) == b"onetwo"


def test_a_second_start_counts_from_its_own_beginning(tmp_path: Path) -> None:
    first = GuestLog(tmp_path, 0)
    first.begin()
    first.append(STDOUT, b"of the first run")
    second = GuestLog(tmp_path, 0)
    second.begin()
    second.append(STDOUT, b"12")
    assert resumed(tmp_path).offsets == (2, 0)


def test_large_pieces_are_split(tmp_path: Path) -> None:
    log = GuestLog(tmp_path, 0)
    log.begin()
    log.append(STDOUT, b"x" * 200_000)
    assert resumed(tmp_path).offsets == (200_000, 0)
    assert len(text(tmp_path)) == 200_000


def test_offsets_survive_new_files(tmp_path: Path) -> None:
    log = GuestLog(tmp_path, 1000)
    log.begin()
    for number in range(100):
        log.append(STDOUT, b"%4d" % number * 25)
        assert resumed(tmp_path, 1000).offsets == ((number + 1) * 100, 0)
    assert (tmp_path / "log").stat().st_size <= 1000 and (tmp_path / "log.1").stat().st_size <= 1000


@pytest.mark.parametrize("step", ["_mark", "_exchange"])
def test_killed_while_a_new_file_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    log = GuestLog(tmp_path, 300)
    log.begin()
    log.append(STDOUT, b"x" * 200)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(log, step, die)
    with pytest.raises(Killed):
        log.append(STDOUT, b"y" * 200)
    again = resumed(tmp_path, 300)
    assert again.offsets == (200, 0)
    again.append(STDOUT, b"y" * 200)
    assert text(tmp_path) == b"x" * 200 + b"y" * 200


def test_a_torn_record_is_cut_off(tmp_path: Path) -> None:
    log = GuestLog(tmp_path, 0)
    log.begin()
    log.append(STDOUT, b"whole")
    with (tmp_path / "log").open("ab") as file:
        file.write(b"\x01\0\0\0\0\0\0\x09torn")
    again = resumed(tmp_path)
    assert again.offsets == (5, 0)
    again.append(STDOUT, b"!")
    assert text(tmp_path) == b"whole!"
