"""crun's words of several versions as errors with the kind that decides Docker's exit status."""

from __future__ import annotations

import pytest

from silo.errors import HostError, InvalidRequest, ProcessStartFailed
from silo.isolation.process.failures import translate_failure


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("executable file `/x` not found in $PATH: No such file or directory", "not_found"),
        ("executable file `x` not found: No such file or directory", "not_found"),
        ("exec container process (missing dynamic library?) `/x`: No such file or directory", "not_found"),
        ("open executable: Permission denied", "permission"),
        ("open executable: Operation not permitted", "permission"),
        ("exec container process `/x`: Exec format error", "not_executable"),
        ("exec: Exec format error", "not_executable"),
    ],
)
def test_programs_that_do_not_start(message: str, kind: str) -> None:
    error = translate_failure("/x", message)
    assert isinstance(error, ProcessStartFailed) and error.kind == kind


def test_other_failures() -> None:
    error = translate_failure("/x", "chdir to `/gone`: No such file or directory")
    assert isinstance(error, InvalidRequest) and not isinstance(error, ProcessStartFailed) and "/gone" in error.brief
    error = translate_failure("/x", "mount `proc` to `proc`: Operation not permitted")
    assert isinstance(error, HostError) and "mount `proc`" in error.details
