"""`stop`, `kill`, `restart`, `rm`, `pause`, `unpause`, `wait`, `rename`, `update`, `container prune`: the life of containers."""

from __future__ import annotations

from silo.cli.client import container_path, encode_filters
from silo.cli.create_body import build_resources, parse_restart
from silo.cli.each import for_each
from silo.cli.failure import Failure
from silo.cli.grammar import Command
from silo.cli.listing import print_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from silo.cli.client import Client
    from silo.cli.grammar import Values

_UPDATE_FLAGS = (
    ("blkio-weight", "", "int", "Block IO weight, 10 to 1000, or 0 to disable"),
    ("cpu-period", "", "int", "Limit the CPU period of the scheduler, in microseconds"),
    ("cpu-quota", "", "int", "Limit the CPU time in a period, in microseconds"),
    ("cpu-rt-period", "", "int", "Limit the real-time period, in microseconds"),
    ("cpu-rt-runtime", "", "int", "Limit the real-time runtime, in microseconds"),
    ("cpu-shares", "c", "int", "CPU shares (relative weight)"),
    ("cpus", "", "decimal", "Number of CPUs"),
    ("cpuset-cpus", "", "string", "CPUs in which to allow execution (0-3, 0,1)"),
    ("cpuset-mems", "", "string", "Memory nodes in which to allow execution (0-3, 0,1)"),
    ("memory", "m", "bytes", "Memory limit"),
    ("memory-reservation", "", "bytes", "Memory soft limit"),
    ("memory-swap", "", "bytes", "Limit of memory plus swap; -1 for unlimited swap"),
    ("pids-limit", "", "int", "Limit the number of processes (-1 for unlimited)"),
    ("restart", "", "string", "Restart policy to apply when the container exits"),
)


def _signal_and_time(values: Values) -> dict[str, str]:
    return {"signal": values.text("signal"), "t": values.text("timeout") or values.text("time")}


def stop(client: Client, values: Values) -> int:
    query = _signal_and_time(values)
    return for_each(values.arguments, lambda name: client.post(container_path(name, "/stop"), query))


def restart(client: Client, values: Values) -> int:
    query = _signal_and_time(values)
    return for_each(values.arguments, lambda name: client.post(container_path(name, "/restart"), query))


def kill(client: Client, values: Values) -> int:
    query = {"signal": values.text("signal")}
    return for_each(values.arguments, lambda name: client.post(container_path(name, "/kill"), query))


def rm(client: Client, values: Values) -> int:
    names = {"force": "force", "volumes": "v", "link": "link"}
    query = {key: "1" if values.flag(flag) else "" for flag, key in names.items()}
    forgive = "aloud" if values.flag("force") else ""
    return for_each(values.arguments, lambda name: client.delete(container_path(name), query), forgive=forgive)


def pause(client: Client, values: Values) -> int:
    return for_each(values.arguments, lambda name: client.post(container_path(name, "/pause")))


def unpause(client: Client, values: Values) -> int:
    return for_each(values.arguments, lambda name: client.post(container_path(name, "/unpause")))


def wait(client: Client, values: Values) -> int:
    def wait_for(name: str) -> None:
        print_lines([str(client.post(container_path(name, "/wait"))["StatusCode"])])

    return for_each(values.arguments, wait_for, echo=False)


def rename(client: Client, values: Values) -> int:
    old, new = values.arguments
    client.post(container_path(old, "/rename"), {"name": new})
    return 0


def build_update(values: Values) -> dict[str, Any]:
    """The body of POST /containers/X/update. Raises Failure when nothing is to be changed."""
    if not values.given:
        raise Failure("you must provide one or more flags when using this command")
    body = build_resources(values, names=tuple(row[0] for row in _UPDATE_FLAGS))
    for flag, member in (("cpuset-cpus", "CpusetCpus"), ("cpuset-mems", "CpusetMems")):
        if values.text(flag):
            body[member] = values.text(flag)
    if "restart" in values.given:
        body["RestartPolicy"] = parse_restart(values.text("restart"))
    return body


def update(client: Client, values: Values) -> int:
    import sys

    body = build_update(values)

    def change(name: str) -> None:
        for warning in (client.post(container_path(name, "/update"), json=body) or {}).get("Warnings") or []:
            sys.stderr.write(f"WARNING: {warning}\n")

    return for_each(values.arguments, change)


def prune(client: Client, values: Values) -> int:
    from silo.cli.pruning import confirm, print_reclaimed

    if not confirm("This will remove all stopped containers.", values):
        return 0
    answer = client.post("/containers/prune", {"filters": encode_filters(values.words("filter"))})
    print_reclaimed([("Deleted Containers:", answer.get("ContainersDeleted") or [])], answer.get("SpaceReclaimed", 0))
    return 0


_STOP_FLAGS = (
    ("signal", "s", "string", "Signal to send to the container"),
    ("timeout", "t", "int", "Seconds to wait before killing the container"),
    ("time", "", "int", "The same as --timeout"),
)
_MANY = "CONTAINER [CONTAINER...]"
COMMANDS = (
    Command("stop", f"[OPTIONS] {_MANY}", "Stop one or more running containers", _STOP_FLAGS, stop,
            least=1, takes="containers", examples=("silo stop web", "silo stop -t 2 web db")),
    Command("restart", f"[OPTIONS] {_MANY}", "Restart one or more containers", _STOP_FLAGS, restart,
            least=1, takes="containers", examples=("silo restart web",)),
    Command("kill", f"[OPTIONS] {_MANY}", "Kill one or more running containers",
            (("signal", "s", "string", "Signal to send to the container (default KILL)"),), kill,
            least=1, takes="containers", examples=("silo kill web", "silo kill -s HUP web")),
    Command("rm", f"[OPTIONS] {_MANY}", "Remove one or more containers",
            (
                ("force", "f", "bool", "Force the removal of a running container (uses SIGKILL)"),
                ("link", "l", "bool", "Remove the specified link"),
                ("volumes", "v", "bool", "Remove anonymous volumes associated with the container"),
            ), rm, least=1, takes="containers", examples=("silo rm web", "silo rm -f $(silo ps -aq)")),
    Command("pause", _MANY, "Pause all processes within one or more containers", (), pause,
            least=1, takes="containers", examples=("silo pause web",)),
    Command("unpause", _MANY, "Unpause all processes within one or more containers", (), unpause,
            least=1, takes="containers", examples=("silo unpause web",)),
    Command("wait", _MANY, "Block until one or more containers stop, then print their exit codes", (), wait,
            least=1, takes="containers", examples=("silo wait job",)),
    Command("rename", "CONTAINER NEW_NAME", "Rename a container", (), rename,
            least=2, most=2, takes="containers", examples=("silo rename web old-web",)),
    Command("update", f"[OPTIONS] {_MANY}", "Update configuration of one or more containers", _UPDATE_FLAGS, update,
            least=1, takes="containers", examples=("silo update --memory 1g --restart always web",)),
    Command("container prune", "[OPTIONS]", "Remove all stopped containers",
            (
                ("filter", "", "list", "Provide filter values (e.g. until=24h)"),
                ("force", "f", "bool", "Do not prompt for confirmation"),
            ), prune, most=0, examples=("silo container prune -f",)),
)  # fmt: skip
