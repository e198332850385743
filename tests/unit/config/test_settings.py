"""Settings: precedence, and every error at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from silo.config.settings import ROWS, describe, load_settings
from silo.errors import InvalidRequest


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "silo.toml"
    file.write_text('linux_pool = 1\nwindows_pool = 3\ninsecure_registries = ["a:5000", "b"]\n')
    environment = {"SILO_CONFIG": str(file), "SILO_WINDOWS_POOL": "4", "SILO_BRIDGE": "br7"}
    settings, rest = load_settings(["--bridge", "br8", "--ready-fd=5"], environment)
    assert (settings.linux_pool, settings.windows_pool, settings.bridge) == (1, 4, "br8")
    assert settings.insecure_registries == ("a:5000", "b")
    assert settings.data_root == Path("/var/lib/silo")
    assert settings.cache_root == Path("/var/lib/silo/cache")
    assert rest == {"ready-fd": "5"}


def test_all_errors_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "silo.toml"
    file.write_text("nonsense = 1\n")
    with pytest.raises(InvalidRequest) as caught:
        load_settings(["--linux-pool=many", "--what"], {"SILO_CONFIG": str(file), "SILO_SUBNET": "x"})
    for word in ("nonsense", "many", "--what", "SILO_SUBNET"):
        assert word in str(caught.value)


def test_a_named_file_must_exist() -> None:
    with pytest.raises(InvalidRequest, match="no such file"):
        load_settings(["--config", "/nowhere/silo.toml"], {})


@pytest.mark.parametrize(("word", "level"), [("process", "process"), ("hyperv", "hyperv"), ("vm", "hyperv")])
def test_words_for_the_default_isolation(word: str, level: str) -> None:
    assert load_settings(["--default-isolation", word], {})[0].default_isolation == level


def test_an_unknown_isolation() -> None:
    with pytest.raises(InvalidRequest, match="one of process, hyperv, vm"):
        load_settings(["--default-isolation", "moon"], {})


def test_what_virtual_machines_get_unless_told_otherwise() -> None:
    settings, _ = load_settings([], {})
    assert (settings.vm_image, settings.vm_pool, settings.vm_acceleration) == ("default", 1, "auto")
    assert (settings.vm_memory, settings.vm_default_memory, settings.vm_scratch_bytes) == (1 << 30, 512 << 20, 20 << 30)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--vm-image=Two words", "a name of a-z"),
        ("--vm-pool=65", "from 0 to 64"),
        ("--vm-memory=much", "a size such as"),
        ("--vm-default-memory=1m", "at least 128m"),
        ("--vm-scratch-bytes=1k", "at least 64m"),
        ("--vm-acceleration=hvf", "auto, kvm, tcg"),
    ],
)
def test_settings_of_virtual_machines_are_checked(flag: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        load_settings([flag], {})


def test_every_setting_is_described() -> None:
    assert all(f"{row.flag} " in describe() and row.variable in describe() for row in ROWS)
