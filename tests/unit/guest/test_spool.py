"""The spool against a plain byte string; full disks."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from silo.guest.spool import Spool


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60), st.integers(0, 100)), max_size=60))
def test_what_is_not_acknowledged_can_be_read(steps: list[tuple[int, int, int]]) -> None:
    spool = Spool("/tmp", memory_bytes=16, file_bytes=50)
    written = bytearray()
    for size, acknowledge, look in steps:
        data = bytes((len(written) + index) % 251 for index in range(min(size, spool.room)))
        spool.append(data)
        written += data
        assert spool.end == len(written)
        spool.acknowledge(min(spool.end, spool.start + acknowledge))
        offset = min(spool.end, spool.start + look)
        held = bytearray()
        while offset + len(held) < spool.end:
            piece = spool.read(offset + len(held), 7)
            assert 0 < len(piece) <= 7
            held += piece
        assert held == written[offset:]
        assert spool.room >= 66 - (spool.end - spool.start)
    spool.close()


def test_without_a_place_for_the_file_memory_is_all_there_is(tmp_path: Path) -> None:
    spool = Spool(str(tmp_path / "missing"), memory_bytes=16, file_bytes=50)
    spool.append(b"x" * 20)
    assert spool.room == 0
    assert spool.read(0, 100) == b"x" * 20
    spool.acknowledge(20)
    assert spool.room == 16
