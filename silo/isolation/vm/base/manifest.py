"""The record of what went into a utility VM: stored in it (/silo/manifest.json) and beside it."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from silo.debian.packages import Package
from silo.isolation.vm.base.damage import StoredFile, parse_files, write_files
from silo.isolation.vm.base.recipe import BUILDER_VERSION, KERNEL_PACKAGE

_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class VmManifest:
    """What an image consists of. `modules` are in loading order; `extra_files` maps paths in the root to SHA-256.

    `kernel_package` is what the builder was asked for. An image that a user brought has no packages, modules and extra files.
    `files` are the image's own by name; the manifest in the root, which is one of them, has none.
    """

    key: str
    epoch_s: int
    kernel_release: str
    packages: tuple[Package, ...]
    modules: tuple[str, ...]
    extra_files: Mapping[str, str]
    kernel_package: str = KERNEL_PACKAGE
    files: Mapping[str, StoredFile] = field(default_factory=dict)

    def as_json(self) -> bytes:
        """The manifest as stored: stable bytes for equal contents."""
        document: dict[str, Any] = {
            "key": self.key,
            "builder": BUILDER_VERSION,
            "created": datetime.datetime.fromtimestamp(self.epoch_s, datetime.UTC).strftime(_TIME),
            "kernel": self.kernel_release,
            "modules": list(self.modules),
            "packages": [
                {"name": row.name, "version": row.version, "architecture": row.architecture, "sha256": row.sha256}
                for row in self.packages
            ],
            "extra_files": [{"path": path, "sha256": digest} for path, digest in sorted(self.extra_files.items())],
        }
        if self.kernel_package != KERNEL_PACKAGE:
            document["kernel_package"] = self.kernel_package
        if self.files:
            document["files"] = write_files(self.files)
        return (json.dumps(document, indent=1, ensure_ascii=True) + "\n").encode("ascii")


def parse_manifest(data: bytes) -> VmManifest:
    """Read what `as_json` wrote. Raises KeyError, TypeError, ValueError for anything else."""
    document = json.loads(data)
    created = datetime.datetime.strptime(document["created"], _TIME).replace(tzinfo=datetime.UTC)
    packages: Iterable[Mapping[str, str]] = document["packages"]
    return VmManifest(
        key=str(document["key"]),
        epoch_s=int(created.timestamp()),
        kernel_release=str(document["kernel"]),
        packages=tuple(
            Package(row["name"], row["version"], row["architecture"], row["sha256"], 0, "") for row in packages
        ),
        modules=tuple(str(name) for name in document["modules"]),
        extra_files={row["path"]: row["sha256"] for row in document["extra_files"]},
        kernel_package=str(document.get("kernel_package", KERNEL_PACKAGE)),
        files=parse_files(document),
    )
