"""Run a host program that takes long, looking at it now and then: for progress, and to stop it.

Blocks, like silo.host.run; output goes to files, so that a program that writes much neither blocks nor fills memory.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from silo.errors import CommandFailed, HostError, ToolMissing
from silo.host.run import CompletedCommand, host_environment

_KILL_AFTER_S = 5.0
_KEPT = 8 << 20


def run_watched(
    argv: Sequence[str | Path],
    *,
    on_tick: Callable[[Path], None],
    every_s: float = 0.2,
    time_limit_s: float | None = None,
    directory: Path,
) -> CompletedCommand:
    """Run a program to its end; `on_tick(output_file)` is called every `every_s` and may raise, which ends the program.

    `directory` takes the files with its output, of which the last 8 MiB are answered. Raises ToolMissing, CommandFailed, HostError.
    """
    words = tuple(str(word) for word in argv)
    with (
        tempfile.NamedTemporaryFile(dir=directory, prefix="stdout-") as out,
        tempfile.NamedTemporaryFile(dir=directory, prefix="stderr-") as err,
    ):
        begun = time.monotonic()
        try:
            process = subprocess.Popen(
                words, env=host_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=err, start_new_session=True
            )
        except FileNotFoundError as error:
            raise ToolMissing(words[0]) from error
        except OSError as error:
            raise HostError(f"cannot run {words[0]}", details=str(error)) from error
        try:
            while True:
                try:
                    status = process.wait(every_s)
                    break
                except subprocess.TimeoutExpired:
                    on_tick(Path(out.name))
                    if time_limit_s is not None and time.monotonic() - begun > time_limit_s:
                        raise HostError(
                            f"{words[0]} did not end within {time_limit_s} s", details=" ".join(words)
                        ) from None
        finally:
            _end(process)
        on_tick(Path(out.name))
        stdout, stderr = _tail(out), _tail(err)
    if status != 0:
        raise CommandFailed(words, status, stderr.decode(errors="replace"))
    return CompletedCommand(words, status, stdout, stderr)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is not None:
        return
    # its own session, hence a process group of its own: what it started ends with it
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_KILL_AFTER_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tail(file: IO[bytes]) -> bytes:
    size = file.seek(0, 2)
    file.seek(max(0, size - _KEPT))
    return file.read()
