"""`--storage-opt`: how much a container may write to its own layer. Pure.

Sizes are written as Docker's `RAMInBytes` reads them: `20G`, `20GB`, `20gib`, `1.5t`, or bytes; factors are powers of 1024.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from silo.errors import InvalidRequest

MINIMUM_SIZE_BYTES = 64 << 20
"""A silo's registry alone is several megabytes, and a file system needs some for itself."""
MAXIMUM_SIZE_BYTES = 16 << 40
"""Of an ext4 image of 4 KiB blocks, as every tool makes it."""
_SIZE = re.compile(r"(\d{1,19}(?:\.\d{1,9})?) ?([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_FACTORS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}


def parse_scratch_size(options: Mapping[str, str]) -> int:
    """Bytes of `size`, 0 where it is not given. Raises InvalidRequest naming the option."""
    for name in options:
        if name != "size":
            raise InvalidRequest(f"unknown option in --storage-opt: {name}", hint="size=20G")
    if "size" not in options:
        return 0
    text = options["size"]
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InvalidRequest(f"--storage-opt size={text} is not a size", hint="such as 20G, 512m or bytes")
    size = int(float(found[1]) * (1 << _FACTORS[found[2].lower()]))
    if not MINIMUM_SIZE_BYTES <= size <= MAXIMUM_SIZE_BYTES:
        raise InvalidRequest(
            f"--storage-opt size={text} is too {'small' if size < MINIMUM_SIZE_BYTES else 'large'}",
            hint=f"from {MINIMUM_SIZE_BYTES >> 20}m to {MAXIMUM_SIZE_BYTES >> 40}t",
        )
    return size
