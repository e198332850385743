"""Bare Wine as a peer: the same Debian Wine as the base image's, in a plain chroot, with a stock prefix of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from bench.peers import quiet
from bench.silo_subject import SiloDaemon
from silo.windows.base.environment import UNIX_ENVIRONMENT, WINE, WINESERVER

# msvcrt looks for the time zone as it is loaded: that is most of what this program makes Wine do.
HELLO_C = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'
SMALL_C = """#include <windows.h>
void start(void)
{
    DWORD count;

    WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), "hello\\r\\n", 7, &count, NULL);
    ExitProcess(0);
}
"""
POOL_REFILL_S = 2.5


def build_programs(scratch: Path) -> Path:
    """A folder of small Windows programs: hello.exe as C compilers make it, small.exe with nothing but kernel32."""
    folder = scratch / "programs"
    folder.mkdir()
    folder.chmod(0o755)
    compiler = ["x86_64-w64-mingw32-gcc", "-O2", "-s"]
    for name, source, options in (
        ("hello", HELLO_C, ()),
        ("small", SMALL_C, ("-nostdlib", "-Wl,-e,start", "-lkernel32")),
    ):
        file = folder / f"{name}.c"
        file.write_text(source)
        quiet([*compiler, "-o", folder / f"{name}.exe", file, *options])
    return folder


class BareWine:
    """`wine` without Silo: the base image's Linux files, but a prefix as `wineboot` makes it, nothing pruned."""

    def __init__(self, scratch: Path, daemon: SiloDaemon) -> None:
        self._daemon = daemon
        self._root = scratch / "bare-wine"
        layers = daemon.socket.parent.parent / "silod-0" / "layers"
        self._layer = next(layer for layer in layers.iterdir() if (layer / WINE.lstrip("/")).exists())

    def __enter__(self) -> BareWine:
        for name in ("upper", "work", "merged"):
            (self._root / name).mkdir(parents=True)
        options = f"lowerdir={self._layer},upperdir={self._root}/upper,workdir={self._root}/work"
        quiet(["mount", "-t", "overlay", "overlay", "-o", options, self._merged])
        for kind, place in (("proc", "proc"), ("tmpfs", "tmp")):
            (self._merged / place).mkdir(exist_ok=True)
            quiet(["mount", "-t", kind, kind, self._merged / place])
        (self._merged / "dev").mkdir(exist_ok=True)
        quiet(["mount", "--rbind", "/dev", self._merged / "dev"])
        self._wine("/stock", "wineboot", "-i")
        self._stop("/stock", wait=True)
        return self

    def __exit__(self, *_exc: object) -> None:
        for prefix in ("/stock", "/fresh"):
            self._stop(prefix)
        for place in ("dev", "tmp", "proc", ""):
            subprocess.run(["umount", "-l", str(self._merged / place)], check=False)

    @property
    def _merged(self) -> Path:
        return self._root / "merged"

    def _environment(self, prefix: str) -> dict[str, str]:
        return UNIX_ENVIRONMENT | {"WINEPREFIX": prefix, "WINEDLLOVERRIDES": "mscoree,mshtml=d", "HOME": "/tmp"}

    def _wine(self, prefix: str, *words: str) -> None:
        # No pipes: Wine's services inherit them, and reading to their end would be waiting for the services.
        argv = ["/usr/sbin/chroot", str(self._merged), WINE, *words]
        null = subprocess.DEVNULL
        subprocess.run(argv, env=self._environment(prefix), stdin=null, stdout=null, stderr=null, check=True)

    def _stop(self, prefix: str, *, wait: bool = False) -> None:
        argv = ["/usr/sbin/chroot", str(self._merged), WINESERVER, "-w" if wait else "-k"]
        subprocess.run(argv, env=self._environment(prefix), capture_output=True, check=False)
        if not wait:
            subprocess.run([*argv[:3], "-w"], env=self._environment(prefix), capture_output=True, check=False)

    def run_stock(self) -> None:
        self._wine("/stock", r"C:\windows\system32\cmd.exe", "/c", "exit")

    def stop_stock(self) -> None:
        self._stop("/stock")

    def run_fresh(self) -> None:
        self._wine("/fresh", "cmd", "/c", "exit")

    def stop_fresh(self) -> None:
        self._stop("/fresh")
        shutil.rmtree(self._merged / "fresh", ignore_errors=True)

    def settle(self) -> None:
        """Time for the pool to fill up again."""
        time.sleep(POOL_REFILL_S)

    def crun_exec(self, container: str, program: str) -> None:
        """What `exec` would be without the launcher: a new Linux process that becomes Wine."""
        words = [f"--env={name}={value}" for name, value in UNIX_ENVIRONMENT.items()]
        root = self._daemon.socket.parent / "crun"
        with contextlib.suppress(KeyError):
            del os.environ["WINEPREFIX"]
        quiet(["crun", f"--root={root}", "exec", *words, "--cwd=/silo/prefix/drive_c", container, WINE, program])
