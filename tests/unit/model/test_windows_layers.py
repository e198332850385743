"""What tells a layer of Windows' format from others."""

from __future__ import annotations

import pytest

from silo.model.windows_layers import is_windows_layer


@pytest.mark.parametrize("name", ["Files", "files/", "./Hives", "HIVES/Software_Delta", "UtilityVM/", "Files/a"])
def test_windows_layers_begin_with_their_areas(name: str) -> None:
    assert is_windows_layer(name)


@pytest.mark.parametrize("name", ["", "etc/", "filesystem", "a/Files", ".wh.Files"])
def test_others_do_not(name: str) -> None:
    assert not is_windows_layer(name)
