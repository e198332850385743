"""Silo's own extension to the API: the bases that it builds."""

from __future__ import annotations

from typing import Any

from silo.api.call import NO_CONTENT, Call, Reply, reply_json
from silo.api.handlers.progress import stream_progress
from silo.engine.engine import Engine
from silo.model.vm_image import VmImage


class BaseHandlers:
    """`/silo/v1/base`."""

    def __init__(self, engine: Engine) -> None:
        self._base = engine.base

    async def build_windows(self, call: Call) -> None:
        """POST /silo/v1/base/windows: a stream of progress lines, the last one with the image's id."""
        refresh = call.flag("refresh")
        await stream_progress(
            call,
            lambda progress: self._base.build(progress, refresh=refresh),
            in_bytes=False,
            last=lambda image: [{"status": "Built", "aux": {"ID": image.id, "Tags": list(image.tags)}}],
        )

    async def build_vm(self, call: Call) -> None:
        """POST /silo/v1/base/vm?name=&kernel=: a stream of progress lines, the last one with the image's id."""
        name, kernel, refresh = call.text("name"), call.text("kernel"), call.flag("refresh")
        await stream_progress(
            call,
            lambda progress: self._base.build_vm(progress, name=name, kernel=kernel, refresh=refresh),
            in_bytes=False,
            last=lambda image: [{"status": "Built", "aux": {"ID": image.id}}],
        )

    async def list_vms(self, _call: Call) -> Reply:
        """GET /silo/v1/base/vm: one row for each name."""
        return reply_json([_encode(image) for image in await self._base.vm_images()])

    async def import_vm(self, call: Call) -> Reply:
        """POST /silo/v1/base/vm/import?name=&directory=: a directory of the daemon's host."""
        image = await self._base.import_vm(call.text("directory"), name=call.text("name"))
        return reply_json(_encode(image), 201)

    async def remove_vm(self, call: Call) -> Reply:
        """DELETE /silo/v1/base/vm/NAME?force=1."""
        await self._base.remove_vm(call.name, force=call.flag("force"))
        return NO_CONTENT


def _encode(image: VmImage) -> dict[str, Any]:
    return {
        "Id": image.id,
        "Name": image.name,
        "Kernel": image.kernel_release,
        "Created": image.created_s,
        "Size": image.size_bytes,
        "Directory": str(image.directory),
    }
