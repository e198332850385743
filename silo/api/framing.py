"""Docker's stream frames and detach keys.

A frame is `[stream, 0, 0, 0][length, 4 bytes, big endian][payload]`; 1 is stdout, 2 is stderr.
"""

from __future__ import annotations

import struct

from silo.errors import InvalidRequest

_HEADER = struct.Struct(">BxxxI")
DEFAULT_DETACH_KEYS = b"\x10\x11"
_NAMED = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def frame(stream: int, payload: bytes) -> bytes:
    return _HEADER.pack(stream, len(payload)) + payload


def parse_detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` → b"\\x10\\x11"; empty is that default. Raises InvalidRequest."""
    if not text:
        return DEFAULT_DETACH_KEYS
    keys = bytearray()
    for word in text.split(","):
        if len(word) == 1 and word.isascii():
            keys += word.encode()
        elif word.startswith("ctrl-") and len(word) == 6 and ("a" <= word[5] <= "z" or word[5] in _NAMED):
            keys.append(_NAMED[word[5]] if word[5] in _NAMED else ord(word[5]) - 96)
        elif word == "DEL":
            keys.append(127)
        else:
            raise InvalidRequest(f"Invalid detach keys ({text}) provided", hint="such as ctrl-p,ctrl-q")
    return bytes(keys)


class DetachScanner:
    """Finds the detach keys in what a client types, also when they arrive in pieces.

    Keys that begin the sequence are held back until it is clear that they are not part of it.
    """

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what the program gets, whether the client detaches)."""
        data = self._held + data
        self._held = b""
        at = data.find(self._keys)
        if at >= 0:
            return data[:at], True
        for length in range(min(len(self._keys) - 1, len(data)), 0, -1):
            if data.endswith(self._keys[:length]):
                self._held = data[-length:]
                return data[:-length], False
        return data, False
