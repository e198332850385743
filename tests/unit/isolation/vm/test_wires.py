from __future__ import annotations

import pytest

from silo.isolation.vm.wires import Interface, other_mac


@pytest.mark.parametrize("mac", ["02:42:ac:11:00:02", "00:16:3e:00:00:01", "42:42:ac:11:00:02"])
def test_the_interface_gets_another_address(mac: str) -> None:
    other = other_mac(mac)
    first = int(other[:2], 16)
    assert other != mac and other[2:] == mac[2:]
    assert first & 0x02 and not first & 0x01, "locally administered, of one station"


def test_what_the_agent_is_asked() -> None:
    interface = Interface(
        name="eth0", mac="02:42:ac:11:00:02", mtu=1400, addresses=("172.17.0.2/16",), gateways=("172.17.0.1",)
    )
    assert interface.request("02:53:49:4c:4f:00") == {
        "find_mac": "02:53:49:4c:4f:00",
        "mac": "02:42:ac:11:00:02",
        "mtu": 1400,
        "addresses": ["172.17.0.2/16"],
        "routes": [{"destination": "default", "gateway": "172.17.0.1"}],
    }
