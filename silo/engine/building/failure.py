"""How the failure of a step is told: with the Dockerfile's name and line."""

from __future__ import annotations

from silo.dockerfile.syntax import Instruction
from silo.errors import GuestError, SiloError


class StepFailed(GuestError):
    """A command of RUN ended with a failure; `code` is its exit code, which becomes the client's."""

    def __init__(self, brief: str, *, code: int) -> None:
        super().__init__(brief)
        self.code = code


def place(error: SiloError, instruction: Instruction) -> SiloError:
    """The same error, its brief beginning with `Dockerfile:12: ` unless it does already."""
    if not error.brief.startswith(f"{instruction.file}:"):
        error.brief = f"{instruction.where}: {error.brief}"
    return error


def failed_command(shown: str, code: int) -> StepFailed:
    """In Docker's words."""
    return StepFailed(f"The command '{shown}' returned a non-zero code: {code}", code=code)
