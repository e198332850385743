"""Interfaces as the agent sets them up, in a network namespace of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from tests.support.probes import require_program, require_root

_SCRIPT = """
import json, subprocess, sys
from pathlib import Path
from silo.guest.netlink import configure

subprocess.run("ip link add one type veth peer name other && ip link set other up", shell=True, check=True)
changes = lambda: int(Path("/sys/class/net/one/carrier_changes").read_text())
seen = []
for entry in json.loads(sys.argv[1]):
    configure([entry])
    seen.append((changes(), Path("/sys/class/net/one/address").read_text().strip()))
print(json.dumps(seen))
"""


def configured(*entries: dict[str, Any]) -> list[list[Any]]:
    """(how often its carrier has come or gone so far, its address) after each of them."""
    require_root()
    require_program("ip", "iproute2")
    words = ("unshare", "--net", "--mount", "sh", "-c", 'mount -t sysfs sysfs /sys && exec "$@"', "sh")
    done = subprocess.run(
        (*words, sys.executable, "-c", _SCRIPT, json.dumps(entries)), capture_output=True, text=True, check=True
    )
    answer: list[list[Any]] = json.loads(done.stdout)
    return answer


def test_an_interface_that_has_its_address_is_not_taken_down_again() -> None:
    entry = {"name": "one", "mac": "02:00:00:00:00:07", "addresses": ["10.9.8.7/24"]}
    first, again, other = configured(entry, entry, entry | {"mac": "02:00:00:00:00:08"})
    assert first[1] == again[1] == "02:00:00:00:00:07" and other[1] == "02:00:00:00:00:08"
    assert first[0] == again[0] < other[0]
