"""Paths as users of Windows containers write them → where they lie in the container's Linux root. Pure.

Taken: `C:\\data`, `c:/data`, `\\data`, `/data`, and relative ones with a working directory. There is one drive and nothing beside
it: other drives, UNC, `\\\\?\\` and `\\\\.\\` are refused, and `..` does not leave the drive.
"""

from __future__ import annotations

import re

from silo.errors import InvalidRequest, Unsupported
from silo.model.windows_names import find_fault
from silo.model.windows_paths import DRIVE_C
from silo.model.windows_pipes import is_pipe

_DRIVE = re.compile(r"^(?P<letter>[A-Za-z]):(?P<rest>.*)$", re.DOTALL)


def normalize_path(path: str, *, working_dir: str = "C:\\") -> str:
    """The canonical Windows path: `C:\\` and components as typed. Raises InvalidRequest, Unsupported."""
    parts = _split(path, working_dir)
    resolved: list[str] = []
    for part in parts:
        if part in ("", "."):
            continue
        if part == "..":
            if not resolved:
                raise InvalidRequest(f"the path {path} leads out of its drive")
            resolved.pop()
        else:
            resolved.append(_checked(part, path))
    return "C:\\" + "\\".join(resolved)


def map_path(path: str, *, working_dir: str = "C:\\") -> str:
    """A Windows path → absolute POSIX path in the container's root. Names keep the case they were typed in."""
    rest = normalize_path(path, working_dir=working_dir)[3:]
    return f"{DRIVE_C}/{rest}".replace("\\", "/").rstrip("/")


def _split(path: str, working_dir: str) -> list[str]:
    text = path.replace("/", "\\")
    # clients on Unix may put a slash before the drive
    if text.startswith("\\") and _DRIVE.match(text[1:]):
        text = text[1:]
    if text.startswith("\\\\"):
        what = "a named pipe" if is_pipe(path) else "a UNC or device path"
        raise InvalidRequest(f"{path} is {what}: only paths on C: exist in a container")
    drive = _DRIVE.match(text)
    if drive:
        if drive["letter"].upper() != "C":
            raise Unsupported(f"the drive {drive['letter'].upper()}: of {path} is not supported", hint="use C:\\…")
        text = drive["rest"]
        if text and not text.startswith("\\"):
            raise InvalidRequest(f"{path} is relative to a drive's current directory", hint="write C:\\…")
        return text.split("\\")
    if text.startswith("\\"):
        return text.split("\\")
    return [*_split(working_dir, "C:\\"), *text.split("\\")]


def _checked(part: str, path: str) -> str:
    """Windows drops dots and spaces at a name's end; what it does not allow is refused."""
    name = part.rstrip(". ")
    fault = find_fault(name)
    if fault:
        raise InvalidRequest(f"{path!r} holds a name that Windows does not allow: {part!r}", details=fault)
    return name
