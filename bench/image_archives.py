"""The archives that `bench/run images` loads: made here, equal bytes on each machine, of a mixture that real images have.

Linux: 500 MB of files in six layers: some 16,000 files of text, half of them below 4 KiB, and some 200 binaries of which half
compresses away; directories, symbolic and hard links. Windows: 20,000 files above a base that is named and not held, in the
format of docs/windows-layers.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import tarfile
import zlib
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

EPOCH_S = 1704067200
EPOCH = "2024-01-01T00:00:00Z"
MB = 1_000_000
TEXT_SHARE = 0.3
"""Of a layer's bytes; the rest are binaries."""
LAYERS_MB = (75, 40, 15, 120, 200, 50)
WINDOWS_LAYERS = (14_000, 6_000)
WINDOWS_BASE_VERSION = "10.0.20348.2402"
_POOL = 4 * MB
_PER_DIRECTORY = 8
_GZIP_WINDOW = 31


@dataclass(frozen=True)
class Archive:
    """One archive for `load`: the image's name, and the packed layers on their own, for whoever unpacks without an engine."""

    path: Path
    tag: str
    layers: tuple[Path, ...]
    files: int
    file_bytes: int
    without_base: Path | None = None
    """Windows: the same layers as an image that names no base, for who does not replace one."""


@dataclass
class PackedLayer:
    """A layer as it is made: written plain and by gzip at once."""

    plain: Path
    packed: Path
    diff_id: str = ""
    files: int = 0
    file_bytes: int = 0


class Contents:
    """Files' bytes: slices of two pools, so that making 500 MB costs little and compresses as text and programs do."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        letters = "etaoinshrdlucmfwypvbgkjqxz"
        words = ["".join(self.random.choices(letters, k=self.random.randint(2, 11))) for _ in range(6000)]
        weights = [1 / (rank + 3) for rank in range(len(words))]
        ends = (" ", " ", " ", " ", "(", ") ", ", ", " = ", ";\n", "\n    ")
        text = "".join(
            word + self.random.choice(ends) for word in self.random.choices(words, weights, k=_POOL // 5)
        ).encode()
        self._text = text[:_POOL]
        # noise, text and a table by turns: half of it compresses away
        blocks = (
            self.random.randbytes(1024) + self._text[at : at + 2048] + self.random.randbytes(16) * 64
            for at in range(0, _POOL - 2048, 4096)
        )
        self._binary = b"".join(blocks)

    def text(self) -> bytes:
        size = min(int(self.random.lognormvariate(8.3, 1.3)) + 16, 400_000)
        return self._slice(self._text, size)

    def binary(self, limit: int) -> bytes:
        size = min(int(self.random.lognormvariate(13.6, 1.1)) + 4096, 24 * MB, limit)
        # each 64 KiB from another place: the pool's own repetition is beyond any window
        return b"".join(self._slice(self._binary, min(65536, size - at)) for at in range(0, size, 65536))

    def _slice(self, pool: bytes, size: int) -> bytes:
        at = self.random.randrange(len(pool) - size)
        return pool[at : at + size]


class _Twice(io.RawIOBase):
    """What is written goes to a plain and to a compressed file; the digest of the plain bytes is its diff id."""

    def __init__(self, layer: PackedLayer, *, keep_plain: bool) -> None:
        self._plain = layer.plain.open("wb") if keep_plain else None
        self._packed = layer.packed.open("wb")
        self._engine = zlib.compressobj(6, zlib.DEFLATED, _GZIP_WINDOW)
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]
        self.digest.update(piece)
        if self._plain is not None:
            self._plain.write(piece)
        self._packed.write(self._engine.compress(piece))
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            self._packed.write(self._engine.flush())
            self._packed.close()
            if self._plain is not None:
                self._plain.close()
        super().close()


def linux_archives(directory: Path, layers_mb: Sequence[int] = LAYERS_MB) -> tuple[Archive, Archive]:
    """(layers by gzip, as registries have them; plain layers, as `docker save` writes them)."""
    contents = Contents(4)
    layers = [
        write_layer(directory, f"linux-{number}", _linux_members(contents, number, megabytes * MB), keep_plain=True)
        for number, megabytes in enumerate(layers_mb)
    ]
    config = _config([layer.diff_id for layer in layers], os="linux", history=[{"created_by": "ADD"}] * len(layers))
    files, size = sum(layer.files for layer in layers), sum(layer.file_bytes for layer in layers)
    archives = []
    for kind in ("packed", "plain"):
        tag = f"bench-{kind}:latest"
        paths = tuple(getattr(layer, kind) for layer in layers)
        path = _docker_archive(directory / f"linux-{kind}.tar", tag, config, paths)
        archives.append(Archive(path, tag, paths, files, size))
    return archives[0], archives[1]


def windows_archive(directory: Path, layers_files: Sequence[int] = WINDOWS_LAYERS) -> Archive:
    """An image above a base of Microsoft's; packed layers, in an OCI layout as registries' clients write it."""
    contents = Contents(5)
    layers = [
        write_layer(directory, f"windows-{number}", _windows_members(contents, number, files), keep_plain=False)
        for number, files in enumerate(layers_files)
    ]
    tag = "bench-windows:latest"
    paths = tuple(layer.packed for layer in layers)
    diff_ids = [layer.diff_id for layer in layers]
    config, bare = (windows_config(diff_ids, with_base=with_base) for with_base in (True, False))
    return Archive(
        oci_archive(directory / "windows.tar", tag, config, paths),
        tag,
        paths,
        sum(layer.files for layer in layers),
        sum(layer.file_bytes for layer in layers),
        without_base=_docker_archive(directory / "windows-without-base.tar", tag, bare, paths),
    )


def windows_config(diff_ids: Sequence[str], *, with_base: bool) -> bytes:
    """An image's config, with or without a base below."""
    history: list[dict[str, object]] = [{"created_by": "cmd /S /C copy"}] * len(diff_ids)
    if with_base:
        history.insert(0, {"created_by": f"Apply image {WINDOWS_BASE_VERSION}"})
        diff_ids = [_digest(b"the plain bytes of a base"), *diff_ids]
    return _config(diff_ids, os="windows", history=history, **{"os.version": WINDOWS_BASE_VERSION})


def write_layer(
    directory: Path, name: str, members: Iterator[tuple[tarfile.TarInfo, bytes]], *, keep_plain: bool
) -> PackedLayer:
    layer = PackedLayer(directory / f"{name}.tar", directory / f"{name}.tar.gz")
    with _Twice(layer, keep_plain=keep_plain) as target:
        with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as archive:
            for info, data in members:
                archive.addfile(info, io.BytesIO(data))
                layer.files += info.isreg()
                layer.file_bytes += len(data)
        layer.diff_id = f"sha256:{target.digest.hexdigest()}"
    return layer


def _member(name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime, info.size = kind, mode, EPOCH_S, len(data)
    info.uname = info.gname = ""
    return info


def _linux_members(contents: Contents, number: int, budget: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    dice = contents.random
    top = f"usr/lib/part{number}"
    for directory in ("usr", "usr/lib", top, f"{top}/bin"):
        yield _member(directory, kind=tarfile.DIRTYPE, mode=0o755), b""
    text_left, count, folder = int(budget * TEXT_SHARE), 0, top
    while text_left > 0:
        if count % _PER_DIRECTORY == 0:
            # two levels more, as packages of a language have them
            parent = f"{top}/package{count // 64:04}"
            if count % 64 == 0:
                yield _member(parent, kind=tarfile.DIRTYPE, mode=0o755), b""
            folder = f"{parent}/module{count % 64 // _PER_DIRECTORY}"
            yield _member(folder, kind=tarfile.DIRTYPE, mode=0o755), b""
        data = contents.text()
        name = f"{folder}/source_{count:05}.txt"
        yield _member(name, data), data
        text_left -= len(data)
        count += 1
        if dice.random() < 0.05:
            link = _member(f"{folder}/link_{count:05}", kind=tarfile.SYMTYPE, mode=0o777)
            link.linkname = f"source_{count - 1:05}.txt"
            yield link, b""
        elif dice.random() < 0.01:
            hard = _member(f"{folder}/same_{count:05}", kind=tarfile.LNKTYPE)
            hard.linkname = name
            yield hard, b""
    binary_left, count = int(budget * (1 - TEXT_SHARE)), 0
    while binary_left > 0:
        data = contents.binary(max(binary_left, 4096))
        yield _member(f"{top}/bin/lib{count:04}.so", data, mode=0o755), data
        binary_left -= len(data)
        count += 1


def _windows_members(contents: Contents, number: int, files: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    yield windows_member("Files", kind=tarfile.DIRTYPE), b""
    yield windows_member("Hives", kind=tarfile.DIRTYPE), b""
    top = f"Files/Program Files/Part {number}"
    for directory in ("Files/Program Files", top):
        yield windows_member(directory, kind=tarfile.DIRTYPE), b""
    folder = top
    for count in range(files):
        if count % _PER_DIRECTORY == 0:
            folder = f"{top}/Module {count // _PER_DIRECTORY:04}"
            yield windows_member(folder, kind=tarfile.DIRTYPE), b""
        binary = count % 100 == 0
        data = contents.binary(MB) if binary else contents.text()
        yield windows_member(f"{folder}/Item {count:05}.{'dll' if binary else 'txt'}", data), data


def windows_member(name: str, data: bytes = b"", *, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = _member(name, data, kind=kind, mode=0)
    info.pax_headers = {
        "MSWINDOWS.fileattr": "16" if kind == tarfile.DIRTYPE else "32",
        "MSWINDOWS.rawsd": _DESCRIPTOR,
        "LIBARCHIVE.creationtime": f"{EPOCH_S}.1234567",
    }
    return info


def _descriptor() -> str:
    """O:BAG:SYD:(A;;FA;;;BA)(A;;FA;;;SY)(A;;0x1200a9;;;BU), self-relative ([MS-DTYP] 2.4.6), by base64."""
    administrators, users = (struct.pack("<BB6s2I", 1, 2, b"\0\0\0\0\0\5", 32, who) for who in (544, 545))
    system = struct.pack("<BB6sI", 1, 1, b"\0\0\0\0\0\5", 18)
    rights = ((0x1F01FF, administrators), (0x1F01FF, system), (0x1200A9, users))
    entries = b"".join(struct.pack("<BBHI", 0, 0, 8 + len(who), mask) + who for mask, who in rights)
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(entries), len(rights), 0) + entries
    owner_at = 20
    group_at = owner_at + len(administrators)
    acl_at = group_at + len(system)
    head = struct.pack("<BBH4I", 1, 0, 0x8004, owner_at, group_at, 0, acl_at)
    return b64encode(head + administrators + system + acl).decode()


_DESCRIPTOR = _descriptor()


def _config(diff_ids: Sequence[str], *, os: str, history: Sequence[dict[str, object]], **more: str) -> bytes:
    document = {
        "architecture": "amd64",
        "os": os,
        "created": EPOCH,
        "config": {"Cmd": ["true"]},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [{"created": EPOCH, **step} for step in history],
        **more,
    }
    return json.dumps(document, sort_keys=True).encode()


def _docker_archive(path: Path, tag: str, config: bytes, layers: Sequence[Path]) -> Path:
    """manifest.json, <config>.json, <layer>/layer.tar."""
    config_name = f"{_digest(config)[7:]}.json"
    names = [f"{hashlib.sha256(layer.name.encode()).hexdigest()}/layer.tar" for layer in layers]
    contents = json.dumps([{"Config": config_name, "RepoTags": [tag], "Layers": names}]).encode()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in ((config_name, config), ("manifest.json", contents)):
            archive.addfile(_member(name, data), io.BytesIO(data))
        for name, layer in zip(names, layers, strict=True):
            archive.addfile(_member(name.partition("/")[0], kind=tarfile.DIRTYPE, mode=0o755))
            info = _member(name)
            info.size = layer.stat().st_size
            with layer.open("rb") as file:
                archive.addfile(info, file)
    return path


def oci_archive(path: Path, tag: str, config: bytes, layers: Sequence[Path]) -> Path:
    """oci-layout, index.json, blobs/sha256/…: a base by name, and the layers above it."""
    base = {
        "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "digest": _digest(b"the packed bytes of a base"),
        "size": 120 * MB,
        "urls": ["https://mcr.microsoft.com/v2/windows/nanoserver/blobs/base"],
    }
    packed = [
        {
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "digest": _digest(layer.read_bytes()),
            "size": layer.stat().st_size,
        }
        for layer in layers
    ]
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": _digest(config),
            "size": len(config),
        },
        "layers": [base, *packed],
    }
    manifest = json.dumps(document).encode()
    names = {"io.containerd.image.name": f"docker.io/library/{tag}"}
    entry = {
        "mediaType": document["mediaType"],
        "digest": _digest(manifest),
        "size": len(manifest),
        "annotations": names,
        "platform": {"os": "windows", "architecture": "amd64"},
    }
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        members = [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index)]
        members += [(f"blobs/sha256/{_digest(data)[7:]}", data) for data in (manifest, config)]
        members += [
            (f"blobs/sha256/{row['digest'][7:]}", layer.read_bytes())  # type: ignore[index]
            for row, layer in zip(packed, layers, strict=True)
        ]
        for name, data in members:
            archive.addfile(_member(name, data), io.BytesIO(data))
    return path


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
