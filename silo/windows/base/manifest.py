"""The record of what went into a base image: stored in it, labelled on it, printable."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from silo.debian.packages import Package
from silo.windows.base.environment import OS_VERSION
from silo.windows.base.recipe import BUILDER_VERSION, REGISTRY_EDITS, DeleteTree, DeleteValue, RegistryEdit, SetValue


@dataclass(frozen=True, slots=True)
class BaseManifest:
    """What a base consists of; `extra_files` maps paths in the image to SHA-256."""

    key: str
    epoch_s: int
    packages: tuple[Package, ...]
    extra_files: Mapping[str, str]
    files: int
    shared_files: int

    def as_json(self) -> bytes:
        """The manifest as stored in the image: stable bytes for equal contents."""
        document = {
            "key": self.key,
            "builder": BUILDER_VERSION,
            "os_version": OS_VERSION,
            "created": rfc3339(self.epoch_s),
            "files": self.files,
            "files_shared_with_wine": self.shared_files,
            "packages": [
                {"name": row.name, "version": row.version, "architecture": row.architecture, "sha256": row.sha256}
                for row in self.packages
            ],
            "extra_files": [{"path": path, "sha256": digest} for path, digest in sorted(self.extra_files.items())],
            "settings": [describe_edit(edit) for edit in REGISTRY_EDITS],
        }
        return (json.dumps(document, indent=1, ensure_ascii=True) + "\n").encode("ascii")

    def as_text(self) -> str:
        """The manifest for people."""
        lines = [
            f"Windows base {self.key[:12]} ({OS_VERSION}), {self.files} files, dated {rfc3339(self.epoch_s)}",
            "",
            "Packages:",
            *(f"  {row.name} {row.version} sha256:{row.sha256[:16]}" for row in self.packages),
            "",
            "Extra files:",
            *(f"  {path} sha256:{digest[:16]}" for path, digest in sorted(self.extra_files.items())),
            "",
            "Settings:",
        ]
        for edit in REGISTRY_EDITS:
            row = describe_edit(edit)
            lines.append(f"  {row['change']}")
            lines.append(f"      {row['reason']}")
        return "\n".join(lines) + "\n"


def rfc3339(epoch_s: int) -> str:
    """Unix seconds as OCI writes times."""
    return datetime.datetime.fromtimestamp(epoch_s, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe_edit(edit: RegistryEdit) -> dict[str, str]:
    """One change of the registry and its reason."""
    if isinstance(edit, SetValue):
        change = f"{edit.file}: {edit.key} {edit.name} = {edit.data}"
    elif isinstance(edit, DeleteValue):
        change = f"{edit.file}: {edit.key} {edit.name} deleted"
    elif isinstance(edit, DeleteTree):
        change = f"{edit.file}: {edit.key} deleted with all below"
    else:
        change = f"{edit.file}: COM interfaces of type library {edit.typelib} deleted"
    return {"change": change, "reason": edit.reason}


def parse_manifest(data: bytes) -> BaseManifest:
    """Read what `as_json` wrote. Raises KeyError, ValueError for anything else."""
    document = json.loads(data)
    created = datetime.datetime.strptime(document["created"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
    packages: Iterable[Mapping[str, str]] = document["packages"]
    return BaseManifest(
        key=str(document["key"]),
        epoch_s=int(created.timestamp()),
        packages=tuple(
            Package(row["name"], row["version"], row["architecture"], row["sha256"], 0, "") for row in packages
        ),
        extra_files={row["path"]: row["sha256"] for row in document["extra_files"]},
        files=int(document["files"]),
        shared_files=int(document["files_shared_with_wine"]),
    )
