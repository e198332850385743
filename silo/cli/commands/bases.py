"""`base build`, `base ls`, `base rm`, `base import`: the base images that Silo builds itself, and utility VMs of a user's own."""

from __future__ import annotations

import os

from silo.cli.client import encode_filters
from silo.cli.each import for_each
from silo.cli.failure import UsageError
from silo.cli.grammar import Command
from silo.cli.http import quote
from silo.cli.listing import print_lines, print_listing
from silo.cli.progress import show_progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from silo.cli.client import Client
    from silo.cli.grammar import Values

BASES = ("windows", "vm")


def build_base(
    client: Client, *, quiet: bool, descriptor: int = 1, base: str = "windows", query: dict[str, str] | None = None
) -> str:
    """Build a base, or find that it is built already; its image's id. Raises Failure."""
    found: list[str] = []

    def keep(aux: dict[str, Any]) -> None:
        if aux.get("ID"):
            found.append(str(aux["ID"]))

    lines = client.stream("POST", f"/silo/v1/base/{base}", query)
    show_progress(lines, descriptor=descriptor, quiet=quiet, on_aux=keep)
    return found[-1] if found else ""


def build(client: Client, values: Values) -> int:
    base = values.arguments[0]
    if base not in BASES:
        raise UsageError(f"there is no base named {base!r}: {', '.join(BASES)}")
    query = {}
    for flag in ("name", "kernel"):
        if values.text(flag):
            if base != "vm":
                raise UsageError(f"--{flag} is for utility VMs: silo base build vm")
            query[flag] = values.text(flag)
    image = build_base(client, quiet=values.flag("quiet"), base=base, query=query)
    print_lines([image] if image else [])
    return 0


def list_(client: Client, values: Values) -> int:
    """What is built: images in the store, and utility VMs in the same form."""
    from silo.cli.commands.images import COLUMNS, TITLES, image_rows_fields

    stored = client.get("/images/json", {"filters": encode_filters(["reference=windows"])})
    rows = [{**row, "Kernel": "-"} for row in image_rows_fields(stored, truncate=True, digests=False)]
    for vm in client.get("/silo/v1/base/vm"):
        image = {**vm, "Id": f"sha256:{vm['Id']}", "RepoTags": [f"vm:{vm['Name']}"]}
        rows += [{**row, "Kernel": vm["Kernel"]} for row in image_rows_fields([image], truncate=True, digests=False)]
    kernel = ("Kernel", "KERNEL")
    print_listing(rows, (*COLUMNS, kernel), values.text("format"), dict((*TITLES.items(), kernel)))
    return 0


def _check_is_vm(values: Values, verb: str) -> list[str]:
    """The arguments after `vm`."""
    base, *names = values.arguments
    if base != "vm":
        raise UsageError(f"silo base {verb} is for utility VMs: silo base {verb} vm …")
    return names


def remove(client: Client, values: Values) -> int:
    names = _check_is_vm(values, "rm")
    query = {"force": "1" if values.flag("force") else ""}
    return for_each(names, lambda name: client.delete(f"/silo/v1/base/vm/{quote(name)}", query))


def import_(client: Client, values: Values) -> int:
    (directory,) = _check_is_vm(values, "import")
    if not values.text("name"):
        raise UsageError("silo base import vm needs --name")
    query = {"name": values.text("name"), "directory": os.path.abspath(directory)}
    print_lines([str(client.post("/silo/v1/base/vm/import", query)["Id"])])
    return 0


COMMANDS = (
    Command("base build", "[OPTIONS] windows|vm", "Build a base image (the first run of a Windows container does it, too)",
            (
                ("quiet", "q", "bool", "Suppress the build output, print only the image's ID"),
                ("name", "", "string", "Name of the utility VM (default: default); what has it now goes"),
                ("kernel", "", "string", "Debian's package with the utility VM's kernel (default: linux-image-amd64)"),
            ),
            build, least=1, most=1, takes="bases",
            examples=("silo base build windows", "silo base build vm",
                      "silo base build vm --name rt --kernel linux-image-rt-amd64")),
    Command("base ls", "[OPTIONS]", "List the base images that are built",
            (("format", "", "string", "table, json, or a template"),), list_, most=0, examples=("silo base ls",)),
    Command("base rm", "[OPTIONS] vm NAME [NAME...]", "Remove utility VMs",
            (("force", "f", "bool", "Remove it even if containers need it"),), remove,
            least=2, takes="vms", examples=("silo base rm vm rt",)),
    Command("base import", "[OPTIONS] vm DIRECTORY", "Import a utility VM of your own: vmlinuz, initrd.img and root.erofs",
            (("name", "", "string", "Name of the utility VM"),), import_,
            least=2, most=2, takes="files", examples=("silo base import vm ./my-vm --name mine",)),
)  # fmt: skip
