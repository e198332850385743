"""Build the launcher from its C sources with mingw-w64.

    <target_dir>/<digest>/launcher.exe      digest: of sources and compiler arguments

The program uses no C run-time library (msvcrt.dll alone would cost a millisecond and half a megabyte), only kernel32 and
Wine's ntdll. The same sources and the same compiler give the same bytes: no time stamps, no paths.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from silo.host.compiling import FREESTANDING, compile_once
from silo.host.run import run

SOURCES = Path(__file__).parent
COMPILER = "x86_64-w64-mingw32-gcc"
IMPORT_TOOL = "x86_64-w64-mingw32-dlltool"
PACKAGE = "gcc-mingw-w64-x86-64-win32"

_FLAGS = (*FREESTANDING, "-Wl,--no-insert-timestamp", "-Wl,-e,start", "-Wl,--subsystem,console")


def source_files() -> tuple[Path, ...]:
    """Everything that the launcher is made of."""
    return tuple(sorted(path for path in SOURCES.iterdir() if path.suffix in (".c", ".h", ".def")))


def source_digest() -> str:
    digest = hashlib.sha256(" ".join(_FLAGS).encode())
    for path in source_files():
        content = path.read_bytes()
        digest.update(f"\n{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:32]


def compiler_arguments(library: Path, output: Path) -> tuple[str, ...]:
    """The command that makes the program from file names relative to SOURCES, given the import library of ntdll.def."""
    names = [path.name for path in source_files() if path.suffix == ".c"]
    return (COMPILER, *_FLAGS, "-o", str(output), *names, str(library), "-lntdll", "-lkernel32", "-lgcc")


def build_launcher(target_dir: Path) -> Path:
    """Make launcher.exe below `target_dir`, or find the one made before from the same sources.

    Blocks for about a second. Raises ToolMissing (mingw-w64), CommandFailed.
    """

    def compile_in(work: Path) -> Path:
        library, output = work / "libntdll-more.a", work / "launcher.exe"
        # It writes temporary files to where it runs (the sources may be read-only), and leaves some in TMPDIR.
        run((IMPORT_TOOL, "-d", SOURCES / "ntdll.def", "-l", library), cwd=work, env={"TMPDIR": str(work)})
        run(compiler_arguments(library, output), cwd=SOURCES)
        return output

    return compile_once(target_dir / source_digest() / "launcher.exe", PACKAGE, compile_in)


def launcher_files(target_dir: Path) -> dict[str, Path]:
    """What the base image needs of the launcher: absolute path in the image → file of the host."""
    # The launcher does not depend on the base; only this table of places is the base's.
    from silo.windows.base.build import PLACES

    return {PLACES["launcher.exe"]: build_launcher(target_dir), PLACES["start"]: SOURCES / "start.sh"}
