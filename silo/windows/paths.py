"""Paths as users of Windows containers write them → where they lie in the container's Linux root. Pure.

Taken: `C:\\data`, `c:/data`, `\\data`, `/data`, and relative ones with a working directory. There is one drive, and those that
mounts make: other drives, UNC, `\\\\?\\` and `\\\\.\\` are refused, and `..` does not leave the drive.
"""

from __future__ import annotations

import re

from silo.errors import InvalidRequest, Unsupported
from silo.model.windows_names import find_fault
from silo.model.windows_paths import OTHER_DRIVE
from silo.model.windows_pipes import is_pipe

_DRIVE = re.compile(r"^(?P<letter>[A-Za-z]):(?P<rest>.*)$", re.DOTALL)
ALL_DRIVES = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def normalize_path(path: str, *, working_dir: str = "C:\\", drives: str = "C") -> str:
    """The canonical Windows path: `C:\\` (or another of `drives`) and components as typed. Raises InvalidRequest, Unsupported."""
    letter, parts = _split(path, working_dir, drives)
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
    return f"{letter}:\\" + "\\".join(resolved)


def map_path(path: str, *, working_dir: str = "C:\\", drives: str = "C") -> str:
    """A Windows path → absolute POSIX path in the container's root. Names keep the case they were typed in."""
    found = normalize_path(path, working_dir=working_dir, drives=drives)
    return f"{OTHER_DRIVE}{found[0].lower()}/{found[3:]}".replace("\\", "/").rstrip("/")


def _split(path: str, working_dir: str, drives: str) -> tuple[str, list[str]]:
    """(the drive's letter, upper case; components)."""
    text = path.replace("/", "\\")
    # clients on Unix may put a slash before the drive
    if text.startswith("\\") and _DRIVE.match(text[1:]):
        text = text[1:]
    if text.startswith("\\\\"):
        what = "a named pipe" if is_pipe(path) else "a UNC or device path"
        raise InvalidRequest(f"{path} is {what}: only paths on C: exist in a container")
    drive = _DRIVE.match(text)
    if drive:
        letter = drive["letter"].upper()
        if letter not in drives:
            raise Unsupported(
                f"the drive {letter}: of {path} is not supported", hint="use C:\\…, or mount a drive: -v …:x:"
            )
        text = drive["rest"]
        if text and not text.startswith("\\"):
            raise InvalidRequest(f"{path} is relative to a drive's current directory", hint="write C:\\…")
        return letter, text.split("\\")
    letter, above = ("C", []) if working_dir == "C:\\" else _split(working_dir, "C:\\", drives)
    return letter, text.split("\\") if text.startswith("\\") else [*above, *text.split("\\")]


def _checked(part: str, path: str) -> str:
    """Windows drops dots and spaces at a name's end; what it does not allow is refused."""
    name = part.rstrip(". ")
    fault = find_fault(name)
    if fault:
        raise InvalidRequest(f"{path!r} holds a name that Windows does not allow: {part!r}", details=fault)
    return name
