"""What Wine writes into a registry by itself: of no interest in `diff`, and no part of a layer. Pure.

Measured by comparing the files of silos with those of their image: over two starts each, with and without a network, as both
users, with services started, and with a desktop. Names are compared in lower case.
"""

from __future__ import annotations

import re

_CONTROL = r"system\\[^\\]+\\control\\"

_KEYS = tuple(
    (file, re.compile(rf"(?:{key})(?:\\.*)?", re.DOTALL))
    for file, key in (
        # the hardware that Wine found: network cards, and graphics once there is a desktop
        ("system.reg", r"software\\microsoft\\windows nt\\currentversion\\networkcards"),
        ("system.reg", r"system\\[^\\]+\\enum\\(?:display|pci)"),
        ("system.reg", _CONTROL + r"deviceclasses\\\{[^\\]*\}\\##\?#(?:display|pci)#[^\\]*"),
        ("system.reg", _CONTROL + r"class\\\{4d36e96[8e]-e325-11ce-bfc1-08002be10318\}"),
        ("system.reg", _CONTROL + "video"),
        # the environment of a session, which is volatile on Windows
        ("user.reg", "volatile environment"),
    )
)
"""(file, key): with all below it."""

_VALUES = tuple(
    (file, re.compile(key, re.DOTALL), re.compile(value, re.DOTALL))
    for file, key, value in (
        # the computer's name comes with each container
        ("system.reg", _CONTROL + r"computername\\[^\\]+", "computername"),
        ("system.reg", r"system\\[^\\]+\\services\\tcpip\\parameters", "(?:nv )?(?:hostname|domain)"),
        ("system.reg", ".*", "driverdatedata"),
        (
            "system.reg",
            _CONTROL + r"session manager\\environment",
            "number_of_processors|processor_(?:architecture|identifier|level|revision)",
        ),
        # the launcher's
        ("system.reg", r"software\\microsoft\\windows nt\\currentversion\\aedebug", "debugger"),
    )
)
"""(file, key, value)."""


def is_noisy_key(file: str, key: str) -> bool:
    """Whether a key of a Wine file (`system.reg`) is Wine's own with all below it; `key` in lower case."""
    return any(file == noisy and keys.fullmatch(key) is not None for noisy, keys in _KEYS)


def is_noisy_value(file: str, key: str, value: str) -> bool:
    """Whether a value is Wine's own; both names in lower case, "" is the default value."""
    return is_noisy_key(file, key) or any(
        file == noisy and keys.fullmatch(key) is not None and values.fullmatch(value) is not None
        for noisy, keys, values in _VALUES
    )
