"""Start silod in the background when a command finds none, and wait until it serves.

The daemon tells by one byte on a pipe (`--ready-fd`); if it ends first, the end of its log says why.
"""

from __future__ import annotations

import os

from silo.cli import http
from silo.cli.failure import DaemonUnreachable, Failure

READY_TIMEOUT_MS = 60_000
LOG_TAIL_BYTES = 2000


def root_directory() -> str:
    """The checkout or the directory that holds the package."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def daemon_argv() -> list[str]:
    """The daemon's command: the project's own environment has its libraries. Raises Failure when there is none."""
    root = root_directory()
    candidates = (os.environ.get("SILO_PYTHON", ""), f"{root}/.venv/bin/python", f"{root}/venv/bin/python")
    python = next((path for path in candidates if path and os.access(path, os.X_OK)), "")
    if not python:
        import sys

        # An installed package: the libraries are where this interpreter's own are.
        python = sys.executable
        if not os.path.isdir(f"{root}/silo") or not python:
            raise Failure(f"silod cannot be started: no Python environment in {root}; run ./demo or ./check once")
    return [python, "-m", "silo.daemon"]


def daemon_environment() -> dict[str, str]:
    """Ours, with the package in reach."""
    path = os.environ.get("PYTHONPATH", "")
    root = root_directory()
    return {**os.environ, "PYTHONPATH": f"{root}:{path}" if path else root}


def start_daemon(socket_path: str) -> None:
    """Returns when the daemon serves `socket_path`. Raises Failure with the reason."""
    if os.geteuid() != 0:
        raise DaemonUnreachable(
            f"no Silo daemon answers on {socket_path}, and starting one needs root: sudo silo …, or as root: silo daemon"
        )
    run_root = os.path.dirname(socket_path)
    os.makedirs(run_root, mode=0o711, exist_ok=True)
    with open(f"{run_root}/start.lock", "w") as lock:
        import fcntl

        # Of several commands at the same time, one starts it; the others wait and find it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            http.connect(socket_path).close()
        except DaemonUnreachable:
            _start(run_root)


def _start(run_root: str) -> None:
    log_path = f"{run_root}/silod.log"
    ready_read, ready_write = os.pipe()
    try:
        log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        before = os.fstat(log).st_size
        try:
            _spawn([*daemon_argv(), "--run-root", run_root, "--ready-fd", "3"], log, ready_write)
        finally:
            os.close(log)
            os.close(ready_write)
        if not _wait_ready(ready_read):
            raise Failure(f"silod did not start: {_tail(log_path, before)}")
    finally:
        os.close(ready_read)


def _spawn(argv: list[str], log: int, ready: int) -> None:
    """A session of its own, so that no signal of this terminal reaches it."""
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    actions: tuple[tuple[int, int, int], ...] = (
        (os.POSIX_SPAWN_DUP2, null, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
        (os.POSIX_SPAWN_DUP2, ready, 3),
    )
    if ready == 3:
        # dup2 onto itself would leave it close-on-exec.
        os.set_inheritable(ready, True)
        actions = actions[:3]
    try:
        os.posix_spawn(argv[0], argv, daemon_environment(), file_actions=actions, setsid=True)
    except OSError as error:
        raise Failure(f"silod cannot be started: {argv[0]}: {error.strerror}") from None
    finally:
        os.close(null)


def _wait_ready(descriptor: int) -> bool:
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN | select.POLLHUP)
    if not poll.poll(READY_TIMEOUT_MS):
        return False
    return bool(os.read(descriptor, 1))


def _tail(path: str, start: int) -> str:
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(start, size - LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        lines = []
    last = lines[-1] if lines else "it said nothing within a minute"
    return f"{last.removeprefix('silod: ')} (its log: {path})"
