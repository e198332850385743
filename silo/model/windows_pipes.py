"""Names of Windows' named pipes, as users write them. Pure."""

from __future__ import annotations

import re
from urllib.parse import quote

from silo.errors import InvalidRequest

PREFIX = "\\\\.\\pipe\\"

# What Docker for Windows takes as a pipe: either slash, any case.
_PIPE = re.compile(r"[\\/]{2}\.[\\/]pipe[\\/]", re.IGNORECASE)
_ILLEGAL = re.compile(r'[:*?"<>|\x00-\x1f\x7f]')
_MAXIMUM_CHARACTERS = 256
_MAXIMUM_FILE_NAME = 200
_SAFE = "!#$&'()+,;=@[]^`{}~ "
# Pipes by which a silo's own services are driven: whoever could open them could do what an administrator in it can.
_OWN = frozenset(
    "atsvc epmapper eventlog initshutdown lsarpc lsass netlogon ntsvcs plugplay samr scerpc spoolss srvsvc svcctl winreg wkssvc "
    "wine_plugplay".split()
)
_OWN_BEGINNINGS = ("lrpc\\", "win32.pipes.")


def is_pipe(path: str) -> bool:
    """`\\\\.\\pipe\\name`, in either slash."""
    return _PIPE.match(path) is not None


def parse_pipe(path: str) -> str:
    """The canonical name, `\\\\.\\pipe\\` and the rest in the case it was typed in. Raises InvalidRequest."""
    found = _PIPE.match(path)
    if found is None:
        raise InvalidRequest(f"'{path}' is not a valid pipe path", hint="\\\\.\\pipe\\name")
    rest = path[found.end() :].replace("/", "\\")
    if _ILLEGAL.search(rest) or not all(rest.split("\\")):
        raise InvalidRequest(f"{path!r} holds what cannot be in the name of a pipe")
    if len(PREFIX + rest) > _MAXIMUM_CHARACTERS or not _has_file_name(rest):
        raise InvalidRequest(f"the name of the pipe {path[:80]}… is too long")
    return PREFIX + rest


def check_target(name: str) -> None:
    """`name` is canonical. Raises InvalidRequest for a pipe that belongs to Windows itself."""
    rest = pipe_key(name)
    if rest in _OWN or rest.startswith(_OWN_BEGINNINGS):
        raise InvalidRequest(
            f"invalid mount target {name}: Windows itself serves this pipe, and whoever reaches it rules the container",
            hint="mount at another name",
        )


def pipe_key(name: str) -> str:
    """What two spellings of one pipe have in common."""
    return name[len(PREFIX) :].lower()


def pipe_file_name(name: str) -> str:
    """The name of the socket that stands for a pipe on the host: no slash, no dot at its beginning."""
    text = quote(pipe_key(name), safe=_SAFE)
    return "%2E" + text[1:] if text.startswith(".") else text


def _has_file_name(rest: str) -> bool:
    try:
        return len(pipe_file_name(PREFIX + rest)) <= _MAXIMUM_FILE_NAME
    except UnicodeEncodeError:
        return False
