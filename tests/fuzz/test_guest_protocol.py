"""A hostile guest: whatever its agent sends, the host's client stays within bounds and says nothing but SiloError."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from silo.errors import SiloError
from silo.isolation.vm.agent import AgentClient
from silo.isolation.vm.answers import Greeting, Owned, PathStatus, Processes, Relayed, Started, decode_reply
from silo.isolation.vm.programs import decode_relayed
from silo.model.guest_frames import (
    EVENT,
    HELLO,
    MAXIMUM_MESSAGE_BYTES,
    MAXIMUM_PAYLOAD_BYTES,
    REPLY,
    WINDOW_BYTES,
    ProtocolError,
    SyncFinder,
    encode_credit,
    encode_data,
    encode_end,
    encode_frame,
    encode_message,
)
from silo.model.runtime import Statistics

_number = st.integers(0, 6) | st.integers(0, 2**24 - 1)
_offset = st.integers(0, 300) | st.integers(0, 2**64 - 1)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_field_names = st.sampled_from(
    "event task code oom ends kind message errno result error pid processes version answer given".split()
)
_message = st.dictionaries(_field_names, _json, max_size=5) | st.just({"event": "exit", "task": "t", "code": 1})
_frame = (
    st.builds(encode_frame, st.integers(0, 9), _number, st.binary(max_size=60))
    | st.builds(encode_data, _number, _offset, st.binary(max_size=200))
    | st.builds(lambda size, at: encode_data(1, at, b"x" * size), st.integers(1, 65000), _offset)
    | st.builds(encode_credit, _number, _offset, _offset)
    | st.builds(encode_end, _number, _offset)
    | st.builds(
        lambda kind, number, value: encode_message(kind, number, value),
        st.sampled_from([HELLO, REPLY, EVENT]),
        _number,
        _message,
    )
    | st.just(encode_frame(EVENT, 0, b"[" * 60_000))
    | st.binary(max_size=40)
)


class _Stub:
    """In place of a wire."""

    def __init__(self) -> None:
        self.sent = 0

    def send(self, frames: bytes) -> None:
        self.sent += len(frames)

    def drain(self) -> None:
        return None

    def abort(self) -> None:
        pass


async def _feed(pieces: list[bytes], cuts: int) -> None:
    client = AgentClient()
    client._wire = _Stub()  # type: ignore[assignment]
    readers = [client.open_reader(number) for number in (1, 2)]
    client.open_writer(3)
    waiting = [asyncio.ensure_future(client.request("processes", answer=Processes)) for _ in range(2)]
    await asyncio.sleep(0)
    data = b"".join(pieces)
    size = max(1, len(data) // cuts)
    try:
        for start in range(0, len(data), size):
            client.received(data[start : start + size])
            await asyncio.sleep(0)
    except ProtocolError as error:
        assert len(str(error)) < 500
    for reader in readers:
        assert sum(map(len, reader._chunks)) <= WINDOW_BYTES
    assert client._parser.held <= MAXIMUM_MESSAGE_BYTES + MAXIMUM_PAYLOAD_BYTES + 9
    client.close()
    for outcome in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(outcome, Processes | SiloError)


@given(st.lists(_frame, max_size=30), st.integers(1, 7))
def test_any_frames_are_bounded_or_refused(pieces: list[bytes], cuts: int) -> None:
    asyncio.run(_feed(pieces, cuts))


@given(
    _json | _message | st.fixed_dictionaries({"result": _json | _message}) | st.fixed_dictionaries({"error": _message})
)
def test_any_reply_is_checked_or_refused(value: Any) -> None:
    text = json.dumps(value).encode()
    for kind in (Started, Processes, PathStatus, Statistics, Greeting, Relayed, Owned):
        try:
            decode_reply(text, kind, "stat", "program")
        except SiloError as error:
            assert len(str(error)) < 1500


@given(st.text(max_size=40) | st.binary(max_size=200).map(bytes.hex))
def test_a_launchers_answer_is_checked_twice(answer: str) -> None:
    text = json.dumps({"result": {"answer": answer}}).encode()
    try:
        decode_relayed(decode_reply(text, Relayed, "ask"))
    except SiloError as error:
        assert len(str(error)) < 500


@given(st.lists(st.binary(max_size=5000), max_size=20))
def test_before_the_greeting_nothing_is_kept(pieces: list[bytes]) -> None:
    finder = SyncFinder(b"n" * 16)
    for piece in pieces:
        finder.feed(piece)
        assert len(finder._tail) <= 32


def test_a_stream_of_single_bytes_costs_no_object_each() -> None:
    async def body() -> None:
        client = AgentClient()
        client._wire = _Stub()  # type: ignore[assignment]
        reader = client.open_reader(1)
        for offset in range(WINDOW_BYTES):
            reader.take(offset, b"x")
        assert len(reader._chunks) <= WINDOW_BYTES // 2048

    asyncio.run(body())
