"""Settings: precedence, and every error at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from silo.config.settings import load_settings
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
