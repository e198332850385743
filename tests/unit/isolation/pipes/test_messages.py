"""The messages about pipes: golden bytes, and what is none."""

from __future__ import annotations

import pytest

from silo.errors import GuestError
from silo.isolation.pipes.messages import (
    Client,
    Ended,
    Served,
    decode_event,
    encode_attach,
    encode_offer,
    encode_open,
    encode_pipe,
    encode_refuse,
)


def test_orders() -> None:
    assert encode_pipe("\\\\.\\pipe\\ß", offered=True) == b"\x0a\x01\x0b\x00\x00\x00\\\\.\\pipe\\\xc3\x9f"
    assert encode_offer(False) == b"\x0b\x00"
    assert encode_open(0x80000001) == b"\x0c\x01\x00\x00\x80"
    assert encode_attach(2) == b"\x0d\x02\x00\x00\x00"
    assert encode_refuse(3) == b"\x0e\x03\x00\x00\x00"


def test_events() -> None:
    assert decode_event(b"\x85\x01") == Served(True)
    assert decode_event(b"\x85\x00") == Served(False)
    assert decode_event(b"\x86\x07\x00\x00\x00") == Client(7)
    assert decode_event(b"\x87\x01\x00\x00\x80") == Ended(0x80000001)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x85",
        b"\x85\x02",
        b"\x85\x01\x00",
        b"\x86\x07",
        b"\x86\x01\x00\x00\x80",
        b"\x88\x00\x00\x00\x00",
        b"\x80",
    ],
)
def test_what_is_no_event(data: bytes) -> None:
    with pytest.raises(GuestError):
        decode_event(data)
