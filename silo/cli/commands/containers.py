"""`ps`: the containers."""

from __future__ import annotations

import time

from silo.cli.client import encode_filters
from silo.cli.grammar import Command
from silo.cli.listing import print_lines, print_listing
from silo.cli.units import ellipsis, human_duration, human_size, local_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from silo.cli.client import Client
    from silo.cli.grammar import Values

COLUMNS = (
    ("ID", "CONTAINER ID"), ("Image", "IMAGE"), ("Command", "COMMAND"), ("RunningFor", "CREATED"), ("Status", "STATUS"),
    ("Ports", "PORTS"), ("Names", "NAMES"),
)  # fmt: skip
TITLES = {
    **dict(COLUMNS), "CreatedAt": "CREATED AT", "Labels": "LABELS", "LocalVolumes": "LOCAL VOLUMES", "Mounts": "MOUNTS",
    "Networks": "NETWORKS", "Platform": "PLATFORM", "Size": "SIZE", "State": "STATE",
}  # fmt: skip


def quote_go(text: str) -> str:
    """As Go's strconv.Quote."""
    simple = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return '"' + "".join(
        simple.get(c) or (c if c.isprintable() else f"\\x{ord(c):02x}" if ord(c) < 256 else f"\\u{ord(c):04x}") for c in text
    ) + '"'  # fmt: skip


def describe_ports(ports: Iterable[dict[str, Any]]) -> str:
    """Ranges of equal ports together, then the ports that are mapped to others."""
    groups: dict[tuple[str, str], tuple[int, int]] = {}
    shown: list[str] = []
    mapped: list[str] = []

    def key(port: dict[str, Any]) -> tuple[int, str, int, str]:
        return port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port["Type"]

    for port in sorted(ports, key=key):
        inner, address, kind = port["PrivatePort"], port.get("IP", ""), port["Type"]
        outer = port.get("PublicPort", 0)
        if address and outer != inner:
            mapped.append(f"{_join(address, str(outer))}->{inner}/{kind}")
            continue
        first, last = groups.get((address, kind), (0, 0))
        if (address, kind) in groups and inner != last + 1:
            shown.append(_group(address, kind, first, last))
            first = inner
        groups[address, kind] = (first or inner, inner)
    shown.extend(_group(address, kind, *pair) for (address, kind), pair in groups.items())
    return ", ".join(shown + mapped)


def _group(address: str, kind: str, first: int, last: int) -> str:
    text = str(first) if first == last else f"{first}-{last}"
    return f"{_join(address, text)}->{text}/{kind}" if address else f"{text}/{kind}"


def _join(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _container_fields(container: dict[str, Any], *, truncate: bool, now: float) -> dict[str, Any]:
    """All fields of one row."""
    created = container.get("Created", 0)
    names = [name.removeprefix("/") for name in container.get("Names") or []]
    if truncate:
        # `web/db` is a link's name.
        names = [name for name in names if "/" not in name]
    command = container.get("Command", "")
    mounts = container.get("Mounts") or []
    size = human_size(container.get("SizeRw") or 0)
    if container.get("SizeRootFs"):
        size += f" (virtual {human_size(container['SizeRootFs'])})"
    image = container.get("Image", "") or "<no image>"
    if truncate and image.startswith("sha256:"):
        image = image[7:19]
    labels = container.get("Labels") or {}
    mount_names = [mount.get("Name") or mount.get("Source", "") for mount in mounts]
    return {
        "ID": container["Id"][:12] if truncate else container["Id"],
        "Image": image,
        "Command": quote_go(ellipsis(command, 20) if truncate else command),
        "RunningFor": f"{human_duration(now - created)} ago",
        "Status": container.get("Status", ""),
        "Ports": describe_ports(container.get("Ports") or []),
        "Names": ",".join(names),
        "CreatedAt": local_time(created),
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(labels.items())),
        "LocalVolumes": str(sum(1 for mount in mounts if mount.get("Driver") == "local")),
        "Mounts": ",".join(ellipsis(name, 15) if truncate else name for name in mount_names),
        "Networks": ",".join(sorted((container.get("NetworkSettings") or {}).get("Networks") or {})),
        "Platform": container.get("Platform", ""),
        "Size": size,
        "State": container.get("State", ""),
    }


def ps(client: Client, values: Values) -> int:
    last = 1 if values.flag("latest") else values.number("last")
    sized = values.flag("size") or ".Size" in values.text("format")
    query = {
        "all": "1" if values.flag("all") or last > 0 else "",
        "limit": str(last) if last > 0 else "",
        "size": "1" if sized and not values.flag("quiet") else "",
        "filters": encode_filters(values.words("filter")),
    }
    containers = client.get("/containers/json", query)
    truncate = not values.flag("no-trunc")
    if values.flag("quiet") and values.text("format") in ("", "table"):
        print_lines([container["Id"][:12] if truncate else container["Id"] for container in containers])
        return 0
    now = time.time()
    rows = [_container_fields(container, truncate=truncate, now=now) for container in containers]
    columns = (*COLUMNS, ("Size", "SIZE")) if values.flag("size") else COLUMNS
    print_listing(rows, columns, values.text("format"), TITLES)
    return 0


FORMAT = (
    "format",
    "",
    "string",
    "table, json, or a template such as '{{.ID}} {{.Names}}' or 'table {{.ID}}\\t{{.Names}}'",
)
FILTER = ("filter", "f", "list", "Filter the output (key=value)")
COMMANDS = (
    Command(
        "ps", "[OPTIONS]", "List containers",
        (
            ("all", "a", "bool", "Show all containers (default shows just running)"),
            FILTER,
            FORMAT,
            ("last", "n", "int=-1", "Show the n last created containers (includes all states)"),
            ("latest", "l", "bool", "Show the latest created container (includes all states)"),
            ("no-trunc", "", "bool", "Don't truncate output"),
            ("quiet", "q", "bool", "Only display container IDs"),
            ("size", "s", "bool", "Display total file sizes"),
        ),
        ps, most=0, examples=("silo ps -a", "silo ps --filter status=exited --format '{{.Names}}: {{.Status}}'"),
    ),
)  # fmt: skip
