"""Small images for everybody's tests, built here from nothing but the host's static busybox; equal input, equal bytes.

    busybox_image_tar(tmp_path / "busybox.tar")            # what `docker save busybox:latest` would write
    image_archive(path, [SmallImage(tags=("a:1",), layers=(layer_tar([File("x", b"1")]),))])

Independent of silo.images on purpose: a second writer that its reader is checked against.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

EPOCH = "2024-01-01T00:00:00Z"
EPOCH_S = 1704067200
BUSYBOX = Path("/bin/busybox")
OWN_UID, OWN_GID = os.geteuid(), os.getegid()
"""Who may own what an unprivileged test unpacks; root's, of course, when root runs it."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One member of a layer tar; `kind` is a tar type flag."""

    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644
    uid: int = OWN_UID
    gid: int = OWN_GID
    link: str = ""
    device: tuple[int, int] = (0, 0)
    mtime: float = EPOCH_S
    pax: dict[str, str] = field(default_factory=dict)


def file(name: str, data: bytes | str = b"", *, mode: int = 0o644, uid: int = OWN_UID, gid: int = OWN_GID) -> Entry:
    raw = data.encode() if isinstance(data, str) else data
    return Entry(name=name, data=raw, mode=mode, uid=uid, gid=gid)


def directory(name: str, *, mode: int = 0o755, uid: int = OWN_UID, gid: int = OWN_GID) -> Entry:
    return Entry(name=name, kind=tarfile.DIRTYPE, mode=mode, uid=uid, gid=gid)


def symlink(name: str, target: str) -> Entry:
    return Entry(name=name, kind=tarfile.SYMTYPE, link=target, mode=0o777)


def hardlink(name: str, target: str) -> Entry:
    return Entry(name=name, kind=tarfile.LNKTYPE, link=target)


def whiteout(name: str) -> Entry:
    """Hides `name` of the layers below."""
    parent, _, last = name.rpartition("/")
    return Entry(name=f"{parent}/.wh.{last}" if parent else f".wh.{last}")


def layer_tar(entries: Iterable[Entry]) -> bytes:
    """An uncompressed layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.mode, info.uid, info.gid = entry.kind, entry.mode, entry.uid, entry.gid
            info.linkname, info.mtime, info.size = entry.link, entry.mtime, len(entry.data)
            info.devmajor, info.devminor = entry.device
            info.pax_headers = dict(entry.pax)
            archive.addfile(info, io.BytesIO(entry.data))
    return buffer.getvalue()


@dataclass(frozen=True, kw_only=True)
class SmallImage:
    """An image to be; `config` is Docker's `Config` object, `extra` goes into the image's JSON beside it."""

    tags: tuple[str, ...] = ()
    layers: tuple[bytes, ...] = ()
    config: dict[str, object] = field(default_factory=dict)
    os: str = "linux"
    architecture: str = "amd64"
    extra: dict[str, object] = field(default_factory=dict)

    def config_json(self) -> bytes:
        diff_ids = ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in self.layers]
        history = [{"created": EPOCH, "created_by": f"/bin/sh -c #(nop) ADD layer {n}"} for n in range(len(diff_ids))]
        history.append({"created": EPOCH, "created_by": "/bin/sh -c #(nop) CMD", "empty_layer": True})  # type: ignore[dict-item]
        document = {
            "architecture": self.architecture,
            "os": self.os,
            "created": EPOCH,
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": history,
        }
        return json.dumps(document | self.extra, sort_keys=True).encode()

    def id(self) -> str:
        return "sha256:" + hashlib.sha256(self.config_json()).hexdigest()


def image_archive(path: Path, images: Sequence[SmallImage]) -> Path:
    """The archive of `docker save` before 25: manifest.json, <config>.json, <layer>/layer.tar."""
    manifest = []
    members: dict[str, bytes] = {}
    for image in images:
        config = image.config_json()
        config_name = hashlib.sha256(config).hexdigest() + ".json"
        members[config_name] = config
        names = []
        for layer in image.layers:
            name = hashlib.sha256(layer).hexdigest() + "/layer.tar"
            members[name] = layer
            names.append(name)
        manifest.append({"Config": config_name, "RepoTags": list(image.tags) or None, "Layers": names})
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in [*members.items(), ("manifest.json", json.dumps(manifest).encode())]:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), EPOCH_S
            archive.addfile(info, io.BytesIO(data))
    return path


@functools.cache
def busybox_layer() -> bytes:
    """A root file system: /bin/busybox with links for all its applets, users root and app (1000), /tmp."""
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    entries = [directory(name) for name in ("bin", "dev", "etc", "home", "proc", "sys", "usr", "usr/bin", "var")]
    entries += [
        directory("root", mode=0o700),
        directory("tmp", mode=0o1777),
        directory("home/app", uid=1000, gid=1000),
        file("bin/busybox", BUSYBOX.read_bytes(), mode=0o755),
        *(symlink(f"bin/{name}", "busybox") for name in sorted(applets) if name not in ("busybox", "init", "linuxrc")),
        symlink("usr/bin/env", "../../bin/busybox"),
        file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n"),
        file("etc/group", "root:x:0:\napp:x:1000:\ntty:x:5:\n"),
    ]
    return layer_tar(entries)


def busybox_image(*, tags: Sequence[str] = ("busybox:latest",), config: dict[str, object] | None = None) -> SmallImage:
    """linux/amd64, Cmd ["sh"]."""
    defaults: dict[str, object] = {
        "Cmd": ["sh"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    }
    return SmallImage(tags=tuple(tags), layers=(busybox_layer(),), config=defaults | (config or {}))


def busybox_image_tar(
    path: Path, *, tags: Sequence[str] = ("busybox:latest",), config: dict[str, object] | None = None
) -> Path:
    """A `docker save` archive of `busybox_image`; `config` overrides keys of Docker's Config (Entrypoint, User, …)."""
    return image_archive(path, [busybox_image(tags=tags, config=config)])
