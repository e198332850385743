"""Which machine a plan asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from silo.isolation.vm.choosing import Chooser, VmSettings
from silo.model.platform import PersonalityName
from silo.model.runtime import LaunchPlan, ProcessPlan
from silo.model.vm_image import SCRATCH_DISK
from tests.unit.isolation.test_spec import plan


@pytest.mark.parametrize("personality", PersonalityName)
def test_what_is_started_once_is_not_begun_ahead(tmp_path: Path, personality: PersonalityName) -> None:
    chooser = Chooser(cast(Any, None), cast(Any, None), cast(Any, None), VmSettings())
    words: dict[str, Any] = {"personality": personality, "directory": tmp_path}
    if personality is PersonalityName.WINDOWS:
        words |= {
            "launch": LaunchPlan(command_line="cmd", directory="C:\\"),
            "process": ProcessPlan(args=("/silo/start",)),
        }
    assert chooser.recipe(plan(**words)).begun
    assert not chooser.recipe(plan(**words, once=True)).begun
    (tmp_path / SCRATCH_DISK).touch()
    assert not chooser.recipe(plan(**words)).begun
