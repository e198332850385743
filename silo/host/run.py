"""Start host programs: the one place where environment, time limits and errors are decided.

`run` blocks (call it from a thread inside the daemon: `asyncio.to_thread`); it never forks Python code, so it is safe beside
a running event loop.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from silo.errors import CommandFailed, HostError, ToolMissing

# Host tools get this and nothing of the caller's environment: behaviour must not hang on who starts the daemon.
HOST_ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/root",
}
# Registry access of package tools and skopeo goes through the administrator's proxy, where one is set.
_PASSED_THROUGH = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "TMPDIR")


@dataclass(frozen=True, slots=True)
class CompletedCommand:
    """A program that has ended with status 0 (or any, with check=False)."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes


def host_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of host tools, with `extra` laid over it."""
    passed = {name: os.environ[name] for name in _PASSED_THROUGH if name in os.environ}
    return HOST_ENVIRONMENT | passed | dict(extra or {})


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    input: bytes | None = None,
    timeout_s: float | None = None,
    capture: bool = True,
    check: bool = True,
    pass_fds: Sequence[int] = (),
) -> CompletedCommand:
    """Run a program to its end.

    Raises ToolMissing, CommandFailed (status not 0, unless check is False), HostError (time limit, cannot start).
    """
    words = tuple(str(word) for word in argv)
    pipe = subprocess.PIPE if capture else None
    # subprocess.run refuses stdin= beside input=
    stdin = {"stdin": subprocess.DEVNULL} if input is None else {}
    try:
        done = subprocess.run(
            words,
            env=host_environment(env),
            cwd=cwd,
            input=input,
            stdout=pipe,
            stderr=pipe,
            timeout=timeout_s,
            pass_fds=tuple(pass_fds),
            check=False,
            **stdin,  # type: ignore[call-overload,misc]
        )
    except FileNotFoundError as error:
        if cwd is not None and not cwd.is_dir():
            raise HostError(f"cannot run {words[0]}: the directory {cwd} does not exist") from error
        raise ToolMissing(words[0]) from error
    except subprocess.TimeoutExpired as error:
        raise HostError(f"{words[0]} did not end within {timeout_s} s", details=" ".join(words)) from error
    except OSError as error:
        raise HostError(f"cannot run {words[0]}", details=str(error)) from error
    stderr: bytes = done.stderr or b""
    if check and done.returncode != 0:
        raise CommandFailed(words, done.returncode, stderr.decode(errors="replace"))
    return CompletedCommand(words, done.returncode, done.stdout or b"", stderr)


def start_detached(argv: Sequence[str | Path], *, log: Path | int, pass_fds: Sequence[int] = ()) -> int:
    """Start a program that outlives this one: its own session, no input. Answers its pid.

    Output is appended to the file `log`, or written to that descriptor, which stays the caller's. Raises ToolMissing, HostError.
    """
    words = tuple(str(word) for word in argv)
    try:
        with open(log, "ab") if isinstance(log, Path) else open(os.dup(log), "wb", buffering=0) as output:
            started = subprocess.Popen(
                words,
                env=host_environment(),
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=tuple(pass_fds),
                start_new_session=True,
            )
    except FileNotFoundError as error:
        raise ToolMissing(words[0]) from error
    except OSError as error:
        raise HostError(f"cannot start {words[0]}", details=str(error)) from error
    # reaped here when it ends before the daemon, so that it does not stay behind as a zombie
    threading.Thread(target=started.wait, name=f"wait-{started.pid}", daemon=True).start()
    return started.pid


@contextlib.contextmanager
def conversing(argv: Sequence[str | Path]) -> Iterator[subprocess.Popen[bytes]]:
    """A program with pipes at its input and output, unbuffered, killed at the end. Raises ToolMissing, HostError."""
    words = tuple(str(word) for word in argv)
    pipe = subprocess.PIPE
    try:
        started = subprocess.Popen(words, env=host_environment(), cwd="/", stdin=pipe, stdout=pipe, bufsize=0)
    except FileNotFoundError as error:
        raise ToolMissing(words[0]) from error
    except OSError as error:
        raise HostError(f"cannot run {words[0]}", details=str(error)) from error
    with started:
        try:
            yield started
        finally:
            started.kill()
