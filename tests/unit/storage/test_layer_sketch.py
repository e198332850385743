from __future__ import annotations

import io
import os
import stat
import tarfile
from io import BufferedReader
from pathlib import Path

import pytest

from silo.errors import InvalidRequest
from silo.storage.layer_sketch import sketch_layer

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts are devices: needs root")


def archive(*entries: tuple[tarfile.TarInfo, bytes]) -> BufferedReader:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for info, data in entries:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return BufferedReader(io.BytesIO(target.getvalue()))  # type: ignore[arg-type]


def entry(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, **fields: object
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type = kind
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def test_files_have_names_and_no_contents(tmp_path: Path) -> None:
    sketch_layer(tmp_path, archive(entry("etc/a", b"secret"), entry("link", kind=tarfile.SYMTYPE, linkname="/etc/a")))
    assert (tmp_path / "etc/a").read_bytes() == b""
    assert (tmp_path / "link").readlink() == Path("/etc/a")


def test_the_registry_is_kept(tmp_path: Path) -> None:
    sketch_layer(tmp_path, archive(entry("silo/prefix/system.reg", b"WINE REGISTRY")))
    assert (tmp_path / "silo/prefix/system.reg").read_bytes() == b"WINE REGISTRY"


@needs_root
def test_whiteouts_and_directories(tmp_path: Path) -> None:
    directory = entry("made", kind=tarfile.DIRTYPE, mode=0o2750, mtime=1000)
    sketch_layer(tmp_path, archive(directory, entry("made/.wh..wh..opq"), entry(".wh.gone")))
    status = (tmp_path / "gone").lstat()
    assert stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
    assert os.getxattr(tmp_path / "made", "trusted.overlay.opaque") == b"y"
    assert (tmp_path / "made").stat().st_mode & 0o7777 == 0o2750


def test_nothing_lies_outside(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    sketch_layer(inside, archive(entry("../out/a"), entry("/b")))
    assert list(outside.iterdir()) == [] and (inside / "b").exists()
    hostile = archive(entry("way", kind=tarfile.SYMTYPE, linkname=str(outside)), entry("way/c"))
    with pytest.raises((InvalidRequest, OSError)):
        sketch_layer(inside, hostile)
    assert list(outside.iterdir()) == []


def test_no_archive(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="damaged"):
        sketch_layer(tmp_path, BufferedReader(io.BytesIO(b"x" * 1024)))  # type: ignore[arg-type]
