"""Registry files are compared by what they say, and nothing in them can make the comparison fail."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from silo.windows.registry_text import compare_registry

HEADER = "WINE REGISTRY Version 2\n;; All keys relative to REGISTRY\\\\Machine\n\n#arch=win64\n\n"


def registry(*blocks: str) -> bytes:
    return (HEADER + "\n".join(blocks)).encode("latin-1")


BEFORE = registry(
    '[Software\\\\App] 1700000000\n#time=1dd6fbe8792d800\n"a"="1"\n"b"=dword:00000001\n"bin"=hex:01,02,\\\n  03,04\n@="default"\n',
    '[Software\\\\Gone] 1700000000\n#time=1dd6fbe8792d800\n"x"="y"\n',
    "[Software\\\\Same] 1700000000\n#time=1\n#link\n",
    '[System\\\\ControlSet001\\\\Control\\\\ComputerName\\\\ComputerName] 1\n"ComputerName"="SILO"\n',
    '[System\\\\ControlSet001\\\\Services\\\\Tcpip\\\\Parameters] 1\n"Hostname"="SILO"\n"DataBasePath"="etc"\n',
)
AFTER = registry(
    '[software\\\\App] 1800000000\n#time=1dd6fbe8792d900\n"b"=dword:00000002\n"B\\"in"="quoted"\n"bin"=hex:01,02,03,04\n'
    '@="default"\n',
    "[Software\\\\New \\x20ac\\[1\\]] 1800000000\n#time=2\n",
    "[Software\\\\Same] 1900000000\n#time=9\n#link\n",
    '[System\\\\ControlSet001\\\\Control\\\\ComputerName\\\\ComputerName] 1\n"ComputerName"="WEB"\n',
    '[System\\\\ControlSet001\\\\Services\\\\Tcpip\\\\Parameters] 1\n"Hostname"="web"\n"DataBasePath"="else"\n',
)


def lines(file: str, before: bytes, after: bytes) -> list[str]:
    return [f"{'CAD'[change.kind]} {change.path}" for change in compare_registry(file, before, after)]


def test_keys_and_values() -> None:
    assert lines("system.reg", BEFORE, AFTER) == [
        "D HKLM\\software\\App\\\\a",
        "C HKLM\\software\\App\\\\b",
        'A HKLM\\software\\App\\\\B"in',
        "D HKLM\\Software\\Gone",
        "A HKLM\\Software\\New €[1]",
        "C HKLM\\System\\ControlSet001\\Services\\Tcpip\\Parameters\\\\DataBasePath",
    ]


def test_what_every_boot_writes_is_no_change() -> None:
    before = registry('[Volatile Environment] 1\n"LOGONSERVER"="\\\\\\\\SILO"\n')
    after = registry(
        '[Volatile Environment] 2\n"LOGONSERVER"="\\\\\\\\WEB"\n', "[Volatile Environment\\\\0] 2\n#time=1\n"
    )
    assert lines("user.reg", before, after) == [] != lines("system.reg", before, after)
    key = "[System\\\\ControlSet001\\\\Control\\\\Class\\\\{1}\\\\0000]"
    before = registry(f'{key} 1\n"DriverDateData"=hex:01\n"x"="1"\n"y"="2"\n')
    after = registry(f'{key} 1\n"y"="2"\n"DriverDateData"=hex:02\n"x"="1"\n')
    assert lines("system.reg", before, after) == [] != lines("user.reg", before, after)


def test_missing_files_are_empty() -> None:
    assert lines("user.reg", b"", registry("[A] 1\n")) == ["A HKCU\\A"]
    assert lines("userdef.reg", registry("[A] 1\n"), b"no registry") == ["D HKU\\.Default\\A"]
    assert lines("user.reg", b"", b"") == []


@given(st.binary(max_size=300), st.text(alphabet='[]"\\=@#x0123456789abcdef,: \n', max_size=300))
def test_anything_may_stand_in_a_file(data: bytes, text: str) -> None:
    hostile = registry(text) + data
    compare_registry("system.reg", BEFORE, hostile)
    compare_registry("user.reg", hostile, AFTER)
    assert compare_registry("user.reg", hostile, hostile) == ()


def test_large_files_are_fast() -> None:
    many = [
        f'[Software\\\\Classes\\\\Key{number}] 1\n#time=1\n"a"="b"\n"c"=dword:00000001\n' for number in range(17_000)
    ]
    before, after = registry(*many), registry(*reversed(many), "[New] 1\n")
    begin = time.perf_counter()
    assert lines("system.reg", before, after) == ["A HKLM\\New"]
    assert time.perf_counter() - begin < 5


def test_one_long_value() -> None:
    long = '"x"=hex:' + "00,\\\n  " * 200_000 + "00\n"
    assert lines("system.reg", registry(f"[A] 1\n{long}"), registry(f'[A] 1\n"y"="1"\n{long}')) == ["A HKLM\\A\\\\y"]
