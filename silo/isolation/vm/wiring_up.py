"""Keeping a guest's network interfaces what its sandbox's are: at the start, and when networks come and go."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from typing import Any

import msgspec

from silo.errors import Conflict, HostError, SiloError
from silo.isolation import run_files
from silo.isolation.vm.command import HOT_PLUGS, NIC_HUB, NIC_MAC, hot_plug_bus
from silo.isolation.vm.container import VmContainer, Wire
from silo.isolation.vm.qmp import QmpClient
from silo.isolation.vm.wires import Interface, list_interfaces, make_tap, other_mac, remove_bridge

_PLUG_LIMIT_S = 10.0
_LOOK_AGAIN_S = 0.01
_NOT_THERE = "not found"
"""QEMU's words for an id that nothing has (QERR_DEVICE_NOT_FOUND)."""


async def wire_up(container: VmContainer) -> None:
    """Idempotent. Raises HostError, Conflict (no place left), GuestError, Unavailable."""
    if container.record.plan.network != "private":
        return
    async with container.wiring:
        found = {one.name: one for one in await asyncio.to_thread(list_interfaces, container.netns)}
        for name, wire in container.record.wires.items():
            if not _is_handed_over(found.get(name), wire):
                await _unplug(container, name, wire)
                _remember(container, name, None)
        for name, interface in found.items():
            former = container.record.wires.get(name)
            if former is None:
                _remember(container, name, await _plug(container, interface))
            elif _differs(former.interface, interface):
                own = msgspec.structs.replace(interface, mac=former.interface.mac)
                _remember(container, name, msgspec.structs.replace(former, interface=own))
            # before the next one is plugged in: a guest names its devices in the order in which it sees them
            await _configure(container, container.record.wires[name])


def _is_handed_over(now: Interface | None, wire: Wire) -> bool:
    """An interface of the same name that still has its own address is another one, made after the former went."""
    return now is not None and now.mac == other_mac(wire.interface.mac)


def _differs(former: Interface, now: Interface) -> bool:
    """The address of the interface itself is not the guest's any more."""
    return (former.addresses, former.gateways, former.mtu) != (now.addresses, now.gateways, now.mtu)


def _remember(container: VmContainer, name: str, wire: Wire | None) -> None:
    wires = {known: one for known, one in container.record.wires.items() if known != name}
    _replace(container, wires=wires if wire is None else {**wires, name: wire})


def _replace(container: VmContainer, **changes: object) -> None:
    container.record = msgspec.structs.replace(container.record, **changes)
    run_files.save(container.record_file, container.record)


async def _plug(container: VmContainer, interface: Interface) -> Wire:
    taken = {wire.place for wire in container.record.wires.values()}
    place = next((number for number in range(-1, HOT_PLUGS) if number not in taken), None)
    if place is None:
        raise Conflict(f"a container in a virtual machine can be on at most {HOT_PLUGS + 1} networks")
    tap = await asyncio.to_thread(make_tap, container.netns, interface)
    try:
        await _plug_tap(container, interface, tap, place)
    except BaseException:
        await asyncio.shield(_take_out(container, interface.name, place))
        raise
    finally:
        os.close(tap)
    return Wire(interface=interface, place=place, found_by=_hub_address(container) if place == -1 else interface.mac)


async def _plug_tap(container: VmContainer, interface: Interface, tap: int, place: int) -> None:
    monitor, name = container.clone.vm.monitor, f"tap-{interface.name}"
    await monitor.execute("getfd", descriptors=[tap], fdname=name)
    await monitor.execute("netdev_add", type="tap", id=name, fd=name)
    if place == -1:
        await monitor.execute("netdev_add", type="hubport", id=f"hub-{interface.name}", hubid=NIC_HUB, netdev=name)
        return
    await monitor.execute(
        "device_add",
        driver="virtio-net-pci",
        id=f"nic-{interface.name}",
        netdev=name,
        mac=interface.mac,
        bus=hot_plug_bus(place),
        romfile="",
    )


def _hub_address(container: VmContainer) -> str:
    """What the first device is known by now: a former network may have given it another address."""
    return container.record.hub_mac or NIC_MAC


async def _unplug(container: VmContainer, name: str, wire: Wire) -> None:
    if wire.place == -1:
        # a guest that does not answer keeps its addresses, and no cable
        with contextlib.suppress(SiloError):
            await _clear_guest_device(container, wire)
    await _take_out(container, name, wire.place)


async def _take_out(container: VmContainer, name: str, place: int) -> None:
    """Whatever there is of it on the host's side."""
    monitor = container.clone.vm.monitor
    with contextlib.suppress(SiloError):
        if place == -1:
            await monitor.execute("netdev_del", id=f"hub-{name}")
        else:
            await monitor.execute("device_del", id=f"nic-{name}")
    with contextlib.suppress(SiloError):
        await _delete_netdev(monitor, f"tap-{name}")
    with contextlib.suppress(HostError):
        await asyncio.to_thread(remove_bridge, container.netns, name)


async def _clear_guest_device(container: VmContainer, wire: Wire) -> None:
    """It stays plugged into nothing, without addresses."""
    request: dict[str, Any] = {"find_mac": wire.interface.mac, "down": True}
    await container.clone.session.client.request("network", {"interfaces": [request]}, timeout_s=_PLUG_LIMIT_S)


async def _delete_netdev(monitor: QmpClient, name: str) -> None:
    """A device is gone only when the guest has let go of it."""
    deadline = time.monotonic() + _PLUG_LIMIT_S
    while time.monotonic() < deadline:
        try:
            await monitor.execute("netdev_del", id=name)
            return
        except HostError as error:
            if _NOT_THERE in error.details:
                return
            await asyncio.sleep(_LOOK_AGAIN_S)


async def _configure(container: VmContainer, wire: Wire) -> None:
    """Every time: what is so already is left as it is. A device just plugged in takes the guest a moment.

    Each by a request of its own: a refusal says nothing about what was done before it. The first one is found by another address
    from then on, also when the answer is lost.
    """
    known = (_hub_address(container), wire.interface.mac) if wire.place == -1 else (wire.found_by,)
    deadline = time.monotonic() + _PLUG_LIMIT_S
    for find_mac in itertools.cycle(known):
        request = {"interfaces": [wire.interface.request(find_mac)]}
        try:
            await container.clone.session.client.request("network", request, timeout_s=_PLUG_LIMIT_S)
            break
        except SiloError as error:
            if "no interface" not in error.details or time.monotonic() > deadline:
                raise
            await asyncio.sleep(_LOOK_AGAIN_S)
    if wire.place == -1 and wire.interface.mac != container.record.hub_mac:
        _replace(container, hub_mac=wire.interface.mac)
