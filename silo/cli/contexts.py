"""Where a build's context comes from: a directory packed by its .dockerignore, an archive or Dockerfile on stdin, or a URL.

Docker's rules: `<Dockerfile>.dockerignore` wins over `.dockerignore`; the Dockerfile and .dockerignore are always sent, and the
daemon drops them where the rules say so; a Dockerfile from elsewhere travels under a name of its own.
"""

from __future__ import annotations

import os

from silo.cli.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from silo.dockerfile.ignore import IgnoreRules

IGNORE_FILE = ".dockerignore"
MAXIMUM_FILE_BYTES = 1 << 20
_REMOTE = ("http://", "https://", "git://", "git@", "ssh://", "github.com/")
_ARCHIVE_HEADS = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
_MAGIC_PLACE = 257


class Context:
    """What is sent: `remote` a URL, or `pieces` a tar; `dockerfile` is its name within."""

    __slots__ = ("dockerfile", "pieces", "remote")

    def __init__(
        self, *, remote: str = "", pieces: Iterator[bytes] | None = None, dockerfile: str = "Dockerfile"
    ) -> None:
        self.remote = remote
        self.pieces = pieces
        self.dockerfile = dockerfile


def open_context(place: str, dockerfile: str) -> Context:
    """`place`: PATH, URL or `-`; `dockerfile`: `-f`, "" when not given. Raises Failure."""
    if place == "-":
        return _from_stdin(dockerfile)
    if place.startswith(_REMOTE):
        return Context(remote=place, dockerfile=dockerfile or "Dockerfile")
    if not os.path.isdir(place):
        raise Failure(f"unable to prepare context: path {place!r} is not a directory")
    return _from_directory(os.path.realpath(place), dockerfile)


def _from_stdin(dockerfile: str) -> Context:
    from silo.cli.pieces import read_chunks

    if dockerfile == "-":
        raise Failure("invalid argument: can't use stdin for both build context and dockerfile")
    if os.isatty(0):
        raise Failure("a build context is read from stdin, which is a terminal: use . for this directory")
    head = b""
    chunks = read_chunks(0)
    while len(head) < 512 and (chunk := next(chunks, b"")):
        head += chunk
    if head.startswith(_ARCHIVE_HEADS) or head[_MAGIC_PLACE : _MAGIC_PLACE + 5] == b"ustar" or head[:512] == bytes(512):
        return Context(pieces=_joined(head, chunks), dockerfile=dockerfile or "Dockerfile")
    from silo.cli.tar_out import pack_files

    text = head + b"".join(chunks)
    if len(text) > MAXIMUM_FILE_BYTES:
        raise Failure("what stdin gives is neither an archive nor a Dockerfile: it is too long for one")
    return Context(pieces=pack_files({"Dockerfile": text}), dockerfile="Dockerfile")


def _joined(head: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield head
    yield from rest


def _from_directory(directory: str, dockerfile: str) -> Context:
    from silo.cli.tar_out import pack_context

    extra: dict[str, bytes] = {}
    if dockerfile == "-":
        with open(0, "rb", closefd=False) as file:
            extra = _renamed(file.read(MAXIMUM_FILE_BYTES + 1))
        name = next(iter(extra))
        rules = _load_rules(directory, "")
    else:
        path = os.path.abspath(dockerfile) if dockerfile else _default_dockerfile(directory)
        if dockerfile and not os.path.exists(path) and not os.path.isabs(dockerfile):
            path = os.path.join(directory, dockerfile)
        rules = _load_rules(directory, path)
        inside = os.path.relpath(os.path.realpath(path), directory)
        if inside.startswith("../"):
            extra = _renamed(_read(path))
            inside = next(iter(extra))
        elif not os.path.exists(path):
            raise Failure(
                f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: {path}: no such file"
            )
        name = inside.replace(os.sep, "/")
    return Context(pieces=pack_context(directory, rules, extra, {name, IGNORE_FILE}), dockerfile=name)


def _default_dockerfile(directory: str) -> str:
    """`Dockerfile`, or `dockerfile` where only that is there."""
    names = [os.path.join(directory, name) for name in ("Dockerfile", "dockerfile")]
    return next((name for name in names if os.path.exists(name)), names[0])


def _load_rules(directory: str, dockerfile: str) -> IgnoreRules | None:
    """The rules of the Dockerfile's own ignore file, else of the directory's; None without either."""
    for path in ((f"{dockerfile}{IGNORE_FILE}",) if dockerfile else ()) + (os.path.join(directory, IGNORE_FILE),):
        try:
            text = _read(path)
        except FileNotFoundError:
            continue
        # Loaded on use: most directories have none.
        from silo.dockerfile.ignore import parse_ignore
        from silo.errors import InvalidRequest

        try:
            return parse_ignore(text, name=os.path.basename(path))
        except InvalidRequest as error:
            raise Failure(str(error)) from None
    return None


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        data = file.read(MAXIMUM_FILE_BYTES + 1)
    if len(data) > MAXIMUM_FILE_BYTES:
        raise Failure(f"{path}: the file is too long")
    return data


def _renamed(text: bytes) -> dict[str, bytes]:
    """A Dockerfile from outside of the context, under a name that nothing in it has."""
    import binascii

    return {f".dockerfile.{binascii.hexlify(os.urandom(10)).decode()}": text}
