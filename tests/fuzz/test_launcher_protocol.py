"""Answers of a hostile launcher: every one is decoded to bounded values or refused by a GuestError."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from silo.errors import GuestError, InvalidRequest
from silo.isolation.launcher_messages import Failed, Processes, RunRequest, decode_answer, encode_run
from silo.isolation.pipes.messages import HOST_BIT, Client, Ended, decode_event

_process = st.builds(
    lambda numbers, name, claimed: (
        struct.pack("<IIIQQI", *numbers, claimed if claimed is not None else len(name)) + name
    ),
    st.tuples(*[st.integers(0, 2**32 - 1)] * 3, *[st.integers(0, 2**64 - 1)] * 2),
    st.binary(max_size=400),
    st.none() | st.integers(0, 2**32 - 1),
)
_answer = (
    st.binary(max_size=300)
    | st.builds(lambda kind, body: bytes((kind,)) + body, st.integers(126, 134), st.binary(max_size=300))
    | st.builds(
        lambda count, items: b"\x84" + struct.pack("<I", count) + b"".join(items),
        st.integers(0, 5) | st.integers(0, 2**32 - 1),
        st.lists(_process, max_size=4),
    )
)


@given(_answer)
def test_any_answer_is_bounded_or_refused(untrusted_data: bytes) -> None:
    try:
        answer = decode_answer(untrusted_data)
    except GuestError as error:
        assert len(str(error)) < 300
        return
    if isinstance(answer, Failed):
        assert answer.message == "" or answer.message.isprintable()
    if isinstance(answer, Processes):
        assert all(len(item.name) <= 260 and (not item.name or item.name.isprintable()) for item in answer.processes)


@given(
    st.binary(max_size=8)
    | st.builds(lambda kind, body: bytes((kind,)) + body, st.integers(132, 136), st.binary(max_size=6))
)
def test_any_word_about_a_pipe_is_bounded_or_refused(untrusted_data: bytes) -> None:
    try:
        event = decode_event(untrusted_data)
    except GuestError as error:
        assert len(str(error)) < 300
        return
    if isinstance(event, Client):
        assert 0 <= event.number < HOST_BIT
    if isinstance(event, Ended):
        assert 0 <= event.number < 2**32


@given(st.text(max_size=50), st.text(max_size=50), st.lists(st.text(max_size=20), max_size=4), st.text(max_size=20))
def test_a_request_is_exact_or_refused(command: str, directory: str, environment: list[str], path: str) -> None:
    request = RunRequest(command_line=command, directory=directory, environment=tuple(environment), path=path)
    try:
        data = encode_run(request)
    except InvalidRequest:
        return
    offset, texts = 9, []
    for _ in range(4):
        (length,) = struct.unpack_from("<I", data, offset)
        texts.append(data[offset + 4 : offset + 4 + length].decode())
        offset += 4 + length
    assert offset == len(data)
    assert texts == [command, directory, "\n".join(environment), path]
