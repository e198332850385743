"""Targets of Windows' links ↔ the text of a symbolic link on the disk. Pure but for the look-up that is handed in.

On the disk every link is relative and stays beneath `C:\\`, so that it means the same to Wine and to the kernel. What leads to
another drive, to another machine (UNC) or nowhere becomes a link whose text is the Windows target: one name with backslashes or a
colon, which no file of `C:\\` has, so it is dead, and says what it meant.

Forms of targets: microsoft/go-winio, reparse.go.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence

from silo.model.windows_names import find_fault
from silo.model.windows_paths import DRIVE_C, PREFIX

_VERBATIM = ("\\\\?\\", "\\??\\")
_DRIVE = re.compile(r"^c:(\\|$)", re.IGNORECASE)
_DEVICES = re.compile(rf"^{PREFIX}/dosdevices/c:(/|$)", re.IGNORECASE)
_ELSEWHERE = re.compile(r"^[A-Za-z]:|^\\\\")
_WRONG_PREFIX = re.compile(r"^files\\", re.IGNORECASE)

Exists = Callable[[Sequence[str]], bool]
"""Whether there is something at a path of `C:\\`, given as components."""


def resolve_target(untrusted_target: str, directory: Sequence[str], exists: Exists) -> list[str] | None:
    """Where on `C:\\` a link in `directory` leads; None when it leads elsewhere.

    BuildKit on Linux puts `Files/` before every target. Such a one is taken as it says if something is there, else without.
    """
    target = untrusted_target.replace("/", "\\")
    if _WRONG_PREFIX.match(target):
        bare = target[len("Files\\") :]
        readings = (target, bare, f"\\{bare}")
        resolved = [_resolve(reading, directory) for reading in readings]
        there = (parts for parts in resolved if parts is not None and exists(parts))
        return next(there, resolved[1])
    return _resolve(target, directory)


def _resolve(target: str, directory: Sequence[str]) -> list[str] | None:
    verbatim = target.startswith(_VERBATIM)
    if verbatim:
        target = target[4:]
    if _DRIVE.match(target):
        return _normalize([], target[2:])
    if verbatim or _ELSEWHERE.match(target):
        return None
    return _normalize([] if target.startswith("\\") else directory, target)


def _normalize(base: Sequence[str], rest: str) -> list[str] | None:
    parts = list(base)
    for part in rest.split("\\"):
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif find_fault(part):
            return None
        else:
            parts.append(part)
    return parts


def link_text(directory: Sequence[str], target: Sequence[str]) -> str:
    """The relative link from a directory to a path, both of `C:\\`."""
    common = 0
    while common < min(len(directory), len(target)) and directory[common] == target[common]:
        common += 1
    return "/".join([".."] * (len(directory) - common) + list(target[common:])) or "."


def dead_text(untrusted_target: str) -> str:
    """The text of a link that leads nowhere."""
    text = untrusted_target.replace("/", "\\")
    return text if "\\" in text or ":" in text else f".\\{text}"


def windows_target(text: str, directory: Sequence[str]) -> str | None:
    """The text of a link in a directory of `C:\\` as Windows would have it; None when it leads out of `C:\\`."""
    if "/" not in text and ("\\" in text or ":" in text):
        return text
    if not text.startswith("/") and not _leaves(text, directory):
        return text.replace("/", "\\")
    text = _DEVICES.sub(f"{DRIVE_C}/", text)
    path = posixpath.normpath(posixpath.join(DRIVE_C, *directory, text))
    if path != DRIVE_C and not path.startswith(DRIVE_C + "/"):
        return None
    return "C:\\" + path[len(DRIVE_C) :].strip("/").replace("/", "\\")


def _leaves(text: str, directory: Sequence[str]) -> bool:
    depth = len(directory)
    for part in text.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            return True
    return False
