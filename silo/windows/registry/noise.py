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
        # what the first desktop noted of its theme
        ("user.reg", r"software\\microsoft\\windows\\currentversion\\thememanager"),
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


_FIRST_DESKTOP = tuple(
    (re.compile(key), re.compile(value))
    for key, value in (
        (r"control panel\\colors", ".*"),
        (r"control panel\\desktop", "userpreferencesmask"),
        (r"control panel\\desktop\\windowmetrics", ".*"),
    )
)
"""Values of user.reg that the first desktop of a user writes, from Wine's theme; later they are the user's own."""
_THEME_LOADED = b'"LoadedBefore"='


class Noise:
    """What to leave out of a comparison of two states of one Wine file (`system.reg`)."""

    def __init__(self, file: str, before: bytes = b"", after: bytes = b"") -> None:
        self._keys = [keys for noisy, keys in _KEYS if noisy == file]
        self._values = [(keys, values) for noisy, keys, values in _VALUES if noisy == file]
        if file == "user.reg" and _THEME_LOADED in after and _THEME_LOADED not in before:
            self._values += _FIRST_DESKTOP

    def is_key(self, key: str) -> bool:
        """Whether a key is Wine's own with all below it; `key` is a path in lower case."""
        return any(keys.fullmatch(key) is not None for keys in self._keys)

    def is_value(self, key: str, value: str) -> bool:
        """Whether a value is Wine's own; both names in lower case, "" is the default value."""
        return self.is_key(key) or any(
            keys.fullmatch(key) is not None and values.fullmatch(value) is not None for keys, values in self._values
        )
