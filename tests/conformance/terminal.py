"""A docker command on a pseudo terminal, typed at and read by a test."""

from __future__ import annotations

import os
import pty
import select
import struct
import subprocess
import termios
import time
from fcntl import ioctl

from tests.conformance.conftest import Docker


class Terminal:
    """A docker command on a pseudo terminal."""

    def __init__(self, docker: Docker, *words: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(24, 80)
        self.process = subprocess.Popen(
            [docker.program, *words],
            env=docker.environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def expect(self, wanted: bytes, timeout_s: float = 15) -> None:
        deadline = time.monotonic() + timeout_s
        while wanted not in self.seen:
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.master], [], [], max(left, 0))
            assert ready, f"{wanted!r} did not come; seen: {self.seen!r}"
            try:
                self.seen += os.read(self.master, 65536)
            except OSError:
                raise AssertionError(f"{wanted!r} did not come; seen: {self.seen!r}") from None
        self.seen = self.seen.partition(wanted)[2]

    def end(self) -> int:
        code = self.process.wait(15)
        os.close(self.master)
        return code
