"""Couples a hijacked connection with an attachment: output to the client, input to the program, until one side is done.

The end of the client's input does not end the output, and the end of the output ends everything.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, cast

from silo.api.body import Body, ClientGone
from silo.api.call import Call
from silo.api.framing import DetachScanner, frame
from silo.engine.attachments import Attachment


async def couple(
    call: Call, attachment: Attachment, client: Body, *, stdin: bool, detach_keys: bytes, streams: tuple[bool, bool]
) -> bool:
    """Run both directions to their end. `streams`: (stdout, stderr) wanted. True when the client detached by keys."""
    output = asyncio.create_task(_send_output(call, attachment, *streams))
    input_ = asyncio.create_task(_forward_input(attachment, client, stdin=stdin, detach_keys=detach_keys))
    try:
        while True:
            waiting = {output} if input_.done() else {output, input_}
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if output.done():
                output.result()
                return False
            if input_.done() and input_.result():
                return True
    finally:
        for task in (output, input_):
            task.cancel()
        await asyncio.gather(output, input_, return_exceptions=True)
        attachment.close()


async def _send_output(call: Call, attachment: Attachment, stdout: bool, stderr: bool) -> None:
    chunks = cast(Any, attachment.output())
    async with aclosing(chunks):
        async for stream, data in chunks:
            if attachment.terminal:
                await call.write(data)
            elif stderr if stream == 2 else stdout:
                await call.write(frame(stream, data))


async def _forward_input(attachment: Attachment, client: Body, *, stdin: bool, detach_keys: bytes) -> bool:
    """True when the detach keys were typed."""
    scanner = DetachScanner(detach_keys) if attachment.terminal else None
    try:
        while data := await client.read():
            detached = False
            if scanner is not None:
                data, detached = scanner.feed(data)
            if data and stdin:
                await attachment.write(data)
            if detached:
                return True
        if stdin:
            await attachment.close_input()
    except ClientGone:
        pass
    return False
