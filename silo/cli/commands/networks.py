"""`network …`."""

from __future__ import annotations

from silo.cli.client import encode_filters
from silo.cli.each import for_each
from silo.cli.failure import UsageError
from silo.cli.grammar import Command
from silo.cli.http import quote
from silo.cli.listing import print_lines, print_listing
from silo.cli.units import local_time, parse_time
from silo.cli.words import read_labels, read_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from silo.cli.client import Client
    from silo.cli.grammar import Values

_COLUMNS = (("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE"))
_TITLES = {
    **dict(_COLUMNS),
    "CreatedAt": "CREATED AT",
    "IPv4": "IPV4",
    "IPv6": "IPV6",
    "Internal": "INTERNAL",
    "Labels": "LABELS",
}


def ls(client: Client, values: Values) -> int:
    networks = client.get("/networks", {"filters": encode_filters(values.words("filter"))})
    networks.sort(key=lambda network: network["Name"])
    truncate = not values.flag("no-trunc")
    ids = [network["Id"][:12] if truncate else network["Id"] for network in networks]
    if values.flag("quiet") and values.text("format") in ("", "table"):
        print_lines(ids)
        return 0
    rows = [
        {
            "ID": shown,
            "Name": network["Name"],
            "Driver": network["Driver"],
            "Scope": network["Scope"],
            "CreatedAt": _created(network.get("Created", "")),
            "IPv4": str(network.get("EnableIPv4", True)).lower(),
            "IPv6": str(network.get("EnableIPv6", False)).lower(),
            "Internal": str(network.get("Internal", False)).lower(),
            "Labels": ",".join(f"{key}={value}" for key, value in sorted((network.get("Labels") or {}).items())),
        }
        for shown, network in zip(ids, networks, strict=True)
    ]
    print_listing(rows, _COLUMNS, values.text("format"), _TITLES)
    return 0


def _created(text: str) -> str:
    digits = text[20:] if text[19:20] == "." else ""
    while digits and not digits.isdigit():
        digits = digits[:-1]
    return local_time(parse_time(text), digits)


def build_pools(values: Values) -> list[dict[str, Any]]:
    """IPAM pools: ranges, gateways and taken addresses go to the subnet that they lie in."""
    import ipaddress

    pools: list[dict[str, Any]] = [{"Subnet": text} for text in values.words("subnet")]
    parsed = []
    for text in values.words("subnet"):
        try:
            parsed.append(ipaddress.ip_network(text, strict=False))
        except ValueError as error:
            raise UsageError(f"invalid --subnet {text!r}: {error}") from None

    def pool_of(flag: str, text: str) -> dict[str, Any]:
        try:
            address = ipaddress.ip_network(text, strict=False).network_address
        except ValueError as error:
            raise UsageError(f"invalid {flag} {text!r}: {error}") from None
        for network, pool in zip(parsed, pools, strict=True):
            if address in network:
                return pool
        raise UsageError(f"no matching subnet for {flag} {text}; name it with --subnet")

    for flag, member in (("ip-range", "IPRange"), ("gateway", "Gateway")):
        for text in values.words(flag):
            pool_of(f"--{flag}", text)[member] = text
    for name, address in read_map(values.words("aux-address"), "--aux-address", need_value=True).items():
        pool_of("--aux-address", address).setdefault("AuxiliaryAddresses", {})[name] = address
    return pools


def build_network(values: Values) -> dict[str, Any]:
    """The body of POST /networks/create."""
    ipam: dict[str, Any] = {"Driver": values.text("ipam-driver")}
    if values.words("ipam-opt"):
        ipam["Options"] = read_map(values.words("ipam-opt"), "--ipam-opt")
    pools = build_pools(values)
    if pools:
        ipam["Config"] = pools
    body: dict[str, Any] = {"Name": values.arguments[0], "Driver": values.text("driver"), "IPAM": ipam}
    for flag, member in (
        ("internal", "Internal"),
        ("attachable", "Attachable"),
        ("ingress", "Ingress"),
        ("config-only", "ConfigOnly"),
    ):
        if values.flag(flag):
            body[member] = True
    for flag, member in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if flag in values.given:
            body[member] = values.flag(flag)
    for name, found in (
        ("Options", read_map(values.words("opt"), "--opt")),
        ("Labels", read_labels((), values.words("label"))),
        ("Scope", values.text("scope")),
        ("ConfigFrom", {"Network": values.text("config-from")} if values.text("config-from") else {}),
    ):
        if found:
            body[name] = found
    return body


def create(client: Client, values: Values) -> int:
    import sys

    answer = client.post("/networks/create", json=build_network(values))
    if answer.get("Warning"):
        sys.stderr.write(f"WARNING: {answer['Warning']}\n")
    print_lines([answer["Id"]])
    return 0


def rm(client: Client, values: Values) -> int:
    forgive = "silently" if values.flag("force") else ""
    return for_each(values.arguments, lambda name: client.delete(f"/networks/{quote(name)}"), forgive=forgive)


def inspect(client: Client, values: Values) -> int:
    from silo.cli.commands.looking import print_objects

    return print_objects(client, values, ("network",))


def build_connect(values: Values) -> dict[str, Any]:
    """The body of POST /networks/X/connect."""
    endpoint: dict[str, Any] = {}
    addresses = {
        member: values.text(flag)
        for flag, member in (("ip", "IPv4Address"), ("ip6", "IPv6Address"))
        if values.text(flag)
    }
    parts = {
        "IPAMConfig": {
            **addresses,
            **({"LinkLocalIPs": values.words("link-local-ip")} if values.words("link-local-ip") else {}),
        },
        "Aliases": values.words("alias"),
        "Links": values.words("link"),
        "DriverOpts": read_map(values.words("driver-opt"), "--driver-opt"),
        "GwPriority": values.number("gw-priority"),
    }
    endpoint.update((name, value) for name, value in parts.items() if value)
    return {"Container": values.arguments[1], "EndpointConfig": endpoint}


def connect(client: Client, values: Values) -> int:
    client.post(f"/networks/{quote(values.arguments[0])}/connect", json=build_connect(values))
    return 0


def disconnect(client: Client, values: Values) -> int:
    name, container = values.arguments
    client.post(f"/networks/{quote(name)}/disconnect", json={"Container": container, "Force": values.flag("force")})
    return 0


def prune(client: Client, values: Values) -> int:
    from silo.cli.pruning import confirm

    if not confirm("This will remove all custom networks not used by at least one container.", values):
        return 0
    answer = client.post("/networks/prune", {"filters": encode_filters(values.words("filter"))})
    names = answer.get("NetworksDeleted") or []
    print_lines(["Deleted Networks:", *names, ""] if names else [])
    return 0


_FORCE = ("force", "f", "bool", "Do not prompt for confirmation")
COMMANDS = (
    Command("network ls", "[OPTIONS]", "List networks",
            (
                ("filter", "f", "list", "Filter the output (key=value)"),
                ("format", "", "string", "table, json, or a template such as '{{.Name}}'"),
                ("no-trunc", "", "bool", "Do not truncate the output"),
                ("quiet", "q", "bool", "Only display network IDs"),
            ), ls, most=0, examples=("silo network ls",)),
    Command("network create", "[OPTIONS] NETWORK", "Create a network",
            (
                ("attachable", "", "bool", "Enable manual container attachment"),
                ("aux-address", "", "list", "Addresses that are taken (name=address)"),
                ("config-from", "", "string", "The network from which to copy the configuration"),
                ("config-only", "", "bool", "Create a configuration only network"),
                ("driver", "d", "string=bridge", "Driver to manage the network"),
                ("gateway", "", "list", "IPv4 or IPv6 gateway for a subnet"),
                ("ingress", "", "bool", "Create swarm routing-mesh network"),
                ("internal", "", "bool", "Restrict external access to the network"),
                ("ip-range", "", "list", "Allocate container addresses from a sub-range"),
                ("ipam-driver", "", "string=default", "Address management driver"),
                ("ipam-opt", "", "list", "Address management driver options"),
                ("ipv4", "", "bool=true", "Enable or disable IPv4 networking"),
                ("ipv6", "", "bool", "Enable or disable IPv6 networking"),
                ("label", "", "list", "Set metadata on a network"),
                ("opt", "o", "list", "Set driver options"),
                ("scope", "", "string", "Control the network's scope"),
                ("subnet", "", "list", "Subnet in CIDR format"),
            ), create, least=1, most=1, examples=("silo network create --subnet 10.9.0.0/24 lab",)),
    Command("network rm", "NETWORK [NETWORK...]", "Remove one or more networks",
            (("force", "f", "bool", "Do not error if the network does not exist"),), rm, least=1, takes="networks",
            examples=("silo network rm lab",)),
    Command("network inspect", "[OPTIONS] NETWORK [NETWORK...]", "Display detailed information on one or more networks",
            (("format", "f", "string", "json, or a template"),), inspect, least=1, takes="networks",
            examples=("silo network inspect bridge",)),
    Command("network connect", "[OPTIONS] NETWORK CONTAINER", "Connect a container to a network",
            (
                ("alias", "", "list", "Add network-scoped alias for the container"),
                ("driver-opt", "", "list", "Driver options for the network"),
                ("gw-priority", "", "int", "Highest gw-priority provides the default gateway"),
                ("ip", "", "string", "IPv4 address"),
                ("ip6", "", "string", "IPv6 address"),
                ("link", "", "list", "Add link to another container"),
                ("link-local-ip", "", "list", "Add a link-local address for the container"),
            ), connect, least=2, most=2, takes="networks", examples=("silo network connect --alias db lab db1",)),
    Command("network disconnect", "[OPTIONS] NETWORK CONTAINER", "Disconnect a container from a network",
            (("force", "f", "bool", "Force the container to disconnect from a network"),), disconnect,
            least=2, most=2, takes="networks", examples=("silo network disconnect lab db1",)),
    Command("network prune", "[OPTIONS]", "Remove all unused networks",
            (("filter", "", "list", "Provide filter values (e.g. until=24h)"), _FORCE), prune, most=0,
            examples=("silo network prune -f",)),
)  # fmt: skip
