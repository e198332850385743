"""Bridge, addresses, published ports, DNS, firewall: the port `Networks`."""

from silo.network.bridge import DEFAULT_SUBNET, BridgeNetworks

__all__ = ["BridgeNetworks", "DEFAULT_SUBNET"]
