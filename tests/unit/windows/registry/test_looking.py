"""A registry is shown as `reg query` and `reg export` show it, by the names that people use."""

from __future__ import annotations

import pytest

from silo.engine.ports import RegistrySource
from silo.errors import InvalidRequest, NotFound
from silo.windows.hives import DamagedRegistry, Hive, Key, Layering, Value, write_hive
from silo.windows.hives.reg_text import HEADER
from silo.windows.hives.tree import tombstone, value_tombstone
from silo.windows.registry.looking import WindowsRegistry

REGISTRY = WindowsRegistry()


def file(base_key: str, text: str) -> bytes:
    return f"WINE REGISTRY Version 2\n;; All keys relative to REGISTRY\\\\{base_key}\n{text}".encode()


LOOP = "\\Registry\\Machine\\Software\\Loop\\x".encode("utf-16-le").hex(",")
LINK = "\\Registry\\Machine\\Software\\Classes\\AppId".encode("utf-16-le").hex(",")
SYSTEM = file(
    "Machine",
    f"""
[Software\\\\App\\\\Sub] 1
@="y"

[Software\\\\App] 1
"Text"="C:\\\\x"
"Path"=str(2):"%TEMP%"
"List"=str(7):"one\\0two\\0"
"Number"=dword:0000001f
"Big"=hex(b):00,00,00,00,01,00,00,00
"Bytes"=hex:de,ad
"None"=hex(0):
"Odd"=hex(1):61
"Strange"=hex(ffff0007):01
"\\x1b[2J"="\\x1b[31m"

[Software\\\\App\\\\A] 1

[Software\\\\Classes\\\\AppId\\\\Own] 1

[Software\\\\Wow6432Node\\\\AppId] 1
#link
"SymbolicLinkValue"=hex(6):{LINK}

[Software\\\\Loop] 1
#link
"SymbolicLinkValue"=hex(6):{LOOP}

[System\\\\ControlSet001\\\\Hardware Profiles\\\\Current] 1
"here"="1"
""",
)
FILES = {
    "system.reg": SYSTEM,
    "user.reg": file("User\\\\S-1-5-21-0-0-0-1000", '\n[Environment] 1\n"A"="b"\n'),
    "userdef.reg": file("User\\\\.Default", '\n[Software] 1\n"d"="e"\n'),
}
SOURCE = RegistrySource(files=FILES)


def query(key: str, *, value: str | None = None, recursive: bool = False, source: RegistrySource = SOURCE) -> str:
    return REGISTRY.query(source, key, value=value, recursive=recursive)


def test_a_key_as_reg_query_prints_it() -> None:
    assert query("hklm\\software\\app\\") == (
        """HKEY_LOCAL_MACHINE\\software\\app
    Text    REG_SZ    C:\\x
    Path    REG_EXPAND_SZ    %TEMP%
    List    REG_MULTI_SZ    one\\0two
    Number    REG_DWORD    0x1f
    Big    REG_QWORD    0x100000000
    Bytes    REG_BINARY    DEAD
    None    REG_NONE
    Odd    REG_SZ    61
    Strange    REG_0xffff0007    01
    \ufffd[2J    REG_SZ    \ufffd[31m

HKEY_LOCAL_MACHINE\\software\\app\\A
HKEY_LOCAL_MACHINE\\software\\app\\Sub
"""
    )


def test_values_alone_and_everything_below() -> None:
    assert query("HKLM\\Software\\App", value="NUMBER").splitlines()[1:] == ["    Number    REG_DWORD    0x1f"]
    assert query("HKLM\\Software\\App\\Sub", value="") == (
        "HKEY_LOCAL_MACHINE\\Software\\App\\Sub\n    (Default)    REG_SZ    y\n"
    )
    text = query("HKLM\\Software\\App", recursive=True)
    assert [line for line in text.splitlines() if line.startswith("HKEY")] == [
        "HKEY_LOCAL_MACHINE\\Software\\App",
        "HKEY_LOCAL_MACHINE\\Software\\App\\A",
        "HKEY_LOCAL_MACHINE\\Software\\App\\Sub",
    ]
    assert query("HKLM\\Software\\App", recursive=True, value="").count("HKEY") == 1
    with pytest.raises(NotFound, match=r"Software\\App has no value nothing"):
        query("HKLM\\Software\\App", value="nothing")


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("HKCU\\Environment", "HKEY_CURRENT_USER\\Environment\n    A    REG_SZ    b\n"),
        (
            "HKU\\s-1-5-21-0-0-0-1000\\Environment",
            "HKEY_USERS\\S-1-5-21-0-0-0-1000\\Environment\n    A    REG_SZ    b\n",
        ),
        ("HKEY_USERS\\.default\\Software", "HKEY_USERS\\.DEFAULT\\Software\n    d    REG_SZ    e\n"),
        ("HKCR\\AppId", "HKEY_CLASSES_ROOT\\AppId\n\nHKEY_CLASSES_ROOT\\AppId\\Own\n"),
        ("HKCC", "HKEY_CURRENT_CONFIG\n    here    REG_SZ    1\n"),
        ("HKLM\\SYSTEM\\CurrentControlSet\\Hardware Profiles", None),
        ("HKLM\\Software\\Wow6432Node\\AppId\\Own", "HKEY_LOCAL_MACHINE\\Software\\Wow6432Node\\AppId\\Own\n"),
        ("", "HKEY_LOCAL_MACHINE\nHKEY_CURRENT_USER\nHKEY_USERS\\.DEFAULT\n"),
        ("HKU", "HKEY_USERS\\.DEFAULT\nHKEY_USERS\\S-1-5-21-0-0-0-1000\n"),
        ("HKLM", "HKEY_LOCAL_MACHINE\n\nHKEY_LOCAL_MACHINE\\Software\nHKEY_LOCAL_MACHINE\\System\n"),
    ],
)
def test_names_of_keys(key: str, shown: str | None) -> None:
    text = query(key)
    assert text == shown or (shown is None and text.startswith("HKEY_LOCAL_MACHINE\\SYSTEM\\CurrentControlSet\\"))


def test_a_key_that_is_not_there() -> None:
    with pytest.raises(
        NotFound, match=r"no registry key HKEY_LOCAL_MACHINE\\Software\\app\\x\\y: .* is .*\\Software\\app$"
    ):
        query("HKLM\\Software\\app\\x\\y")
    with pytest.raises(NotFound, match=r"the nearest that exists is HKEY_CLASSES_ROOT$"):
        query("HKCR\\none")
    with pytest.raises(NotFound, match="there are HKEY_LOCAL_MACHINE"):
        query("HKU\\S-1-5-18")
    with pytest.raises(InvalidRequest, match="begins with HKLM, HKCU"):
        query("Software\\App")
    with pytest.raises(InvalidRequest, match="round in a circle"):
        query("HKLM\\Software\\Loop\\x")


def test_export() -> None:
    text = REGISTRY.export(SOURCE, "HKLM\\Software\\App\\Sub")
    assert text == f'{HEADER}\n\n[HKEY_LOCAL_MACHINE\\Software\\App\\Sub]\n@="y"\n'
    whole = REGISTRY.export(SOURCE, "")
    assert whole.count(HEADER) == 1 and whole.index("[HKEY_LOCAL_MACHINE]") < whole.index("[HKEY_CURRENT_USER]")
    assert "\n\n[HKEY_USERS\\.DEFAULT\\Software]\n" in whole and "\n\n\n" not in whole


def changed(old: str, new: str, file: str = "system.reg") -> RegistrySource:
    return RegistrySource(files=FILES | {file: FILES[file].replace(old.encode(), new.encode())})


def test_diff() -> None:
    assert REGISTRY.diff(SOURCE, SOURCE, "") == ""
    other = changed('"Text"="C:\\\\x"\n', "")
    assert REGISTRY.diff(SOURCE, other, "") == f'{HEADER}\n\n[HKEY_LOCAL_MACHINE\\Software\\App]\n"Text"=-\n'
    assert REGISTRY.diff(other, SOURCE, "HKLM\\SOFTWARE") == (
        f'{HEADER}\n\n[HKEY_LOCAL_MACHINE\\SOFTWARE\\App]\n"Text"="C:\\\\x"\n'
    )
    assert REGISTRY.diff(SOURCE, other, "HKCU") == "" == REGISTRY.diff(SOURCE, other, "HKLM\\Software\\App\\Sub")
    user = changed('"A"="b"', '"A"="c"', "user.reg")
    assert REGISTRY.diff(SOURCE, user, "") == f'{HEADER}\n\n[HKEY_CURRENT_USER\\Environment]\n"A"="c"\n'


def test_diff_of_a_key_that_came_or_went() -> None:
    gone = changed('[Software\\\\App\\\\Sub] 1\n@="y"\n', "")
    assert REGISTRY.diff(SOURCE, gone, "HKLM\\Software\\App\\Sub") == (
        f"{HEADER}\n\n[-HKEY_LOCAL_MACHINE\\Software\\App\\Sub]\n"
    )
    assert REGISTRY.diff(gone, SOURCE, "HKLM\\Software\\App\\Sub").endswith('App\\Sub]\n@="y"\n')
    without = RegistrySource(files=FILES | {"system.reg": file("Machine", "\n[Software] 1\n\n[System] 1\n")})
    assert REGISTRY.diff(SOURCE, without, "HKLM\\Software\\App\\Sub").endswith(
        "\n[-HKEY_LOCAL_MACHINE\\Software\\App\\Sub]\n"
    )
    with pytest.raises(NotFound, match="no registry key"):
        REGISTRY.diff(SOURCE, gone, "HKLM\\Software\\Nothing")


def hive(root: Key, name: str) -> RegistrySource:
    return RegistrySource(files={name: write_hive(Hive(root=root, minor_version=6, layered=True))}, hive=name)


DELTA = Key(
    "ROOT",
    subkeys=(
        Key("App", (Value("x", 4, b"\1\0\0\0"), value_tombstone("y")), (tombstone("Old"),), inherit_class=True),
        Key("Tree", layering=Layering.SUPERSEDE_TREE),
    ),
)


def test_a_hive_is_shown_where_it_belongs() -> None:
    source = hive(DELTA, "software_delta")
    assert query("app", source=source) == query("HKLM\\Software\\App", source=source).replace(
        "Software\\App", "Software\\app"
    )
    assert query("", recursive=True, source=source) == "HKEY_LOCAL_MACHINE\\Software\n"
    assert query("HKLM\\Software", recursive=True, source=source) == (
        """HKEY_LOCAL_MACHINE\\Software

HKEY_LOCAL_MACHINE\\Software\\App
    x    REG_DWORD    0x1
    y    (deleted)

HKEY_LOCAL_MACHINE\\Software\\App\\Old    (deleted)

HKEY_LOCAL_MACHINE\\Software\\Tree
"""
    )
    text = REGISTRY.export(source, "")
    assert '"y"=-\n\n[-HKEY_LOCAL_MACHINE\\Software\\App\\Old]\n\n[-HKEY_LOCAL_MACHINE\\Software\\Tree]' in text
    for name, shown in {
        "NTUSER.DAT": "HKEY_CURRENT_USER\\App",
        "DEFAULT": "HKEY_USERS\\.DEFAULT\\App",
        "some.hiv": "some\\App",
    }.items():
        assert query("App", source=hive(DELTA, name)).startswith(f"{shown}\n")
    with pytest.raises(NotFound, match=r"some\\App\\None: .* is some\\App$"):
        query("App\\None", source=hive(DELTA, "some.hiv"))


def test_a_damaged_hive_names_the_offset_and_a_dirty_one_says_what_to_do() -> None:
    data = bytearray(hive(DELTA, "x").files["x"])
    data[4096] = 0
    with pytest.raises(DamagedRegistry, match="offset 0x1000"):
        query("", source=RegistrySource(files={"x": bytes(data)}, hive="x"))
    dirty = bytearray(hive(DELTA, "x").files["x"])
    dirty[4] ^= 3
    dirty[508] ^= 3
    with pytest.raises(DamagedRegistry, match="the hive is dirty"):
        query("", source=RegistrySource(files={"x": bytes(dirty)}, hive="x"))


def test_two_hives_are_compared() -> None:
    def plain(*subkeys: Key, name: str = "a.hiv") -> RegistrySource:
        return hive(Key("ROOT", subkeys=subkeys), name)

    old, new = plain(Key("A"), Key("B")), plain(Key("A", (Value("x", 4, bytes(4)),)), name="b.hiv")
    assert REGISTRY.diff(old, new, "") == f'{HEADER}\n\n[b\\A]\n"x"=dword:00000000\n\n[-b\\B]\n'
    assert REGISTRY.diff(old, new, "B") == f"{HEADER}\n\n[-b\\B]\n"
    assert REGISTRY.diff(old, old, "") == ""
    with pytest.raises(NotFound, match="no registry key"):
        REGISTRY.diff(old, new, "C")
    with pytest.raises(InvalidRequest, match="compared with a hive only"):
        REGISTRY.diff(SOURCE, new, "")
    with pytest.raises(InvalidRequest, match="a registry layer was given"):
        REGISTRY.diff(old, hive(DELTA, "c.hiv"), "")
