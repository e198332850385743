"""Reading logs: tail, time, rotation, torn records."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.engine.logs import LogFile, LogRecord, read_log
from silo.model.log import MAX_PAYLOAD_BYTES, encode_record, parse_records


class _Live:
    ended_runs = 0


def _read(directory: Path, **options: Any) -> list[LogRecord]:
    async def collect() -> list[LogRecord]:
        options.setdefault("stdout", True)
        options.setdefault("stderr", True)
        return [record async for record in read_log(_Live(), directory, **options)]  # type: ignore[arg-type]

    return asyncio.run(collect())


def _write(path: Path, *payloads: bytes, stream: int = 1) -> None:
    with path.open("ab") as file:
        for time_ns, payload in enumerate(payloads, 1):
            file.write(encode_record(stream, time_ns, payload))


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.integers(0, 2**63), st.binary(max_size=300))))
def test_records_round_trip(records: list[tuple[int, int, bytes]]) -> None:
    data = b"".join(encode_record(*record) for record in records)
    assert [record[:3] for record in parse_records(data)] == records


@given(st.binary(max_size=400))
def test_damaged_logs_never_raise(data: bytes) -> None:
    for _stream, _time, payload, end in parse_records(data):
        assert len(payload) <= MAX_PAYLOAD_BYTES
        assert end <= len(data)


def test_a_torn_record_at_the_end_is_ignored(tmp_path: Path) -> None:
    _write(tmp_path / "log", b"whole\n")
    with (tmp_path / "log").open("ab") as file:
        file.write(encode_record(1, 2, b"torn\n")[:-2])
    assert [record.payload for record in _read(tmp_path)] == [b"whole\n"]


@pytest.mark.parametrize(
    ("payloads", "tail", "expected"),
    [
        ((b"a\n", b"b\n", b"c\n"), 2, b"b\nc\n"),
        ((b"a\nb\nc\n",), 2, b"b\nc\n"),
        ((b"a\nb\n", b"c\nd"), 2, b"c\nd"),
        ((b"a\n",), 10, b"a\n"),
        ((b"a\nb\n",), 0, b""),
        ((b"no newline",), 1, b"no newline"),
        ((b"half ", b"line\n", b"last\n"), 1, b"last\n"),
    ],
)
def test_tail_counts_lines(tmp_path: Path, payloads: tuple[bytes, ...], tail: int, expected: bytes) -> None:
    _write(tmp_path / "log", *payloads)
    assert b"".join(record.payload for record in _read(tmp_path, tail=tail)) == expected


def test_streams_and_times_are_filtered(tmp_path: Path) -> None:
    _write(tmp_path / "log", b"1", b"2", b"3")
    _write(tmp_path / "log", b"error", stream=2)
    assert b"".join(record.payload for record in _read(tmp_path, stderr=False, since_ns=2)) == b"23"
    assert b"".join(record.payload for record in _read(tmp_path, stdout=False)) == b"error"
    assert b"".join(record.payload for record in _read(tmp_path, stderr=False, until_ns=2)) == b"12"


def test_a_reader_goes_on_across_rotation(tmp_path: Path) -> None:
    _write(tmp_path / "log", b"old")
    with LogFile(tmp_path) as log:
        assert [record.payload for record in log.read()] == [b"old"]
        _write(tmp_path / "log", b"late")
        (tmp_path / "log").rename(tmp_path / "log.1")
        _write(tmp_path / "log", b"new")
        assert [record.payload for record in log.read()] == [b"late"]
        assert [record.payload for record in log.read()] == [b"new"]
        assert log.read() == []


def test_history_begins_with_the_rotated_file(tmp_path: Path) -> None:
    _write(tmp_path / "log.1", b"old ")
    _write(tmp_path / "log", b"new")
    assert b"".join(record.payload for record in _read(tmp_path)) == b"old new"
