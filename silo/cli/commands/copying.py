"""`cp`: files between a container and this machine."""

from __future__ import annotations

import binascii
import os
import sys

from silo.cli.client import container_path
from silo.cli.complaint import complain
from silo.cli.copy_paths import plan_target, split_operand, split_path, wants_contents
from silo.cli.failure import ApiError, Failure, UsageError
from silo.cli.grammar import Command
from silo.cli.json_text import loads
from silo.cli.units import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from silo.cli.client import Client
    from silo.cli.grammar import Values

# Go's file modes, as the API tells them.
_GO_DIRECTORY = 1 << 31
_GO_LINK = 1 << 27
_STAT_HEADER = "x-docker-container-path-stat"
MAX_LINKS = 16


def _decode_stat(text: str) -> dict[str, Any]:
    try:
        value = loads(binascii.a2b_base64(text))
    except ValueError:
        raise Failure("the daemon's description of the path is damaged") from None
    assert isinstance(value, dict)
    return value


def _stat(client: Client, container: str, path: str) -> dict[str, Any] | None:
    """None when the path does not exist, but the container does."""
    try:
        response = client.request("HEAD", container_path(container, "/archive"), {"path": path})
    except ApiError as error:
        if error.http_status != 404:
            raise
        # A HEAD has no words; this finds out whether the container is there.
        client.get(container_path(container, "/json"))
        return None
    response.close()
    return _decode_stat(response.headers.get(_STAT_HEADER, ""))


def _follow(client: Client, container: str, path: str) -> tuple[str, dict[str, Any] | None]:
    """The path after its links, and its stat."""
    for _ in range(MAX_LINKS):
        stat = _stat(client, container, path)
        if stat is None or not stat["mode"] & _GO_LINK:
            return path, stat
        target = stat.get("linkTarget", "")
        path = target if target.startswith("/") else f"{split_path(path)[0].rstrip('/')}/{target}"
    raise Failure(f"{path}: too many links")


def from_container(client: Client, container: str, path: str, target: str, values: Values) -> int:
    if values.flag("follow-link"):
        path, _ = _follow(client, container, path)
    if target != "-":
        parent = os.path.dirname(os.path.abspath(target))
        if not os.path.isdir(parent):
            raise Failure(f"invalid output path: directory {parent} does not exist")
    response = client.request("GET", container_path(container, "/archive"), {"path": path})
    if target == "-":
        from silo.cli.attach import write_all

        for piece in response.pieces():
            write_all(1, piece)
        return 0
    from silo.cli.tar_in import PieceFile, Unpacker

    stat = _decode_stat(response.headers.get(_STAT_HEADER, ""))
    directory, name = plan_target(
        source_name=split_path(path)[1] or stat["name"].strip("/\\"),
        source_is_dir=bool(stat["mode"] & _GO_DIRECTORY),
        contents=wants_contents(path) or not split_path(path)[1],
        target=target,
        target_exists=os.path.exists(target),
        target_is_dir=os.path.isdir(target),
    )
    unpacker = Unpacker(directory, name, archive=values.flag("archive"))
    source = PieceFile(response.pieces())
    unpacker.unpack(source)
    _say(values, source.size, target)
    for line in unpacker.refused:
        complain(f"not copied: {line}")
    return 1 if unpacker.refused else 0


def to_container(client: Client, source: str, container: str, path: str, values: Values) -> int:
    from silo.cli.pieces import read_chunks

    path, stat = _follow(client, container, path)
    exists, is_dir = stat is not None, bool(stat and stat["mode"] & _GO_DIRECTORY)
    query = {"noOverwriteDirNonDir": "true", "copyUIDGID": "true" if values.flag("archive") else ""}
    if source == "-":
        if not is_dir:
            raise Failure(f'destination "{container}:{path}" must be a directory')
        return _put(client, container, path, query, read_chunks(0), values)
    follow = values.flag("follow-link") or source.endswith("/")
    if not os.path.lexists(source):
        raise Failure(f"{source}: no such file or directory")
    from silo.cli.tar_out import pack

    local = os.path.abspath(source)
    source_is_dir = os.path.isdir(local) and (follow or not os.path.islink(local))
    directory, name = plan_target(
        source_name=os.path.basename(local),
        source_is_dir=source_is_dir,
        contents=wants_contents(source),
        target=path,
        target_exists=exists,
        target_is_dir=is_dir,
    )
    return _put(client, container, directory, query, pack(local, name, follow=follow), values)


def _put(
    client: Client, container: str, path: str, query: dict[str, str], pieces: Iterator[bytes], values: Values
) -> int:
    size = 0

    def counted() -> Iterator[bytes]:
        nonlocal size
        for piece in pieces:
            size += len(piece)
            yield piece

    response = client.request(
        "PUT", container_path(container, "/archive"), {"path": path, **query}, body=counted(),
        headers={"Content-Type": "application/x-tar"},
    )  # fmt: skip
    response.read()
    _say(values, size, f"{container}:{path}")
    return 0


def _say(values: Values, size: int, target: str) -> None:
    quiet = values.flag("quiet") if "quiet" in values.given else not os.isatty(1)
    if not quiet:
        sys.stderr.write(f"Successfully copied {human_size(size)} to {target}\n")


def cp(client: Client, values: Values) -> int:
    source, target = values.arguments
    from_name, from_path = split_operand(source)
    to_name, to_path = split_operand(target)
    if from_name and to_name:
        raise UsageError("copying between containers is not supported")
    if from_name:
        return from_container(client, from_name, from_path or "/", target, values)
    if to_name:
        return to_container(client, source, to_name, to_path or "/", values)
    raise UsageError("must specify at least one container source: CONTAINER:PATH")


COMMANDS = (
    Command("cp", "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-  or  SRC_PATH|- CONTAINER:DEST_PATH",
            "Copy files/folders between a container and the local file system",
            (
                ("archive", "a", "bool", "Archive mode (copy all uid/gid information)"),
                ("follow-link", "L", "bool", "Always follow symbol link in SRC_PATH"),
                ("quiet", "q", "bool", "Suppress progress output; the default if STDOUT is no terminal"),
            ), cp, least=2, most=2, takes="files",
            examples=("silo cp tool.exe box:C:\\tools", "silo cp web:/var/log .", "silo cp web:/etc - | tar -t")),
)  # fmt: skip
