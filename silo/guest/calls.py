"""A request on its way: it is replied to once, and only in the session in which it was made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from silo.guest.failures import Refused, describe_error
from silo.model.guest_frames import REPLY, encode_message


class Call:
    def __init__(self, number: int, send: Callable[[bytes], None], is_current: Callable[[], bool]) -> None:
        self._number = number
        self._send = send
        self._is_current = is_current

    def reply(self, result: dict[str, Any]) -> None:
        if not self._is_current():
            return
        try:
            frames = encode_message(REPLY, self._number, {"result": result})
        except ValueError as error:
            self.fail(Refused("limit", str(error)))
        else:
            self._send(frames)

    def fail(self, error: BaseException) -> None:
        if self._is_current():
            self._send(encode_message(REPLY, self._number, {"error": describe_error(error)}))
