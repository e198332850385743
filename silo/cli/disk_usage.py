"""`system df`: what takes how much of the disk, and what of it could go."""

from __future__ import annotations

from silo.cli.listing import print_lines, print_listing
from silo.cli.table import align, clean
from silo.cli.units import ellipsis, human_duration, human_size, truncate_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Usage = dict[str, Any]

_COLUMNS = (
    ("Type", "TYPE"), ("TotalCount", "TOTAL"), ("Active", "ACTIVE"), ("Size", "SIZE"), ("Reclaimable", "RECLAIMABLE"),
)  # fmt: skip


def _row(kind: str, total: int, active: int, size: int, reclaimable: int) -> dict[str, str]:
    share = f" ({reclaimable * 100 // size}%)" if size > 0 else ""
    return {
        "Type": kind, "TotalCount": str(total), "Active": str(active), "Size": human_size(size, 4),
        "Reclaimable": f"{human_size(reclaimable, 4)}{share}",
    }  # fmt: skip


def summarize(usage: Usage) -> list[dict[str, str]]:
    """A row for images, containers, volumes and the build cache (which Silo has none of)."""
    images = usage.get("Images") or []
    containers = usage.get("Containers") or []
    volumes = usage.get("Volumes") or []
    layers = int(usage.get("LayersSize") or 0)
    used_images = [image for image in images if image.get("Containers", 0) > 0]
    used = sum(image.get("Size", 0) - max(image.get("SharedSize", 0), 0) for image in used_images)
    alive = [container for container in containers if container.get("State") in ("running", "paused", "restarting")]
    written = sum(container.get("SizeRw") or 0 for container in containers)
    written_alive = sum(container.get("SizeRw") or 0 for container in alive)
    sizes = [(volume.get("UsageData") or {}).get("Size", 0) for volume in volumes]
    bound = [(volume.get("UsageData") or {}).get("RefCount", 0) > 0 for volume in volumes]
    free = sum(max(size, 0) for size, used_by in zip(sizes, bound, strict=True) if not used_by)
    return [
        _row("Images", len(images), len(used_images), layers, max(0, layers - used)),
        _row("Containers", len(containers), len(alive), written, written - written_alive),
        _row("Local Volumes", len(volumes), sum(bound), sum(max(size, 0) for size in sizes), free),
        _row("Build Cache", 0, 0, 0, 0),
    ]


def print_summary(usage: Usage, form: str) -> None:
    print_listing(summarize(usage), _COLUMNS, form, dict(_COLUMNS))


def print_verbose(usage: Usage) -> None:
    import time

    from silo.cli.commands.images import split_reference

    now = time.time()
    lines = ["Images space usage:", ""]
    rows = [["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE", "SHARED SIZE", "UNIQUE SIZE", "CONTAINERS"]]
    for image in usage.get("Images") or []:
        shared = max(image.get("SharedSize", 0), 0)
        for name in image.get("RepoTags") or ["<none>:<none>"]:
            repository, tag = split_reference(name)
            rows.append([
                repository, tag, truncate_id(image["Id"]), f"{human_duration(now - image['Created'])} ago",
                human_size(image["Size"]), human_size(shared), human_size(image["Size"] - shared, 4),
                str(max(image.get("Containers", 0), 0)),
            ])  # fmt: skip
    lines += [*align(rows), "", "Containers space usage:", ""]
    rows = [["CONTAINER ID", "IMAGE", "COMMAND", "LOCAL VOLUMES", "SIZE", "CREATED", "STATUS", "NAMES"]]
    for container in usage.get("Containers") or []:
        mounts = container.get("Mounts") or []
        rows.append([
            container["Id"][:12], container["Image"], '"' + clean(ellipsis(container["Command"], 20)) + '"',
            str(sum(1 for mount in mounts if mount.get("Type") == "volume")), human_size(container.get("SizeRw") or 0),
            f"{human_duration(now - container['Created'])} ago", container["Status"],
            ",".join(name.removeprefix("/") for name in container["Names"]),
        ])  # fmt: skip
    lines += [*align(rows), "", "Local Volumes space usage:", ""]
    rows = [["VOLUME NAME", "LINKS", "SIZE"]]
    for volume in usage.get("Volumes") or []:
        data = volume.get("UsageData") or {}
        rows.append([volume["Name"], str(data.get("RefCount", 0)), human_size(max(data.get("Size", 0), 0))])
    print_lines([*lines, *align(rows)])
