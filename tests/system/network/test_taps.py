"""A machine's tap device beside the interface that a network has plugged into its sandbox."""

from __future__ import annotations

import os
from collections.abc import Callable

import msgspec
import pytest

from silo.errors import HostError
from silo.isolation.vm.wires import list_interfaces, make_tap
from tests.system.network.conftest import Scenario, World

pytestmark = pytest.mark.system
Run = Callable[[Scenario], None]


def test_a_tap_that_cannot_be_made_leaves_no_bridge(in_private_network: Run) -> None:
    async def scenario(world: World) -> None:
        networks = world.networks()
        await networks.open()
        container = await world.join(networks)
        netns = container.sandbox.netns
        assert netns is not None
        (interface,) = list_interfaces(netns)
        with pytest.raises(HostError, match="eth7 is gone"):
            make_tap(netns, msgspec.structs.replace(interface, name="eth7"))
        names = world.sh("ip -o link show", container)
        assert "b-eth7" not in names and "t-eth7" not in names
        os.close(make_tap(netns, interface))
        assert "b-eth0" in world.sh("ip -o link show", container)
        await networks.close()

    in_private_network(scenario)
