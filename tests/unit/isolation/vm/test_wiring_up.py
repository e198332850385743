"""What the guest and QEMU are asked when networks come and go, and what is left of a plug that fails."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from silo.errors import GuestError, HostError, Unavailable
from silo.isolation.vm import wiring_up
from silo.isolation.vm.command import NIC_MAC
from silo.isolation.vm.container import VmContainer
from silo.isolation.vm.wires import Interface, other_mac
from silo.isolation.vm.wiring_up import wire_up
from tests.support.machines import machine_record

FIRST = Interface(name="eth0", mac="02:42:ac:11:00:02", mtu=1500, addresses=("172.17.0.2/16",))
SECOND = Interface(name="eth1", mac="02:42:ac:12:00:02", mtu=1500, addresses=("172.18.0.2/16",))
THIRD = Interface(name="eth2", mac="02:42:ac:13:00:02", mtu=1500, addresses=("172.19.0.2/16",))


class World:
    """A sandbox with these interfaces, and a machine whose guest answers or does not."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.interfaces: dict[str, Interface] = {}
        self.bridges: set[str] = set()
        self.qemu: set[str] = set()
        """Ids that QEMU has."""
        self.refuse = ""
        """A command of the monitor's that fails."""
        self.silent = False
        self.devices, self.coming = {NIC_MAC}, set[str]()
        """The guest's devices by their addresses, and those that it sees after it was asked for them once."""
        self.asked: list[dict[str, Any]] = []
        self.history: list[str] = []
        monkeypatch.setattr(wiring_up, "list_interfaces", lambda _: tuple(self.interfaces.values()))
        monkeypatch.setattr(wiring_up, "make_tap", self.make_tap)
        monkeypatch.setattr(wiring_up, "remove_bridge", lambda _, name: self.bridges.discard(name))
        self.container = self.make_container(root)

    def make_container(self, root: Path) -> VmContainer:
        monitor = SimpleNamespace(execute=self.execute)
        session = SimpleNamespace(client=SimpleNamespace(request=self.request))
        clone = SimpleNamespace(directory=root, vm=SimpleNamespace(monitor=monitor), session=session)
        return VmContainer(machine_record(root), cast("Any", clone), cast("Any", None))

    def make_tap(self, _: Path, interface: Interface) -> int:
        if interface.name in self.bridges:
            raise HostError(f"cannot make b-{interface.name}: File exists")
        self.bridges.add(interface.name)
        self.interfaces[interface.name] = msgspec.structs.replace(interface, mac=other_mac(interface.mac))
        return os.open("/dev/null", os.O_RDONLY)

    async def execute(self, command: str, *, id: str = "", mac: str = "", **_: Any) -> None:
        if command == self.refuse:
            raise HostError("QEMU refused a command", details="it would rather not")
        if command == "device_add":
            self.coming.add(mac)
            self.history.append(f"plug {mac}")
        if command.endswith("_add"):
            if id in self.qemu:
                raise HostError("QEMU refused a command", details=f"Duplicate ID '{id}'")
            self.qemu.add(id)
        elif command.endswith("_del"):
            if id not in self.qemu:
                raise HostError("QEMU refused a command", details=f"Device '{id}' not found")
            self.qemu.discard(id)

    async def request(self, name: str, params: dict[str, Any], *, timeout_s: float) -> None:
        assert name == "network" and timeout_s < 30
        if self.silent:
            raise Unavailable("the guest did not network")
        for interface in params["interfaces"]:
            if interface["find_mac"] not in self.devices:
                self.devices |= self.coming
                raise GuestError(
                    "the guest refused to network", details=f"there is no interface {interface['find_mac']}"
                )
            if mac := interface.get("mac"):
                self.devices = self.devices - {interface["find_mac"]} | {mac}
            self.asked.append(interface)
            self.history.append(f"see {interface['find_mac']}")

    def connect(self, *interfaces: Interface) -> None:
        self.interfaces |= {one.name: one for one in interfaces}

    async def wire_up(self) -> None:
        await wire_up(self.container)


Body = Callable[[World], Awaitable[None]]


@pytest.fixture
def scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Body], None]:
    def run(body: Body) -> None:
        async def whole() -> None:
            # a device that is not there is not waited for
            async with asyncio.timeout(5):
                await body(World(tmp_path, monkeypatch))

        asyncio.run(whole())

    return run


@pytest.mark.parametrize(("there", "command"), [((), "getfd"), ((), "netdev_add"), ((FIRST,), "device_add")])
def test_a_plug_that_fails_leaves_nothing(scenario: Callable[[Body], None], there: Any, command: str) -> None:
    new = SECOND if there else FIRST

    async def body(world: World) -> None:
        world.connect(*there)
        await world.wire_up()
        before, bridges = set(world.qemu), set(world.bridges)
        world.connect(new)
        world.refuse = command
        with pytest.raises(HostError):
            await world.wire_up()
        assert (world.qemu, world.bridges) == (before, bridges)
        assert new.name not in world.container.record.wires
        world.refuse = ""
        world.connect(new)
        await world.wire_up()
        assert world.asked[-1]["mac"] == new.mac and world.asked[-1]["addresses"] == list(new.addresses)

    scenario(body)


def test_a_guest_that_does_not_answer_loses_its_cable_nevertheless(scenario: Callable[[Body], None]) -> None:
    async def body(world: World) -> None:
        world.connect(FIRST, SECOND)
        await world.wire_up()
        assert {"tap-eth0", "hub-eth0", "tap-eth1", "nic-eth1"} == world.qemu
        world.interfaces.clear()
        world.silent = True
        await world.wire_up()
        assert not world.qemu and not world.bridges and not world.container.record.wires

    scenario(body)


def test_another_interface_of_the_same_name_is_plugged_in_anew(scenario: Callable[[Body], None]) -> None:
    """As when a paused container changes its networks: the guest is told later."""

    async def body(world: World) -> None:
        world.connect(FIRST, SECOND)
        await world.wire_up()
        await world.wire_up()
        world.asked.clear()
        again = msgspec.structs.replace(SECOND, mac="02:42:ac:13:00:07", addresses=("172.19.0.7/16",))
        world.connect(again)
        await world.wire_up()
        assert world.container.record.wires["eth1"].interface == again
        assert [request["mac"] for request in world.asked] == [FIRST.mac, again.mac]
        assert world.interfaces["eth1"].mac == other_mac(again.mac)

    scenario(body)


def test_several_networks_from_the_start(scenario: Callable[[Body], None]) -> None:
    """A device is there a moment later, when the first one has its new address already; the guest sees them in order."""

    async def body(world: World) -> None:
        world.connect(FIRST, SECOND, THIRD)
        await world.wire_up()
        assert [request["mac"] for request in world.asked] == [FIRST.mac, SECOND.mac, THIRD.mac]
        plugs = [word for one in (SECOND, THIRD) for word in (f"plug {one.mac}", f"see {one.mac}")]
        assert world.history == [f"see {NIC_MAC}", *plugs]
        assert world.container.record.hub_mac == FIRST.mac

    scenario(body)


def test_the_first_device_is_found_although_an_answer_was_lost(scenario: Callable[[Body], None]) -> None:
    async def body(world: World) -> None:
        world.connect(FIRST)
        world.devices = {FIRST.mac}
        await world.wire_up()
        assert world.container.record.hub_mac == FIRST.mac

    scenario(body)
