"""Steps that shape the tree on disk: shared files, profiles, accounts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from silo.windows.base import prefix, rootfs
from silo.windows.base.environment import ADMINISTRATOR, DRIVE_C, PREFIX, REGISTRY_FILES, USER, USER_REGISTRY_DIRECTORY


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_equal_files_become_links_and_others_stay(tmp_path: Path) -> None:
    own = write(tmp_path / rootfs.WINE_DLLS / "a.dll", b"same bytes")
    write(tmp_path / "usr/share/wine/nls/c.nls", b"nls")
    drive = tmp_path / DRIVE_C.lstrip("/")
    equal = write(drive / "windows/system32/a.dll", b"same bytes")
    differing = write(drive / "windows/system32/b.dll", b"same size!")
    link = drive / "windows/system32/link.dll"
    link.symlink_to("a.dll")
    assert prefix.share_files(tmp_path) == (1, len(b"same bytes"))
    assert equal.samefile(own)
    assert not differing.samefile(own)
    assert link.is_symlink()
    assert prefix.share_files(tmp_path) == (0, 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives files to another user")
def test_both_users_get_clean_profiles(tmp_path: Path) -> None:
    drive = tmp_path / DRIVE_C.lstrip("/")
    write(drive / f"users/{ADMINISTRATOR}/AppData/Local/Temp/debris", b"x")
    write(drive / f"users/{ADMINISTRATOR}/Desktop/file", b"x")
    (drive / "windows").mkdir()
    (drive / "ProgramData").mkdir()
    prefix.finish_drive(tmp_path)
    assert sorted(path.name for path in (drive / "Users").iterdir()) == [ADMINISTRATOR, USER]
    for user, uid in ((ADMINISTRATOR, 0), (USER, 1000)):
        profile = drive / "Users" / user
        assert list((profile / "AppData/Local/Temp").iterdir()) == []
        assert {path.stat().st_uid for path in (profile, *profile.rglob("*"))} == {uid}
    assert (drive / "windows/temp").stat().st_mode & 0o7777 == 0o1777


def test_registry_files_are_edited_and_the_other_user_derived(tmp_path: Path) -> None:
    home = tmp_path / PREFIX.lstrip("/")
    text = b'WINE REGISTRY Version 2\n\n#arch=win64\n\n[Key] 5\n#time=1\n"p"="C:\\\\users\\\\ContainerAdministrator\\\\x"\n'
    for name in REGISTRY_FILES:
        write(home / name, text)
    prefix.edit_registry(tmp_path, epoch_s=1_700_000_000, key="k")
    user = (home / "user.reg").read_bytes()
    assert b'"p"="C:\\\\Users\\\\ContainerAdministrator\\\\x"' in user
    assert b"[Key] 1700000000\n" in user
    other = (tmp_path / USER_REGISTRY_DIRECTORY.lstrip("/") / USER / "user.reg").read_bytes()
    assert b'"p"="C:\\\\Users\\\\ContainerUser\\\\x"' in other
    assert b'"MachineGuid"="' in (home / "system.reg").read_bytes()
    assert (home / ".update-timestamp").read_bytes().startswith(b"disable")


def test_accounts_name_the_windows_users_first(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "usr/bin").mkdir(parents=True)
    rootfs.write_accounts(tmp_path)
    rows = [line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines()]
    assert [(row[0], row[2]) for row in rows] == [(ADMINISTRATOR, "0"), (USER, "1000"), ("root", "0")]
    assert (tmp_path / "usr/bin/sh").readlink() == Path("busybox")
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o1777
