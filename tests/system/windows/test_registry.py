"""The registry of real silos: what commands change there is what a layer gets, and what a start writes is not; `silo registry`."""

from __future__ import annotations

from pathlib import Path

import pytest

from silo.windows.hives import export_reg_text, read_hive
from silo.windows.hives.reg_text import HEADER
from silo.windows.registry import build_user_hive, diff_registry, merge_registry, merge_user_hive, user_text_path
from tests.support.windows import cache_root
from tests.system.windows.conftest import Windows

pytestmark = pytest.mark.system

FILES = ("system.reg", "user.reg", "userdef.reg")
ENVIRONMENT = "HKLM\\SYSTEM\\CurrentControlSet\\Control\\Session Manager\\Environment"
WRITES = " & ".join(
    (
        "reg add HKLM\\Software\\Acme /v Name /d x /f",
        "reg add HKLM\\Software\\Acme\\32 /reg:32 /v Number /t REG_DWORD /d 5 /f",
        "reg add HKCU\\Software\\Acme /v List /t REG_MULTI_SZ /d one\\0two /f",
        "reg add HKU\\.Default\\Software\\Acme /v Bytes /t REG_BINARY /d 0102 /f",
        "setx /M TOOLS C:\\tools",
        "setx OWN mine",
        "reg delete HKLM\\Software\\Microsoft\\Rpc /f",
    )
)


def base_files() -> dict[str, bytes]:
    root = cache_root() / "base" / (cache_root() / "base/current").readlink() / "rootfs"
    return {name: (root / "silo/prefix" / name).read_bytes() for name in FILES} | {
        "other": (root / user_text_path("ContainerUser").lstrip("/")).read_bytes()
    }


def container_files(windows: Windows, name: str) -> dict[str, bytes]:
    container = windows.docker.inspect(name)["Id"]
    prefix: Path = windows.docker.silod.data_root / "containers" / container / "upper/silo/prefix"
    return {file: (prefix / file).read_bytes() for file in FILES}


def delta(hive: bytes) -> str:
    return export_reg_text(read_hive(hive).root, "X", sparse=True).removeprefix(f"{HEADER}\n\n")


def test_a_layer_gets_what_commands_changed_and_nothing_else_over_two_starts(windows: Windows) -> None:
    base = base_files()
    windows.docker("run", "--name", "writes", "windows", "cmd", "/c", WRITES)
    for _ in range(2):
        after = container_files(windows, "writes")
        layer = diff_registry(base, after)
        assert {name: delta(hive) for name, hive in layer.items()} == {
            "Software_Delta": '[X\\Acme]\n"Name"="x"\n\n[-X\\Microsoft\\Rpc]\n\n'
            '[X\\Wow6432Node\\Acme\\32]\n"Number"=dword:00000005\n',
            "System_Delta": '[X\\ControlSet001\\Control\\Session Manager\\Environment]\n"TOOLS"="C:\\\\tools"\n',
            "DefaultUser_Delta": '[X\\Software\\Acme]\n"Bytes"=hex:01,02\n',
        }
        hive = build_user_hive("ContainerAdministrator", base["user.reg"], after["user.reg"])
        assert hive is not None
        image = base | merge_registry(base, [layer]) | {"user.reg": merge_user_hive(base["user.reg"], hive)}
        assert diff_registry(image, after) == {}
        assert build_user_hive("ContainerAdministrator", image["user.reg"], after["user.reg"]) is None
        # the second time there is nothing left to delete, and reg says so
        windows.docker.try_("start", "-a", "writes")


def test_merged_files_are_a_registry_to_wine(windows: Windows, tmp_path: Path) -> None:
    base = base_files()
    windows.docker("run", "--name", "writer", "windows", "cmd", "/c", WRITES)
    layer = diff_registry(base, container_files(windows, "writer"))
    (tmp_path / "system.reg").write_bytes(merge_registry(base, [layer])["system.reg"])
    asks = "reg query HKLM\\Software\\Acme & echo %TOOLS% & reg query HKLM\\Software\\Acme\\32 /reg:32"
    windows.docker(
        "create", "--name", "reader", "windows", "cmd", "/c", f"{asks} & reg query HKLM\\Software\\Microsoft\\Rpc"
    )
    container = windows.docker.inspect("reader")["Id"]
    prefix = windows.docker.silod.data_root / "containers" / container / "upper/silo/prefix"
    prefix.mkdir(parents=True)
    (prefix / "system.reg").write_bytes((tmp_path / "system.reg").read_bytes())
    out = windows.docker.try_("start", "-a", "reader").stdout
    assert "REG_SZ    x" in out and "C:\\tools" in out and "REG_DWORD    0x5" in out and "Rpc" not in out


@pytest.mark.parametrize("user", ["ContainerAdministrator", "ContainerUser"])
def test_a_start_changes_nothing_of_the_users(windows: Windows, user: str) -> None:
    base = base_files()
    flags = ("-u", user, "-h", "other", "--name", "plain")
    windows.docker("run", *flags, "windows", "cmd", "/c", "sc start eventlog & ipconfig & hostname")
    for _ in range(2):
        after = container_files(windows, "plain")
        assert diff_registry(base, after) == {}
        own = base["other" if user == "ContainerUser" else "user.reg"]
        assert build_user_hive(user, own, after["user.reg"]) is None
        windows.docker("start", "-a", "plain")


def test_silo_registry_of_a_running_container(windows: Windows) -> None:
    windows.docker("run", "-d", "--name", "shown", "windows", "cmd", "/c", "ping -n 60 127.0.0.1")
    windows.docker("exec", "shown", "cmd", "/c", WRITES)
    windows.docker("exec", "shown", "cmd", "/c", "reg add HKLM\\Software\\Later /ve /d now /f")
    done = windows.silo("registry", "query", "shown", "hklm\\software\\later")
    assert done.stdout == "HKEY_LOCAL_MACHINE\\software\\later\n    (Default)    REG_SZ    now\n", done.stderr
    value = windows.silo("registry", "query", "-v", "tools", "shown", ENVIRONMENT).stdout
    assert value.splitlines()[1] == "    TOOLS    REG_SZ    C:\\tools"
    changed = windows.silo("registry", "diff", "shown").stdout
    assert changed.startswith(f"{HEADER}\n\n[HKEY_LOCAL_MACHINE\\Software\\Acme]\n")
    assert "[-HKEY_LOCAL_MACHINE\\Software\\Microsoft\\Rpc]" in changed
    assert '[HKEY_CURRENT_USER\\Environment]\n"OWN"="mine"' in changed
    assert "[HKEY_USERS\\.DEFAULT\\Software\\Acme]" in changed
    assert "COMPUTERNAME" not in changed.upper() and "Volatile" not in changed
    part = windows.silo("registry", "diff", "shown", "HKCU\\Software").stdout
    assert part == f"{HEADER}\n\n[HKEY_CURRENT_USER\\Software\\Acme]\n" + (
        '"List"=hex(7):6f,00,6e,00,65,00,00,00,74,00,77,00,6f,00,00,00,00,00\n'
    )


def test_silo_registry_of_an_image(windows: Windows, tmp_path: Path) -> None:
    version = "HKLM\\Software\\Microsoft\\Windows NT\\CurrentVersion"
    done = windows.silo("registry", "query", "-v", "CurrentBuild", "windows", version)
    assert done.stdout.endswith("    CurrentBuild    REG_SZ    20348\n"), done.stderr
    assert windows.silo("registry", "diff", "windows").stdout == ""
    absent = windows.silo("registry", "query", "windows", f"{version}\\No\\Such")
    assert absent.returncode == 1 and "the nearest that exists is" in absent.stderr
    windows.docker("run", "--name", "made", "windows", "cmd", "/c", "reg add HKCU\\Software\\Acme /v A /d b /f")
    windows.docker("commit", "made", "made:latest")
    assert '"A"="b"' in windows.silo("registry", "diff", "--type", "image", "made:latest").stdout
    file = tmp_path / "out.reg"
    assert windows.silo("registry", "export", "-o", str(file), "made:latest", "HKCU\\Software\\Acme").returncode == 0
    text = file.read_bytes().decode("utf-16")
    assert text == f'{HEADER}\r\n\r\n[HKEY_CURRENT_USER\\Software\\Acme]\r\n"A"="b"\r\n'
    # what it wrote is what reg import takes
    windows.docker("create", "--name", "importer", "windows", "cmd", "/c",
                   "reg import C:\\out.reg & reg query HKCU\\Software\\Acme")  # fmt: skip
    windows.docker("cp", str(file), "importer:C:\\out.reg")
    assert "A    REG_SZ    b" in windows.docker("start", "-a", "importer")


def test_silo_registry_of_hives(windows: Windows, tmp_path: Path) -> None:
    after = base_files()
    after["system.reg"] += b'\n[Software\\\\Acme] 1\n"x"="y"\n'
    (data,) = diff_registry(base_files(), after).values()
    hive = tmp_path / "Software_Delta"
    hive.write_bytes(data)
    assert windows.silo("registry", "diff", str(hive)).stdout.endswith(
        '[HKEY_LOCAL_MACHINE\\Software\\Acme]\n"x"="y"\n'
    )
    assert windows.silo("registry", "query", str(hive), "acme").stdout.splitlines()[1] == "    x    REG_SZ    y"
    hive.write_bytes(data[:4096] + b"\0" * 4096)
    damaged = windows.silo("registry", "query", str(hive))
    assert damaged.returncode == 1 and "offset 0x1000" in damaged.stderr
