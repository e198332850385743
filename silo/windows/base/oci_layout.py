"""Write the base as an OCI image layout: one layer, a config with `os: windows`, a manifest, an index.

    <layout>/oci-layout
    <layout>/index.json
    <layout>/blobs/sha256/<hex>

Format: OCI image-spec v1.1 (image-layout.md, config.md, manifest.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from silo.errors import HostError
from silo.windows.base.environment import MANIFEST_FILE, OS_VERSION
from silo.windows.base.manifest import BaseManifest, rfc3339
from silo.windows.base.tar_layer import PackedLayer

LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
LABEL_KEY = "dev.silo.base.key"
LABEL_PACKAGES = "dev.silo.base.packages"
LABEL_MANIFEST = "dev.silo.base.manifest"

COMMAND = ("c:\\windows\\system32\\cmd.exe",)


@dataclass(frozen=True, slots=True)
class WrittenImage:
    """Digests of a finished layout. `config_digest` is what Docker calls the image id."""

    manifest_digest: str
    config_digest: str
    layer: PackedLayer


def build_config(layer: PackedLayer, manifest: BaseManifest) -> dict[str, Any]:
    """The image config. No PATH in Env: the machine's own, in the registry, holds until an image sets one."""
    packages = " ".join(f"{row.name}={row.version}" for row in manifest.packages)
    return {
        "created": rfc3339(manifest.epoch_s),
        "architecture": "amd64",
        "os": "windows",
        "os.version": OS_VERSION,
        "config": {
            "Cmd": list(COMMAND),
            "WorkingDir": "C:\\",
            "User": "ContainerAdministrator",
            "Labels": {LABEL_KEY: manifest.key, LABEL_MANIFEST: MANIFEST_FILE, LABEL_PACKAGES: packages},
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
        "history": [
            {"created": rfc3339(manifest.epoch_s), "created_by": f"silo base build windows ({manifest.key[:12]})"}
        ],
    }


def _descriptor(media_type: str, digest: str, size_bytes: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size_bytes}


def _write_json_blob(blobs: Path, media_type: str, document: Mapping[str, Any]) -> dict[str, Any]:
    data = json.dumps(document, separators=(",", ":"), sort_keys=True).encode()
    digest = hashlib.sha256(data).hexdigest()
    (blobs / digest).write_bytes(data)
    return _descriptor(media_type, f"sha256:{digest}", len(data))


def write_layout(layout: Path, layer_file: Path, layer: PackedLayer, manifest: BaseManifest) -> WrittenImage:
    """Make the directory `layout` of a packed layer, which is moved into it. Raises HostError if it exists."""
    if layout.exists():
        raise HostError(f"{layout} exists already")
    blobs = layout / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    layer_file.rename(blobs / layer.digest.removeprefix("sha256:"))
    config = _write_json_blob(blobs, CONFIG_TYPE, build_config(layer, manifest))
    layer_descriptor = _descriptor(LAYER_TYPE, layer.digest, layer.size_bytes)
    image = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": config,
        "layers": [layer_descriptor],
        "annotations": {LABEL_KEY: manifest.key, "org.opencontainers.image.created": rfc3339(manifest.epoch_s)},
    }
    descriptor = _write_json_blob(blobs, MANIFEST_TYPE, image)
    descriptor["platform"] = {"architecture": "amd64", "os": "windows", "os.version": OS_VERSION}
    descriptor["annotations"] = {"org.opencontainers.image.ref.name": "windows:latest"}
    index = {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [descriptor]}
    (layout / "index.json").write_text(json.dumps(index, sort_keys=True), encoding="ascii")
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}', encoding="ascii")
    return WrittenImage(descriptor["digest"], config["digest"], layer)
