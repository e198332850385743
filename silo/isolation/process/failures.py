"""crun's complaints in the engine's terms."""

from __future__ import annotations

import re

from silo.errors import HostError, InvalidRequest, ProcessStartFailed, SiloError

_NOT_FOUND = re.compile(r"executable file `?(?P<a>[^`']*)[`']? not found|open executable.*[Nn]o such file", re.DOTALL)
# crun says "open executable: Operation not permitted" of a directory
_PERMISSION = re.compile(
    r"(open executable|exec container process|exec: ).*([Pp]ermission denied|Operation not permitted)", re.DOTALL
)
_NOT_EXECUTABLE = re.compile(r"[Ee]xec format error|exec.*[Ii]nvalid argument", re.DOTALL)
_MISSING_INTERPRETER = re.compile(r"exec( container process|: ).*No such file", re.DOTALL)
_DIRECTORY = re.compile(r"chdir(?: to)? `?(?P<path>[^`']*)[`']?: (?P<why>.*)")


EXEC_FAILED = b"exec container process"
"""How crun's last words begin when the kernel refuses the program after the start; they come on the program's own stderr."""


def translate_failure(program: str, message: str) -> SiloError:
    """`message` is what crun wrote; `program` the first word of the command."""
    text = " ".join(message.split())[-600:]
    if _NOT_FOUND.search(text) or _MISSING_INTERPRETER.search(text):
        return ProcessStartFailed(
            f"{program}: executable file not found in the container (no such file or directory)",
            kind="not_found",
            details=text,
        )
    if _PERMISSION.search(text):
        return ProcessStartFailed(f"{program}: permission denied", kind="permission", details=text)
    if _NOT_EXECUTABLE.search(text):
        return ProcessStartFailed(
            f"{program}: exec format error",
            kind="not_executable",
            details=text,
            hint="the program is for another machine or is a script without a first line #!",
        )
    if found := _DIRECTORY.search(text):
        return InvalidRequest(f"the working directory {found['path']} cannot be used: {found['why']}")
    return HostError("crun could not make the container", details=text or "it gave no reason")
