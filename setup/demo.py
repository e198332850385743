"""The demonstration: fetch real Windows programs, run each in containers of its own, print what they said and how fast.

Cold is `silo run --rm`, a container made for this one command; warm is `silo exec` into a running one. Times are of whole
commands, the client included.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SILO = ROOT / "bin" / "silo"
CACHE = Path(os.environ.get("SILO_CACHE", ROOT / ".cache"))
KEEPER = f"silo-demo-{os.getpid()}"
COMMAND_LIMIT_S = 300
PROGRAMS_FOLDER = "C:\\programs"
NODE_SCRIPT = "console.log(process.platform, process.version, os.hostname() === process.env.COMPUTERNAME.toLowerCase())"
PYTHON_SCRIPT = (
    "import sys, platform, sqlite3; print(sys.version.split()[0], platform.system(), sqlite3.sqlite_version)"
)
KERNEL_SCRIPT = (
    "import ctypes; name, release = ctypes.c_char_p(), ctypes.c_char_p(); "
    "ctypes.CDLL('ntdll').wine_get_host_version(ctypes.byref(name), ctypes.byref(release)); "
    "print(name.value.decode(), release.value.decode())"
)
LEVELS = ("process", "hyperv")


@dataclass(frozen=True)
class Case:
    """One row: what to run, the exit code that is right, and a word that the output must hold."""

    title: str
    command: tuple[str, ...]
    expected: int
    word: str


@dataclass(frozen=True)
class Row:
    """A line of the table, and what is wrong about it ("" when nothing is)."""

    cells: tuple[str, ...]
    problem: str


CASES = (
    Case("cmd.exe (Wine's)", ("cmd", "/c", "ver"), 0, "Windows"),
    Case("ruff 0.17", (rf"{PROGRAMS_FOLDER}\ruff.exe", "--version"), 0, "ruff"),
    Case("ninja 1.13", (rf"{PROGRAMS_FOLDER}\ninja.exe", "--version"), 0, "1.13"),
    Case("node 24", (rf"{PROGRAMS_FOLDER}\node.exe", "-e", NODE_SCRIPT), 0, "win32"),
    Case("CPython 3.13", (rf"{PROGRAMS_FOLDER}\python\python.exe", "-c", PYTHON_SCRIPT), 0, "Windows"),
    Case("a full exit code", ("cmd", "/c", "exit 300"), 300, ""),
)


def main() -> int:
    """Run all cases; 0 when each printed and answered what it should."""
    began = time.monotonic()
    if not shutil.which("crun"):
        sys.exit("demo: crun is missing: run ./demo, not this file")
    _silo("version", "--format", "{{.Server.Version}}")
    if (
        _silo("image", "inspect", "windows", check=False).returncode != 0
        and subprocess.run([SILO, "base", "build", "windows"], stdout=subprocess.DEVNULL).returncode != 0
    ):
        sys.exit("demo: the Windows base image could not be built; the reason is above")
    programs = _with_bar("Windows programs", _fetch)
    print(f"images and programs: {time.monotonic() - began:.0f} s", file=sys.stderr)
    # The container that takes the warm runs waits at cmd's prompt until it is removed.
    _silo("run", "-d", "-i", "--name", KEEPER, "-v", f"{programs}:{PROGRAMS_FOLDER}:ro", "windows", "cmd")
    try:
        rows = []
        for number, case in enumerate(CASES):
            _draw(f"running {case.title}", number / len(CASES))
            rows.append(_row(case, programs))
    finally:
        _erase()
        _silo("rm", "-f", KEEPER, check=False)
    _print_table([row.cells for row in rows], ("PROGRAM", "PRINTED", "EXIT CODE", "COLD", "WARM"))
    print()
    levels = _show_levels(programs)
    wrong = [row for row in (*rows, *levels) if row.problem]
    for row in wrong:
        print(f"demo: {row.cells[0]} did not answer as it should: {row.problem}", file=sys.stderr)
    return 1 if wrong else 0


def _silo(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            [str(SILO), *words], capture_output=True, text=True, errors="replace", timeout=COMMAND_LIMIT_S
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"demo: silo {' '.join(words)} did not end within {COMMAND_LIMIT_S} s")
    if check and done.returncode != 0:
        sys.exit(f"demo: silo {words[0]} failed: {done.stderr.strip()}")
    return done


def _exit_code(container: str) -> int:
    """The full 32-bit code: a shell's $? has only eight of them."""
    return int(_silo("inspect", "--format", "{{.State.ExitCode}}", container).stdout)


def _row(case: Case, programs: Path) -> Row:
    name = f"{KEEPER}-cold"
    began = time.perf_counter()
    done = _silo("run", "--name", name, "-v", f"{programs}:{PROGRAMS_FOLDER}:ro", "windows", *case.command, check=False)
    cold_s = time.perf_counter() - began
    try:
        code = _exit_code(name)
    finally:
        _silo("rm", "-f", name, check=False)
    began = time.perf_counter()
    warm = _silo("exec", KEEPER, *case.command, check=False)
    warm_s = time.perf_counter() - began
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    said = lines[0].strip() if lines else "(nothing)"
    problem = ""
    if code != case.expected:
        problem = f"exit code {code} instead of {case.expected}; {(done.stderr or done.stdout).strip()}"
    elif case.word not in done.stdout:
        problem = f"no {case.word!r} in {done.stdout!r}; {done.stderr.strip()}"
    elif warm.stdout != done.stdout:
        problem = f"exec said {warm.stdout!r} instead of {done.stdout!r}; {warm.stderr.strip()}"
    return Row((case.title, said, str(code), f"{cold_s * 1000:.0f} ms", f"{warm_s * 1000:.0f} ms"), problem)


def _show_levels(programs: Path) -> list[Row]:
    """One Windows program, as a container of this kernel and in a virtual machine: each says which kernel is below it."""
    if not _vm_is_built() and subprocess.run([SILO, "base", "build", "vm"], stdout=subprocess.DEVNULL).returncode != 0:
        sys.exit("demo: the utility VM could not be built; the reason is above")
    rows = []
    for level in LEVELS:
        _draw(f"CPython with --isolation {level}", LEVELS.index(level) / len(LEVELS))
        rows.append(_level_row(level, programs))
    _erase()
    _print_table([row.cells for row in rows], ("ISOLATION", "KERNEL THAT CPYTHON SAW", "FIRST RUN", "SECOND RUN"))
    if not any(row.problem for row in rows) and rows[0].cells[1] == rows[1].cells[1]:
        return [*rows, Row(("hyperv",), f"both levels show the kernel {rows[0].cells[1]}")]
    return rows


def _vm_is_built() -> bool:
    return "vm:default" in _silo("base", "ls", "--format", "{{.Repository}}:{{.Tag}}").stdout


def _level_row(level: str, programs: Path) -> Row:
    command = (rf"{PROGRAMS_FOLDER}\python\python.exe", "-c", KERNEL_SCRIPT)
    words = ("run", "--rm", "--isolation", level, "-v", f"{programs}:{PROGRAMS_FOLDER}:ro", "windows", *command)
    times = []
    for _ in range(2):
        began = time.perf_counter()
        done = _silo(*words, check=False)
        times.append(f"{(time.perf_counter() - began) * 1000:.0f} ms")
    said = done.stdout.strip()
    problem = "" if done.returncode == 0 and said.startswith("Linux") else f"{said!r}; {done.stderr.strip()}"
    return Row((level, said or "(nothing)", *times), problem)


def _print_table(rows: list[tuple[str, ...]], titles: tuple[str, ...]) -> None:
    table = [titles, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(titles))]
    for row in table:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _draw(text: str, fraction: float) -> None:
    if sys.stderr.isatty():
        filled = int(fraction * 30)
        print(f"\r\033[K{text} [{'#' * filled:<30}] {fraction:4.0%}", end="", file=sys.stderr, flush=True)


def _erase() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def _fetch() -> Path:
    sys.path.insert(0, str(ROOT / "setup"))
    from programs import fetch

    return fetch(CACHE / "programs")


def _with_bar(title: str, work: Callable[[], Path]) -> Path:
    """Run `work` in a thread; on a terminal show that it goes on when it takes more than a second."""
    results: list[Path] = []
    failures: list[BaseException] = []

    def target() -> None:
        try:
            results.append(work())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    began = time.monotonic()
    thread.join(1)
    if thread.is_alive() and not sys.stderr.isatty():
        print(f"{title}: fetching", file=sys.stderr)
    while thread.is_alive():
        past = time.monotonic() - began
        position = int(past * 5) % 29
        if sys.stderr.isatty():
            print(
                f"\r{title} [{' ' * position}##{' ' * (28 - position)}] {past:.0f} s",
                end="",
                file=sys.stderr,
                flush=True,
            )
        thread.join(0.2)
    _erase()
    if failures:
        raise failures[0]
    return results[0]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
