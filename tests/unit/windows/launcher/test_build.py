"""The launcher's build: the same bytes every time, and nothing in the program that Wine would have to load beside it."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from silo.errors import ToolMissing
from silo.host.run import CompletedCommand
from silo.windows.launcher import build
from tests.support.probes import require_program


def test_the_command() -> None:
    words = build.compiler_arguments(Path("/work/libmore.a"), Path("/work/launcher.exe"))
    assert words[0] == "x86_64-w64-mingw32-gcc"
    assert {"-nostdlib", "-Werror", "-Wl,--no-insert-timestamp", "main.c", "linux.c"} <= set(words)
    assert words[-4:] == ("/work/libmore.a", "-lntdll", "-lkernel32", "-lgcc")


def test_the_digest_covers_every_source() -> None:
    names = {path.name for path in build.source_files()}
    assert names == {
        path.name for path in build.SOURCES.iterdir() if path.is_file() and path.suffix not in (".py", ".sh")
    }
    assert re.fullmatch("[0-9a-f]{32}", build.source_digest())


def test_a_missing_compiler_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(argv: tuple[str, ...], **options: object) -> CompletedCommand:
        raise ToolMissing(argv[0])

    monkeypatch.setattr(build, "run", missing)
    with pytest.raises(ToolMissing, match="mingw") as caught:
        build.build_launcher(tmp_path)
    assert build.PACKAGE in caught.value.hint


def test_two_builds_give_the_same_program(tmp_path: Path) -> None:
    require_program(build.COMPILER, build.PACKAGE)
    first = build.build_launcher(tmp_path / "one")
    second = build.build_launcher(tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()
    before = first.stat().st_mtime_ns
    assert build.build_launcher(tmp_path / "one") == first
    assert first.stat().st_mtime_ns == before


def test_the_program_is_small_and_needs_only_two_libraries(tmp_path: Path) -> None:
    require_program(build.COMPILER, build.PACKAGE)
    program = build.build_launcher(tmp_path).read_bytes()
    (offset,) = struct.unpack_from("<I", program, 60)
    machine, _, timestamp = struct.unpack_from("<HHI", program, offset + 4)
    assert (machine, timestamp) == (0x8664, 0)
    assert len(program) < 65536
    libraries = {name.lower() for name in re.findall(rb"[A-Za-z0-9_-]+\.dll\0", program)}
    assert libraries == {b"kernel32.dll\0", b"ntdll.dll\0"}
    assert str(build.SOURCES).encode() not in program


def test_the_files_for_the_base(tmp_path: Path) -> None:
    require_program(build.COMPILER, build.PACKAGE)
    files = build.launcher_files(tmp_path)
    assert set(files) == {"/silo/start", "/silo/prefix/drive_c/windows/system32/silo-launcher.exe"}
    assert files["/silo/start"].read_text().startswith("#!/bin/sh\n")
