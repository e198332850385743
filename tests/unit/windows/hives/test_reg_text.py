"""Trees and deltas in regedit's syntax."""

from __future__ import annotations

from silo.windows.hives import Key, Layering, Value, export_reg_text
from silo.windows.hives.tree import FLAG_LINK, tombstone, value_tombstone


def body(*subkeys: Key) -> str:
    return export_reg_text(Key("ROOT", subkeys=subkeys), "HKLM").removeprefix(
        "Windows Registry Editor Version 5.00\n\n[HKLM]\n\n"
    )


def test_values() -> None:
    key = Key(
        "A [b]",
        (
            Value("", 1, "default\0".encode("utf-16-le")),
            Value('quo"te\\', 1, 'C:\\"x"\0'.encode("utf-16-le")),
            Value("lines", 1, "a\nb\0".encode("utf-16-le")),
            Value("open", 1, b"a\0"),
            Value("number", 4, b"\x0a\0\0\0"),
            Value("path", 2, b"%\0\0\0"),
            Value("bytes", 3, bytes(30)),
            Value("none", 0, b""),
            Value("\x1b[2J", 3, b"\1"),
        ),
    )
    assert body(key) == (
        """[HKLM\\A [b]]
@="default"
"quo\\"te\\\\"="C:\\\\\\"x\\""
"lines"=hex(1):61,00,0a,00,62,00,00,00
"open"=hex(1):61,00
"number"=dword:0000000a
"path"=hex(2):25,00,00,00
"bytes"=hex:00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,00,\\
  00,00,00,00,00,00,00,00
"none"=hex(0):
"\ufffd[2J"=hex:01
"""
    )


def test_a_delta_is_shown_as_what_it_deletes_and_sets() -> None:
    superseding = Key(
        "Tree",
        (value_tombstone("gone"), Value("x", 4, bytes(4))),
        (Key("Sub", layering=Layering.SUPERSEDE_TREE), tombstone("Never")),
        layering=Layering.SUPERSEDE_TREE,
    )
    local = Key("Local", class_name="C", flags=FLAG_LINK, layering=Layering.SUPERSEDE_LOCAL)
    assert body(tombstone("Old"), superseding, local) == (
        """[-HKLM\\Old]

[-HKLM\\Tree]

[HKLM\\Tree]
"gone"=-
"x"=dword:00000000

[HKLM\\Tree\\Sub]

[-HKLM\\Tree\\Never]

[HKLM\\Local]
; hides the values that lower layers have here
; class: C
; symbolic link
"""
    )
