"""Errors as replies: a kind that the host turns into one of its classes, and a sentence; and crun's complaints as kinds."""

from __future__ import annotations

import re

_TEXT_LIMIT = 600

_LAST_WORDS = re.compile(rb"(?:\x1b\[[0-9;]*m)?(?:[0-9T:.-]+Z: )?(exec container process|exec: )")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

_RULES = (
    ("not_found", r"executable file `?[^`']*[`']? not found|open executable.*[Nn]o such file"),
    ("not_found", r"exec( container process|: ).*No such file"),
    # crun says "open executable: Operation not permitted" of a directory; newer ones have other words, behind a guess about memory
    ("permission", r"path `?[^`']*[`']? (exists but it )?is not (executable|a regular file)"),
    ("permission", r"(open executable|exec container process|exec: ).*([Pp]ermission denied|Operation not permitted)"),
    ("not_executable", r"[Ee]xec format error|exec.*[Ii]nvalid argument"),
    ("directory", r"chdir(?: to)? `?[^`']*[`']?: .*"),
)


class Refused(Exception):
    """A request that cannot be done. Kinds are listed in docs/guest-protocol.md."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def are_last_words(output: bytes) -> bool:
    """crun's, when the kernel refuses the program after the start: they come on the program's own output, with colour and time
    on a terminal."""
    return _LAST_WORDS.match(output) is not None


def start_failure(message: str) -> Refused:
    """`message` is what crun wrote."""
    text = " ".join(_COLOUR.sub("", message).split())[-_TEXT_LIMIT:]
    for kind, pattern in _RULES:
        if re.search(pattern, text, re.DOTALL):
            return Refused(kind, text)
    return Refused("runtime", text or "crun gave no reason")


def describe_error(error: BaseException) -> dict[str, object]:
    """The `error` of a reply."""
    if isinstance(error, Refused):
        kind = error.kind
    elif isinstance(error, OSError):
        kind = "system"
    elif isinstance(error, KeyError | TypeError | ValueError | AttributeError | IndexError):
        kind = "invalid"
    else:
        kind = "internal"
    text = (
        f"{type(error).__name__}: {error}" if kind in ("invalid", "internal") and not isinstance(error, Refused) else ""
    )
    answer: dict[str, object] = {"kind": kind, "message": (text or str(error))[:_TEXT_LIMIT]}
    if isinstance(error, OSError) and error.errno:
        answer["errno"] = error.errno
    return answer
