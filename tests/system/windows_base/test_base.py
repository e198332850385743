"""The built base: what is in it, that it packs to the same bytes, and that Windows programs run from it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from silo.debian.isolated import run_isolated
from silo.host.run import CompletedCommand
from silo.windows.base import portable_executable as pe
from silo.windows.base.build import BaseImage, build_base
from silo.windows.base.environment import (
    ADMINISTRATOR,
    DRIVE_C,
    OS_VERSION,
    PREFIX,
    REGISTRY_FILES,
    UNIX_ENVIRONMENT,
    USER,
    USER_REGISTRY_DIRECTORY,
    USER_UID,
    WINE,
    WINESERVER,
)
from silo.windows.base.prefix import owner_of
from silo.windows.base.rootfs import WINE_DLLS
from silo.windows.base.tar_layer import write_layer
from tests.support.probes import require_program
from tests.system.windows_base.conftest import DATA_ROOT

pytestmark = pytest.mark.system

SYSTEM32 = "c:\\windows\\system32\\"


@pytest.fixture
def scratch(tree: Path, tmp_path: Path) -> Iterator[Path]:
    """The tree with a writable layer over it."""
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    options = f"lowerdir={tree},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, tmp_path / "merged"], check=True)
    try:
        yield tmp_path / "merged"
    finally:
        subprocess.run(["umount", "--lazy", tmp_path / "merged"], check=True)


def wine(root: Path, *words: str) -> str:
    """What a program printed that ran as the first of a silo; its registry is written at the end."""
    script = f'cd {DRIVE_C}; "{WINE}" "$@"; code=$?; "{WINESERVER}" -k; exit $code'
    argv = ["/bin/sh", "-c", script, "test", *words]
    return run_isolated(root, argv, env=UNIX_ENVIRONMENT, timeout_s=60).stdout.decode().replace("\r", "")


def layer_of(base: BaseImage) -> tuple[Path, str]:
    index = json.loads((base.layout / "index.json").read_text())
    blobs = base.layout / "blobs/sha256"
    manifest = json.loads((blobs / index["manifests"][0]["digest"].removeprefix("sha256:")).read_text())
    digest = manifest["layers"][0]["digest"]
    return blobs / digest.removeprefix("sha256:"), digest


def test_the_tree_packs_to_the_layer_again(base: BaseImage, tree: Path) -> None:
    _, digest = layer_of(base)
    with open(os.devnull, "wb") as nowhere:
        layer = write_layer(tree, nowhere, epoch_s=base.manifest.epoch_s, owner=owner_of)
    assert layer.digest == digest


def test_the_layer_holds_what_its_name_says_and_nothing_unwanted(base: BaseImage) -> None:
    path, digest = layer_of(base)
    with open(path, "rb") as stream:
        assert "sha256:" + hashlib.file_digest(stream, "sha256").hexdigest() == digest
    with tarfile.open(path) as tar:
        members = {member.name: member for member in tar}
    prefix = PREFIX.lstrip("/")
    assert {name for name in members if name.startswith(f"{prefix}/dosdevices/")} == {f"{prefix}/dosdevices/c:"}
    assert f"{prefix}/wineserver" not in members
    assert not any(name.startswith(("var/lib/dpkg/", "var/lib/apt/", "usr/share/doc/")) for name in members)
    assert {member.uid for member in members.values()} == {0, USER_UID}
    assert all(member.mtime <= base.manifest.epoch_s for member in members.values())
    assert not any(member.ischr() or member.isblk() or member.isfifo() for member in members.values())
    assert sum(member.size for member in members.values()) < 220_000_000
    assert members[f"{DRIVE_C.lstrip('/')}/Users/{USER}"].uid == USER_UID


def test_a_second_build_is_a_look_up(base: BaseImage) -> None:
    steps: list[str] = []
    again = build_base(DATA_ROOT, keep_rootfs=True, progress=lambda step, _: steps.append(step))
    assert again.reused
    assert again.key == base.key
    assert steps == []
    assert not list((DATA_ROOT / "base").glob(".building-*"))


def test_dlls_are_slim_whole_and_shared_with_drive_c(tree: Path) -> None:
    own = tree / WINE_DLLS
    in_drive = tree / DRIVE_C.lstrip("/") / "windows/system32"
    assert (own / "kernel32.dll").samefile(in_drive / "kernel32.dll")
    for path in own.glob("*.dll"):
        data = path.read_bytes()
        assert pe.machine_type(data) == pe.MACHINE_AMD64, path
        assert pe.without_debug_sections(data) is data, path
    assert pe.marked_builtin((own / "zlib1.dll").read_bytes()) == (own / "zlib1.dll").read_bytes()


def test_registry_is_free_of_the_machine_that_built_it(tree: Path) -> None:
    host = os.uname().nodename.encode()
    for name in REGISTRY_FILES:
        data = (tree / PREFIX.lstrip("/") / name).read_bytes()
        assert b"unix" not in data
        assert b"PROCESSOR_IDENTIFIER" not in data
        assert len(host) < 5 or host not in data
    other = (tree / USER_REGISTRY_DIRECTORY.lstrip("/") / USER / "user.reg").read_bytes()
    assert f"C:\\\\Users\\\\{USER}\\\\AppData".encode() in other
    assert ADMINISTRATOR.encode() not in other


def test_version_user_and_profile(scratch: Path) -> None:
    build = ".".join(OS_VERSION.split(".")[:3])
    assert wine(scratch, SYSTEM32 + "cmd.exe", "/c", "ver").strip() == f"Microsoft Windows {build}"
    shown = wine(scratch, SYSTEM32 + "cmd.exe", "/c", "echo %USERNAME%/%USERPROFILE%/%TEMP%/%COMPUTERNAME%").strip()
    profile = f"C:\\Users\\{ADMINISTRATOR}"
    assert shown == f"{ADMINISTRATOR}/{profile}/{profile}\\AppData\\Local\\Temp/SILO"
    assert wine(scratch, SYSTEM32 + "whoami.exe").strip().casefold() == f"silo\\{ADMINISTRATOR}".casefold()


def test_registry_changes_are_kept(scratch: Path) -> None:
    wine(scratch, SYSTEM32 + "reg.exe", "add", "HKLM\\Software\\SiloTest", "/v", "a", "/d", "kept", "/f")
    assert "kept" in wine(scratch, SYSTEM32 + "reg.exe", "query", "HKLM\\Software\\SiloTest")


def test_tools_and_services_work(scratch: Path) -> None:
    assert "adapter lo" in wine(scratch, SYSTEM32 + "ipconfig.exe")
    assert "services.exe" in wine(scratch, SYSTEM32 + "tasklist.exe")
    assert "RUNNING" in wine(scratch, SYSTEM32 + "sc.exe", "query", "mountmgr")
    started = wine(scratch, SYSTEM32 + "sc.exe", "start", "spooler")
    assert "RUNNING" in started or "START_PENDING" in started


def test_setx_writes_the_environment(scratch: Path) -> None:
    assert "SUCCESS" in wine(scratch, SYSTEM32 + "setx.exe", "SILO_A", "two words")
    assert "SUCCESS" in wine(scratch, SYSTEM32 + "setx.exe", "/m", "SILO_B", "%SystemRoot%\\x")
    version_key = "HKLM\\Software\\Microsoft\\Windows NT\\CurrentVersion\\CurrentBuild"
    assert "SUCCESS" in wine(scratch, SYSTEM32 + "setx.exe", "SILO_C", "/k", version_key)
    user = wine(scratch, SYSTEM32 + "reg.exe", "query", "HKCU\\Environment")
    assert "SILO_A    REG_SZ    two words" in user
    assert f"SILO_C    REG_SZ    {OS_VERSION.split('.')[2]}" in user
    machine = "HKLM\\System\\CurrentControlSet\\Control\\Session Manager\\Environment"
    stored = wine(scratch, SYSTEM32 + "reg.exe", "query", machine, "/v", "SILO_B")
    assert "SILO_B    REG_EXPAND_SZ    %SystemRoot%\\x" in stored
    shown = wine(scratch, SYSTEM32 + "cmd.exe", "/c", "echo %SILO_A%/%SILO_B%")
    assert shown.strip() == "two words/C:\\windows\\x"
    for words in (["SILO_A"], ["A=B", "c"], ["/s", "other", "a", "b"], ["a", "b", "c"], ["x", "/k", "HKLM\\no\\such"]):
        argv = ["/bin/sh", "-c", f'cd {DRIVE_C}; exec "{WINE}" "$@"', "test", SYSTEM32 + "setx.exe", *words]
        ended = run_isolated(scratch, argv, env=UNIX_ENVIRONMENT, timeout_s=60, check=False)
        assert ended.status == 1, words
        assert b"ERROR" in ended.stderr


def test_what_wine_only_pretends_to_do_is_told(scratch: Path) -> None:
    folder = "C:\\windows\\system32\\"
    for program in ("powershell", "dism", "certutil", folder + "WindowsPowerShell\\v1.0\\powershell.exe"):
        ended = in_cmd(scratch, f"{program} anything -at all")
        assert ended.status == 1 and b"does not have this program" in ended.stderr, program
    for program in ("icacls", "netsh"):
        ended = in_cmd(scratch, f"{program} anything")
        assert ended.status == 0 and b"does nothing in a container" in ended.stderr, program


def in_cmd(scratch: Path, line: str) -> CompletedCommand:
    argv = ["/bin/sh", "-c", f'cd {DRIVE_C}; exec "{WINE}" "$@"', "test", SYSTEM32 + "cmd.exe", "/c", line]
    return run_isolated(scratch, argv, env=UNIX_ENVIRONMENT, timeout_s=60, check=False)


def test_windows_and_fonts_without_a_display(scratch: Path) -> None:
    compiler = require_program("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64-win32")
    program = scratch / DRIVE_C.lstrip("/") / "window.exe"
    subprocess.run([compiler, "-o", program, Path(__file__).with_name("window.c"), "-lgdi32"], check=True)
    assert wine(scratch, "c:\\window.exe") == "text Liberation Sans"


def test_no_drive_but_c_and_no_endless_processes(scratch: Path) -> None:
    listed = wine(scratch, SYSTEM32 + "cmd.exe", "/c", "if exist z:\\ (echo z) else (echo none)")
    assert listed.strip() == "none"
    # Without a font to fall back on, the desktop process starts itself again and again.
    wine(scratch, SYSTEM32 + "rundll32.exe", "user32.dll,MessageBeep")
    assert wine(scratch, SYSTEM32 + "tasklist.exe").count("explorer.exe") <= 1


def test_the_manifest_is_in_the_image(base: BaseImage, tree: Path) -> None:
    stored = (tree / "silo/manifest.json").read_bytes()
    assert stored == base.manifest.as_json()
    names = [row["name"] for row in json.load(io.BytesIO(stored))["packages"]]
    assert {"libwine", "libc6", "wine64"} <= set(names)
