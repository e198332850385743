"""Kernel switches that container networks need, of the network namespace that the daemon lives in.

Forwarding that Silo switched on is remembered in `<run_root>/forwarding` (one line per family; gone at reboot like the switch
itself): then the packet filter keeps the machine from routing for anybody but containers.
"""

from __future__ import annotations

from pathlib import Path

from silo.errors import HostError

_NET = Path("/proc/sys/net")


def read(name: str) -> str:
    """The value of net/<name>; empty when this kernel has no such switch."""
    try:
        return (_NET / name).read_text().strip()
    except OSError:
        return ""


def write(name: str, value: str) -> None:
    try:
        (_NET / name).write_text(value)
    except OSError as error:
        raise HostError(
            f"cannot set net/{name} to {value}", details=str(error), hint="is /proc/sys writable?"
        ) from error


def ensure(name: str, value: str) -> bool:
    """Answers whether it had to be changed."""
    if read(name) == value:
        return False
    write(name, value)
    return True


class Forwarding:
    """Switches forwarding on and knows whether it was off before."""

    def __init__(self, run_root: Path) -> None:
        self._path = run_root / "forwarding"

    @property
    def ours(self) -> frozenset[str]:
        """Families (ipv4, ipv6) in which Silo switched it on."""
        try:
            return frozenset(self._path.read_text().split())
        except FileNotFoundError:
            return frozenset()

    def enable_ipv4(self) -> None:
        self._enable("ipv4", "ipv4/ip_forward")

    def enable_ipv6(self) -> None:
        if read("ipv6/conf/all/forwarding") == "":
            raise HostError("this kernel has no IPv6", hint="make the network without --ipv6")
        if read("ipv6/conf/all/forwarding") == "1":
            return
        # a router ignores router advertisements unless told so: the host must not lose its own default route
        for device in sorted((_NET / "ipv6/conf").iterdir()):
            if read(f"ipv6/conf/{device.name}/accept_ra") == "1":
                write(f"ipv6/conf/{device.name}/accept_ra", "2")
        self._enable("ipv6", "ipv6/conf/all/forwarding")

    def _enable(self, family: str, switch: str) -> None:
        if read(switch) == "1":
            return
        # the note comes first: a crash between the two must not leave an open router behind
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text("".join(f"{name}\n" for name in sorted(self.ours | {family})))
        write(switch, "1")
