"""Write image documents: the config of an image made here (commit, import), and its manifest. Pure.

Keys that have no value are left out, order is fixed: the same input gives the same bytes, hence the same id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from silo.images.documents import OCI_LAYER
from silo.model.image import Healthcheck, HistoryEntry, ImageConfig
from silo.model.platform import Platform

_NANOSECONDS = 1_000_000_000
NONDISTRIBUTABLE = "application/vnd.oci.image.layer.nondistributable.v1.tar"
_OCI_TYPES = {
    "application/vnd.docker.image.rootfs.diff.tar": OCI_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": OCI_LAYER + "+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": OCI_LAYER + "+zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar": NONDISTRIBUTABLE,
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip": NONDISTRIBUTABLE + "+gzip",
}


def oci_layer_type(media_type: str) -> str:
    """The OCI name of a layer's type: a manifest does not mix the two families."""
    return _OCI_TYPES.get(media_type, media_type)


def build_image_config(
    *,
    platform: Platform,
    os_features: Sequence[str],
    config: ImageConfig,
    diff_ids: Sequence[str],
    history: Sequence[HistoryEntry],
    created: str,
    author: str,
    comment: str,
) -> bytes:
    """A config document (OCI, with Docker's additions)."""
    document: dict[str, Any] = {
        "architecture": platform.architecture,
        "variant": platform.variant,
        "os": platform.os,
        "os.version": platform.os_version,
        "os.features": list(os_features),
        "created": created,
        "author": author,
        "comment": comment,
    }
    document = _without_empty(document)
    document["config"] = _build_container_config(config)
    document["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
    document["history"] = [
        _without_empty(
            {
                "created": entry.created,
                "created_by": entry.created_by,
                "author": entry.author,
                "comment": entry.comment,
                "empty_layer": entry.empty_layer,
            }
        )
        for entry in history
    ]
    return msgspec.json.encode(document)


def _build_container_config(config: ImageConfig) -> dict[str, Any]:
    document: dict[str, Any] = {
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.exposed_ports},
        "Env": list(config.env),
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "Volumes": {path: {} for path in config.volumes},
        "WorkingDir": config.working_dir,
        "Labels": dict(sorted(config.labels.items())),
        "StopSignal": config.stop_signal,
        "Shell": list(config.shell),
        "ArgsEscaped": config.args_escaped,
        "OnBuild": list(config.on_build),
    }
    document = _without_empty(document)
    if config.stop_timeout_s is not None:
        document["StopTimeout"] = config.stop_timeout_s
    if config.healthcheck is not None:
        document["Healthcheck"] = _build_healthcheck(config.healthcheck)
    return document


def _build_healthcheck(check: Healthcheck) -> dict[str, Any]:
    return _without_empty(
        {
            "Test": list(check.test),
            "Interval": round(check.interval_s * _NANOSECONDS),
            "Timeout": round(check.timeout_s * _NANOSECONDS),
            "StartPeriod": round(check.start_period_s * _NANOSECONDS),
            "StartInterval": round(check.start_interval_s * _NANOSECONDS),
            "Retries": check.retries,
        }
    )


def _without_empty(document: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if value}
