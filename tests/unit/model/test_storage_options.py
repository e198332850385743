from __future__ import annotations

import pytest

from silo.errors import InvalidRequest
from silo.model.storage_options import MINIMUM_SIZE_BYTES, parse_scratch_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("20G", 20 << 30),
        ("20gb", 20 << 30),
        ("20 GiB", 20 << 30),
        ("1.5g", 3 << 29),
        ("512m", 512 << 20),
        ("1t", 1 << 40),
        (str(MINIMUM_SIZE_BYTES), MINIMUM_SIZE_BYTES),
        ("67108864b", MINIMUM_SIZE_BYTES),
    ],
)
def test_sizes_as_docker_writes_them(text: str, size: int) -> None:
    assert parse_scratch_size({"size": text}) == size


def test_none_is_no_limit() -> None:
    assert parse_scratch_size({}) == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": ""}, "not a size"),
        ({"size": "lots"}, "not a size"),
        ({"size": "-1G"}, "not a size"),
        ({"size": "1e9"}, "not a size"),
        ({"size": "0"}, "too small"),
        ({"size": "63m"}, "too small"),
        ({"size": "17t"}, "too large"),
        ({"size": "9" * 19 + "p"}, "too large"),
        ({"size": "1G", "dm.basesize": "1G"}, "dm.basesize"),
    ],
)
def test_what_is_refused(options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        parse_scratch_size(options)
