"""Compile the programs with mingw-w64, once for each state of their sources.

<target_dir>/<digest>/setx.exe
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

from silo.errors import ToolMissing
from silo.host.run import run
from silo.windows.base.environment import DRIVE_C

SOURCES = Path(__file__).parent
_COMPILER = "x86_64-w64-mingw32-gcc"
_PACKAGE = "gcc-mingw-w64-x86-64-win32"
_FLAGS = ("-std=c17", "-Os", "-Wall", "-Wextra", "-Werror", "-municode", "-s", "-Wl,--no-insert-timestamp")
_PROGRAMS = {"setx": "windows/system32/setx.exe"}


def build_programs(target_dir: Path) -> dict[str, Path]:
    """Absolute path in the image → compiled file. Raises ToolMissing (mingw-w64), CommandFailed."""
    files = {}
    for name, place in _PROGRAMS.items():
        source = SOURCES / f"{name}.c"
        digest = hashlib.sha256(" ".join(_FLAGS).encode() + source.read_bytes()).hexdigest()[:32]
        finished = target_dir / digest / f"{name}.exe"
        if not finished.exists():
            finished.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=finished.parent, prefix=".building-") as work:
                output = Path(work) / finished.name
                try:
                    run([_COMPILER, *_FLAGS, "-o", output, source.name, "-ladvapi32"], cwd=SOURCES)
                except ToolMissing as error:
                    raise ToolMissing(error.tool, _PACKAGE) from error
                output.replace(finished)
        files[f"{DRIVE_C}/{place}"] = finished
    return files
