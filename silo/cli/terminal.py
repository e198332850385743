"""The user's terminal: raw mode, size, and signals as bytes on a pipe."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` loads `enum`: 3 ms
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# Signals that a container's program may be meant by; the rest is about this process.
PROXIED = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGUSR1, _signal.SIGUSR2)
RESIZED = _signal.SIGWINCH


def terminal_size(descriptor: int = 1) -> tuple[int, int]:
    """(rows, columns); (0, 0) when it is no terminal."""
    try:
        size = os.get_terminal_size(descriptor)
    except OSError:
        return 0, 0
    return size.lines, size.columns


class RawTerminal:
    """A context in which keys arrive one by one and unchanged; the old mode comes back in any case."""

    def __init__(self, descriptor: int = 0) -> None:
        self._descriptor = descriptor
        self._before: list[Any] | None = None

    def __enter__(self) -> RawTerminal:
        if not os.isatty(self._descriptor):
            return self
        import termios

        self._before = termios.tcgetattr(self._descriptor)
        mode = list(self._before)
        mode[0] &= ~(
            termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
            | termios.ICRNL | termios.IXON
        )  # fmt: skip
        mode[1] &= ~termios.OPOST
        mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
        mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
        mode[6] = [*mode[6]]
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
        termios.tcsetattr(self._descriptor, termios.TCSADRAIN, mode)
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._before is not None:
            import termios

            termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)
            self._before = None


class SignalPipe:
    """A context in which the signals arrive as bytes on `descriptor` instead of ending this process."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = tuple(numbers)
        self._before: dict[int, Any] = {}

    def __enter__(self) -> SignalPipe:
        self.descriptor, self._write = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._write, False)
        self._before_fd = _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._numbers:
            self._before[number] = _signal.signal(number, lambda *_ignored: None)
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._before.items():
            _signal.signal(number, handler if handler is not None else _signal.SIG_DFL)
        _signal.set_wakeup_fd(self._before_fd)
        os.close(self.descriptor)
        os.close(self._write)

    def read(self) -> bytes:
        try:
            return os.read(self.descriptor, 64)
        except BlockingIOError:
            return b""
