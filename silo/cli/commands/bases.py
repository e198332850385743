"""`base build`, `base ls`: the base images that Silo builds itself."""

from __future__ import annotations

from silo.cli.client import encode_filters
from silo.cli.failure import ApiError, UsageError
from silo.cli.grammar import Command
from silo.cli.listing import print_lines, print_listing
from silo.cli.progress import show_progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from silo.cli.client import Client
    from silo.cli.grammar import Values

BASES = ("windows", "vm")


def build_base(client: Client, *, quiet: bool, descriptor: int = 1, name: str = "windows") -> str:
    """Build a base, or find that it is built already; its image's id. Raises Failure."""
    found: list[str] = []

    def keep(aux: dict[str, Any]) -> None:
        if aux.get("ID"):
            found.append(str(aux["ID"]))

    show_progress(client.stream("POST", f"/silo/v1/base/{name}"), descriptor=descriptor, quiet=quiet, on_aux=keep)
    return found[-1] if found else ""


def build(client: Client, values: Values) -> int:
    name = values.arguments[0]
    if name not in BASES:
        raise UsageError(f"there is no base named {name!r}: {', '.join(BASES)}")
    image = build_base(client, quiet=values.flag("quiet"), name=name)
    print_lines([image] if image else [])
    return 0


def _find_vm(client: Client) -> list[dict[str, Any]]:
    """The image of utility VMs in the form of the images in the store, where it is not; empty if it is not built."""
    try:
        found = client.get("/silo/v1/base/vm")
    except ApiError as error:
        if error.http_status == 404:
            return []
        raise
    return [{**found, "Id": f"sha256:{found['Id']}", "RepoTags": [f"vm:{found['Kernel']}"]}]


def list_(client: Client, values: Values) -> int:
    """What is built."""
    from silo.cli.commands.images import COLUMNS, TITLES, image_rows_fields

    found = client.get("/images/json", {"filters": encode_filters(["reference=windows"])})
    rows = image_rows_fields([*found, *_find_vm(client)], truncate=True, digests=False)
    print_listing(rows, COLUMNS, values.text("format"), TITLES)
    return 0


COMMANDS = (
    Command("base build", "[OPTIONS] windows|vm", "Build a base image (the first run of a Windows container does it, too)",
            (("quiet", "q", "bool", "Suppress the build output, print only the image's ID"),), build,
            least=1, most=1, takes="bases", examples=("silo base build windows", "silo base build vm")),
    Command("base ls", "[OPTIONS]", "List the base images that are built",
            (("format", "", "string", "table, json, or a template"),), list_, most=0, examples=("silo base ls",)),
)  # fmt: skip
