"""Capabilities of a Linux container: Docker's default set, and what `--cap-add` and `--cap-drop` make of it."""

from __future__ import annotations

from collections.abc import Iterable

from silo.errors import InvalidRequest
from silo.host.capabilities import NAMES

ALL = tuple(f"CAP_{name}" for name in NAMES)

# moby, oci/caps/defaults.go
DEFAULT = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
        "AUDIT_WRITE"
    ).split()
)


def choose_capabilities(
    *, add: Iterable[str] = (), drop: Iterable[str] = (), privileged: bool = False
) -> tuple[str, ...]:
    """Names with the prefix CAP_, in the kernel's order. Raises InvalidRequest for a name that is none."""
    added, dropped = _names(add, "--cap-add"), _names(drop, "--cap-drop")
    if privileged:
        return ALL
    if "ALL" in added:
        chosen = set(ALL) - dropped
    elif "ALL" in dropped:
        chosen = added
    else:
        chosen = (set(DEFAULT) - dropped) | added
    return tuple(name for name in ALL if name in chosen)


def _names(words: Iterable[str], option: str) -> set[str]:
    names = set()
    for untrusted_word in words:
        word = untrusted_word.strip().upper()
        name = word if word == "ALL" or word.startswith("CAP_") else f"CAP_{word}"
        if name != "ALL" and name not in ALL:
            raise InvalidRequest(f"invalid capability in {option}: {untrusted_word}", hint="see capabilities(7)")
        names.add(name)
    return names
