"""How Windows compares names, and which it allows. Pure.

Names are compared one UTF-16 unit at a time, by a fixed table of simple pairs. Python's `str.upper` follows Unicode, where ß
becomes SS and U+017F becomes S; Windows maps a unit only where the mapping leads back.
Source: the case tables of l_intl.nls, which the rule below reproduces unit for unit (the test compares them).
"""

from __future__ import annotations

import re
from functools import lru_cache

_ILLEGAL = re.compile(r'[<>:"|?*\\/\x00-\x1f]')
_RESERVED = re.compile(r"(?:con|prn|aux|nul|com[1-9¹²³]|lpt[1-9¹²³]|conin\$|conout\$)(?:\.|$)", re.IGNORECASE)
_MAXIMUM_UNITS = 255
_SURROGATE = re.compile("[\ud800-\udfff]")


def fold(name: str) -> str:
    """The name in upper case; names of equal folds are one name. Hives sort keys by it."""
    return name.upper() if name.isascii() else "".join(map(_upper, name))


def fold_lower(name: str) -> str:
    """The name in lower case, by which Wine sorts: `_` lies between the two cases."""
    return name.lower() if name.isascii() else "".join(map(_lower, name))


def units(text: str) -> bytes:
    """UTF-16LE; halves of a pair may stand alone, as on Windows."""
    return text.encode("utf-16-le", "surrogatepass")


def sort_key(folded: str) -> bytes:
    """Orders folded names by their UTF-16 units, where characters beyond 0xFFFF come before 0xE000."""
    return folded.encode("utf-16-be", "surrogatepass")


@lru_cache(maxsize=8192)
def _upper(character: str) -> str:
    for mapped in (character.upper(), character.title()):
        if len(mapped) == 1 and ord(mapped) < 0x10000 and mapped.lower() == character:
            return mapped
    return character


@lru_cache(maxsize=8192)
def _lower(character: str) -> str:
    mapped = character.lower()
    return mapped if len(mapped) == 1 and ord(mapped) < 0x10000 and _upper(mapped) == character else character


def find_fault(name: str) -> str:
    """Why Windows does not allow a file of this name; "" when it does.

    Source: "Naming Files, Paths, and Namespaces" of Microsoft's documentation.
    """
    if name.isascii() and _ILLEGAL.search(name) is None:
        if len(name) > _MAXIMUM_UNITS:
            return "a name has at most 255 characters"
    else:
        if found := _ILLEGAL.search(name):
            return f"a name cannot hold {found[0]!r}"
        if _SURROGATE.search(name):
            return "it is no UTF-8"
        if len(units(name)) > 2 * _MAXIMUM_UNITS:
            return "a name has at most 255 UTF-16 units"
    if not name or name[-1] in ". ":
        return "a name does not end in a dot or a space"
    if _RESERVED.match(name):
        return "it is a device's name"
    return ""
