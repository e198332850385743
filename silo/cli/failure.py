"""What the command line ends with when it cannot do what was asked. Own classes, for `silo.errors` loads `typing`, and every
millisecond of the start counts here.
"""

from __future__ import annotations


class Failure(Exception):
    """A sentence for the user and the exit status. Docker's statuses: 125 for wrong usage and the engine's failures of `run`,
    126 and 127 for programs that cannot be executed or are not found, 1 for the rest.
    """

    def __init__(self, message: str, *, status: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


class UsageError(Failure):
    """The words of the command are wrong."""

    def __init__(self, message: str) -> None:
        super().__init__(message, status=125)


class ApiError(Failure):
    """The daemon refused; `http_status` is its answer's."""

    def __init__(self, message: str, http_status: int) -> None:
        super().__init__(message)
        self.http_status = http_status


class DaemonUnreachable(Failure):
    """Nobody answers on the socket."""


class Ended(Exception):
    """The command is over with this exit status and has said all there is to say."""

    def __init__(self, status: int) -> None:
        super().__init__(str(status))
        self.status = status
