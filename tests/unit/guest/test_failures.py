"""crun's words as kinds; errors as bounded replies."""

from __future__ import annotations

import pytest

from silo.guest.failures import Refused, are_last_words, describe_error, start_failure

_COLOURED = "\x1b[1;31m2026-11-25T07:26:04.039962Z: exec container process `/bin/x`: Exec format error\x1b[0m\r\n"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("executable file `nope` not found in $PATH: No such file or directory", "not_found"),
        ("open executable: Permission denied", "permission"),
        ("open executable: Operation not permitted", "permission"),
        ("exec container process `/x`: No such file or directory", "not_found"),
        (_COLOURED, "not_executable"),
        ("chdir to `/nowhere`: No such file or directory", "directory"),
        ("mount `proc` to `/proc`: Operation not permitted", "runtime"),
        ("", "runtime"),
    ],
)
def test_what_crun_says(words: str, kind: str) -> None:
    failure = start_failure(words)
    assert failure.kind == kind
    assert "\x1b" not in str(failure)
    assert str(failure)


def test_whose_words_they_are() -> None:
    assert are_last_words(_COLOURED.encode())
    assert are_last_words(b"exec container process `/x`: Permission denied")
    assert not are_last_words(b"my program says: exec container process")
    assert not are_last_words(b"")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Refused("limit", "x" * 5000), "limit"),
        (FileNotFoundError(2, "gone", "/x"), "system"),
        (KeyError("task"), "invalid"),
        (RuntimeError(), "internal"),
    ],
)
def test_errors_as_replies(error: BaseException, kind: str) -> None:
    described = describe_error(error)
    assert described["kind"] == kind
    assert 0 < len(str(described["message"])) <= 600
    assert described.get("errno") == (2 if kind == "system" else None)
