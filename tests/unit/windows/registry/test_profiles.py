"""A user's registry becomes the hive of the profile, as Windows has it, and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace
from regipy.registry import RegistryHive

from silo.errors import InvalidRequest
from silo.windows.hives import DamagedRegistry, Hive, Key, Value, read_hive, read_wine_text, write_hive
from silo.windows.hives.tree import find_key, find_value
from silo.windows.registry import build_user_hive, merge_user_hive, user_hive_path, user_text_path

HEADER = "WINE REGISTRY Version 2\n;; All keys relative to REGISTRY\\\\User\\\\S-1-5-21-0-0-0-1000\n\n#arch=win64\n"
BASE = (
    HEADER
    + '\n[Environment] 1\n"TEMP"="C:\\\\temp"\n\n[Software\\\\Wine\\\\Drivers] 1\n"Graphics"="x11,null"\n\n[Old] 1\n"a"="b"\n'
).encode()
VOLATILE = b'\n[Volatile Environment] 1\n"USERNAME"="ContainerUser"\n\n[Volatile Environment\\\\0] 1\n'
ADDED = b'\n[Software\\\\App] 1\n#time=19db1ded5d71680\n"p"=str(2):"%TEMP%"\n"x"=dword:00000005\n'


def test_places() -> None:
    assert user_hive_path("containeruser") == "Users/ContainerUser/NTUSER.DAT"
    assert user_text_path("ContainerUser") == "/silo/users/ContainerUser/user.reg"
    assert user_text_path("CONTAINERADMINISTRATOR") == "/silo/prefix/user.reg"
    with pytest.raises(InvalidRequest, match=r"no user Guest .*ContainerUser"):
        user_hive_path("Guest")


def test_nothing_of_the_users_changed() -> None:
    assert build_user_hive("ContainerUser", BASE, BASE) is None
    assert build_user_hive("ContainerUser", BASE, BASE + VOLATILE) is None


def test_what_a_step_adds_and_deletes_is_seen_in_the_next() -> None:
    after = (BASE + VOLATILE + ADDED).replace(b'\n[Old] 1\n"a"="b"\n', b"")
    hive = build_user_hive("ContainerUser", BASE, after)
    assert hive is not None
    back = merge_user_hive(BASE, hive)
    assert b"Old" not in back and b"Volatile" not in back and ADDED in back
    assert build_user_hive("ContainerUser", back, after) is None
    # the next step's hive is whole again
    again = build_user_hive("ContainerUser", back, back.replace(b"00000005", b"00000006"))
    assert again is not None
    assert merge_user_hive(BASE, again) == back.replace(b"00000005", b"00000006")


@pytest.mark.parametrize(
    ("user", "sid"), [("ContainerAdministrator", "S-1-5-93-2-1"), ("ContainerUser", "S-1-5-93-2-2")]
)
def test_another_library_reads_the_hive_and_finds_its_owner_in_it(tmp_path: Path, user: str, sid: str) -> None:
    hive = build_user_hive(user, BASE, BASE + ADDED)
    assert hive is not None
    path = tmp_path / "NTUSER.DAT"
    path.write_bytes(hive)
    read = RegistryHive(str(path))
    values = {value.name: value.value for value in read.get_key("\\Software\\App").get_values()}
    assert values == {"p": "%TEMP%", "x": 5}
    for key in (read.root, read.get_key("\\Software\\App")):
        security = key.get_security_key_info()
        assert (security["owner"], security["group"]) == ("S-1-5-32-544", "S-1-5-18")
        assert [entry["sid"] for entry in security["dacl"]] == [sid, "S-1-5-18", "S-1-5-32-544"]


def test_a_hive_of_windows_is_laid_over_what_wine_needs() -> None:
    root = Key(
        "ROOT",
        subkeys=(
            Key("Environment", (Value("TOOLS", 1, "C:\\tools\0".encode("utf-16-le")),)),
            Key("Volatile Environment", (Value("USERNAME", 1, b"x\0\0\0"),)),
        ),
        security=b"\1\0\4\x80",
    )
    merged = merge_user_hive(BASE, write_hive(Hive(root=root)))
    assert merged.startswith(HEADER.encode()) and b"Volatile" not in merged
    tree = read_wine_text(merged).root
    environment, wine = find_key(tree, "Environment"), find_key(tree, "Software\\Wine\\Drivers")
    assert environment is not None and {value.name for value in environment.values} == {"TEMP", "TOOLS"}
    assert wine is not None and find_key(tree, "Old") is not None


def test_a_hive_that_was_not_written_back_is_taken_as_it_stands_and_a_damaged_one_refused() -> None:
    hive = bytearray(write_hive(Hive(root=Key("ROOT", subkeys=(Key("New"),)))))
    hive[4] ^= 3
    hive[508] ^= 3
    assert b"[New]" in merge_user_hive(BASE, bytes(hive))
    with pytest.raises(DamagedRegistry, match="offset 0x1fc"):
        merge_user_hive(BASE, bytes(hive[:508] + b"\0" + hive[509:]))
    assert merge_user_hive(BASE, write_hive(Hive(root=Key("ROOT")))) == BASE


def test_the_hive_is_whole() -> None:
    hive = build_user_hive("ContainerAdministrator", BASE, BASE + ADDED)
    assert hive is not None
    found = read_hive(hive)
    assert not found.layered and found.minor_version == 5 and found.file_name == "NTUSER.DAT"
    key = find_key(found.root, "Environment")
    assert key is not None and find_value(key, "temp") is not None
    assert replace(found.root, security=b"") != found.root
