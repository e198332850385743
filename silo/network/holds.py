"""Reserve published ports: a bound, not listening socket on each, so that no host program takes the port meanwhile.

Packets never reach these sockets: the packet filter redirects them before. They end with the daemon: while it is away the rules
still lead to the container and a host program could bind such a port without ever getting a packet; `hold` at the next start
then reports it. A process may open only so many files: above `limit` ports are only tried, not held.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import resource
import socket
from collections.abc import Callable, Iterable
from pathlib import Path

from silo.errors import Conflict, HostError, InvalidRequest
from silo.model.network import PortBinding

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_RESERVED_DESCRIPTORS = 1024
DNS_PORT = 53


def default_limit() -> int:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(0, soft // 2) if soft < 4 * _RESERVED_DESCRIPTORS else soft - 2 * _RESERVED_DESCRIPTORS


class Holds:
    """The ports that are ours. `describe_owner` names a container by its id in messages."""

    def __init__(self, describe_owner: Callable[[str], str], *, limit: int | None = None) -> None:
        self._describe_owner = describe_owner
        self._limit = default_limit() if limit is None else limit
        self._sockets: dict[PortBinding, socket.socket | None] = {}
        self._owners: dict[PortBinding, str] = {}

    def hold(self, binding: PortBinding, owner: str) -> PortBinding:
        """Reserve; answers the binding with its port chosen. Raises Conflict (who has it), InvalidRequest (no such address)."""
        if binding.host_port:
            self._refuse_ours(binding)
        held = _bind(binding)
        chosen = PortBinding(
            container_port=binding.container_port,
            protocol=binding.protocol,
            host_ip=binding.host_ip,
            host_port=held.getsockname()[1],
        )
        open_sockets = sum(1 for entry in self._sockets.values() if entry is not None)
        if open_sockets >= self._limit:
            held.close()
            self._sockets[chosen] = None
        else:
            self._sockets[chosen] = held
        self._owners[chosen] = owner
        return chosen

    def adopt(self, binding: PortBinding, owner: str) -> str:
        """Reserve a port whose rule lives already; answers a warning when a host program has taken it meanwhile, else ""."""
        try:
            self.hold(binding, owner)
        except (Conflict, InvalidRequest, HostError) as error:
            self._sockets[binding] = None
            self._owners[binding] = owner
            return str(error)
        return ""

    def let_go(self, bindings: Iterable[PortBinding]) -> None:
        for binding in bindings:
            held = self._sockets.pop(binding, None)
            if held is not None:
                held.close()
            self._owners.pop(binding, None)

    def _refuse_ours(self, binding: PortBinding) -> None:
        wanted = ipaddress.ip_address(binding.host_ip)
        for other, owner in self._owners.items():
            if other.host_port != binding.host_port or other.protocol != binding.protocol:
                continue
            address = ipaddress.ip_address(other.host_ip)
            if address.version != wanted.version:
                continue
            if address == wanted or address.is_unspecified or wanted.is_unspecified:
                raise _taken(binding, f"container {self._describe_owner(owner)}")


def _taken(binding: PortBinding, owner: str) -> Conflict:
    address = f"[{binding.host_ip}]" if ":" in binding.host_ip else binding.host_ip
    return Conflict(
        f"port is already allocated: {address}:{binding.host_port}/{binding.protocol}",
        details=f"in use by {owner}",
        hint="publish another host port",
    )


def _bind(binding: PortBinding) -> socket.socket:
    family = socket.AF_INET6 if ":" in binding.host_ip else socket.AF_INET
    held = socket.socket(family, _KINDS[binding.protocol] | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if binding.host_port == DNS_PORT:
            # our own DNS servers on gateway addresses have this option too, so a wildcard reservation fits beside them
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((binding.host_ip, binding.host_port))
    except OSError as error:
        held.close()
        if error.errno == errno.EADDRINUSE:
            owner = find_port_owner(binding.protocol, binding.host_port)
            raise _taken(binding, owner or "another program on this host") from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise InvalidRequest(
                f"cannot publish on {binding.host_ip}: it is no address of this host", hint="see `ip address`"
            ) from error
        raise HostError(f"cannot reserve port {binding.host_port}/{binding.protocol}", details=str(error)) from error
    return held


def find_port_owner(protocol: str, port: int) -> str:
    """`name (pid N)` of the program that has a port of this host; empty when it cannot be told. Slow: reads all of /proc."""
    inodes = _inodes_of_port(protocol, port)
    if not inodes:
        return ""
    wanted = {f"socket:[{inode}]" for inode in inodes}
    own = os.getpid()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == own:
            continue
        try:
            for descriptor in (entry / "fd").iterdir():
                if str(descriptor.readlink()) in wanted:
                    return f"{(entry / 'comm').read_text().strip()} (pid {entry.name})"
        except OSError:
            continue  # the process has ended
    return ""


def _inodes_of_port(protocol: str, port: int) -> set[str]:
    found = set()
    for table in (protocol, f"{protocol}6"):
        try:
            lines = Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            if int(columns[1].rpartition(":")[2], 16) == port and columns[9] != "0":
                found.add(columns[9])
    return found
