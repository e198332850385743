"""The part of the launcher protocol that is about mapped pipes (docs/launcher-protocol.md) as values. Pure.

What comes back is untrusted. A number that names a connection is the launcher's own for one that a program of the silo opened,
and the host's, with HOST_BIT, for one that the host asked for.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from silo.errors import GuestError

HOST_BIT = 1 << 31
MAXIMUM_CONNECTIONS = 60
"""At one mapped pipe of one silo; the launcher keeps to the same."""
MAXIMUM_FRAME_BYTES = 1 << 20
HEADER = struct.Struct("<I")
"""Before each message on the Unix pipes of a connection: its length."""

_PIPE, _OFFER, _OPEN, _ATTACH, _REFUSE = range(10, 15)
_SERVED, _CLIENT, _ENDED = range(133, 136)
_NUMBERED = struct.Struct("<BI")


@dataclass(frozen=True, slots=True)
class Served:
    """A program of the silo serves the pipe, or does so no more."""

    now: bool


@dataclass(frozen=True, slots=True)
class Client:
    """A program of the silo has opened the pipe."""

    number: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A connection is over, or never came to be."""

    number: int


Event = Served | Client | Ended


def encode_pipe(name: str, *, offered: bool) -> bytes:
    """Map a pipe; `offered`: it is served outside."""
    data = name.encode()
    return bytes((_PIPE, offered)) + HEADER.pack(len(data)) + data


def encode_offer(offered: bool) -> bytes:
    return bytes((_OFFER, offered))


def encode_open(number: int) -> bytes:
    """With two descriptors, to read and to write: connect them to the program that serves the pipe."""
    return _NUMBERED.pack(_OPEN, number)


def encode_attach(number: int) -> bytes:
    """With two descriptors: they are what the client wanted."""
    return _NUMBERED.pack(_ATTACH, number)


def encode_refuse(number: int) -> bytes:
    return _NUMBERED.pack(_REFUSE, number)


def decode_event(untrusted_data: bytes) -> Event:
    """Raises GuestError."""
    if len(untrusted_data) == 2 and untrusted_data[0] == _SERVED and untrusted_data[1] < 2:
        return Served(bool(untrusted_data[1]))
    if len(untrusted_data) == _NUMBERED.size:
        kind, number = _NUMBERED.unpack(untrusted_data)
        if kind == _CLIENT and not number & HOST_BIT:
            return Client(number)
        if kind == _ENDED:
            return Ended(number)
    raise GuestError("the container's launcher said of a pipe what is none", details=untrusted_data[:16].hex())
