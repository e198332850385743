"""Which servers are asked, and which answers are believed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import dnslib
import pytest

from silo.network.forwarder import Forwarder, _fits, parse_nameservers


def test_nameservers() -> None:
    text = (
        "nameserver 127.0.0.53\n#nameserver 1.1.1.1\nsearch lan\nnameserver bad\nnameserver\nnameserver fe80::1%eth0\n"
    )
    text += "nameserver 2001:db8::1\nnameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"
    assert parse_nameservers(text) == ("127.0.0.53", "fe80::1%eth0", "2001:db8::1")


def test_servers_are_read_anew_and_never_ourselves(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    forwarder = Forwarder(lambda: {"10.0.0.1"}, resolv_conf=path)
    assert forwarder.servers() == ()
    path.write_text("nameserver 10.0.0.1\nnameserver 192.0.2.1\n")
    assert forwarder.servers() == ("192.0.2.1",)
    other = tmp_path / "new"
    other.write_text("nameserver 192.0.2.2\n")
    other.replace(path)
    assert forwarder.servers() == ("192.0.2.2",)


def test_only_fitting_answers_are_believed() -> None:
    query = dnslib.DNSRecord.question("example.org")
    packed, answer = query.pack(), query.reply().pack()
    assert _fits(packed, answer)
    assert _fits(packed, answer.replace(b"example", b"EXAMPLE")), "some servers keep the case, some do not"
    assert not _fits(packed, bytes([answer[0] ^ 1]) + answer[1:])
    assert not _fits(packed, answer.replace(b"example", b"exemple"))
    assert not _fits(packed, packed), "a query is no answer"
    assert not _fits(packed, answer[:8])
    refused = packed[:2] + b"\x80\x05" + bytes(8)
    assert _fits(packed, refused)


class Silent(asyncio.DatagramProtocol):
    def datagram_received(self, data: bytes, addr: object) -> None:
        """Never answers."""


def test_too_much_at_once_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("silo.network.forwarder.TIMEOUT_S", 0.3)
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.0.0.1\n")
    query = dnslib.DNSRecord.question("example.org").pack()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(Silent, local_addr=("127.0.0.1", 0))
        port = transport.get_extra_info("sockname")[1]
        forwarder = Forwarder(set, resolv_conf=path, port=port)
        waiting = [asyncio.create_task(forwarder.ask(query, "greedy", tcp=False)) for _ in range(64)]
        await asyncio.sleep(0)
        async with asyncio.timeout(0.1):
            assert await forwarder.ask(query, "greedy", tcp=False) is None
        other = asyncio.create_task(forwarder.ask(query, "modest", tcp=False))
        done, _ = await asyncio.wait([other], timeout=0.1)
        assert not done, "another client is still served"
        assert await asyncio.gather(*waiting, other) == [None] * 65
        assert forwarder._pending == {}
        transport.close()

    asyncio.run(scenario())
