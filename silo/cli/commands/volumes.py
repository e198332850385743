"""`volume …`."""

from __future__ import annotations

from silo.cli.client import encode_filters
from silo.cli.each import for_each
from silo.cli.failure import UsageError
from silo.cli.grammar import Command
from silo.cli.http import quote
from silo.cli.listing import print_lines, print_listing
from silo.cli.units import human_size
from silo.cli.words import read_labels, read_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from silo.cli.client import Client
    from silo.cli.grammar import Values

_COLUMNS = (("Driver", "DRIVER"), ("Name", "VOLUME NAME"))
_TITLES = {
    **dict(_COLUMNS), "Availability": "AVAILABILITY", "Group": "GROUP", "Labels": "LABELS", "Links": "LINKS",
    "Mountpoint": "MOUNTPOINT", "Scope": "SCOPE", "Size": "SIZE", "Status": "STATUS",
}  # fmt: skip


def ls(client: Client, values: Values) -> int:
    volumes = client.get("/volumes", {"filters": encode_filters(values.words("filter"))})["Volumes"] or []
    volumes.sort(key=lambda volume: volume["Name"])
    if values.flag("quiet") and values.text("format") in ("", "table"):
        print_lines([volume["Name"] for volume in volumes])
        return 0
    rows = []
    for volume in volumes:
        usage = volume.get("UsageData") or {}
        rows.append(
            {
                "Driver": volume["Driver"],
                "Name": volume["Name"],
                "Labels": ",".join(f"{key}={value}" for key, value in sorted((volume.get("Labels") or {}).items())),
                "Links": str(usage["RefCount"]) if usage else "N/A",
                "Mountpoint": volume["Mountpoint"],
                "Scope": volume["Scope"],
                "Size": human_size(usage["Size"]) if usage and usage["Size"] >= 0 else "N/A",
                # Of cluster volumes, which there are none of.
                "Availability": "N/A",
                "Group": "N/A",
                "Status": "N/A",
            }
        )
    print_listing(rows, _COLUMNS, values.text("format"), _TITLES)
    return 0


def build_volume(values: Values) -> dict[str, Any]:
    """The body of POST /volumes/create."""
    given = values.text("name")
    if given and values.arguments:
        raise UsageError(
            "conflicting options: cannot specify a volume-name through both --name and as a positional arg"
        )
    parts = {
        "Name": values.arguments[0] if values.arguments else given,
        "Driver": values.text("driver"),
        "DriverOpts": read_map(values.words("opt"), "--opt"),
        "Labels": read_labels((), values.words("label")),
    }
    return {name: value for name, value in parts.items() if value}


def create(client: Client, values: Values) -> int:
    print_lines([client.post("/volumes/create", json=build_volume(values))["Name"]])
    return 0


def rm(client: Client, values: Values) -> int:
    query = {"force": "1" if values.flag("force") else ""}
    return for_each(values.arguments, lambda name: client.delete(f"/volumes/{quote(name)}", query))


def inspect(client: Client, values: Values) -> int:
    from silo.cli.commands.looking import print_objects

    return print_objects(client, values, ("volume",))


def prune(client: Client, values: Values) -> int:
    from silo.cli.pruning import confirm, print_reclaimed

    every = values.flag("all")
    kind = "local" if every else "anonymous local"
    if not confirm(f"This will remove {kind} volumes not used by at least one container.", values):
        return 0
    words = [*values.words("filter"), *(["all=true"] if every else [])]
    answer = client.post("/volumes/prune", {"filters": encode_filters(words)})
    print_reclaimed([("Deleted Volumes:", answer.get("VolumesDeleted") or [])], answer.get("SpaceReclaimed", 0))
    return 0


COMMANDS = (
    Command("volume ls", "[OPTIONS]", "List volumes",
            (
                ("filter", "f", "list", "Filter the output (key=value)"),
                ("format", "", "string", "table, json, or a template such as '{{.Name}}'"),
                ("quiet", "q", "bool", "Only display volume names"),
            ), ls, most=0, examples=("silo volume ls",)),
    Command("volume create", "[OPTIONS] [VOLUME]", "Create a volume",
            (
                ("driver", "d", "string=local", "Specify volume driver name"),
                ("label", "", "list", "Set metadata for a volume"),
                ("name", "", "string", "The volume's name, as an argument would say it"),
                ("opt", "o", "list", "Set driver specific options"),
            ), create, most=1, examples=("silo volume create data",)),
    Command("volume rm", "[OPTIONS] VOLUME [VOLUME...]", "Remove one or more volumes",
            (("force", "f", "bool", "Force the removal of one or more volumes"),), rm, least=1, takes="volumes",
            examples=("silo volume rm data",)),
    Command("volume inspect", "[OPTIONS] VOLUME [VOLUME...]", "Display detailed information on one or more volumes",
            (("format", "f", "string", "json, or a template"),), inspect, least=1, takes="volumes",
            examples=("silo volume inspect data",)),
    Command("volume prune", "[OPTIONS]", "Remove unused local volumes",
            (
                ("all", "a", "bool", "Remove all unused volumes, not just anonymous ones"),
                ("filter", "", "list", "Provide filter values (e.g. label=<label>)"),
                ("force", "f", "bool", "Do not prompt for confirmation"),
            ), prune, most=0, examples=("silo volume prune -a",)),
)  # fmt: skip
