"""`run`, `create`, `start`, `attach`: containers in the foreground and in the background."""

from __future__ import annotations

import os
import sys

from silo.cli.attach import Stream, check_terminal, shell_status
from silo.cli.client import Client, container_path
from silo.cli.create_body import build_body
from silo.cli.create_flags import CREATE_FLAGS, RUN_FLAGS
from silo.cli.detach import parse_keys
from silo.cli.failure import ApiError, Failure, UsageError
from silo.cli.grammar import Command
from silo.cli.json_text import loads
from silo.cli.listing import print_lines
from silo.cli.terminal import terminal_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from silo.cli.grammar import Values
    from silo.cli.http import Response

_BASE_NAMES = ("windows", "windows:latest", "docker.io/library/windows", "docker.io/library/windows:latest")


def start_status(message: str) -> int:
    """Docker's exit status for a container that could not be started, from the daemon's words."""
    text = message.lower()
    if "executable file not found" in text or "no such file or directory" in text or "system cannot find the" in text:
        return 127
    if "permission denied" in text or "is a directory" in text:
        return 126
    return 125


def create_container(client: Client, values: Values, body: dict[str, Any]) -> str:
    """The new container's id; a missing image is pulled (or, for `windows`, built). Raises Failure with status 125."""
    policy = values.text("pull")
    if policy not in ("always", "missing", "never"):
        raise UsageError(f'invalid pull option: \'{policy}\': must be one of "always", "missing" or "never"')
    if policy == "always" and values.text("disk"):
        raise UsageError("--pull always does not fit --disk: a disk has no image")
    cidfile = values.text("cidfile")
    if cidfile and os.path.exists(cidfile):
        raise Failure(
            f"container ID file found, make sure the other container isn't running or delete {cidfile}", status=125
        )
    query = {"name": values.text("name"), "platform": values.text("platform")}
    image = body["Image"]
    try:
        if policy == "always":
            obtain_image(client, image, values)
        obtain_vm(client, values)
        try:
            created = client.post("/containers/create", query, json=body)
        except ApiError as error:
            if error.http_status != 404 or policy != "missing" or "image" not in error.message.lower():
                raise
            if not values.flag("quiet"):
                sys.stderr.write(f"Unable to find image '{_with_tag(image)}' locally\n")
            obtain_image(client, image, values)
            created = client.post("/containers/create", query, json=body)
    except Failure as failure:
        failure.status = 125
        raise
    for warning in created.get("Warnings") or []:
        sys.stderr.write(f"WARNING: {warning}\n")
    if cidfile:
        descriptor = os.open(cidfile, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        os.write(descriptor, created["Id"].encode())
        os.close(descriptor)
    return str(created["Id"])


def obtain_vm(client: Client, values: Values) -> None:
    """The utility VM that is built by its first use: here that can be watched."""
    if values.text("isolation").lower() not in ("hyperv", "vm") or values.text("vm") or values.text("disk"):
        return
    if not client.get("/silo/v1/base/vm"):
        from silo.cli.commands.bases import build_base

        build_base(client, quiet=values.flag("quiet"), descriptor=2, base="vm")


def obtain_image(client: Client, image: str, values: Values) -> None:
    if image.lower() in _BASE_NAMES:
        from silo.cli.commands.bases import build_base

        build_base(client, quiet=values.flag("quiet"), descriptor=2)
        return
    from silo.cli.commands.moving import pull_image

    pull_image(client, image, platform=values.text("platform"), quiet=values.flag("quiet"), descriptor=2)


def _with_tag(image: str) -> str:
    return image if "@" in image or ":" in image.rpartition("/")[2] else f"{image}:latest"


def run(client: Client, values: Values) -> int:
    detached = values.flag("detach")
    keys = parse_keys(values.text("detach-keys"))
    body = build_body(values, detached=detached)
    tty = bool(body.get("Tty"))
    stdin = bool(body.get("AttachStdin"))
    if not detached:
        check_terminal(tty=tty, stdin=stdin)
        if tty:
            body["HostConfig"]["ConsoleSize"] = list(terminal_size())
    container = create_container(client, values, body)
    if detached:
        try:
            client.post(container_path(container, "/start"))
        except ApiError as error:
            raise Failure(error.message, status=start_status(error.message)) from None
        print_lines([container])
        return 0
    outputs = {name: "1" for name in ("Stdout", "Stderr") if body.get(f"Attach{name}")}
    query = {"stream": "1", "stdin": "1" if stdin else "", "detachKeys": values.text("detach-keys")}
    query.update((name.lower(), "1") for name in outputs)
    if not outputs:
        print_lines([container])
        sys.stdout.flush()
    return follow(
        client,
        container,
        query,
        tty=tty,
        stdin=stdin,
        keys=keys,
        proxy=values.flag("sig-proxy"),
        condition="removed" if values.flag("rm") else "next-exit",
        start=True,
    )


def follow(
    client: Client,
    container: str,
    query: dict[str, str],
    *,
    tty: bool,
    stdin: bool,
    keys: bytes,
    proxy: bool,
    condition: str,
    start: bool,
) -> int:
    """Attach, start if asked, copy until the end; the program's exit status, or 0 after the detach keys."""
    attached = client.request("POST", container_path(container, "/attach"), query, hijack=True)
    ending = client.request("POST", container_path(container, "/wait"), {"condition": condition})

    def begin() -> None:
        if not start and tty:
            # A size that differs for a moment makes full-screen programs draw themselves anew.
            rows, columns = terminal_size()
            resize(client, container_path(container), rows + 1, columns + 1)
        if start:
            try:
                client.post(container_path(container, "/start"))
            except ApiError as error:
                raise Failure(error.message, status=start_status(error.message)) from None

    stream = Stream(
        attached,
        tty=tty,
        stdin=stdin,
        keys=keys,
        resize=lambda rows, columns: resize(client, container_path(container), rows, columns),
        send_signal=(lambda number: _kill(client, container, number)) if proxy else None,
    )
    stream.run(begin)
    if stream.detached:
        sys.stderr.write("read escape sequence\n")
        return 0
    return exit_status(ending)


def resize(client: Client, path: str, rows: int, columns: int) -> None:
    """A size that comes too late or too early is no error."""
    try:
        client.post(f"{path}/resize", {"h": str(rows), "w": str(columns)})
    except ApiError:
        return


def _kill(client: Client, container: str, number: int) -> None:
    client.post(container_path(container, "/kill"), {"signal": str(number)})


def exit_status(ending: Response) -> int:
    """What `wait` answers, for the shell."""
    answer = loads(ending.read())
    error = answer.get("Error") or {}
    if error.get("Message"):
        raise Failure(str(error["Message"]), status=start_status(str(error["Message"])))
    return shell_status(int(answer["StatusCode"]))


def create(client: Client, values: Values) -> int:
    try:
        print_lines([create_container(client, values, build_body(values))])
    except ApiError as error:
        raise Failure(error.message) from None
    return 0


def start(client: Client, values: Values) -> int:
    interactive = values.flag("interactive")
    if values.flag("attach") or interactive:
        if len(values.arguments) > 1:
            raise UsageError("you cannot start and attach multiple containers at once")
        return _start_attached(client, values, interactive)
    from silo.cli.each import for_each

    return for_each(values.arguments, lambda name: client.post(container_path(name, "/start")))


def _start_attached(client: Client, values: Values, interactive: bool) -> int:
    name = values.arguments[0]
    config = client.get(container_path(name, "/json"))["Config"]
    stdin = interactive and bool(config.get("OpenStdin"))
    tty = bool(config.get("Tty"))
    check_terminal(tty=tty, stdin=stdin)
    query = {"stream": "1", "stdout": "1", "stderr": "1", "stdin": "1" if stdin else ""}
    query["detachKeys"] = values.text("detach-keys")
    return follow(
        client,
        name,
        query,
        tty=tty,
        stdin=stdin,
        keys=parse_keys(values.text("detach-keys")),
        proxy=values.flag("sig-proxy") and not tty,
        condition="next-exit",
        start=True,
    )


def attach(client: Client, values: Values) -> int:
    name = values.arguments[0]
    container = client.get(container_path(name, "/json"))
    state, config = container["State"], container["Config"]
    if not state.get("Running"):
        raise Failure("you cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise Failure("you cannot attach to a paused container, unpause it first")
    stdin = bool(config.get("OpenStdin")) and not values.flag("no-stdin")
    tty = bool(config.get("Tty"))
    check_terminal(tty=tty, stdin=stdin)
    query = {"stream": "1", "stdout": "1", "stderr": "1", "stdin": "1" if stdin else ""}
    query["detachKeys"] = values.text("detach-keys")
    return follow(
        client,
        name,
        query,
        tty=tty,
        stdin=stdin,
        keys=parse_keys(values.text("detach-keys")),
        proxy=values.flag("sig-proxy") and not tty,
        condition="not-running",
        start=False,
    )


_ATTACH_FLAGS = (
    ("detach-keys", "", "string", "Override the key sequence for detaching a container"),
    ("sig-proxy", "", "bool=true", "Proxy all received signals to the process"),
)
COMMANDS = (
    Command(
        "run", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create and run a new container from an image", RUN_FLAGS, run,
        least=1, stops=True, instead="disk", takes="images",
        examples=(
            "silo run --rm windows cmd /c ver",
            "silo run --rm -it debian bash",
            "silo run -d --name web -p 8080:80 nginx",
            "silo run --rm -v /data:C:\\data windows C:\\data\\tool.exe --version",
        ),
    ),
    Command(
        "create", "[OPTIONS] IMAGE [COMMAND] [ARG...]", "Create a new container", CREATE_FLAGS, create,
        least=1, stops=True, instead="disk", takes="images", examples=("silo create --name db -v data:/var/lib/db postgres",),
    ),
    Command(
        "start", "[OPTIONS] CONTAINER [CONTAINER...]", "Start one or more stopped containers",
        (
            ("attach", "a", "bool", "Attach STDOUT/STDERR and forward signals"),
            ("interactive", "i", "bool", "Attach the container's STDIN"),
            *_ATTACH_FLAGS,
        ),
        start, least=1, takes="containers", examples=("silo start web", "silo start -ai shell"),
    ),
    Command(
        "attach", "[OPTIONS] CONTAINER", "Attach to a running container's input, output and errors",
        (*_ATTACH_FLAGS, ("no-stdin", "", "bool", "Do not attach STDIN")),
        attach, least=1, most=1, takes="containers", examples=("silo attach web",),
    ),
)  # fmt: skip
