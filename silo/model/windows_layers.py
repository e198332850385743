"""What tells a layer of Windows' format from an ordinary one. Pure."""

from __future__ import annotations

_AREAS = ("files", "hives", "utilityvm")


def is_windows_layer(first_member: str) -> bool:
    """By the name of the tar's first member: all of such a layer lies in Files, Hives or (of a base) UtilityVM.

    To be asked of layers of Windows images only: a Linux image may have a directory of that name too.
    """
    return first_member.removeprefix("./").partition("/")[0].lower() in _AREAS
