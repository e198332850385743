"""`pull`, `push`, `load`, `save`, `import`, `export`: images and file systems in and out."""

from __future__ import annotations

import os
import sys

from silo.cli.client import container_path, image_path
from silo.cli.commands.images import split_reference
from silo.cli.credentials import registry_header
from silo.cli.failure import Failure, UsageError
from silo.cli.grammar import Command
from silo.cli.listing import print_lines
from silo.cli.pieces import read_chunks
from silo.cli.progress import show_progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from silo.cli.client import Client
    from silo.cli.grammar import Values


def pull_image(
    client: Client, image: str, *, platform: str, quiet: bool, base_layers: str = "", descriptor: int = 1
) -> None:
    """With progress on `descriptor`. Raises Failure."""
    if "@" in image:
        name, _, tag = image.partition("@")
    else:
        name, tag = split_reference(image)
    query = {"fromImage": name, "tag": tag or "latest", "platform": platform, "baseLayers": base_layers}
    lines = client.stream("POST", "/images/create", query, headers=registry_header(image))
    show_progress(lines, descriptor=descriptor, quiet=quiet)


def pull(client: Client, values: Values) -> int:
    if values.flag("all-tags"):
        raise UsageError("pull --all-tags is not supported: name the tag")
    image = values.arguments[0]
    quiet = values.flag("quiet")
    tagged = "@" in image or split_reference(image)[1]
    if not quiet and not tagged:
        print_lines(["Using default tag: latest"])
        sys.stdout.flush()
    pull_image(client, image, platform=values.text("platform"), quiet=quiet, base_layers=values.text("base-layers"))
    full = image if tagged else f"{image}:latest"
    if "/" not in image:
        full = f"docker.io/library/{full}"
    elif (
        "." not in image.partition("/")[0] and ":" not in image.partition("/")[0] and not image.startswith("localhost/")
    ):
        full = f"docker.io/{full}"
    print_lines([full])
    return 0


def push(client: Client, values: Values) -> int:
    if values.flag("all-tags"):
        raise UsageError("push --all-tags is not supported: name the tag")
    image = values.arguments[0]
    name, tag = split_reference(image)
    if not tag and not values.flag("quiet"):
        print_lines(["Using default tag: latest"])
        sys.stdout.flush()
    # The header must be there, also without credentials.
    headers = registry_header(image) or {"X-Registry-Auth": "e30="}
    query = {"tag": tag or "latest", "siloBase": "1" if values.flag("with-silo-base") else ""}
    lines = client.stream("POST", image_path(name, "/push"), query, headers=headers)
    show_progress(lines, quiet=values.flag("quiet"))
    if values.flag("quiet"):
        print_lines([image])
    return 0


def load(client: Client, values: Values) -> int:
    path = values.text("input")
    if not path and os.isatty(0):
        raise Failure("requested load from stdin, but stdin is empty; use -i FILE, or < FILE")
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC) if path else 0
    quiet = values.flag("quiet") or not os.isatty(1)
    query = {
        "quiet": "1" if quiet else "0",
        "platform": values.text("platform"),
        "baseLayers": values.text("base-layers"),
    }
    lines = client.stream(
        "POST", "/images/load", query,
        body=read_chunks(descriptor), headers={"Content-Type": "application/x-tar"},
    )  # fmt: skip
    show_progress(lines)
    return 0


def _receive(client: Client, path: str, query: dict[str, str | list[str]], output: str) -> int:
    """A tar from the daemon to a file or to standard output; a file appears only when it is whole."""
    from silo.cli.attach import write_all

    if not output and os.isatty(1):
        raise Failure("cowardly refusing to save to a terminal: use -o FILE, or > FILE")
    response = client.request("GET", path, query)
    if not output:
        for piece in response.pieces():
            write_all(1, piece)
        return 0
    if os.path.exists(output) and not os.path.isfile(output):
        with open(output, "wb") as file:
            for piece in response.pieces():
                file.write(piece)
        return 0
    temporary = f"{output}.{os.getpid()}.part"
    try:
        with open(temporary, "xb") as file:
            for piece in response.pieces():
                file.write(piece)
        os.replace(temporary, output)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
    return 0


def save(client: Client, values: Values) -> int:
    query: dict[str, str | list[str]] = {"names": values.arguments, "platform": values.text("platform")}
    return _receive(client, "/images/get", query, values.text("output"))


def export(client: Client, values: Values) -> int:
    return _receive(client, container_path(values.arguments[0], "/export"), {}, values.text("output"))


def import_(client: Client, values: Values) -> int:
    source, *target = values.arguments
    if source.startswith(("http://", "https://")):
        raise UsageError("import from a URL is not supported: download the file and import it, or - for stdin")
    descriptor = 0 if source == "-" else os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    repository, name = split_reference(target[0]) if target else ("", "")
    query: dict[str, str | list[str]] = {
        "fromSrc": "-", "repo": repository, "tag": name, "message": values.text("message"),
        "changes": values.words("change"), "platform": values.text("platform"),
    }  # fmt: skip
    lines = client.stream(
        "POST", "/images/create", query, body=read_chunks(descriptor), headers={"Content-Type": "application/x-tar"}
    )
    show_progress(lines)
    return 0


_PLATFORM = ("platform", "", "string", "Choose a platform of a multi-platform image (linux/amd64, windows/amd64)")
_OUTPUT = ("output", "o", "string", "Write to a file, instead of STDOUT")
_QUIET = ("quiet", "q", "bool", "Suppress verbose output")
_BASE_LAYERS = (
    "base-layers",
    "",
    "string",
    "How many of a Windows image's lowest layers are its base, if it does not tell",
)
_SILO_BASE = ("with-silo-base", "", "bool", "Push a Windows image with Silo's base: runs on Silo only")
_ALL_TAGS = ("all-tags", "a", "bool", "All tags of the repository; not supported")
COMMANDS = (
    Command("pull", "[OPTIONS] NAME[:TAG|@DIGEST]", "Download an image from a registry",
            (_ALL_TAGS, _BASE_LAYERS, _PLATFORM, _QUIET),
            pull, least=1, most=1, takes="images", examples=("silo pull debian:trixie",)),
    Command("push", "[OPTIONS] NAME[:TAG]", "Upload an image to a registry", (_ALL_TAGS, _QUIET, _SILO_BASE), push,
            least=1, most=1, takes="images", examples=("silo push registry.example:5000/app:1.0",)),
    Command("load", "[OPTIONS]", "Load an image from a tar archive or STDIN",
            (("input", "i", "string", "Read from a tar archive file, instead of STDIN"), _BASE_LAYERS, _PLATFORM, _QUIET),
            load, most=0, examples=("silo load -i app.tar", "xz -dc app.tar.xz | silo load")),
    Command("save", "[OPTIONS] IMAGE [IMAGE...]", "Save one or more images to a tar archive (streamed to STDOUT by default)",
            (_OUTPUT, _PLATFORM), save, least=1, takes="images", examples=("silo save -o app.tar app:1.0",)),
    Command("import", "[OPTIONS] file|- [REPOSITORY[:TAG]]", "Import the contents from a tarball to create a file system image",
            (
                ("change", "c", "list", "Apply a Dockerfile instruction to the created image"),
                ("message", "m", "string", "Set commit message for imported image"),
                _PLATFORM,
            ), import_, least=1, most=2, takes="files", examples=("tar -c . | silo import - app:1.0",)),
    Command("export", "[OPTIONS] CONTAINER", "Export a container's file system as a tar archive", (_OUTPUT,), export,
            least=1, most=1, takes="containers", examples=("silo export -o web.tar web",)),
)  # fmt: skip
