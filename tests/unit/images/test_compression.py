"""Decompression: every kind in any cut, bounded pieces, damage and early ends."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import zlib

import pytest
import zstandard

from silo.errors import InvalidRequest
from silo.images.compression import decompress, gzip_pieces, is_layer_compression

PLAIN = os.urandom(200_000) + bytes(3_000_000) + b"end"
PACKED = {
    "plain": PLAIN,
    "gzip": gzip.compress(PLAIN, 1),
    "gzip members": gzip.compress(PLAIN[:100_000]) + gzip.compress(PLAIN[100_000:]) + bytes(512),
    "zstd": zstandard.compress(PLAIN),
    "zstd checksum": zstandard.ZstdCompressor(write_checksum=True).compress(PLAIN),
    "zstd frames": zstandard.compress(PLAIN[:100_000]) + zstandard.compress(PLAIN[100_000:]),
    "xz": lzma.compress(PLAIN, preset=0),
    "xz streams": lzma.compress(PLAIN[:100_000], preset=0) + lzma.compress(PLAIN[100_000:], preset=0),
    "bzip2": bz2.compress(PLAIN),
}


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@pytest.mark.parametrize("kind", PACKED)
@pytest.mark.parametrize("size", [4099, 1 << 20])
def test_kinds(kind: str, size: int) -> None:
    pieces = list(decompress(cut(PACKED[kind], size)))
    assert b"".join(pieces) == PLAIN
    assert max(map(len, pieces)) <= 1 << 20


@pytest.mark.parametrize("kind", ["gzip", "zstd", "zstd checksum", "xz", "bzip2"])
@pytest.mark.parametrize("lost", [1, 5, 20, 1000])
def test_an_early_end_is_found(kind: str, lost: int) -> None:
    whole = PACKED[kind]
    with pytest.raises(InvalidRequest, match=r"truncated|damaged"):
        list(decompress(cut(whole[: max(8, len(whole) - lost)], 4099)))


@pytest.mark.parametrize("kind", ["gzip", "zstd checksum", "xz", "bzip2"])
def test_damage_is_found(kind: str) -> None:
    data = bytearray(PACKED[kind])
    data[len(data) // 2] ^= 0x55
    with pytest.raises(InvalidRequest, match=r"damaged|truncated"):
        list(decompress([bytes(data)]))


def test_short_and_empty() -> None:
    assert list(decompress([])) == [] and b"".join(decompress([b"", b"ab"])) == b"ab"
    with pytest.raises(InvalidRequest, match="zip file"):
        list(decompress([b"PK\x03\x04......"]))
    assert is_layer_compression(b"\x1f\x8b") and not is_layer_compression(PACKED["xz"][:8])


def test_packing_is_reproducible_and_readable() -> None:
    packed = b"".join(gzip_pieces(cut(PLAIN, 70_000)))
    assert packed == b"".join(gzip_pieces(cut(PLAIN, 70_000))) and gzip.decompress(packed) == PLAIN
    assert zlib.decompress(packed, 31) == PLAIN
