"""What makes a clone of a saved machine one of its own: entropy, clock, name, machine id."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

from silo.guest.failures import Refused
from silo.guest.kernel import add_entropy

_MINIMUM_SEED_BYTES = 32
_MAXIMUM_SEED_BYTES = 4096


def reseed(params: dict[str, Any]) -> None:
    """`entropy` (hex, 32 bytes or more); optional `time_ns`, `hostname`, `machine_id` (32 hex digits)."""
    seed = bytes.fromhex(params["entropy"])
    if not _MINIMUM_SEED_BYTES <= len(seed) <= _MAXIMUM_SEED_BYTES:
        raise Refused("invalid", f"{_MINIMUM_SEED_BYTES} to {_MAXIMUM_SEED_BYTES} bytes of entropy are needed")
    add_entropy(seed)
    if params.get("time_ns") is not None:
        set_clock(params["time_ns"])
    if params.get("hostname"):
        socket.sethostname(params["hostname"])
    if params.get("machine_id"):
        _write_machine_id(str(params["machine_id"]))


def set_clock(time_ns: Any) -> None:
    time.clock_settime_ns(time.CLOCK_REALTIME, int(time_ns))


def _write_machine_id(machine_id: str) -> None:
    if len(machine_id) != 32 or not set(machine_id) <= set("0123456789abcdef"):
        raise Refused("invalid", "a machine id has 32 hexadecimal digits")
    descriptor = os.open("/etc/machine-id", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o444)
    with open(descriptor, "w") as file:
        file.write(machine_id + "\n")
