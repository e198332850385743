"""Many containers prepared at once, the first ones of a daemon: one filter is compiled, and everybody gets it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from silo.isolation import seccomp
from silo.isolation.seccomp import SeccompSource
from silo.model.container import Namespaces
from silo.model.platform import PersonalityName
from silo.model.runtime import ContainerPlan, ProcessPlan, Rootfs


def test_threads_share_one_compilation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[int] = []

    def compile_slowly(_rules: object) -> bytes:
        compiled.append(1)
        threading.Event().wait(0.05)
        return b"program"

    monkeypatch.setattr(seccomp, "compile_filter", compile_slowly)
    source = SeccompSource(tmp_path / "seccomp", use_annotation=True)
    plan = ContainerPlan(
        id="a" * 64,
        personality=PersonalityName.LINUX,
        image_id="i",
        rootfs=Rootfs(layers=(), scratch=tmp_path),
        process=ProcessPlan(args=("true",)),
        directory=tmp_path,
        hostname="h",
        namespaces=Namespaces(),
    )
    answers: list[str] = []
    threads = [threading.Thread(target=lambda: answers.append(source.select(plan)["seccomp_filter"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 8 and len(set(answers)) == 1
    assert len(compiled) == 1
