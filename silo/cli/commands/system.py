"""`info`, `version`, `system df`, `system prune`: Silo as a whole."""

from __future__ import annotations

import sys

from silo.cli.client import encode_filters
from silo.cli.complaint import complain
from silo.cli.disk_usage import print_summary, print_verbose
from silo.cli.grammar import Command
from silo.cli.listing import print_lines
from silo.cli.units import binary_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from silo.cli.client import Client
    from silo.cli.grammar import Values

CLIENT_API_VERSION = "1.50"


def _print_formatted(value: Any, form: str) -> None:
    if form == "json":
        from silo.cli.json_text import dumps

        print_lines([dumps(value)])
        return
    from silo.cli.template import compile_template

    print_lines([compile_template(form)(value)])


def version(client: Client, values: Values) -> int:
    import silo
    from silo.cli.failure import DaemonUnreachable

    own = {
        "Version": silo.__version__,
        "ApiVersion": CLIENT_API_VERSION,
        "Os": "linux",
        "DefaultAPIVersion": CLIENT_API_VERSION,
    }
    problem = ""
    server: dict[str, Any] | None = None
    try:
        server = client.get("/version")
    except DaemonUnreachable as failure:
        problem = failure.message
    if values.text("format"):
        _print_formatted({"Client": own, "Server": server}, values.text("format"))
    else:
        lines = ["Client: Silo", f" Version:           {silo.__version__}", f" API version:       {CLIENT_API_VERSION}"]
        if server:
            lines += ["", f"Server: {(server.get('Platform') or {}).get('Name', '')}"]
            for component in server.get("Components") or []:
                details = {"Version": component.get("Version", ""), **(component.get("Details") or {})}
                lines.append(f" {component['Name']}:")
                lines += [f"  {f'{key}:':<18}{text}" for key, text in details.items()]
        print_lines(lines)
    if problem:
        complain(problem)
    return 1 if problem else 0


def describe(info: dict[str, Any]) -> list[str]:
    """The lines of `silo info`."""
    lines = ["Server:"]

    def put(label: str, member: str, *, indent: int = 1) -> None:
        if info.get(member) not in (None, ""):
            lines.append(f"{' ' * indent}{label}: {info[member]}")

    for label, member, indent in (
        ("Containers", "Containers", 1), ("Running", "ContainersRunning", 2), ("Paused", "ContainersPaused", 2),
        ("Stopped", "ContainersStopped", 2), ("Images", "Images", 1), ("Server Version", "ServerVersion", 1),
        ("Storage Driver", "Driver", 1),
    ):  # fmt: skip
        put(label, member, indent=indent)
    lines += [f"  {key}: {value}" for key, value in info.get("DriverStatus") or []]
    for label, member in (
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Driver", "CgroupDriver"),
        ("Cgroup Version", "CgroupVersion"),
    ):
        put(label, member)
    plugins = info.get("Plugins") or {}
    lines.append(" Plugins:")
    lines += [f"  {kind}: {' '.join(plugins[kind])}" for kind in ("Volume", "Network", "Log") if plugins.get(kind)]
    put("Default Isolation", "Isolation")
    put("Init Binary", "InitBinary")
    if info.get("SecurityOptions"):
        lines.append(" Security Options:")
        for option in info["SecurityOptions"]:
            first, *rest = [field.partition("=")[2] or field for field in option.split(",")]
            lines.append(f"  {first}")
            lines += [f"   {field}" for field in option.split(",")[1:] if rest]
    for label, member in (
        ("Kernel Version", "KernelVersion"), ("Operating System", "OperatingSystem"), ("OSType", "OSType"),
        ("Architecture", "Architecture"), ("CPUs", "NCPU"),
    ):  # fmt: skip
        put(label, member)
    lines.append(f" Total Memory: {binary_size(info.get('MemTotal', 0))}")
    for label, member in (("Name", "Name"), ("ID", "ID"), ("Silo Root Dir", "DockerRootDir")):
        put(label, member)
    lines.append(f" Live Restore Enabled: {str(bool(info.get('LiveRestoreEnabled'))).lower()}")
    return lines


def info(client: Client, values: Values) -> int:
    found = client.get("/info")
    if values.text("format"):
        _print_formatted(found, values.text("format"))
        return 0
    print_lines(describe(found))
    sys.stdout.flush()
    for warning in found.get("Warnings") or []:
        sys.stderr.write(f"WARNING: {warning.removeprefix('WARNING: ')}\n")
    return 0


def df(client: Client, values: Values) -> int:
    usage = client.get("/system/df")
    if values.flag("verbose") and not values.text("format"):
        print_verbose(usage)
    else:
        print_summary(usage, values.text("format"))
    return 0


def prune(client: Client, values: Values) -> int:
    from silo.cli.pruning import confirm, print_reclaimed

    every, volumes = values.flag("all"), values.flag("volumes")
    what = ["all stopped containers", "all networks not used by at least one container"]
    what += ["all anonymous volumes not used by at least one container"] if volumes else []
    what.append("all images without at least one container associated to them" if every else "all dangling images")
    if not confirm("This will remove:\n" + "\n".join(f"  - {line}" for line in what) + "\n", values):
        return 0
    words = values.words("filter")
    filters = {"filters": encode_filters(words)}
    answer = client.post("/containers/prune", filters)
    size = answer.get("SpaceReclaimed", 0)
    parts = [("Deleted Containers:", answer.get("ContainersDeleted") or [])]
    parts.append(("Deleted Networks:", client.post("/networks/prune", filters).get("NetworksDeleted") or []))
    if volumes:
        answer = client.post("/volumes/prune", filters)
        size += answer.get("SpaceReclaimed", 0)
        parts.append(("Deleted Volumes:", answer.get("VolumesDeleted") or []))
    dangling = f"dangling={'false' if every else 'true'}"
    answer = client.post("/images/prune", {"filters": encode_filters([*words, dangling])})
    size += answer.get("SpaceReclaimed", 0)
    lines = [
        f"{kind.lower()}: {name}"
        for change in answer.get("ImagesDeleted") or []
        for kind, name in change.items()
        if name
    ]
    print_reclaimed([*parts, ("Deleted Images:", lines)], size)
    return 0


_FORMAT = ("format", "f", "string", "json, or a template such as '{{.ServerVersion}}'")
COMMANDS = (
    Command("info", "[OPTIONS]", "Display information on the daemon and this host", (_FORMAT,), info, most=0,
            examples=("silo info --format '{{.CgroupVersion}}'",)),
    Command("version", "[OPTIONS]", "Show the versions of silo and the daemon", (_FORMAT,), version, most=0,
            examples=("silo version --format '{{.Server.Version}}'",)),
    Command("system df", "[OPTIONS]", "Show disk usage",
            (
                ("format", "", "string", "table, json, or a template such as '{{.Type}}: {{.Size}}'"),
                ("verbose", "v", "bool", "Show detailed information on space usage"),
            ), df, most=0, examples=("silo system df -v",)),
    Command("system prune", "[OPTIONS]", "Remove unused containers, networks and images",
            (
                ("all", "a", "bool", "Remove all unused images, not just dangling ones"),
                ("filter", "", "list", "Provide filter values (e.g. label=<key>=<value>)"),
                ("force", "f", "bool", "Do not prompt for confirmation"),
                ("volumes", "", "bool", "Prune anonymous volumes"),
            ), prune, most=0, examples=("silo system prune -af --volumes",)),
)  # fmt: skip
