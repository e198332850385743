"""Which plans a silo made ahead can serve, and what is made for them."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from silo.host.namespaces import start_time
from silo.isolation.process.record import Paths
from silo.isolation.process.warm import WarmSilos, move_scratch
from silo.isolation.warm_recipe import build_warm_plan, computer_name, find_recipe
from silo.model.container import Namespaces, Resources, Ulimit
from silo.model.mount import MountKind, PlannedMount
from silo.model.platform import PersonalityName
from silo.model.runtime import LaunchPlan, ProcessPlan
from tests.unit.isolation.test_spec import plan


def windows(name: str = "BOX", **fields: Any) -> Any:
    words: dict[str, Any] = {
        "personality": PersonalityName.WINDOWS,
        "launch": LaunchPlan(command_line="cmd", directory="C:\\"),
        "process": ProcessPlan(args=("/silo/start",), env=("A=B", f"SILO_COMPUTER_NAME={name}")),
    }
    return plan(**{**words, **fields})


def test_names_limits_and_binds_do_not_matter() -> None:
    other = windows(
        "OTHER",
        hostname="other",
        resources=Resources(memory_bytes=5, pids_limit=7),
        mounts=(PlannedMount(target="/x", source=Path("/y"), kind=MountKind.BIND),),
        open_stdin=True,
    )
    assert find_recipe(windows()) == find_recipe(other) is not None


@pytest.mark.parametrize(
    "fields",
    [
        {"personality": PersonalityName.LINUX, "launch": None},
        {"process": ProcessPlan(args=("/silo/start",), tty=True)},
        {"namespaces": Namespaces(user="host")},
        {"network": "host"},
        {"privileged": True},
        {"seccomp": "unconfined"},
        {"sysctls": {"a": "b"}},
        {"resources": Resources(ulimits=(Ulimit(name="core", soft=0, hard=0),))},
        {"mounts": (PlannedMount(target="/x", kind=MountKind.TMPFS),)},
    ],
)
def test_what_cannot_be_changed_later_is_made_cold(fields: dict[str, Any]) -> None:
    assert find_recipe(windows(**fields)) is None


def test_another_image_or_user_is_another_recipe() -> None:
    rootfs = msgspec.structs.replace(windows().rootfs, layers=(Path("/layers/b"),))
    assert find_recipe(windows(rootfs=rootfs)) != find_recipe(windows())
    process = msgspec.structs.replace(windows().process, user="1000:1000")
    assert find_recipe(windows(process=process)) != find_recipe(windows())


def test_a_silo_made_from_a_recipe_has_that_recipe() -> None:
    recipe = find_recipe(windows())
    assert recipe is not None
    made = build_warm_plan(recipe, "a" * 64, Path("/data/warm/a"))
    assert find_recipe(made) == recipe
    assert computer_name(made) == made.hostname and len(made.hostname) <= 15
    assert computer_name(windows("NAME")) == "NAME" and computer_name(plan(hostname="posix")) == "POSIX"


def test_an_image_that_was_removed_and_came_back_is_another(tmp_path: Path) -> None:
    """A silo that was begun on the old one has deleted directories beneath it."""
    layer = tmp_path / "layer"
    layer.mkdir()

    async def scenario() -> None:
        recipe = find_recipe(windows())
        assert recipe is not None
        recipe = msgspec.structs.replace(recipe, layers=(layer,))
        dropped: list[str] = []

        async def begin(made: Any) -> Any:
            pid = os.getpid()
            return SimpleNamespace(id=made.id, record=SimpleNamespace(plan=made, pid=pid, pid_started=start_time(pid)))

        async def discard(container_id: str) -> None:
            dropped.append(container_id)

        silos = WarmSilos(1, Paths(tmp_path), tmp_path / "data", begin, discard)
        silos._recipe = recipe
        silos._ready.append(await silos._make(recipe))
        scratch = tmp_path / "scratch"
        (scratch / "upper").mkdir(parents=True)
        wanted = windows(rootfs=msgspec.structs.replace(windows().rootfs, layers=(layer,), scratch=scratch))
        (first,) = silos._ready
        layer.rename(tmp_path / "rubbish")
        layer.mkdir()
        assert silos.take(wanted) is None
        await silos._discard_unlike()
        assert dropped == [first.id] and silos._ready == []
        silos._ready.append(await silos._make(recipe))
        assert silos.take(wanted) is not None and silos._layers == {}
        await silos.close()

    asyncio.run(scenario())


def test_a_scratch_moves_whole(tmp_path: Path) -> None:
    for name in ("warm/upper", "warm/work/work", "own/upper", "own/work"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "warm/upper/file").write_text("x")
    (tmp_path / "warm/log").write_text("")
    move_scratch(tmp_path / "warm", tmp_path / "own")
    assert (tmp_path / "own/upper/file").exists() and (tmp_path / "own/work/work").exists()
    assert not (tmp_path / "warm").exists()
