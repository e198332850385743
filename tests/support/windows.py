"""A daemon with the Windows base image, PE programs compiled from tests/programs, and real Windows programs from the registries.

The base is built in the test's own network (the daemon under test has none to the outside) into the cache that ./check fills;
then the daemon finds it there by a look-up.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from silo.wiring import WineBase
from tests.support.daemon import Docker, Silod, docker_for, running_silod
from tests.support.probes import require_program

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests" / "programs"
LIBRARIES = ("-lws2_32", "-luser32", "-ladvapi32", "-lntdll")


def cache_root() -> Path:
    return Path(os.environ.get("SILO_CACHE_ROOT") or ROOT / ".cache" / "silo")


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(words)} failed with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        )


def load_windows(daemon: Silod) -> None:
    """The image `windows` in the store of a daemon whose setting cache_root is ours."""
    WineBase(cache_root()).build(lambda step, fraction: None, refresh=False)
    _run(str(ROOT / "bin" / "silo"), "-H", f"unix://{daemon.socket}", "base", "build", "--quiet", "windows")


@contextmanager
def windows_docker(*, prefix: tuple[str, ...] = (), **settings: str) -> Iterator[Docker]:
    """A client of a fresh daemon that has the image windows; all its containers are gone afterwards."""
    with running_silod(prefix=prefix, **({"cache_root": str(cache_root())} | settings)) as daemon:
        load_windows(daemon)
        client = docker_for(daemon)
        yield client
        if left := client("ps", "-aq").split():
            client("rm", "-f", "-v", *left)


def compile_program(name: str, folder: Path, *more: str, machine: str = "x86_64") -> Path:
    """tests/programs/NAME.c and more sources → FOLDER/NAME.exe."""
    package = "gcc-mingw-w64-" + {"x86_64": "x86-64", "i686": "i686"}[machine] + "-win32"
    compiler = require_program(f"{machine}-w64-mingw32-gcc", package)
    target = folder / f"{name}.exe"
    sources = [str(PROGRAMS / f"{source}.c") for source in (name, *more)]
    command = [compiler, "-O1", "-s", "-Wall", "-Werror", "-municode", "-o", str(target), *sources, *LIBRARIES]
    subprocess.run(command, check=True)
    return target


def real_programs() -> Path:
    """ruff.exe, ninja.exe, node.exe and python/ (setup/programs.py), fetched once."""
    folder = Path(os.environ.get("SILO_CACHE") or ROOT / ".cache") / "programs"
    _run(sys.executable, str(ROOT / "setup" / "programs.py"), str(folder))
    return folder
