"""The two-way stream of attach and exec: standard input to the container, its output to ours, signals and sizes beside it.

One loop over poll, for both directions may be full at once: whoever blocked on writing to one would never empty the other.
"""

from __future__ import annotations

import _socket
import os
import select

from silo.cli.detach import DetachScanner
from silo.cli.failure import Ended, Failure
from silo.cli.frames import Demultiplexer
from silo.cli.terminal import PROXIED, RESIZED, RawTerminal, SignalPipe, terminal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from silo.cli.http import Response

CHUNK_BYTES = 64 * 1024
FORCE_AFTER_SIGNALS = 3
_INTERRUPT = 2


def write_all(descriptor: int, data: bytes) -> None:
    """Also to a descriptor that somebody else has made nonblocking."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])


class Stream:
    """A hijacked connection. `resize(rows, columns)` and `send_signal(number)` are calls to the daemon; None does without."""

    def __init__(
        self,
        response: Response,
        *,
        tty: bool,
        stdin: bool,
        keys: bytes,
        resize: Callable[[int, int], None] | None = None,
        send_signal: Callable[[int], None] | None = None,
    ) -> None:
        self._connection: _socket.socket = response.connection
        self._first = response.buffer
        self._tty = tty
        self._stdin = stdin
        self._scanner = DetachScanner(keys) if tty and stdin else None
        self._resize = resize if tty else None
        self._send_signal = send_signal
        self._pending = b""
        self._closing = not stdin
        self._interrupts = 0
        framed = "multiplexed" in response.headers.get("content-type", "") or (
            not tty and "raw-stream" not in response.headers.get("content-type", "")
        )
        self._sink = Demultiplexer(self._write_frame).feed if framed else self._write_raw
        self.detached = False

    def run(self, started: Callable[[], None] | None = None) -> None:
        """Returns when the stream has ended or the user has detached. `started` is called once signals are caught."""
        numbers = (*(PROXIED if self._send_signal else ()), *((RESIZED,) if self._resize else ()))
        raw = RawTerminal() if self._tty and self._stdin else None
        with SignalPipe(numbers) as signals:
            if started:
                started()
            if self._first:
                self._sink(self._first)
            if raw:
                with raw:
                    self.fit()
                    self._pump(signals)
            else:
                self.fit()
                self._pump(signals)

    def fit(self) -> None:
        """Tell the container's terminal our size."""
        rows, columns = terminal_size()
        if self._resize and rows and columns:
            self._resize(rows, columns)

    def _pump(self, signals: SignalPipe) -> None:
        connection = self._connection
        connection.setblocking(False)
        number = connection.fileno()
        poll = select.poll()
        poll.register(signals.descriptor, select.POLLIN)
        self._shut_if_done()
        while True:
            poll.register(number, select.POLLIN | (select.POLLOUT if self._pending else 0))
            reading = self._stdin and not self._closing and len(self._pending) < CHUNK_BYTES
            if reading:
                poll.register(0, select.POLLIN)
            ready = dict(poll.poll())
            if reading:
                poll.unregister(0)
            if signals.descriptor in ready:
                self._handle_signals(signals.read())
            if reading and ready.get(0, 0):
                self._read_input()
                if self.detached:
                    return
            if self._pending:
                self._write_input()
            if ready.get(number, 0) & ~select.POLLOUT and not self._read_output():
                return

    def _read_input(self) -> None:
        try:
            data = os.read(0, CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._closing = True
        elif self._scanner:
            data, self.detached = self._scanner.feed(data)
        self._pending += data
        self._shut_if_done()

    def _write_input(self) -> None:
        try:
            self._pending = self._pending[self._connection.send(self._pending) :]
        except BlockingIOError:
            return
        except OSError:
            # The program reads no more; what it still says is read on.
            self._pending, self._closing = b"", True
            return
        self._shut_if_done()

    def _shut_if_done(self) -> None:
        if self._closing and not self._pending:
            try:
                self._connection.shutdown(_socket.SHUT_WR)
            except OSError:
                return

    def _read_output(self) -> bool:
        try:
            data = self._connection.recv(CHUNK_BYTES)
        except BlockingIOError:
            return True
        except ConnectionResetError:
            return False
        if data:
            self._sink(data)
        return bool(data)

    def _write_raw(self, data: bytes) -> None:
        write_all(1, data)

    def _write_frame(self, stream: int, payload: bytes) -> None:
        write_all(stream, payload)

    def _handle_signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == RESIZED:
                self.fit()
            elif self._send_signal:
                self._interrupts += number == _INTERRUPT
                if self._interrupts >= FORCE_AFTER_SIGNALS:
                    raise Ended(130)
                try:
                    self._send_signal(number)
                except Failure:
                    # It has just ended: the stream will tell.
                    continue


def shell_status(code: int) -> int:
    """A program's exit code for the shell, which keeps eight bits; a Windows code such as 256 must not become success."""
    low = code & 0xFF
    return low or (1 if code else 0)


def check_terminal(*, tty: bool, stdin: bool) -> None:
    """Raises Failure when keys are to come from something that has none."""
    if tty and stdin and not os.isatty(0):
        raise Failure("the input device is not a TTY")
