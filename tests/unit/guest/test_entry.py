"""Orders for the process of a container begun ahead, and why the kernel took none."""

from __future__ import annotations

import errno
import struct

import pytest

from silo.guest.entry import MAXIMUM_ORDER_BYTES, encode_order, refusal
from silo.guest.failures import Refused


def test_an_order() -> None:
    body = struct.pack("<II", 2, 1) + "a\0ü b\0N=V\0".encode()
    assert encode_order(["a", "ü b"], ["N=V"]) == struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("words", [["a\0b"], ["a" * MAXIMUM_ORDER_BYTES]])
def test_what_cannot_be_ordered(words: list[str]) -> None:
    with pytest.raises(Refused):
        encode_order(words, [])


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, "not_found"),
        (errno.EACCES, "permission"),
        (errno.ENOEXEC, "not_executable"),
        (errno.E2BIG, "runtime"),
    ],
)
def test_why_not(number: int, kind: str) -> None:
    refused = refusal(number, "/bin/x")
    assert refused.kind == kind and "/bin/x" in str(refused)
