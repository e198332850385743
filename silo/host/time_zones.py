"""Time zones by their common names, as rules: the host's own table of them is asked, and nothing of its settings.

Source: RFC 8536 (TZif), whose last line is a rule as POSIX writes it in TZ.
"""

from __future__ import annotations

import re
from pathlib import Path

_TABLE = Path("/usr/share/zoneinfo")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,31}(?:/[A-Za-z][A-Za-z0-9_+-]{0,31}){0,2}")
_MAXIMUM_BYTES = 1 << 20
_RULE = re.compile(r"[\x21-\x7e]{3,120}")


def find_time_zone_rule(untrusted_name: str) -> str:
    """`America/New_York` → `EST5EDT,M3.2.0,M11.1.0`; "" for a name that the host's table lacks, or that is none."""
    if not _NAME.fullmatch(untrusted_name):
        return ""
    try:
        with (_TABLE / untrusted_name).open("rb") as file:
            data = file.read(_MAXIMUM_BYTES)
    except OSError:
        return ""
    if not data.startswith(b"TZif") or not data.endswith(b"\n"):
        return ""
    rule = data[:-1].rpartition(b"\n")[2].decode("ascii", "replace")
    return rule if _RULE.fullmatch(rule) else ""
