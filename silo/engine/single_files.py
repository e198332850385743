"""One file out of the tar that `docker cp` would give."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, cast

from silo.errors import InvalidRequest

_MAXIMUM_FRAME_BYTES = 64 * 1024
"""What surrounds a file in such a tar: headers, records, the end."""


async def read_only_file(untrusted_chunks: AsyncIterator[bytes], path: str, *, limit_bytes: int) -> bytes | None:
    """The content of the file that a tar holds alone; None when that is no regular file. Raises InvalidRequest."""
    parts, size = [], 0
    async with aclosing(cast(Any, untrusted_chunks)) as chunks:
        async for chunk in chunks:
            size += len(chunk)
            if size > limit_bytes + _MAXIMUM_FRAME_BYTES:
                raise InvalidRequest(f"{path} is larger than {limit_bytes} bytes")
            parts.append(chunk)
    try:
        with tarfile.open(fileobj=io.BytesIO(b"".join(parts)), mode="r:") as archive:
            first = archive.next()
            file = archive.extractfile(first) if first is not None and first.isreg() else None
            return file.read(limit_bytes) if file is not None else None
    except (tarfile.TarError, OSError) as error:
        raise InvalidRequest(f"{path} cannot be read from the container", details=str(error)) from error
