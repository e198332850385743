"""Named pipes that Windows containers share with one another and with sockets of the host (docs/named-pipes.md)."""

from silo.isolation.pipes.host_pipes import HostPipes

__all__ = ["HostPipes"]
