"""silod: `python -m silo.daemon [flags]`; start in the right order, serve until SIGTERM, leave containers running.

The private mount namespace is entered first, while the process has a single thread; the heavy imports follow.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from silo.config.settings import Settings, describe, load_settings
from silo.errors import Conflict, HostError, InvalidRequest, SiloError

log = logging.getLogger("silod")


def main(arguments: list[str]) -> int:
    """Run the daemon; the exit status."""
    if "--help" in arguments or "-h" in arguments:
        print(f"silod: the Silo daemon\n\n{describe()}")
        return 0
    try:
        settings, rest = load_settings(arguments, os.environ)
        logging.basicConfig(
            level=settings.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s: %(message)s",
            stream=sys.stderr,
        )
        if os.geteuid() != 0:
            raise HostError("silod must run as root", hint="sudo silo daemon")
        _serve(settings, int(rest.get("ready-fd", "-1")))
    except SiloError as error:
        print(f"silod: {error}", file=sys.stderr)
        return 1
    return 0


def _serve(settings: Settings, ready_fd: int) -> None:
    for path, mode in ((settings.data_root, 0o711), (settings.run_root, 0o711)):
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    # Only the namespace code before this line: no thread may exist yet.
    from silo.isolation.process.namespace import enter_mount_namespace

    enter_mount_namespace(settings.run_root)
    from silo.state import lock

    with lock(settings.data_root / "silod.lock"):
        listener = bind_socket(settings.run_root / "silo.sock", settings.group)
        import uvloop

        with listener, contextlib.suppress(KeyboardInterrupt):
            uvloop.run(_run(settings, listener, ready_fd))
            (settings.run_root / "silo.sock").unlink(missing_ok=True)


async def _run(settings: Settings, listener: socket.socket, ready_fd: int) -> None:
    from silo.wiring import build_daemon

    async with build_daemon(settings) as server:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, ended.set)
        serving = asyncio.create_task(server.serve(listener))
        if ready_fd >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(ready_fd, b"\n")
            os.close(ready_fd)
        log.info("serving on %s", settings.run_root / "silo.sock")
        waiting = asyncio.create_task(ended.wait())
        await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await server.close()
        if not serving.done():
            serving.cancel()
        await asyncio.gather(serving, waiting, return_exceptions=True)


def bind_socket(path: Path, group: str) -> socket.socket:
    """The API's listening socket: root's own, or also a group's. Raises Conflict while another daemon answers on it."""
    probe = socket.socket(socket.AF_UNIX)
    with probe:
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            pass
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise Conflict(
                f"another daemon serves {path}", hint="stop it, or choose another --run-root and --data-root"
            )
    listener = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(before)
    if group:
        try:
            os.chown(path, 0, grp.getgrnam(group).gr_gid)
        except KeyError:
            listener.close()
            raise InvalidRequest(f"the group {group} does not exist", hint=f"groupadd {group}") from None
        path.chmod(0o660)
    listener.listen(512)
    listener.setblocking(False)
    return listener


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
