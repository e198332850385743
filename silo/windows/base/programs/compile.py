"""Compile the programs with mingw-w64, once for each state of their sources.

<target_dir>/<digest>/setx.exe, tzutil.exe, absent.exe
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from silo.host.compiling import compile_once
from silo.host.run import run
from silo.windows.base.environment import DRIVE_C
from silo.windows.base.recipe import ABSENT_PROGRAMS

SOURCES = Path(__file__).parent
_COMPILER = "x86_64-w64-mingw32-gcc"
_PACKAGE = "gcc-mingw-w64-x86-64-win32"
_FLAGS = ("-std=c17", "-Os", "-Wall", "-Wextra", "-Werror", "-municode", "-s", "-Wl,--no-insert-timestamp")
_SYSTEM = "windows/system32"
_PROGRAMS = {
    **{f"{_SYSTEM}/{name}.exe": name for name in ("setx", "tzutil")},
    **{f"{_SYSTEM}/{name}": "absent" for name in ABSENT_PROGRAMS},
}
_IN_FOLDERS = {"powershell.exe": f"{_SYSTEM}/WindowsPowerShell/v1.0"}


def build_programs(target_dir: Path) -> dict[str, Path]:
    """Absolute path in the image → compiled file. Raises ToolMissing (mingw-w64), CommandFailed."""
    built = {source: _build(target_dir, source) for source in set(_PROGRAMS.values())}
    return {f"{DRIVE_C}/{_place(place)}": built[source] for place, source in _PROGRAMS.items()}


def _place(place: str) -> str:
    name = place.rpartition("/")[2]
    return f"{_IN_FOLDERS[name]}/{name}" if name in _IN_FOLDERS else place


def _build(target_dir: Path, name: str) -> Path:
    source = SOURCES / f"{name}.c"
    digest = hashlib.sha256(" ".join(_FLAGS).encode() + source.read_bytes()).hexdigest()[:32]

    def compile_in(work: Path) -> Path:
        output = work / f"{name}.exe"
        run([_COMPILER, *_FLAGS, "-o", output, source.name, "-ladvapi32", "-luser32"], cwd=SOURCES)
        return output

    return compile_once(target_dir / digest / f"{name}.exe", _PACKAGE, compile_in)
