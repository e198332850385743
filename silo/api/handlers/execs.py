"""`docker exec`."""

from __future__ import annotations

from typing import Any

from silo.api.call import Call, Reply, reply_json
from silo.api.decode.shapes import decode_struct
from silo.api.decode.wire import ExecCreateBody, ExecStartBody
from silo.api.framing import frame, parse_detach_keys
from silo.api.handlers.attaching import couple
from silo.api.handlers.containers import parse_size
from silo.engine.engine import Engine
from silo.engine.ports import ExecRequest
from silo.errors import InvalidRequest, SiloError
from silo.model.log import STDERR

# The client asks for the exit code as soon as the stream ends; a program that goes on without its output does not hold its
# client up for longer than this.
SETTLE_TIMEOUT_S = 2.0


class ExecHandlers:
    def __init__(self, engine: Engine) -> None:
        self._execs = engine.execs

    async def create(self, call: Call) -> Reply:
        body = decode_struct(await call.body(), ExecCreateBody)
        if not body.Cmd:
            raise InvalidRequest("No exec command specified")
        parse_detach_keys(body.DetachKeys)
        request = ExecRequest(
            args=body.Cmd,
            env=body.Env,
            working_dir=body.WorkingDir,
            user=body.User,
            tty=body.Tty,
            privileged=body.Privileged,
            attach_stdin=body.AttachStdin,
            attach_stdout=body.AttachStdout,
            attach_stderr=body.AttachStderr,
            detach_keys=body.DetachKeys,
            console_size=body.ConsoleSize if any(body.ConsoleSize) else None,
        )
        return reply_json({"Id": self._execs.create(call.name, request)}, 201)

    async def start(self, call: Call) -> Reply | None:
        """Hijacks unless detached.

        The head goes out before the program starts: clients that read it through a buffer (docker-py) lose output that comes
        in the same packet. From then on an error can only be told in the stream; the exit code is in `inspect`.
        """
        body = decode_struct(await call.body(), ExecStartBody, empty=True)
        info = self._execs.get(call.name)
        request = info.request
        size = body.ConsoleSize if any(body.ConsoleSize) else None
        if body.Detach:
            await self._execs.start(info.id, detach=True, tty=request.tty, console_size=size)
            return Reply(200)
        self._execs.check_startable(info.id)
        client = call.hijack(multiplexed=not request.tty)
        try:
            attachment = await self._execs.start(info.id, detach=False, tty=request.tty, console_size=size)
        except SiloError as error:
            text = f"{error}\r\n".encode()
            await call.write(text if request.tty else frame(STDERR, text))
            return None
        assert attachment is not None
        await couple(
            call,
            attachment,
            client,
            stdin=request.attach_stdin,
            detach_keys=parse_detach_keys(request.detach_keys),
            streams=(request.attach_stdout, request.attach_stderr),
        )
        await self._execs.settled(info.id, SETTLE_TIMEOUT_S)
        return None

    async def resize(self, call: Call) -> Reply:
        rows, columns = parse_size(call)
        await self._execs.resize(call.name, rows, columns)
        return Reply(200)

    async def inspect(self, call: Call) -> Reply:
        info = self._execs.get(call.name)
        request = info.request
        shown: dict[str, Any] = {
            "ID": info.id,
            "Running": info.running,
            "ExitCode": info.exit_code,
            "ProcessConfig": {
                "tty": request.tty,
                "entrypoint": request.args[0],
                "arguments": list(request.args[1:]),
                "privileged": request.privileged,
                **({"user": request.user} if request.user else {}),
            },
            "OpenStdin": request.attach_stdin,
            "OpenStderr": request.attach_stderr,
            "OpenStdout": request.attach_stdout,
            "CanRemove": not info.running,
            "ContainerID": info.container_id,
            "DetachKeys": request.detach_keys,
            "Pid": info.pid,
        }
        return reply_json(shown)
