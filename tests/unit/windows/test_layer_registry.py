"""The registry in the directories of an image's layers: read, merged, compared; whatever lies there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from silo.errors import InvalidRequest
from silo.windows import layer_registry
from silo.windows.hives import read_hive
from silo.windows.layer_registry import LayerRegistry

PREFIX = "silo/prefix"
USERS = "silo/users"
HEADER = "WINE REGISTRY Version 2\n;; All keys relative to {}\n\n#arch=win64\n\n"
MACHINE = HEADER.format("REGISTRY\\\\Machine")
OWN = HEADER.format("REGISTRY\\\\User\\\\S-1-5-21-0-0-0-1000")


def section(key: str, *values: str) -> str:
    return f"[{key}] 1700000000\n#time=1da0000000000000\n" + "".join(f"{value}\n" for value in values) + "\n"


def user_text(name: str, *sections: str) -> str:
    return OWN + section("Volatile", f'"Whose"="{name}"', f'"Home"="C:\\\\Users\\\\{name}"') + "".join(sections)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    root = tmp_path / "base"
    (root / PREFIX / "drive_c/users").mkdir(parents=True)
    (root / USERS / "ContainerUser").mkdir(parents=True)
    (root / PREFIX).chmod(0o750)
    (root / PREFIX / "system.reg").write_text(MACHINE + section("Software\\\\Silo", '"Base"="here"'))
    (root / PREFIX / "user.reg").write_text(user_text("ContainerAdministrator"))
    (root / USERS / "ContainerUser/user.reg").write_text(user_text("ContainerUser"))
    return root


def made(base: Path, text: str, user: str = "") -> dict[str, bytes]:
    return {"system.reg": text.encode(), **({"user.reg": user.encode()} if user else {})}


def test_what_a_container_changed_is_there_in_the_next_layer(base: Path, tmp_path: Path) -> None:
    after = MACHINE + section("Software\\\\Silo", '"Base"="here"') + section("Software\\\\Acme", '"Version"="1"')
    mine = user_text("ContainerUser", section("Software\\\\Acme", '"Seen"="yes"'))
    with LayerRegistry([base]) as registry:
        deltas, profiles = registry.diff(made(base, after, mine))
    assert set(deltas) == {"Software_Delta"} and set(profiles) == {"Users/ContainerUser/NTUSER.DAT"}
    assert read_hive(deltas["Software_Delta"]).layered

    layer = tmp_path / "layer"
    profile = layer / PREFIX / "drive_c/users/CONTAINERUSER"
    profile.mkdir(parents=True)
    (profile / "ntuser.dat").write_bytes(profiles["Users/ContainerUser/NTUSER.DAT"])
    warnings: list[str] = []
    with LayerRegistry([base]) as registry:
        registry.merge(layer, deltas, warnings.append)
    with LayerRegistry([layer, base]) as registry:
        assert b'"Version"="1"' in registry.read(f"/{PREFIX}/system.reg")
        assert b'"Base"="here"' in registry.read(f"/{PREFIX}/system.reg")
        assert b'"Seen"="yes"' in registry.read(f"/{USERS}/ContainerUser/user.reg")
        assert registry.read(f"/{PREFIX}/user.reg") == (base / PREFIX / "user.reg").read_bytes()
        assert registry.diff(made(base, after, mine)) == ({}, {})
    assert warnings == []


def test_new_directories_look_as_those_below(base: Path, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    after = MACHINE + section("Software\\\\Acme", '"Version"="1"')
    with LayerRegistry([base]) as registry:
        deltas, _ = registry.diff(made(base, after))
        registry.merge(layer, deltas, lambda _: None)
    assert (layer / PREFIX).stat().st_mode & 0o777 == 0o750
    assert (layer / PREFIX / "system.reg").stat().st_mode & 0o777 == (
        base / PREFIX / "system.reg"
    ).stat().st_mode & 0o777


def test_a_layer_without_deltas_gets_no_files(base: Path, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    with LayerRegistry([base]) as registry:
        registry.merge(layer, {}, lambda _: None)
    assert list(layer.iterdir()) == []


def test_a_users_hive_that_is_none_is_left_out(base: Path, tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    profile = layer / PREFIX / "drive_c/Users/ContainerAdministrator"
    profile.mkdir(parents=True)
    (profile / "NTUSER.DAT").write_bytes(b"regf" + bytes(5000))
    warnings: list[str] = []
    with LayerRegistry([base]) as registry:
        registry.merge(layer, {}, warnings.append)
    assert len(warnings) == 1 and "ContainerAdministrator" in warnings[0]
    assert not (layer / PREFIX / "user.reg").exists()


def test_links_and_directories_in_the_place_of_a_file_are_not_followed(base: Path, tmp_path: Path) -> None:
    """An image may hold whatever it likes; what is read lies in its own directory, and is a file."""
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    file = base / PREFIX / "system.reg"
    file.unlink()
    file.symlink_to(secret)
    with LayerRegistry([base]) as registry:
        assert registry.read(f"/{PREFIX}/system.reg") == b""
    file.unlink()
    file.mkdir()
    with LayerRegistry([base]) as registry:
        assert registry.read(f"/{PREFIX}/system.reg") == b""
    file.rmdir()
    os.mkfifo(file)
    with LayerRegistry([base]) as registry:
        assert registry.read(f"/{PREFIX}/system.reg") == b""
    (base / PREFIX).rename(tmp_path / "elsewhere")
    (base / PREFIX).symlink_to(tmp_path / "elsewhere")
    with LayerRegistry([base]) as registry:
        assert registry.read(f"/{PREFIX}/user.reg") == b""


def test_a_file_is_read_up_to_a_limit(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_registry, "MAXIMUM_BYTES", 10)
    with LayerRegistry([base]) as registry, pytest.raises(InvalidRequest, match="larger than"):
        registry.read(f"/{PREFIX}/system.reg")
