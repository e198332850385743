"""Package lists and mirrors, read from what apt prints and has."""

from __future__ import annotations

import pytest

from silo.debian import mirror, packages

SHOWN = """Package: zlib1g
Version: 1:1.3
Architecture: amd64
Description: a library
 with a long text
SHA256: cdcd
Size: 20

Package: libwine
Version: 10.0~repack-6
Architecture: amd64
SHA256: abab
Size: 10
"""


def test_package_lists_are_read() -> None:
    shown = packages.parse_show(SHOWN)
    assert [row.file for row in shown] == ["zlib1g_1%3a1.3_amd64.deb", "libwine_10.0~repack-6_amd64.deb"]
    assert shown[0].size_bytes == 20
    uris = "'scheme://mirror/pool/z/zlib1g_1%253a1.3_amd64.deb' zlib1g_1%3a1.3_amd64.deb 20 SHA256:ab\nnoise\n"
    assert packages.parse_uris(uris) == {"zlib1g"}


MODERN = """Types: deb
# URIs: http://commented.invalid/debian
URIs: http://one.invalid/debian
Suites: bookworm bookworm-updates
Components: main
"""


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([("debian.sources", MODERN)], "http://one.invalid/debian"),
        ([("x.sources", MODERN.replace("Types: deb", "Types: deb-src"))], None),
        ([("x.sources", MODERN + "Enabled: no\n")], None),
        ([("x.sources", MODERN.replace("bookworm bookworm-updates", "bookworm-security"))], None),
        ([("sources.list", "# deb http://no.invalid/ trixie main\n")], None),
        ([("sources.list", "deb [arch=amd64] https://two.invalid/debian trixie main\n")], "https://two.invalid/debian"),
        ([("sources.list", "deb http://ubuntu.invalid/ubuntu noble main\n")], None),
        ([("sources.list", "deb http://other.invalid/tool bookworm tool\n")], None),
        ([("sources.list", "deb cdrom:[Debian]/ trixie main\n")], None),
        ([], None),
    ],
)
def test_mirror_comes_from_the_hosts_own_lists(texts: list[tuple[str, str]], expected: str | None) -> None:
    assert mirror.parse_mirror(texts) == expected
