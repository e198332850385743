"""Put images into a registry blob by blob, by the distribution API itself: independent of Silo and of skopeo."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import urllib.request
from dataclasses import dataclass, field
from typing import Any

from tests.support.image_store import Registry

DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"


@dataclass(frozen=True, kw_only=True)
class RemoteLayer:
    """A layer of an image in a registry; `tar` uncompressed. A foreign one has `urls` and is not uploaded."""

    tar: bytes
    urls: tuple[str, ...] = ()

    @property
    def packed(self) -> bytes:
        return gzip.compress(self.tar, mtime=0)

    @property
    def diff_id(self) -> str:
        return digest_of(self.tar)

    @property
    def digest(self) -> str:
        return digest_of(self.packed)

    def descriptor(self) -> dict[str, Any]:
        kind = FOREIGN_LAYER if self.urls else DOCKER_LAYER
        found: dict[str, Any] = {"mediaType": kind, "digest": self.digest, "size": len(self.packed)}
        return found | ({"urls": list(self.urls)} if self.urls else {})


@dataclass(frozen=True, kw_only=True)
class WindowsImage:
    """An image as a Windows host would have pushed it: `steps` are (created_by, whether it made a layer)."""

    layers: tuple[RemoteLayer, ...]
    steps: tuple[tuple[str, bool], ...]
    os_version: str = "10.0.20348.1234"
    config: dict[str, Any] = field(default_factory=dict)

    def config_json(self) -> bytes:
        history = [
            {"created": "2024-01-01T00:00:00Z", "created_by": step} | ({} if made else {"empty_layer": True})
            for step, made in self.steps
        ]
        document = {
            "architecture": "amd64",
            "os": "windows",
            "os.version": self.os_version,
            "created": "2024-01-01T00:00:00Z",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in self.layers]},
            "history": history,
        }
        return json.dumps(document).encode()

    def manifest_json(self) -> bytes:
        config = self.config_json()
        head = {"mediaType": DOCKER_CONFIG, "digest": digest_of(config), "size": len(config)}
        layers = [layer.descriptor() for layer in self.layers]
        return json.dumps({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": head, "layers": layers}).encode()

    @property
    def id(self) -> str:
        return digest_of(self.config_json())


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def put_image(registry: Registry, repository: str, tag: str, image: WindowsImage) -> str:
    """Answers the manifest's digest."""
    for data in (image.config_json(), *(layer.packed for layer in image.layers if not layer.urls)):
        put_blob(registry, repository, data)
    raw = image.manifest_json()
    put_manifest(registry, repository, tag, raw, DOCKER_MANIFEST)
    return digest_of(raw)


def put_list(registry: Registry, repository: str, tag: str, images: list[WindowsImage]) -> None:
    """An index over images that are in the repository."""
    entries = [
        {
            "mediaType": DOCKER_MANIFEST,
            "digest": digest_of(image.manifest_json()),
            "size": len(image.manifest_json()),
            "platform": {"architecture": "amd64", "os": "windows", "os.version": image.os_version},
        }
        for image in images
    ]
    raw = json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": entries}).encode()
    put_manifest(registry, repository, tag, raw, DOCKER_LIST)


def put_blob(registry: Registry, repository: str, data: bytes) -> None:
    base = f"http://{registry.address}"
    with urllib.request.urlopen(
        urllib.request.Request(f"{base}/v2/{repository}/blobs/uploads/", method="POST", data=b"")
    ) as answer:
        place = answer.headers["Location"]
    place += ("&" if "?" in place else "?") + f"digest={digest_of(data)}"
    request = urllib.request.Request(
        place, method="PUT", data=data, headers={"Content-Type": "application/octet-stream"}
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201


def put_manifest(registry: Registry, repository: str, tag: str, raw: bytes, media_type: str) -> None:
    request = urllib.request.Request(
        f"http://{registry.address}/v2/{repository}/manifests/{tag}",
        method="PUT",
        data=raw,
        headers={"Content-Type": media_type},
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 201


def get_manifest(registry: Registry, repository: str, reference: str) -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://{registry.address}/v2/{repository}/manifests/{reference}",
        headers={"Accept": f"{DOCKER_MANIFEST}, application/vnd.oci.image.manifest.v1+json"},
    )
    with urllib.request.urlopen(request) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


def lose_blob(registry: Registry, digest: str) -> None:
    """The registry has no longer what its manifests name: whoever asks for it fails."""
    name = digest.removeprefix("sha256:")
    shutil.rmtree(registry.storage / "docker/registry/v2/blobs/sha256" / name[:2] / name)
    for link in (registry.storage / "docker/registry/v2/repositories").glob(f"**/_layers/sha256/{name}"):
        shutil.rmtree(link)
