"""Detach keys: the sequence (ctrl-p,ctrl-q) by which a user leaves a container that goes on. Pure."""

from __future__ import annotations

from silo.cli.failure import UsageError

DEFAULT_KEYS = "ctrl-p,ctrl-q"
_CONTROL = {
    **{chr(ord("a") + index): index + 1 for index in range(26)},
    "@": 0,
    "[": 27,
    "\\": 28,
    "]": 29,
    "^": 30,
    "_": 31,
}


def parse_keys(text: str) -> bytes:
    """`ctrl-p,q` → bytes. Raises UsageError."""
    keys = bytearray()
    for word in (text or DEFAULT_KEYS).split(","):
        if len(word) == 1 and ord(word) < 128:
            keys.append(ord(word))
        elif word.lower().startswith("ctrl-") and word[5:].lower() in _CONTROL:
            keys.append(_CONTROL[word[5:].lower()])
        else:
            raise UsageError(f"invalid detach keys {text!r}: a letter, or ctrl- and one of a-z @ [ \\ ] ^ _")
    return bytes(keys)


class DetachScanner:
    """Holds back what may be the beginning of the sequence."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(bytes to send, whether the sequence is complete)"""
        sent = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(sent), True
                continue
            sent += self._keys[: self._matched]
            self._matched = 0
            if byte == self._keys[0]:
                self._matched = 1
            else:
                sent.append(byte)
        return bytes(sent), False
