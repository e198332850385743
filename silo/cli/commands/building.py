"""`build`, `builder prune`: images from Dockerfiles."""

from __future__ import annotations

import os
import sys

from silo.cli.attach import write_all
from silo.cli.client import container_path, encode_filters
from silo.cli.create_body import parse_ulimit
from silo.cli.credentials import all_credentials_header
from silo.cli.failure import Failure, UsageError
from silo.cli.grammar import Command, parse_decimal
from silo.cli.json_text import dumps
from silo.cli.progress import Board
from silo.cli.table import clean
from silo.cli.words import split_csv

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from silo.cli.client import Client
    from silo.cli.grammar import Values

_NUMBERS = (("cpu-period", "cpuperiod"), ("cpu-quota", "cpuquota"), ("cpu-shares", "cpushares"))
_SIZES = (("memory", "memory"), ("memory-swap", "memswap"), ("shm-size", "shmsize"))
_TEXTS = (
    ("target", "target"), ("platform", "platform"), ("isolation", "isolation"), ("network", "networkmode"),
    ("cpuset-cpus", "cpusetcpus"), ("cpuset-mems", "cpusetmems"), ("cgroup-parent", "cgroupparent"),
)  # fmt: skip
_UNSUPPORTED = {
    "secret": "a secret cannot be handed over by this protocol; RUN --mount=type=bind shows a file of the context",
    "ssh": "an agent cannot be handed over by this protocol",
    "compress": "the socket is on this machine",
}


def build(client: Client, values: Values) -> int:
    for flag, reason in _UNSUPPORTED.items():
        if flag in values.given:
            raise UsageError(f"--{flag} is not supported: {reason}")
    output = parse_output(values.text("output")) if "output" in values.given else None
    from silo.cli.contexts import open_context

    context = open_context(values.arguments[0], values.text("file"))
    query = build_query(values) | {"dockerfile": context.dockerfile, "remote": context.remote}
    headers = {"Content-Type": "application/x-tar", **all_credentials_header()}
    lines = client.stream("POST", "/build", query, body=context.pieces, headers=headers)
    image = show_build(lines, quiet=values.flag("quiet"))
    if path := values.text("iidfile"):
        with open(path, "w", encoding="ascii") as file:
            file.write(image)
    if output is not None:
        _export(client, image, *output)
    return 0


def build_query(values: Values) -> dict[str, str | list[str]]:
    """Everything but the context. Raises UsageError."""
    query: dict[str, str | list[str]] = {
        "version": "1", "t": values.words("tag"), "q": "1" if values.flag("quiet") else "",
        "nocache": "1" if values.flag("no-cache") else "", "pull": "1" if values.flag("pull") else "",
        "rm": "1" if values.flag("rm") else "0", "forcerm": "1" if values.flag("force-rm") else "",
        "squash": "1" if values.flag("squash") else "", "extrahosts": values.words("add-host"),
    }  # fmt: skip
    query |= {name: values.text(flag) for flag, name in _TEXTS}
    query |= {name: str(values.number(flag)) for flag, name in _NUMBERS if flag in values.given}
    query |= {name: str(values.size(flag)) for flag, name in _SIZES if flag in values.given}
    if "cpus" in values.given:
        query["nanocpus"] = str(parse_decimal(values.text("cpus"), 9))
    lists: tuple[tuple[str, Any], ...] = (
        ("cachefrom", values.words("cache-from")),
        ("securityopt", values.words("security-opt")),
        ("ulimits", [parse_ulimit(word) for word in values.words("ulimit")]),
        ("buildargs", _arguments(values.words("build-arg"))),
        ("labels", _pairs(values.words("label"))),
    )
    return query | {name: dumps(value) for name, value in lists if value}


def _arguments(words: Iterable[str]) -> dict[str, str]:
    """NAME=value; NAME alone passes on our own value, and is left out when there is none."""
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise UsageError(f"invalid argument {word!r} for --build-arg: the variable has no name")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def _pairs(words: Iterable[str]) -> dict[str, str]:
    return {word.partition("=")[0]: word.partition("=")[2] for word in words}


def show_build(lines: Iterable[dict[str, Any]], *, quiet: bool) -> str:
    """Print what a build tells, as it comes; answers the image's id. Raises Failure whose status is the failed command's."""
    board = Board(1)
    image = ""
    for line in lines:
        if line.get("errorDetail") or line.get("error"):
            detail = line.get("errorDetail") or {}
            message = "\n".join(map(clean, str(detail.get("message") or line.get("error")).split("\n")))
            raise Failure(message, status=int(detail.get("code") or 1))
        if isinstance(line.get("aux"), dict):
            image = str(line["aux"].get("ID") or image)
        elif text := str(line.get("stream") or ""):
            # Programs' own output: colours are theirs to choose, as in `silo run`.
            write_all(2 if quiet and not text.startswith("sha256:") else 1, text.encode("utf-8", "surrogateescape"))
        else:
            board.show(line)
    return image


def parse_output(text: str) -> tuple[str, str]:
    """(type, destination) of `-o`: `dir`, `type=local,dest=dir`, `type=tar,dest=file` or `-`. Raises UsageError."""
    if text == "-":
        return "tar", "-"
    if "=" not in text:
        return "local", text
    fields = {word.partition("=")[0].strip().lower(): word.partition("=")[2] for word in split_csv(text)}
    kind, target = fields.pop("type", ""), fields.pop("dest", "")
    if fields or kind not in ("local", "tar"):
        raise UsageError(f"--output {text} is not supported: type=local,dest=DIRECTORY or type=tar,dest=FILE")
    if not target:
        raise UsageError(f"--output {text}: dest is missing")
    return kind, target


def _export(client: Client, image: str, kind: str, target: str) -> None:
    """The image's files, by way of a container that never runs."""
    created = client.post("/containers/create", json={"Image": image, "Cmd": ["none"], "Entrypoint": [""]})["Id"]
    try:
        pieces = client.request("GET", container_path(created, "/export")).pieces()
        if kind == "tar":
            descriptor = 1 if target == "-" else os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            for piece in pieces:
                write_all(descriptor, piece)
            return
        from silo.cli.tar_in import PieceFile, Unpacker

        os.makedirs(target, exist_ok=True)
        unpacker = Unpacker(target, "")
        unpacker.unpack(PieceFile(pieces))
        for refused in unpacker.refused:
            sys.stderr.write(f"left out: {refused}\n")
    finally:
        client.delete(container_path(created), {"force": "1", "v": "1"})


def prune(client: Client, values: Values) -> int:
    from silo.cli.pruning import confirm, print_reclaimed

    what = "steps of builds that lead to no named image"
    if values.flag("all"):
        what += ", and the caches of RUN --mount=type=cache"
    if not confirm(f"This will remove {what}.", values):
        return 0
    query = {"all": "1" if values.flag("all") else "", "filters": encode_filters(values.words("filter"))}
    answer = client.post("/build/prune", query)
    print_reclaimed(
        [("Deleted build cache objects:", answer.get("CachesDeleted") or [])], answer.get("SpaceReclaimed", 0)
    )
    return 0


COMMANDS = (
    Command("build", "[OPTIONS] PATH | URL | -", "Build an image from a Dockerfile",
            (
                ("add-host", "", "list", "Add a custom host-to-IP mapping (host:ip)"),
                ("build-arg", "", "list", "Set build-time variables"),
                ("cache-from", "", "list", "Images to consider as cache sources"),
                ("cgroup-parent", "", "string", "Parent cgroup of the steps; not supported"),
                ("compress", "", "bool", "Compress the build context; not supported"),
                ("cpu-period", "", "int", "Limit the CPU period of the scheduler, in microseconds"),
                ("cpu-quota", "", "int", "Limit the CPU time in a period, in microseconds"),
                ("cpu-shares", "c", "int", "CPU shares (relative weight)"),
                ("cpus", "", "decimal", "Number of CPUs"),
                ("cpuset-cpus", "", "string", "CPUs in which to allow execution (0-3, 0,1)"),
                ("cpuset-mems", "", "string", "Memory nodes in which to allow execution (0-3, 0,1)"),
                ("file", "f", "string", "Name of the Dockerfile (default: PATH/Dockerfile; - reads STDIN)"),
                ("force-rm", "", "bool", "Remove the containers of failed steps, too"),
                ("iidfile", "", "string", "Write the image ID to the file"),
                ("isolation", "", "string", "Isolation level of the steps (default, process, hyperv or vm)"),
                ("label", "", "list", "Set metadata for an image"),
                ("memory", "m", "bytes", "Memory limit"),
                ("memory-swap", "", "bytes", "Limit of memory plus swap; -1 for unlimited swap"),
                ("network", "", "string", "Networking mode for the RUN instructions"),
                ("no-cache", "", "bool", "Do not use cache when building the image"),
                ("output", "o", "string", "Write the image's files (type=local,dest=DIRECTORY or type=tar,dest=FILE)"),
                ("platform", "", "string", "Platform of the images that are built upon (linux/amd64, windows/amd64)"),
                ("pull", "", "bool", "Always attempt to pull a newer version of the image"),
                ("quiet", "q", "bool", "Suppress the build output and print the image ID on success"),
                ("rm", "", "bool=true", "Remove intermediate containers after a successful build"),
                ("secret", "", "list", "Secret to expose to the build; not supported"),
                ("security-opt", "", "list", "Security options (seccomp=unconfined)"),
                ("shm-size", "", "bytes", "Size of /dev/shm"),
                ("squash", "", "bool", "Squash newly built layers into one; not supported"),
                ("ssh", "", "list", "SSH agent to expose to the build; not supported"),
                ("tag", "t", "list", "Name and optionally a tag (name:tag)"),
                ("target", "", "string", "Set the target build stage to build"),
                ("ulimit", "", "list", "Ulimit options (name=soft[:hard])"),
            ), build, least=1, most=1, takes="files",
            examples=("silo build -t app .", "silo build -t app --isolation hyperv --build-arg VERSION=2 src")),
    Command("builder prune", "[OPTIONS]", "Remove what builds have left",
            (
                ("all", "a", "bool", "Remove the caches of RUN --mount as well"),
                ("filter", "", "list", "Provide filter values (e.g. until=24h)"),
                ("force", "f", "bool", "Do not prompt for confirmation"),
            ), prune, most=0, examples=("silo builder prune",)),
)  # fmt: skip
