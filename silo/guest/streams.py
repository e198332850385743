"""Byte streams between the host and descriptors here: offsets, credit, and what happens to them between two sessions.

Terms: an *output* is read here and sent to the host, an *input* comes from the host and is written here. Numbers are the host's
choice. A stream that belongs to a program lives until the host releases the program; a *passing* one (archives) ends with its
session.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import termios
from collections.abc import Callable

from silo.guest.failures import Refused
from silo.guest.loop import READ, WRITE, Loop
from silo.guest.spool import Spool
from silo.model.guest_frames import (
    CREDIT,
    DATA,
    END,
    MAXIMUM_DATA_BYTES,
    MAXIMUM_STREAM,
    WINDOW_BYTES,
    Frame,
    encode_credit,
    encode_data,
    encode_end,
    parse_credit,
    parse_data,
    parse_end,
)

_MAXIMUM_STREAMS = 4096
_CREDIT_STEP_BYTES = WINDOW_BYTES // 4
_NEVER = 1 << 63


class Output:
    """`held`: its program is not known to run yet, and what crun says is not for the host's reader."""

    def __init__(self, number: int, loop: Loop, spool: Spool, *, passing: bool) -> None:
        self.number = number
        self.passing = passing
        self.spool = spool
        self.held = not passing
        self._descriptor = -1
        self._loop = loop
        self._ended = False
        self._unwanted = False
        self._paused = False
        self.suspend()

    def attach(self, descriptor: int) -> None:
        """From now on the descriptor is this stream's to close."""
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._resume()

    def _resume(self) -> None:
        self._paused = False
        if self._descriptor >= 0:
            self._loop.watch(self._descriptor, READ, self._read)

    def suspend(self) -> None:
        """Nothing goes out until the host has said what it has."""
        self._sent = 0
        self._limit = 0
        self._started = False
        self._end_told = False

    def drain(self) -> None:
        """Read all that has been written by now, as far as there is room."""
        while self._descriptor >= 0 and not self._paused and self._read():
            pass

    def _read(self) -> bool:
        """False: there was nothing to read, or no room for it."""
        room = MAXIMUM_DATA_BYTES if self._unwanted else min(MAXIMUM_DATA_BYTES, self.spool.room)
        if room == 0:
            self._paused = True
            self._loop.unwatch(self._descriptor)
            return False
        try:
            data = os.read(self._descriptor, room)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the last user of the terminal is gone
            data = b""
        if not data:
            self._ended = True
            self._close_descriptor()
        elif not self._unwanted:
            self.spool.append(data)
        return bool(data)

    def _close_descriptor(self) -> None:
        if self._descriptor >= 0:
            self._loop.unwatch(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def credit(self, acknowledged: int, limit: int) -> None:
        if acknowledged > self.spool.end or limit > _NEVER:
            raise Refused("invalid", f"stream {self.number} has no byte {acknowledged}")
        if not self._started:
            # what it lacks may have been sent to its predecessor, but what was acknowledged is gone
            self._started = True
            self._sent = max(acknowledged, self.spool.start)
        self._limit = max(self._limit, limit)
        self.spool.acknowledge(min(acknowledged, self._sent))
        if self._paused and self.spool.room >= MAXIMUM_DATA_BYTES:
            self._resume()

    def refuse(self) -> None:
        """The host wants no more of it. A program must not notice: what it writes is read and dropped."""
        self._unwanted = True
        self.spool.close()
        self._sent = self.spool.end
        if self.passing:
            self._ended = True
            self._close_descriptor()
        elif self._paused:
            self._resume()

    def next_frame(self, maximum: int) -> bytes:
        """b"" when there is nothing to send now."""
        if not self._started or self._end_told or self.held:
            return b""
        count = min(self.spool.end, self._limit) - self._sent
        if count > 0 and not self._unwanted:
            data = self.spool.read(self._sent, min(count, maximum))
            frame = encode_data(self.number, self._sent, data)
            self._sent += len(data)
            return frame
        if self._ended and self._sent == self.spool.end:
            self._end_told = True
            return encode_end(self.number, self.spool.end)
        return b""

    @property
    def is_over(self) -> bool:
        return self._end_told

    def expected_end(self) -> int:
        """The offset up to which everything has been written by now."""
        if self._descriptor < 0:
            return self.spool.end
        waiting = bytearray(4)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self._descriptor, termios.FIONREAD, waiting)
        return self.spool.end + int.from_bytes(waiting, "little")

    def describe(self) -> dict[str, object]:
        return {"stream": self.number, "start": self.spool.start, "end": self.spool.end}

    def close(self) -> None:
        self._close_descriptor()
        self.spool.close()


class Input:
    """What comes before `attach` waits."""

    def __init__(self, number: int, loop: Loop, *, passing: bool, terminal: bool = False) -> None:
        self.number = number
        self.passing = passing
        self._descriptor = -1
        self._closed = False
        self._loop = loop
        self._terminal = terminal
        self._waiting = bytearray()
        self._received = 0
        self._told = 0
        self._ended = False
        self.tell: Callable[[bytes], None] = lambda _: None

    def attach(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        if self._waiting:
            self._write()
        elif self._ended:
            self.close_soon()

    @property
    def _limit(self) -> int:
        return self._received - len(self._waiting) + WINDOW_BYTES

    def take(self, offset: int, data: bytes) -> None:
        if offset != self._received or offset + len(data) > self._limit or self._ended:
            raise Refused("invalid", f"stream {self.number} expects byte {self._received} and was sent {offset}")
        self._received += len(data)
        if not self._closed:
            self._waiting += data
            if self._descriptor >= 0 and len(self._waiting) == len(data):
                self._write()
        self._tell()

    def end(self, offset: int) -> None:
        if offset != self._received:
            raise Refused("invalid", f"stream {self.number} ends at {self._received}, not at {offset}")
        self.close_soon()

    def close_soon(self) -> None:
        """As soon as all that has come is written. A terminal stays: its output has the same other end."""
        self._ended = True
        if self._descriptor >= 0 and not self._waiting and not self._terminal:
            self._close_descriptor()

    def _write(self) -> None:
        try:
            count = os.write(self._descriptor, self._waiting)
        except BlockingIOError:
            count = 0
        except OSError:  # nobody reads it any more; what still comes is dropped
            self._waiting.clear()
            self._close_descriptor()
            self._tell()
            return
        del self._waiting[:count]
        if self._waiting:
            self._loop.watch(self._descriptor, WRITE, self._write)
        elif self._ended and not self._terminal:
            self._close_descriptor()
        else:
            self._loop.unwatch(self._descriptor)
        self._tell()

    def _tell(self) -> None:
        written = self._received - len(self._waiting)
        if written - self._told >= _CREDIT_STEP_BYTES:
            self._told = written
            self.tell(encode_credit(self.number, written, self._limit))

    def _close_descriptor(self) -> None:
        self._closed = True
        if self._descriptor >= 0:
            self._loop.unwatch(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def describe(self) -> dict[str, object]:
        return {"stream": self.number, "received": self._received, "limit": self._limit, "ended": self._ended}

    def close(self) -> None:
        self._waiting.clear()
        self._close_descriptor()


class Streams:
    """All streams; `send` takes frames for the host, `spool_directory` is where output waits that it does not take."""

    def __init__(self, loop: Loop, send: Callable[[bytes], None], spool_directory: str) -> None:
        self._loop = loop
        self._send = send
        self._spool_directory = spool_directory
        self._outputs: dict[int, Output] = {}
        self._inputs: dict[int, Input] = {}

    def check_free(self, *numbers: object) -> None:
        for number in numbers:
            if not isinstance(number, int) or not 0 < number <= MAXIMUM_STREAM:
                raise Refused("invalid", f"{number!r} is not a stream's number")
            if number in self._outputs or number in self._inputs or numbers.count(number) > 1:
                raise Refused("conflict", f"stream {number} is in use")
        if len(self._outputs) + len(self._inputs) + len(numbers) > _MAXIMUM_STREAMS:
            raise Refused("limit", "too many streams")

    def add_output(self, number: int, *, passing: bool = False) -> Output:
        output = Output(number, self._loop, Spool(self._spool_directory), passing=passing)
        self._outputs[number] = output
        return output

    def add_input(self, number: int, *, passing: bool = False, terminal: bool = False) -> Input:
        made = Input(number, self._loop, passing=passing, terminal=terminal)
        made.tell = self._send
        self._inputs[number] = made
        return made

    def remove(self, number: int) -> None:
        stream = self._outputs.pop(number, None) or self._inputs.pop(number, None)
        if stream is not None:
            stream.close()

    def new_session(self) -> None:
        every: list[Output | Input] = [*self._outputs.values(), *self._inputs.values()]
        for stream in every:
            if stream.passing:
                self.remove(stream.number)
        for output in self._outputs.values():
            output.suspend()

    def handle(self, frame: Frame) -> None:
        """DATA, CREDIT or END. A stream that is not there (any more) is passed over: the host may not know yet."""
        number = frame.stream
        if frame.type == DATA and number in self._inputs:
            self._inputs[number].take(*parse_data(frame.payload))
        elif frame.type == CREDIT and number in self._outputs:
            self._outputs[number].credit(*parse_credit(frame.payload))
        elif frame.type == END and number in self._inputs:
            self._inputs[number].end(parse_end(frame.payload))
        elif frame.type == END and number in self._outputs:
            self._outputs[number].refuse()

    def pull(self, maximum: int) -> bytes:
        """Encoded frames of about `maximum` bytes; the streams take turns."""
        parts: list[bytes] = []
        size = 0
        for output in tuple(self._outputs.values()):
            frame = output.next_frame(min(MAXIMUM_DATA_BYTES, max(1024, maximum - size)))
            if not frame:
                continue
            parts.append(frame)
            size += len(frame)
            # to the end of the queue
            self._outputs[output.number] = self._outputs.pop(output.number)
            if output.passing and output.is_over:
                self.remove(output.number)
            if size >= maximum:
                break
        return b"".join(parts)
