"""`logs`, `top`, `diff`, `port`, `inspect`: looking at one container, or at anything by its name."""

from __future__ import annotations

from silo.cli.client import container_path, image_path
from silo.cli.complaint import complain
from silo.cli.failure import ApiError, Failure
from silo.cli.grammar import Command
from silo.cli.http import quote
from silo.cli.listing import print_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from silo.cli.client import Client
    from silo.cli.grammar import Values


def logs(client: Client, values: Values) -> int:
    from silo.cli.attach import write_all
    from silo.cli.frames import Demultiplexer
    from silo.cli.moments import to_timestamp

    query = {
        "stdout": "1",
        "stderr": "1",
        "follow": "1" if values.flag("follow") else "",
        "timestamps": "1" if values.flag("timestamps") else "",
        "since": to_timestamp(values.text("since")),
        "until": to_timestamp(values.text("until")),
        "tail": values.text("tail"),
        "details": "1" if values.flag("details") else "",
    }
    response = client.request("GET", container_path(values.arguments[0], "/logs"), query)
    framed = "multiplexed" in response.headers.get("content-type", "")
    feed = Demultiplexer(write_all).feed if framed else lambda data: write_all(1, data)
    for piece in response.pieces():
        feed(piece)
    return 0


def top(client: Client, values: Values) -> int:
    from silo.cli.table import align, clean

    name, *arguments = values.arguments
    answer = client.get(container_path(name, "/top"), {"ps_args": " ".join(arguments)})
    rows = [[clean(cell) for cell in row] for row in answer["Processes"] or []]
    print_lines(align([answer["Titles"], *rows], least=20))
    return 0


def diff(client: Client, values: Values) -> int:
    changes = client.get(container_path(values.arguments[0], "/changes")) or []
    print_lines([f"{'CAD'[change['Kind']]} {change['Path']}" for change in changes])
    return 0


def port(client: Client, values: Values) -> int:
    name, *wanted = values.arguments
    ports = (client.get(container_path(name, "/json"))["NetworkSettings"] or {}).get("Ports") or {}
    lines = []
    if wanted:
        key = wanted[0] if "/" in wanted[0] else f"{wanted[0]}/tcp"
        if not ports.get(key):
            raise Failure(f"no public port '{wanted[0]}' published for {name}")
        lines = [_address(binding) for binding in ports[key]]
    else:
        for key in ports:
            lines.extend(f"{key} -> {_address(binding)}" for binding in ports[key] or [])
        lines.sort(key=_port_order)
    print_lines(lines)
    return 0


def _address(binding: dict[str, str]) -> str:
    address = binding.get("HostIp", "")
    return f"[{address}]:{binding['HostPort']}" if ":" in address else f"{address}:{binding['HostPort']}"


def _port_order(line: str) -> tuple[int, str]:
    number = line.partition("/")[0]
    return int(number) if number.isdigit() else 0, line


_KINDS = {
    "container": lambda name: container_path(name, "/json"),
    "image": lambda name: image_path(name, "/json"),
    "network": lambda name: f"/networks/{quote(name)}",
    "volume": lambda name: f"/volumes/{quote(name)}",
}


def inspect(client: Client, values: Values) -> int:
    kind = values.text("type")
    if kind and kind not in _KINDS:
        raise Failure(f"--type {kind}: one of {', '.join(_KINDS)}")
    return print_objects(client, values, (kind,) if kind else tuple(_KINDS))


def print_objects(client: Client, values: Values, kinds: tuple[str, ...]) -> int:
    """Each name as the first of `kinds` that knows it; JSON or a template."""
    form = values.text("format")
    size = {"size": "1"} if "size" in values.given and values.flag("size") else {}
    found, errors = [], []
    for name in values.arguments:
        try:
            found.append(_find(client, name, kinds, size))
        except ApiError as error:
            errors.append(error.message)
    from silo.cli.json_text import dumps

    if form in ("", "json"):
        print_lines([dumps(found, indent="    ") if not form else dumps(found)])
    else:
        from silo.cli.template import compile_template

        render = compile_template(form, strict=True)
        print_lines([render(value) for value in found])
    for message in errors:
        complain(message)
    return 1 if errors else 0


def _find(client: Client, name: str, kinds: tuple[str, ...], size: dict[str, str]) -> Any:
    for kind in kinds:
        try:
            return client.get(_KINDS[kind](name), size if kind == "container" else {})
        except ApiError as error:
            if error.http_status != 404 or len(kinds) == 1:
                raise
    raise ApiError(f"no such object: {name}", 404)


FORMAT = ("format", "f", "string", "json, or a template such as '{{.State.Status}}'")
_SIZE = ("size", "s", "bool", "Display total file sizes if the type is container")
COMMANDS = (
    Command("logs", "[OPTIONS] CONTAINER", "Fetch the logs of a container",
            (
                ("details", "", "bool", "Show extra details provided to logs"),
                ("follow", "f", "bool", "Follow log output"),
                ("since", "", "string", "Show logs since a time (2013-01-02T13:23:37Z) or a while (42m)"),
                ("tail", "n", "string=all", "Number of lines to show from the end of the logs"),
                ("timestamps", "t", "bool", "Show timestamps"),
                ("until", "", "string", "Show logs before a time (2013-01-02T13:23:37Z) or a while (42m)"),
            ), logs, least=1, most=1, takes="containers", examples=("silo logs -f --tail 100 web",)),
    Command("top", "CONTAINER [ps OPTIONS]", "Display the running processes of a container", (), top,
            least=1, stops=True, takes="containers", examples=("silo top web", "silo top web -o pid,comm")),
    Command("diff", "CONTAINER", "Inspect changes to files or directories on a container's file system", (), diff,
            least=1, most=1, takes="containers", examples=("silo diff web",)),
    Command("port", "CONTAINER [PRIVATE_PORT[/PROTO]]", "List port mappings or a specific mapping for the container",
            (), port, least=1, most=2, takes="containers", examples=("silo port web", "silo port web 80")),
    Command("inspect", "[OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on Silo objects",
            (FORMAT, _SIZE, ("type", "", "string", "Only inspect objects of the given type")), inspect,
            least=1, takes="containers", examples=("silo inspect web", "silo inspect -f '{{.State.ExitCode}}' job")),
    Command("container inspect", "[OPTIONS] CONTAINER [CONTAINER...]", "Display detailed information on containers",
            (FORMAT, _SIZE), lambda client, values: print_objects(client, values, ("container",)),
            least=1, takes="containers", examples=("silo container inspect web",)),
)  # fmt: skip
