"""tmpfs options: Docker's defaults, the last word wins, nothing unknown passes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from silo.errors import InvalidRequest
from silo.storage.tmpfs import tmpfs_options


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ((), ("nosuid", "nodev", "noexec")),
        (("exec", "size=64m"), ("nosuid", "nodev", "exec", "size=64m")),
        (("exec", "noexec", "rw", "ro"), ("nosuid", "nodev", "noexec", "ro")),
        (("mode=1777", "uid=1000", "gid=1", ""), ("nosuid", "nodev", "noexec", "mode=1777", "uid=1000", "gid=1")),
        (("rprivate", "size=50%"), ("nosuid", "nodev", "noexec", "size=50%")),
    ],
)  # fmt: skip
def test_words(words: Sequence[str], options: tuple[str, ...]) -> None:
    assert tmpfs_options(words=words).all == options


def test_size_and_mode() -> None:
    assert tmpfs_options(size_bytes=1024, mode=0o1770).data == ("size=1024", "mode=1770")
    assert tmpfs_options(size_bytes=1024, words=("size=2k",)).data == ("size=2k",)


@pytest.mark.parametrize(
    "word", ["bind", "size", "size=", "size=1x", "size=-1", "mode=9", "uid=me", "exec=1", "size=1,dev", "loop=x"]
)
def test_refused(word: str) -> None:
    with pytest.raises(InvalidRequest, match="Invalid tmpfs option"):
        tmpfs_options(words=(word,))
    with pytest.raises(InvalidRequest):
        tmpfs_options(size_bytes=-1)
