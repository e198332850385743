"""`registry query`, `registry export`, `registry diff`: the registry of a Windows image or container, or of a hive file."""

from __future__ import annotations

import os

from silo.cli.failure import Failure, UsageError
from silo.cli.grammar import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from silo.cli.client import Client
    from silo.cli.grammar import Values

MAX_HIVE_BYTES = 64 * 1024 * 1024
_TYPES = ("container", "image", "file")
_FILE_ENDINGS = (".hiv", ".dat", "_delta")


def _is_file(name: str, kind: str) -> bool:
    if kind and kind not in _TYPES:
        raise UsageError(f"--type {kind}: one of {', '.join(_TYPES)}")
    return kind == "file" or (
        not kind and (name.startswith(("/", "./", "../")) or name.lower().endswith(_FILE_ENDINGS))
    )


def _read_hive(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_HIVE_BYTES + 1)
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    if len(data) > MAX_HIVE_BYTES:
        raise Failure(f"{path} is larger than {MAX_HIVE_BYTES} bytes, more than any registry hive may have here")
    return data


def _ask(client: Client, verb: str, values: Values, query: dict[str, str]) -> bytes:
    """The daemon's text, UTF-8. Raises Failure."""
    name, *keys = values.arguments
    kind = values.text("type")
    query = {**query, "key": keys[0] if keys else ""}
    path = f"/silo/v1/registry/{verb}"
    base = query.get("base", "")
    if not _is_file(name, kind):
        if base and _is_file(base, ""):
            raise UsageError(f"--base {base}: a file can be compared with a file only")
        response = client.request("GET", path, {**query, "object": name, "type": kind})
    else:
        body = _read_hive(name)
        query["file"] = os.path.basename(name)
        if base:
            below = _read_hive(base)
            body = below + body
            query["base"], query["baseSize"] = os.path.basename(base), str(len(below))
        headers = {"Content-Type": "application/octet-stream"}
        response = client.request("POST", path, query, body=body, headers=headers)
    text = response.read()
    response.close()
    return text


def _print(text: bytes) -> None:
    from silo.cli.attach import write_all

    write_all(1, text)


def query(client: Client, values: Values) -> int:
    asked = {"recursive": "1" if values.flag("recursive") else ""}
    if "value" in values.given:
        # a query leaves empty words out
        asked |= {"value": values.text("value")} if values.text("value") else {"default": "1"}
    _print(_ask(client, "query", values, asked))
    return 0


def export(client: Client, values: Values) -> int:
    return _write(_ask(client, "export", values, {}), values.text("output"))


def diff(client: Client, values: Values) -> int:
    return _write(_ask(client, "diff", values, {"base": values.text("base")}), values.text("output"))


def _write(text: bytes, path: str) -> int:
    """To a file as `reg import` on Windows takes it, UTF-16 with CRLF; else as it came."""
    if not path:
        _print(text)
        return 0
    lines = text.decode("utf-8", "replace").replace("\n", "\r\n")
    try:
        with open(path, "wb") as file:
            file.write(("\ufeff" + lines).encode("utf-16-le"))
    except OSError as error:
        raise Failure(f"{path}: {error.strerror}") from None
    return 0


_TYPE = ("type", "", "string", "What the name is of: container, image or file (a hive)")
_OUTPUT = ("output", "o", "string", "Write to a file, as reg import takes it, instead of STDOUT")
_USAGE = "[OPTIONS] CONTAINER|IMAGE|FILE.hiv [KEY]"
COMMANDS = (
    Command("registry query", _USAGE, "Show a key of a Windows registry: its values, and the names of its subkeys",
            (
                ("recursive", "r", "bool", "Show all keys below as well"),
                ("value", "v", "string", "Show one value (empty: the default one)"),
                _TYPE,
            ), query, least=1, most=2, takes="containers",
            examples=("silo registry query windows 'HKLM\\Software\\Microsoft\\Windows NT\\CurrentVersion'",
                      "silo registry query -v Path web 'HKLM\\SYSTEM\\CurrentControlSet\\Control\\Session Manager\\Environment'",
                      "silo registry query -r ./Software_Delta")),
    Command("registry export", _USAGE, "Write a Windows registry, or a key of it with all below, as a .reg text",
            (_OUTPUT, _TYPE), export, least=1, most=2, takes="containers",
            examples=("silo registry export web 'HKCU\\Environment'", "silo registry export -o app.reg web 'HKLM\\Software\\App'")),
    Command("registry diff", _USAGE, "Show what was changed in a Windows registry, as a .reg text",
            (
                ("base", "", "string", "What to compare with (default: a container's image, an image's base)"),
                _OUTPUT, _TYPE,
            ), diff, least=1, most=2, takes="containers",
            examples=("silo registry diff web", "silo registry diff --base windows my/app:1.0",
                      "silo registry diff ./Software_Delta")),
)  # fmt: skip
