"""The hierarchy of errors that Silo raises on purpose.

Every error has a brief (one sentence, what happened and where), optional details (what was read or answered) and an
optional hint (what to do). `http_status` and `exit_status` are the only two places where a class becomes a number.
"""

from __future__ import annotations

from typing import Literal


class SiloError(Exception):
    """Something that Silo can explain."""

    def __init__(self, brief: str, *, details: str = "", hint: str = "") -> None:
        super().__init__(brief)
        self.brief = brief
        self.details = details
        self.hint = hint

    def __str__(self) -> str:
        parts = [self.brief]
        if self.details:
            parts.append(self.details)
        text = ": ".join(parts)
        return f"{text} ({self.hint})" if self.hint else text


class InvalidRequest(SiloError):
    """The caller asked for something malformed or contradictory."""


class ProcessStartFailed(InvalidRequest):
    """The program of a container or exec could not be started.

    `kind` decides the exit status that Docker's client derives: not_found is 127, permission and not_executable 126.
    """

    def __init__(
        self,
        brief: str,
        *,
        kind: Literal["not_found", "permission", "not_executable"],
        details: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(brief, details=details, hint=hint)
        self.kind = kind


class AccessDenied(SiloError):
    """The caller may not do this."""


class PolicyError(AccessDenied):
    """A policy does not parse, and therefore denies."""


class NotFound(SiloError):
    """A named thing does not exist."""


class ImageNotFound(NotFound):
    """No such image locally; Docker's client answers this by a pull."""


class Conflict(SiloError):
    """The thing exists already, or its state does not allow this."""


class NotModified(SiloError):
    """The state asked for is the state already (Docker answers 304)."""


class HostError(SiloError):
    """The host failed us: a system call, a file, a limit."""


class NoSpace(HostError):
    """The host's disk is full."""


class CommandFailed(HostError):
    """A host program ended with a failure."""

    def __init__(self, argv: tuple[str, ...], status: int, stderr: str, *, hint: str = "") -> None:
        tail = stderr.strip()[-2000:]
        super().__init__(f"{argv[0]} failed with status {status}", details=tail, hint=hint)
        self.argv = argv
        self.status = status
        self.stderr = stderr


class ToolMissing(HostError):
    """A host program that Silo needs is not installed."""

    def __init__(self, tool: str, package: str = "") -> None:
        super().__init__(f"the program {tool} is not installed", hint=f"apt-get install {package or tool}")
        self.tool = tool


class GuestError(SiloError):
    """Something inside a container answered wrongly or not at all."""


class Unsupported(SiloError):
    """The option or call is known and not supported; the brief names it."""


class Unavailable(SiloError):
    """Temporarily not possible: starting up, shutting down, time limit."""


def http_status(error: BaseException) -> int:
    """The Docker Engine API's status for an error."""
    table: tuple[tuple[type[BaseException], int], ...] = (
        (InvalidRequest, 400),
        (AccessDenied, 403),
        (NotFound, 404),
        (Conflict, 409),
        (NotModified, 304),
        (Unsupported, 501),
        (Unavailable, 503),
    )
    return next((status for kind, status in table if isinstance(error, kind)), 500)


def exit_status(error: BaseException) -> int:
    """The exit status of the command line for an error (docker's: 125 for the engine's own failures)."""
    if isinstance(error, ProcessStartFailed):
        return 127 if error.kind == "not_found" else 126
    return 125 if isinstance(error, SiloError) else 1
