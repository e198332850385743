"""Users and groups by Docker's words, against files that an image wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from silo.errors import InvalidRequest
from silo.isolation.identity import Identity, load_identity, resolve_identity

PASSWD = """root:x:0:0:root:/root:/bin/sh
#c:x:1:1::/:
broken
odd:x:a:b::/:
app:x:1000:1001:App:/home/app:/bin/sh
rel:x:5:5::here:
"""
GROUP = "root:x:0:\nstaff:x:50:app,root\nwheel:x:60:app\nbad:x:y:app\n"


@pytest.mark.parametrize(
    ("user", "extra", "expected"),
    [
        ("", (), Identity(0, 0, (50,), "/root")),
        ("app", (), Identity(1000, 1001, (50, 60), "/home/app")),
        ("1000", (), Identity(1000, 1001, (50, 60), "/home/app")),
        ("app:staff", (), Identity(1000, 50, (), "/home/app")),
        ("app:77", ("wheel", "8"), Identity(1000, 77, (60, 8), "/home/app")),
        ("1234", (), Identity(1234, 0, (), "/")),
        ("rel", (), Identity(5, 5, (), "/")),
    ],
)
def test_resolution(user: str, extra: tuple[str, ...], expected: Identity) -> None:
    assert resolve_identity(PASSWD, GROUP, user, extra) == expected


@pytest.mark.parametrize(
    ("user", "extra", "message"),
    [
        ("who", (), "find user who"),
        ("app:what", (), "find group what"),
        ("app", ("x",), "find group x"),
        ("70000", (), "outside"),
    ],
)
def test_refusals(user: str, extra: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        resolve_identity(PASSWD, GROUP, user, extra, limit=65536)


def test_files_are_looked_up_beneath_the_root_and_bounded(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").symlink_to("/../../../../../../etc/real")
    (tmp_path / "etc" / "real").write_text("me:x:7:8::/me:\n")
    assert load_identity(tmp_path, "me") == Identity(7, 8, (), "/me")
    (tmp_path / "etc" / "real").write_bytes(b"me:x:7:8::/me:\n" + b"#" * (5 << 20))
    with pytest.raises(InvalidRequest):
        load_identity(tmp_path, "me")
    (tmp_path / "etc" / "passwd").unlink()
    (tmp_path / "etc" / "passwd").mkdir()
    assert load_identity(tmp_path, "9") == Identity(9, 0)
