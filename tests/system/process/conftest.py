"""System tests of the process level: the contract's Linux subject, and a shell in place of its program."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from silo.isolation.process.runtime import ProcessRuntime
from silo.model.runtime import ContainerPlan
from tests.contract.conftest import (  # noqa: F401 - fixtures and hook
    linux_layer,
    make_windows_subject,
    places,
    pytest_pyfunc_call,
    windows_layers,
)
from tests.contract.subjects import LinuxSubject, WindowsSubject

Shell = Callable[..., ContainerPlan]


@pytest.fixture
def subject(places: Path, linux_layer: Path) -> LinuxSubject:  # noqa: F811
    layer = linux_layer
    for name in "cat dd echo env grep id ls mkdir mknod mount sleep stat touch unshare wc".split():
        if not (layer / "bin" / name).is_symlink():
            (layer / "bin" / name).symlink_to("busybox")

    def make() -> ProcessRuntime:
        return ProcessRuntime(run_root=places / "run", data_root=places / "data", linux_pool=1, windows_pool=0)

    return LinuxSubject(make, places / "data", (layer,))


@pytest.fixture
def shell(subject: LinuxSubject) -> Shell:
    """A plan that runs a shell script; `process` fields by keyword, others of the plan as well."""

    def make(script: str, *, process: dict[str, Any] | None = None, **fields: Any) -> ContainerPlan:
        plan = subject.plan("say", **fields)
        words = {"args": ("/bin/sh", "-c", script), **(process or {})}
        return msgspec.structs.replace(plan, process=msgspec.structs.replace(plan.process, **words))

    return make


@pytest.fixture
def cold_subject(places: Path, windows_layers: tuple[Path, ...]) -> WindowsSubject:  # noqa: F811
    def make() -> ProcessRuntime:
        return ProcessRuntime(run_root=places / "run", data_root=places / "data", linux_pool=0, windows_pool=0)

    return make_windows_subject(make, places / "data", windows_layers)


@pytest.fixture
def warm_subject(places: Path, windows_layers: tuple[Path, ...]) -> WindowsSubject:  # noqa: F811
    def make() -> ProcessRuntime:
        return ProcessRuntime(run_root=places / "run", data_root=places / "data", linux_pool=0, windows_pool=1)

    return make_windows_subject(make, places / "data", windows_layers)
