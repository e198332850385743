"""Archives of any compression as one stream; damage and bombs are refused in words."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from silo.errors import InvalidRequest, NoSpace, Unavailable
from silo.storage.building import plain

ZSTD = zstandard.ZstdCompressor(write_checksum=True).compress
COMPRESSIONS: tuple[Callable[[bytes], bytes], ...] = (bytes, gzip.compress, bz2.compress, lzma.compress, ZSTD)


def unpacked(data: bytes, tmp_path: Path, check: Callable[[], None] = lambda: None) -> bytes:
    return plain.open_plain(io.BytesIO(data), tmp_path, check).read()


@pytest.mark.parametrize("compress", COMPRESSIONS)
def test_every_compression(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    data = os.urandom(1000) * 2000
    assert unpacked(compress(data), tmp_path) == data


def test_members_one_after_another(tmp_path: Path) -> None:
    assert unpacked(gzip.compress(b"one") + gzip.compress(b"two"), tmp_path) == b"onetwo"


@pytest.mark.parametrize("compress", COMPRESSIONS[1:4])
def test_truncated(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    whole = compress(os.urandom(500_000))
    with pytest.raises(InvalidRequest, match="damaged or truncated"):
        unpacked(whole[: len(whole) // 2], tmp_path)


@pytest.mark.parametrize("compress", COMPRESSIONS[1:])
def test_damaged(compress: Callable[[bytes], bytes], tmp_path: Path) -> None:
    whole = bytearray(compress(os.urandom(500_000)))
    whole[200:300] = bytes(100)
    with pytest.raises(InvalidRequest, match="damaged or truncated"):
        unpacked(bytes(whole), tmp_path)


def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "MAXIMUM_BYTES", 1 << 20)
    with pytest.raises(InvalidRequest, match="unpacks to more than"):
        unpacked(gzip.compress(bytes(10 << 20)), tmp_path)


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "free_bytes", lambda _path: 1000)
    with pytest.raises(NoSpace):
        unpacked(b"x" * 1000, tmp_path)


def test_nobody_wants_it_any_more(tmp_path: Path) -> None:
    def stop() -> None:
        raise Unavailable("cancelled")

    with pytest.raises(Unavailable):
        unpacked(b"x" * 1000, tmp_path, stop)
