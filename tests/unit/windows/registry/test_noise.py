"""What Wine writes by itself, as it was measured, is neither in a layer nor in `diff`; what looks like it is."""

from __future__ import annotations

import pytest

from silo.windows.hives import read_hive
from silo.windows.hives.tree import find_key
from silo.windows.registry import diff_registry
from silo.windows.registry_text import compare_registry

HEADER = "WINE REGISTRY Version 2\n;; All keys relative to REGISTRY\\\\Machine\n"
CONTROL = "System\\\\ControlSet001\\\\Control"
ADAPTER = f"{CONTROL}\\\\Class\\\\{{4D36E968-E325-11CE-BFC1-08002BE10318}}\\\\0000"
MONITOR = "{E6F07B5F-EE97-4A90-B076-33F57BF4EAA7}"
IMAGE = (
    HEADER
    + f"""
[Software\\\\Microsoft\\\\Windows NT\\\\CurrentVersion\\\\NetworkCards] 1

[{ADAPTER}] 1
"DriverDateData"=hex:00

[{CONTROL}\\\\ComputerName\\\\ComputerName] 1
"ComputerName"="SILO"

[{CONTROL}\\\\Session Manager\\\\Environment] 1
"OS"="Windows_NT"

[System\\\\ControlSet001\\\\Services\\\\Tcpip\\\\Parameters] 1
"Hostname"="SILO"
"""
)
STARTED = (
    HEADER
    + f"""
[Software\\\\Microsoft\\\\Windows NT\\\\CurrentVersion\\\\AeDebug] 2
"Debugger"=""

[{ADAPTER}] 2
"DriverDateData"=hex:c6,fe
"SymbolicLinkValue"=hex(6):5c,00

[{CONTROL}\\\\ComputerName\\\\ComputerName] 2
"ComputerName"="17C06BE24AC8"

[{CONTROL}\\\\DeviceClasses\\\\{MONITOR}\\\\##?#DISPLAY#Default_Monitor#0001&0000#{MONITOR}] 2
"DeviceInstance"="DISPLAY"

[{CONTROL}\\\\Session Manager\\\\Environment] 2
"NUMBER_OF_PROCESSORS"="2"
"OS"="Windows_NT"
"PROCESSOR_ARCHITECTURE"="AMD64"

[System\\\\ControlSet001\\\\Enum\\\\DISPLAY\\\\Default_Monitor\\\\0000&0000] 2
@="x"

[System\\\\ControlSet001\\\\Services\\\\Tcpip\\\\Parameters] 2
"Domain"="example.org"
"Hostname"="17c06be24ac8"
"""
)


def changed(before: str, after: str) -> set[str]:
    """Delta hives; `diff` must agree that there is something, or nothing."""
    hives = diff_registry({"system.reg": before.encode()}, {"system.reg": after.encode()})
    shown = compare_registry("system.reg", before.encode(), after.encode())
    assert bool(hives) == bool(shown), shown
    return set(hives)


def test_a_start_is_no_change() -> None:
    assert changed(IMAGE, STARTED) == set()
    assert changed(STARTED, STARTED.replace("17C06BE24AC8", "WEB").replace("17c06be24ac8", "web")) == set()


@pytest.mark.parametrize(
    ("old", "new", "hive"),
    [
        ('"OS"="Windows_NT"', '"OS"="x"', "System_Delta"),
        ('"Hostname"="17c06be24ac8"', '"Hostname"="x"\n"DataBasePath"="x"', "System_Delta"),
        (
            "[Software\\\\Microsoft",
            '[Software\\\\Acme] 1\n"ComputerName"="x"\n\n[Software\\\\Microsoft',
            "Software_Delta",
        ),
        ("Parameters] 2", "Parameters\\\\Interfaces] 2", "System_Delta"),
    ],
)
def test_a_users_change_beside_it_is(old: str, new: str, hive: str) -> None:
    assert changed(IMAGE, STARTED.replace(old, new)) == {hive}


def test_a_layer_holds_a_users_value_and_not_the_noise_in_the_same_key() -> None:
    after = STARTED.replace('"OS"="Windows_NT"', '"OS"="Windows_NT"\n"Path"="C:\\\\app"')
    (data,) = diff_registry({"system.reg": IMAGE.encode()}, {"system.reg": after.encode()}).values()
    key = find_key(read_hive(data).root, "ControlSet001\\Control\\Session Manager\\Environment")
    assert key is not None and [value.name for value in key.values] == ["Path"]
    services = find_key(read_hive(data).root, "ControlSet001\\Services")
    assert services is None


def test_a_key_with_a_users_value_that_goes_takes_the_noise_along_and_leaves_what_stays() -> None:
    with_value = STARTED.replace('"Debugger"=""', '"Debugger"=""\n"Auto"="1"')
    assert changed(with_value, STARTED) == {"Software_Delta"}
    (data,) = diff_registry({"system.reg": with_value.encode()}, {"system.reg": STARTED.encode()}).values()
    key = find_key(read_hive(data).root, "Microsoft\\Windows NT\\CurrentVersion\\AeDebug")
    assert key is not None and [(value.name, value.tombstone) for value in key.values] == [("Auto", True)]


DESKTOP = (
    HEADER
    + """
[Control Panel\\\\Colors] 1
"Window"="{0}"

[Control Panel\\\\Desktop] 1
"UserPreferencesMask"=hex:{0}
"Wallpaper"="{1}"

[Software\\\\Microsoft\\\\Windows\\\\CurrentVersion\\\\ThemeManager] 1
"{2}"="1"
"""
)


def test_the_first_desktop_of_a_user_is_no_change_and_colours_are_the_users_after_it() -> None:
    def shown(before: str, after: str) -> list[str]:
        return [change.path for change in compare_registry("user.reg", before.encode(), after.encode())]

    fresh, loaded = DESKTOP.format("00", "a", "x"), DESKTOP.format("01", "a", "LoadedBefore")
    assert shown(fresh, loaded) == []
    assert shown(fresh, DESKTOP.format("01", "b", "LoadedBefore")) == ["HKCU\\Control Panel\\Desktop\\\\Wallpaper"]
    assert len(shown(loaded, DESKTOP.format("02", "a", "LoadedBefore"))) == 2
    assert len(shown(fresh, DESKTOP.format("02", "a", "x"))) == 2
