"""Which Debian mirror to fetch from: the host's own if the host is a Debian, else the one mmdebstrap would take.

No address is written down here: an administrator's choice (a local mirror, a proxy) holds for Silo too.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

from silo.errors import HostError
from silo.host.run import run

SUITE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_APT_DIRECTORY = Path("/etc/apt")
_OS_RELEASE = Path("/etc/os-release")
_DEBIAN_SUITE = re.compile(r"^(bullseye|bookworm|trixie|forky|sid|stable|oldstable|testing|unstable)$")
_ONE_LINE = re.compile(r"^deb\s+(?:\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$")


def _deb822_archives(text: str) -> Iterable[tuple[str, list[str], list[str]]]:
    """(uri, suites, components) of each stanza of a `.sources` file that is enabled and has binary packages."""
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        name = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1].isspace():
                fields[name] = f"{fields.get(name, '')} {line.strip()}"
            elif ":" in line:
                name, value = line.split(":", 1)
                name = name.strip().casefold()
                fields[name] = value.strip()
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").casefold() in ("no", "false"):
            continue
        for uri in fields.get("uris", "").split():
            yield uri, fields.get("suites", "").split(), fields.get("components", "").split()


def parse_mirror(texts: Iterable[tuple[str, str]]) -> str | None:
    """The first mirror of a whole Debian suite in apt's source lists, given as (file name, text) pairs."""
    for name, text in texts:
        if name.endswith(".sources"):
            archives = list(_deb822_archives(text))
        else:
            matches = filter(None, (_ONE_LINE.match(line.strip()) for line in text.splitlines()))
            archives = [(match["uri"], [match["suite"]], match["components"].split()) for match in matches]
        for uri, suites, components in archives:
            is_http = uri.startswith(("http://", "https://"))
            if is_http and "main" in components and any(_DEBIAN_SUITE.match(suite) for suite in suites):
                return uri
    return None


def _host_is_debian() -> bool:
    lines = _OS_RELEASE.read_text(encoding="utf-8", errors="replace").splitlines() if _OS_RELEASE.exists() else []
    return any(line.strip() in ("ID=debian", 'ID="debian"') for line in lines)


def _mmdebstrap_default() -> str:
    """Ask mmdebstrap, by letting it write a sources.list and stop there.

    Raises ToolMissing, HostError.
    """
    with tempfile.TemporaryDirectory(prefix="silo-mirror-") as scratch:
        copy = Path(scratch) / "sources.list"
        run(
            [
                "mmdebstrap",
                "--variant=custom",
                "--mode=root",
                "--skip=update,download/empty,cleanup/apt",
                f"--setup-hook=cp \"$1/etc/apt/sources.list\" '{copy}'",
                SUITE,
                f"{scratch}/root",
            ],
            timeout_s=120,
        )
        mirror = parse_mirror([("sources.list", copy.read_text(encoding="utf-8"))])
    if mirror is None:
        raise HostError(f"mmdebstrap names no mirror for Debian {SUITE}")
    return mirror


def find_mirror() -> str:
    """The mirror's URL. Raises ToolMissing (mmdebstrap) on a host that is no Debian, HostError."""
    if _host_is_debian():
        lists = [_APT_DIRECTORY / "sources.list", *sorted((_APT_DIRECTORY / "sources.list.d").glob("*"))]
        texts = [
            (path.name, path.read_text(encoding="utf-8", errors="replace"))
            for path in lists
            if path.suffix in (".list", ".sources") and path.is_file()
        ]
        mirror = parse_mirror(texts)
        if mirror is not None:
            return mirror
    return _mmdebstrap_default()
