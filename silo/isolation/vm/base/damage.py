"""Whether an image of utility VMs is still what was built: its manifest says what its files are, as of an OCI layout's blobs.

Sizes are compared whenever the image is looked for; digests when it is built, and when a machine does not come up from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

KERNEL, INITRD, ROOT = "vmlinuz", "initrd.img", "root.erofs"
MANIFEST = "manifest.json"
_NAMES = (KERNEL, INITRD, ROOT)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """`sha256` in hexadecimal."""

    size_bytes: int
    sha256: str


def describe_files(directory: Path) -> dict[str, StoredFile]:
    """What is to be recorded of an image's files. Blocks: reads them all."""
    return {name: StoredFile((directory / name).stat().st_size, _digest(directory / name)) for name in _NAMES}


def write_files(files: Mapping[str, StoredFile]) -> list[dict[str, Any]]:
    """For the manifest."""
    return [{"name": name, "bytes": file.size_bytes, "sha256": file.sha256} for name, file in sorted(files.items())]


def parse_files(document: Mapping[str, Any]) -> dict[str, StoredFile]:
    """From a manifest; empty for one that a builder before this one wrote. Raises KeyError, TypeError, ValueError."""
    return {str(row["name"]): StoredFile(int(row["bytes"]), str(row["sha256"])) for row in document.get("files", ())}


def find_damage(directory: Path, *, digests: bool = False) -> str:
    """What is wrong with the image there, in words; empty for nothing. Blocks, with `digests` for tenths of a second."""
    try:
        files = parse_files(json.loads((directory / MANIFEST).read_bytes()))
        for name in _NAMES:
            if complaint := _complain(directory / name, files.get(name), digests=digests):
                return complaint
    except OSError as error:
        return f"{Path(error.filename or directory).name} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} is no manifest"
    return ""


def _complain(path: Path, recorded: StoredFile | None, *, digests: bool) -> str:
    if not path.is_file():
        return f"{path.name} is not there"
    size_bytes = path.stat().st_size
    if recorded is None:
        return ""
    if size_bytes != recorded.size_bytes:
        return f"{path.name} has {size_bytes} bytes instead of {recorded.size_bytes}"
    if digests and _digest(path) != recorded.sha256:
        return f"{path.name} is not what was built: its SHA-256 is another one"
    return ""


def _digest(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
