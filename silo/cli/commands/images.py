"""`images`, `rmi`, `tag`, `history`, `commit`, `image inspect`, `image prune`."""

from __future__ import annotations

from silo.cli.client import encode_filters, image_path
from silo.cli.complaint import complain
from silo.cli.failure import ApiError, DaemonUnreachable, Failure, UsageError
from silo.cli.grammar import Command
from silo.cli.listing import print_lines, print_listing
from silo.cli.units import ellipsis, human_duration, human_size, local_rfc3339, local_time, truncate_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from silo.cli.client import Client
    from silo.cli.grammar import Values

_NONE = "<none>"
COLUMNS = (
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
)
TITLES = {
    **dict(COLUMNS), "Digest": "DIGEST", "CreatedAt": "CREATED AT", "Containers": "CONTAINERS",
    "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
}  # fmt: skip


def split_reference(text: str) -> tuple[str, str]:
    """`repo:tag` → both; the tag may be missing."""
    if "@" in text:
        text = text.partition("@")[0]
    name, colon, tag = text.rpartition(":")
    return (name, tag) if colon and "/" not in tag else (text, "")


def image_rows(image: dict[str, Any], *, digests: bool) -> list[tuple[str, str, str]]:
    """(repository, tag, digest) of each name of an image."""
    tags = [tag for tag in image.get("RepoTags") or [] if tag != f"{_NONE}:{_NONE}"]
    by_repository: dict[str, list[str]] = {}
    for text in image.get("RepoDigests") or []:
        repository, _, digest = text.partition("@")
        if repository != _NONE:
            by_repository.setdefault(repository, []).append(digest)
    rows: list[tuple[str, str, str]] = []
    for text in tags:
        repository, tag = split_reference(text)
        found = by_repository.get(repository, []) if digests else []
        rows.extend((repository, tag, digest) for digest in found or [_NONE])
    named = {split_reference(text)[0] for text in tags}
    for repository, found in by_repository.items():
        if repository not in named:
            rows.extend((repository, _NONE, digest) for digest in (found if digests else found[:1]))
    return rows or [(_NONE, _NONE, _NONE)]


def image_rows_fields(images: list[dict[str, Any]], *, truncate: bool, digests: bool) -> list[dict[str, Any]]:
    import time

    now = time.time()
    rows = []
    for image in images:
        created = image.get("Created", 0)
        base = {
            "ID": truncate_id(image["Id"]) if truncate else image["Id"],
            "CreatedSince": f"{human_duration(now - created)} ago" if created > 0 else "N/A",
            "CreatedAt": local_time(created),
            "Size": human_size(image.get("Size", 0)),
            "Containers": "N/A" if image.get("Containers", -1) < 0 else str(image["Containers"]),
            "SharedSize": "N/A" if image.get("SharedSize", -1) < 0 else human_size(image["SharedSize"]),
            "UniqueSize": "N/A",
        }
        if image.get("SharedSize", -1) >= 0:
            base["UniqueSize"] = human_size(image.get("Size", 0) - image["SharedSize"])
        for repository, tag, digest in image_rows(image, digests=digests):
            rows.append({**base, "Repository": repository, "Tag": tag, "Digest": digest})
    return rows


def images(client: Client, values: Values) -> int:
    filters = list(values.words("filter"))
    if values.arguments:
        filters.append(f"reference={values.arguments[0]}")
    digests = values.flag("digests")
    query = {"all": "1" if values.flag("all") else "", "filters": encode_filters(filters)}
    found = client.get("/images/json", query)
    truncate = not values.flag("no-trunc")
    form = values.text("format")
    if values.flag("quiet") and form in ("", "table"):
        shown = [
            truncate_id(image["Id"]) if truncate else image["Id"]
            for image in found
            for _ in image_rows(image, digests=digests)
        ]
        print_lines(shown)
        return 0
    columns = (*COLUMNS[:2], ("Digest", "DIGEST"), *COLUMNS[2:]) if digests else COLUMNS
    print_listing(
        image_rows_fields(found, truncate=truncate, digests=digests or ".Digest" in form), columns, form, TITLES
    )
    return 0


def rmi(client: Client, values: Values) -> int:
    query: dict[str, str | list[str]] = {
        "force": "1" if values.flag("force") else "", "noprune": "1" if values.flag("no-prune") else "",
        "platforms": values.words("platform"),
    }  # fmt: skip
    status = 0
    for name in values.arguments:
        try:
            changes = client.delete(image_path(name), query)
        except DaemonUnreachable:
            raise
        except Failure as failure:
            forgiven = isinstance(failure, ApiError) and failure.http_status == 404 and values.flag("force")
            complain(failure.message)
            status = status if forgiven else 1
            continue
        print_lines(
            [f"{'Deleted' if 'Deleted' in change else 'Untagged'}: {next(iter(change.values()))}" for change in changes]
        )
    return status


def tag(client: Client, values: Values) -> int:
    source, target = values.arguments
    if "@" in target:
        raise UsageError(f"refusing to create a tag with a digest reference: {target}")
    repository, name = split_reference(target)
    client.post(image_path(source, "/tag"), {"repo": repository, "tag": name or "latest"})
    return 0


_HISTORY = (
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
)


def history(client: Client, values: Values) -> int:
    import time

    layers = client.get(image_path(values.arguments[0], "/history"))
    truncate, human = not values.flag("no-trunc"), values.flag("human")
    now = time.time()
    rows = []
    for layer in layers:
        created_at = local_rfc3339(layer["Created"])
        by = layer["CreatedBy"].replace("\t", " ")
        rows.append(
            {
                "ID": layer["Id"] if layer["Id"] == "<missing>" or not truncate else truncate_id(layer["Id"]),
                "CreatedSince": f"{human_duration(now - layer['Created'])} ago" if human else created_at,
                "CreatedAt": created_at,
                "CreatedBy": ellipsis(by, 45) if truncate else by,
                "Size": human_size(layer["Size"]) if human else str(layer["Size"]),
                "Comment": layer.get("Comment", ""),
            }
        )
    if values.flag("quiet"):
        print_lines([str(row["ID"]) for row in rows])
        return 0
    print_listing(rows, _HISTORY, values.text("format"), {**dict(_HISTORY), "CreatedAt": "CREATED AT"})
    return 0


def commit(client: Client, values: Values) -> int:
    container, *target = values.arguments
    repository, name = split_reference(target[0]) if target else ("", "")
    query: dict[str, str | list[str]] = {
        "container": container, "repo": repository, "tag": name, "comment": values.text("message"),
        "author": values.text("author"), "changes": values.words("change"), "pause": "" if values.flag("pause") else "0",
    }  # fmt: skip
    print_lines([client.post("/commit", query)["Id"]])
    return 0


def inspect(client: Client, values: Values) -> int:
    from silo.cli.commands.looking import print_objects

    return print_objects(client, values, ("image",))


def prune(client: Client, values: Values) -> int:
    from silo.cli.pruning import confirm, print_reclaimed

    every = values.flag("all")
    what = "all images without at least one container associated to them" if every else "all dangling images"
    if not confirm(f"This will remove {what}.", values):
        return 0
    words = [*values.words("filter"), f"dangling={'false' if every else 'true'}"]
    answer = client.post("/images/prune", {"filters": encode_filters(words)})
    lines = []
    for change in answer.get("ImagesDeleted") or []:
        lines += [f"{kind.lower()}: {name}" for kind, name in change.items() if name]
    print_reclaimed([("Deleted Images:", lines)], answer.get("SpaceReclaimed", 0))
    return 0


_FORMAT = ("format", "", "string", "table, json, or a template such as '{{.Repository}}:{{.Tag}}'")
COMMANDS = (
    Command("images", "[OPTIONS] [REPOSITORY[:TAG]]", "List images",
            (
                ("all", "a", "bool", "Show all images (default hides intermediate images)"),
                ("digests", "", "bool", "Show digests"),
                ("filter", "f", "list", "Filter the output (key=value)"),
                _FORMAT,
                ("no-trunc", "", "bool", "Don't truncate output"),
                ("quiet", "q", "bool", "Only show image IDs"),
            ), images, most=1, takes="images", examples=("silo images", "silo images --format json")),
    Command("rmi", "[OPTIONS] IMAGE [IMAGE...]", "Remove one or more images",
            (
                ("force", "f", "bool", "Force removal of the image"),
                ("no-prune", "", "bool", "Do not delete untagged parents"),
                ("platform", "", "list", "Remove only the given platform variant"),
            ), rmi, least=1, takes="images", examples=("silo rmi debian:trixie",)),
    Command("tag", "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
            (), tag, least=2, most=2, takes="images", examples=("silo tag app:latest registry.example/app:1.0",)),
    Command("history", "[OPTIONS] IMAGE", "Show the history of an image",
            (
                _FORMAT,
                ("human", "H", "bool=true", "Print sizes and dates in human readable format"),
                ("no-trunc", "", "bool", "Don't truncate output"),
                ("quiet", "q", "bool", "Only show image IDs"),
            ), history, least=1, most=1, takes="images", examples=("silo history windows",)),
    Command("commit", "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", "Create a new image from a container's changes",
            (
                ("author", "a", "string", "Author (e.g., \"Ada Lovelace <ada@example.com>\")"),
                ("change", "c", "list", "Apply a Dockerfile instruction to the created image"),
                ("message", "m", "string", "Commit message"),
                ("pause", "p", "bool=true", "Pause the container during the commit"),
            ), commit, least=1, most=2, takes="containers",
            examples=("silo commit -c 'CMD [\"cmd\", \"/c\", \"ver\"]' box tools:1",)),
    Command("image inspect", "[OPTIONS] IMAGE [IMAGE...]", "Display detailed information on one or more images",
            (("format", "f", "string", "json, or a template such as '{{.Os}}'"),), inspect, least=1, takes="images",
            examples=("silo image inspect windows",)),
    Command("image prune", "[OPTIONS]", "Remove unused images",
            (
                ("all", "a", "bool", "Remove all unused images, not just dangling ones"),
                ("filter", "", "list", "Provide filter values (e.g. until=24h)"),
                ("force", "f", "bool", "Do not prompt for confirmation"),
            ), prune, most=0, examples=("silo image prune -a",)),
)  # fmt: skip
