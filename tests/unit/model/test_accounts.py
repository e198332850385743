"""`--chown` by an image's own accounts."""

from __future__ import annotations

import pytest

from silo.errors import InvalidRequest
from silo.model.accounts import resolve_owner

PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\nbroken\n"
GROUP = "root:x:0:\nstaff:x:50:app\n"


@pytest.mark.parametrize(
    ("words", "owner"),
    [
        ("app", (1000, 1001)),
        ("app:staff", (1000, 50)),
        ("app:7", (1000, 7)),
        ("5", (5, 5)),
        ("1000", (1000, 1000)),
        ("5:staff", (5, 50)),
        ("0:0", (0, 0)),
    ],
)
def test_owners(words: str, owner: tuple[int, int]) -> None:
    assert resolve_owner(PASSWD, GROUP, words) == owner


@pytest.mark.parametrize("words", ["nobody", "app:nobody", ":staff", ""])
def test_unknown_names(words: str) -> None:
    with pytest.raises(InvalidRequest):
        resolve_owner(PASSWD, GROUP, words)
