"""Frames: round trips in any cuts, bounds, and the preamble that no data can imitate."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.model.guest_frames import (
    DATA,
    END,
    EVENT,
    HEADER,
    MAXIMUM_DATA_BYTES,
    MAXIMUM_MESSAGE_BYTES,
    MAXIMUM_PAYLOAD_BYTES,
    MORE,
    REPLY,
    REQUEST,
    SYNC,
    Frame,
    FrameParser,
    ProtocolError,
    SyncFinder,
    encode_credit,
    encode_data,
    encode_end,
    encode_frame,
    encode_message,
    parse_credit,
    parse_data,
    parse_end,
    split_data,
)

_NONCE = bytes(range(16))
_spelling = st.lists(
    st.binary(max_size=20) | st.integers(1, 16).map(lambda count: SYNC[:count]) | st.just(SYNC), max_size=12
).map(b"".join)


def _parse(data: bytes, cuts: list[int]) -> list[Frame]:
    parser = FrameParser()
    frames: list[Frame] = []
    start = 0
    for stop in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        frames += parser.feed(data[start:stop])
        start = stop
    return frames


@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(0, 2**24 - 1), st.binary(max_size=50))),
    st.lists(st.integers(0, 10_000), max_size=10),
)
def test_frames_come_back_whatever_the_cuts(frames: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    data = b"".join(encode_frame(*frame) for frame in frames)
    assert _parse(data, cuts) == [Frame(*frame) for frame in frames]


@given(st.integers(0, 2**63), st.binary(min_size=1, max_size=99), st.integers(0, 2**63), st.integers(0, 2**62))
def test_bodies_come_back(offset: int, data: bytes, acknowledged: int, more: int) -> None:
    (frame,) = _parse(encode_data(7, offset, data), [])
    assert (frame.type, frame.stream, parse_data(frame.payload)) == (DATA, 7, (offset, data))
    (frame,) = _parse(encode_credit(7, acknowledged, acknowledged + more), [])
    assert parse_credit(frame.payload) == (acknowledged, acknowledged + more)
    (frame,) = _parse(encode_end(7, offset), [])
    assert parse_end(frame.payload) == offset


def test_a_long_message_is_spread_and_put_together() -> None:
    value = {"text": "x" * 200_000}
    data = encode_message(REQUEST, 5, value)
    assert data[4] == MORE
    (frame,) = _parse(data, [100_000])
    assert (frame.type, frame.stream, json.loads(frame.payload)) == (REQUEST, 5, value)
    with pytest.raises(ValueError, match="longer"):
        encode_message(REQUEST, 5, "x" * MAXIMUM_MESSAGE_BYTES)


@pytest.mark.parametrize(
    "data",
    [
        HEADER.pack(MAXIMUM_PAYLOAD_BYTES + 1, DATA, 1),
        HEADER.pack(0, 0, 1),
        HEADER.pack(0, 9, 1),
        HEADER.pack(0, DATA, 1 << 24),
        encode_frame(MORE, 1, b"x") + encode_frame(REPLY, 2, b"x"),
        encode_frame(MORE, 1, b"x") + encode_frame(DATA, 1, b"x"),
        encode_frame(MORE, 1),
        encode_frame(MORE, 1, b"x" * 65536) * 17,
    ],
)
def test_malformed_frames_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        _parse(data, [])


def test_the_parser_holds_no_more_than_a_message_and_a_frame() -> None:
    parser = FrameParser()
    highest = 0
    piece = encode_frame(MORE, 1, b"x" * 65536)
    with pytest.raises(ProtocolError):
        for _ in range(100):
            for start in range(0, len(piece), 10_000):
                list(parser.feed(piece[start : start + 10_000]))
                highest = max(highest, parser.held)
    assert highest <= MAXIMUM_MESSAGE_BYTES + MAXIMUM_PAYLOAD_BYTES + HEADER.size


@given(_spelling, _spelling, st.integers(1, 2**24 - 1), st.integers(0, 2**40))
def test_nothing_that_the_host_sends_looks_like_a_preamble(
    first: bytes, second: bytes, stream: int, offset: int
) -> None:
    frames = b""
    for data in (first, second):
        for piece in split_data(data):
            assert 0 < len(piece) <= MAXIMUM_DATA_BYTES
            frames += encode_data(stream, offset, piece)
            offset += len(piece)
        frames += encode_credit(stream, offset, offset + 1) + encode_message(EVENT, 0, {"text": data.hex()})
    frames += encode_frame(END, stream)
    assert SYNC not in frames
    payloads = [parse_data(frame.payload)[1] for frame in _parse(frames, []) if frame.type == DATA]
    assert b"".join(payloads) == first + second


@given(_spelling, st.binary(max_size=30), st.lists(st.integers(0, 1000), max_size=6))
def test_a_preamble_is_found_behind_anything_and_in_any_cuts(before: bytes, after: bytes, cuts: list[int]) -> None:
    data = before + SYNC + _NONCE + after
    finder = SyncFinder(_NONCE)
    start, found = 0, None
    for stop in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        if found is None:
            answer = finder.feed(data[start:stop])
            found = None if answer is None else answer[1]
        else:
            found += data[start:stop]
        start = stop
    assert found == after


def test_the_last_of_two_preambles_counts() -> None:
    finder = SyncFinder()
    assert finder.feed(SYNC + b"a" * 16 + b"old" + SYNC + b"b" * 10) is None
    assert finder.feed(b"b" * 6 + b"new") == (b"b" * 16, b"new")
