"""Options of the local volume driver, and a full disk."""

from __future__ import annotations

import pytest

from silo.errors import InvalidRequest
from silo.storage.volumes import check_options


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"type": "tmpfs"},
        {"type": "tmpfs", "device": "tmpfs", "o": "size=10m,uid=1000"},
        {"type": "none", "o": "bind", "device": "/srv"},
        {"type": "bind", "o": "rbind,ro", "device": "/srv"},
    ],
)
def test_good_options(options: dict[str, str]) -> None:
    check_options(options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"size": "1g"}, "size"),
        ({"type": "nfs", "device": ":/x", "o": "addr=10.0.0.1"}, "nfs"),
        ({"type": "none", "device": "/srv"}, "none"),
        ({"o": "bind", "device": "/srv"}, "none given"),
        ({"type": "none", "o": "bind", "device": "relative"}, "missing device"),
        ({"type": "none", "o": "bind,exec", "device": "/srv"}, "exec"),
        ({"type": "tmpfs", "o": "colour=red"}, "colour"),
    ],
)
def test_bad_options_are_named(options: dict[str, str], named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        check_options(options)
