"""Images as `docker images`, `docker inspect` and `docker history` show them."""

from __future__ import annotations

from typing import Any

from silo.api.encode.configs import encode_healthcheck
from silo.api.encode.times import unix_seconds
from silo.model.clock import ZERO_TIME
from silo.model.image import Image, ImageBase, ImageConfig


def encode_image_summary(image: Image, *, containers: int = -1, shared_bytes: int = -1) -> dict[str, Any]:
    """One row of `docker images`."""
    return {
        "Id": image.id,
        "ParentId": image.parent,
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Created": unix_seconds(image.created),
        "Size": image.size_bytes,
        "SharedSize": shared_bytes,
        "Labels": dict(image.config.labels) or None,
        "Containers": containers,
    }


def encode_image_config(config: ImageConfig) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "Hostname": "",
        "Domainname": "",
        "User": config.user,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "ExposedPorts": {key: {} for key in config.exposed_ports},
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": list(config.env),
        "Cmd": list(config.cmd) or None,
        "Healthcheck": encode_healthcheck(config.healthcheck),
        "ArgsEscaped": config.args_escaped,
        "Image": "",
        "Volumes": {key: {} for key in config.volumes} or None,
        "WorkingDir": config.working_dir,
        "Entrypoint": list(config.entrypoint) or None,
        "OnBuild": list(config.on_build) or None,
        "Labels": dict(config.labels) or None,
        "StopSignal": config.stop_signal,
        "StopTimeout": config.stop_timeout_s,
        "Shell": list(config.shell),
    }
    optional = ("ExposedPorts", "Healthcheck", "ArgsEscaped", "StopSignal", "StopTimeout", "Shell")
    return {key: value for key, value in shown.items() if value or key not in optional}


def encode_image(image: Image) -> dict[str, Any]:
    """`docker image inspect`."""
    return {
        "Id": image.id,
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Parent": image.parent,
        "Comment": image.comment,
        "Created": image.created or ZERO_TIME,
        "DockerVersion": "",
        "Author": image.author,
        "Config": encode_image_config(image.config),
        "Architecture": image.platform.architecture,
        "Variant": image.platform.variant,
        "Os": image.platform.os,
        "OsVersion": image.platform.os_version,
        "Size": image.size_bytes,
        "GraphDriver": {
            "Data": {"LowerDir": ":".join(str(path) for path in reversed(image.layer_paths))},
            "Name": "overlay2",
        },
        "RootFS": {"Type": "layers", "Layers": list(image.layers)},
        "Metadata": {"LastTagTime": ZERO_TIME},
        **({"SiloBase": encode_base(image.base)} if image.base else {}),
    }


def encode_base(base: ImageBase) -> dict[str, Any]:
    """What runs in the place of which of the image's layers: Silo's own key of `docker image inspect`."""
    return {
        "Replaces": base.family,
        "OsVersion": base.os_version,
        "Layers": base.layers,
        "Id": base.substitute,
    }


def encode_history(image: Image) -> list[dict[str, Any]]:
    """Newest first; only the newest row has an id and tags, as with every image that was not built here."""
    rows = []
    for index, entry in enumerate(reversed(image.history)):
        rows.append(
            {
                "Id": image.id if index == 0 else "<missing>",
                "Created": unix_seconds(entry.created),
                "CreatedBy": entry.created_by,
                "Tags": (list(image.tags) or None) if index == 0 else None,
                "Size": entry.size_bytes,
                "Comment": entry.comment,
            }
        )
    return rows
