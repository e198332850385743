"""Streams over real pipes: credit, back-pressure, and a second session."""

from __future__ import annotations

import os

import pytest

from silo.guest.failures import Refused
from silo.guest.loop import Loop
from silo.guest.streams import Streams
from silo.model.guest_frames import (
    DATA,
    END,
    WINDOW_BYTES,
    Frame,
    FrameParser,
    encode_credit,
    encode_data,
    encode_end,
    parse_credit,
    parse_data,
)


def _frame(data: bytes) -> Frame:
    (frame,) = FrameParser().feed(data)
    return frame


def _pull(streams: Streams, maximum: int = 65536) -> list[Frame]:
    return list(FrameParser().feed(streams.pull(maximum)))


def test_output_waits_for_credit_and_goes_on_in_a_new_session(tmp_path: object) -> None:
    streams = Streams(Loop(), lambda _: None, "/tmp")
    read, write = os.pipe()
    output = streams.add_output(3)
    output.held = False
    output.attach(read)
    os.write(write, b"0123456789")
    output.drain()
    assert _pull(streams) == []
    streams.handle(_frame(encode_credit(3, 0, 4)))
    assert [parse_data(frame.payload) for frame in _pull(streams)] == [(0, b"0123")]
    assert _pull(streams) == []
    streams.handle(_frame(encode_credit(3, 2, 8)))
    assert [parse_data(frame.payload) for frame in _pull(streams)] == [(4, b"4567")]
    streams.new_session()
    assert _pull(streams) == []
    streams.handle(_frame(encode_credit(3, 3, 100)))
    assert [parse_data(frame.payload) for frame in _pull(streams)] == [(3, b"3456789")]
    os.close(write)
    output.drain()
    assert [frame.type for frame in _pull(streams)] == [END]
    with pytest.raises(Refused):
        streams.handle(_frame(encode_credit(3, 99, 100)))
    streams.remove(3)


def test_nobody_reads_and_the_spool_is_full() -> None:
    streams = Streams(Loop(), lambda _: None, "/tmp")
    read, write = os.pipe()
    output = streams.add_output(3)
    output.attach(read)
    os.set_blocking(write, False)
    written = 0
    while output.spool.room:
        written += os.write(write, b"x" * 65536)
        output.drain()
    with pytest.raises(BlockingIOError):
        while True:
            written += os.write(write, b"x" * 4096)
            output.drain()
    assert output.spool.end == WINDOW_BYTES + (8 << 20)
    assert output.expected_end() == written
    streams.handle(_frame(encode_end(3, 0)))
    output.drain()
    os.write(write, b"and it goes on")
    streams.remove(3)
    os.close(write)


def test_input_that_nobody_takes_is_held_up() -> None:
    told: list[bytes] = []
    streams = Streams(Loop(), told.append, "/tmp")
    source = streams.add_input(4)
    streams.handle(_frame(encode_data(4, 0, b"early ")))
    read, write = os.pipe()
    source.attach(write)
    assert os.read(read, 100) == b"early "
    sent = 6
    while not told:
        streams.handle(_frame(encode_data(4, sent, b"x" * 40_000)))
        sent += 40_000
        os.read(read, 40_000)
    assert parse_credit(_frame(told[0]).payload) == (sent, sent + WINDOW_BYTES)
    for wrong in (encode_data(4, sent + 1, b"x"), encode_end(4, sent - 1)):
        with pytest.raises(Refused):
            streams.handle(_frame(wrong))
    streams.handle(_frame(encode_end(4, sent)))
    assert os.read(read, 100) == b""
    os.close(read)
    streams.remove(4)


def test_turns_and_passing_streams() -> None:
    streams = Streams(Loop(), lambda _: None, "/tmp")
    ends = []
    for number in (1, 2):
        read, write = os.pipe()
        output = streams.add_output(number, passing=number == 2)
        output.held = False
        output.attach(read)
        os.write(write, b"x" * 5000)
        output.drain()
        streams.handle(_frame(encode_credit(number, 0, 10_000)))
        ends.append(write)
    order = [frame.stream for _ in range(4) for frame in _pull(streams, 2000) if frame.type == DATA]
    assert set(order[:2]) == {1, 2}
    streams.new_session()
    streams.check_free(2)
    with pytest.raises(Refused):
        streams.check_free(1)
    for write in ends:
        os.close(write)
