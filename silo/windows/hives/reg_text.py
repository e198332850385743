"""A tree or a delta → the text that regedit and `reg export` write, for people. Pure.

    Windows Registry Editor Version 5.00

    [HKEY_LOCAL_MACHINE\\SOFTWARE\\App]
    "Name"="text"
    "Gone"=-

    [-HKEY_LOCAL_MACHINE\\SOFTWARE\\Old]

A delta's tombstones are deletions in this syntax, and a superseding tree is a deletion before the key. What it has no words for
stands in a comment: hidden values, class names, links. Security descriptors and times are left out, as regedit does.

Source: "How to add, modify, or delete registry subkeys and values by using a .reg file" in Microsoft's documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from silo.windows.hives.hex_lines import broken_hex
from silo.windows.hives.tree import FLAG_LINK, Key, Layering, Value, ValueType

HEADER = "Windows Registry Editor Version 5.00"
# what could not be told from the syntax around it
_UNQUOTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def export_reg_text(root: Key, path: str, *, sparse: bool = False) -> str:
    """The text of a key and all below it, in order; `path` is what its root is called there.

    `sparse` leaves out the keys of a delta that only lead to others. Files have the text in UTF-16LE with a byte order mark.
    """
    return "\n".join([HEADER, "", *_lines(root, path, sparse)])


def _lines(root: Key, path: str, sparse: bool) -> Iterator[str]:
    # (key, its path, whether a tree above superseded it already)
    waiting = [(root, path, False)]
    while waiting:
        key, at, superseded = waiting.pop()
        name = printable(at)
        if key.layering is Layering.TOMBSTONE:
            yield from (f"[-{name}]", "")
            continue
        supersedes = key.layering is Layering.SUPERSEDE_TREE
        if supersedes and not superseded:
            yield from (f"[-{name}]", "")
        lines = [*_remarks(key), *map(_value_line, key.values)]
        # subkeys make their parents in this syntax
        if lines or not (sparse and key.subkeys):
            yield from (f"[{name}]", *lines, "")
        waiting += [(subkey, f"{at}\\{subkey.name}", supersedes or superseded) for subkey in reversed(key.subkeys)]


def _remarks(key: Key) -> Iterator[str]:
    if key.layering is Layering.SUPERSEDE_LOCAL:
        yield "; hides the values that lower layers have here"
    if key.class_name:
        yield f"; class: {printable(key.class_name)}"
    if key.flags & FLAG_LINK:
        yield "; symbolic link"


def _value_line(value: Value) -> str:
    name = f'"{_quoted(printable(value.name))}"=' if value.name else "@="
    if value.tombstone:
        return f"{name}-"
    if value.type == ValueType.DWORD and len(value.data) == 4:
        return f"{name}dword:{int.from_bytes(value.data, 'little'):08x}"
    if value.type == ValueType.SZ and len(value.data) % 2 == 0 and value.data.endswith(b"\0\0"):
        text = value.data[:-2].decode("utf-16-le", "surrogatepass")
        if _UNQUOTABLE.search(text) is None:
            return f'{name}"{_quoted(text)}"'
    kind = "hex:" if value.type == ValueType.BINARY else f"hex({value.type:x}):"
    return broken_hex(name + kind, value.data)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def printable(text: str) -> str:
    """A name as it may be shown. Controls in a name would be lines or commands of a terminal: they are shown as a replacement."""
    return _UNQUOTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
