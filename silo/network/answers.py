"""What DNS says of containers: a query in, the whole answer out, or `FORWARD` when the name is not ours. Pure; no I/O.

Whose names: a container sees what is on the networks that it is on (and its own links); the host itself and anybody else whose
address is in the network's subnet see that one network. Answers live 10 s: containers come and go.
"""

from __future__ import annotations

import enum
import ipaddress
import random
from dataclasses import dataclass

import dnslib

from silo.model.network import Endpoint, NetworkConfig
from silo.network.members import Members

TTL_S = 10
MAX_QUERY_BYTES = 4096
_PLAIN_UDP_BYTES = 512
_LARGEST_UDP_BYTES = 1232  # what passes every path without fragments (DNS flag day 2020)
_HOST_NAMES = ("host.docker.internal", "gateway.docker.internal")
# what a hostile packet makes dnslib's parser raise
_PARSE_ERRORS = (dnslib.DNSError, dnslib.buffer.BufferError, ValueError, LookupError, RecursionError)


class Verdict(enum.Enum):
    """Other outcomes than an answer."""

    FORWARD = "forward"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Query:
    """A well-formed question and how much may be answered."""

    record: dnslib.DNSRecord
    name: str
    kind: int
    limit_bytes: int


def parse_query(untrusted: bytes, *, tcp: bool) -> Query | bytes | None:
    """The query; or bytes: a refusal to send; or None: not worth an answer."""
    if not 12 <= len(untrusted) <= MAX_QUERY_BYTES or untrusted[2] & 0x80:
        return None
    try:
        record = dnslib.DNSRecord.parse(untrusted)
        if record.header.opcode != 0:
            return refusal(untrusted, dnslib.RCODE.NOTIMP)
        if len(record.questions) != 1:
            return refusal(untrusted, dnslib.RCODE.FORMERR)
        name = str(record.q.qname).rstrip(".").lower()
        sizes = [entry.rclass for entry in record.ar if entry.rtype == dnslib.QTYPE.OPT]
    except _PARSE_ERRORS:
        return refusal(untrusted, dnslib.RCODE.FORMERR)
    limit = min(max([_PLAIN_UDP_BYTES, *sizes]), _LARGEST_UDP_BYTES)
    return Query(record, name, int(record.q.qtype), 65535 if tcp else limit)


def refusal(query: bytes, code: int) -> bytes:
    """An answer of the header alone."""
    flags = bytes([0x80 | (query[2] & 0x79), 0x80 | code])
    return query[:2] + flags + bytes(8)


class Answers:
    """Answers from `members` for one network at a time."""

    def __init__(self, members: Members) -> None:
        self._members = members

    def answer(self, query: Query, network: NetworkConfig, source: str) -> bytes | Verdict:
        address = ipaddress.ip_address(source)
        if address not in ipaddress.ip_network(network.subnet):
            return Verdict.DROP  # not a resolver for strangers who route to the gateway's address
        asker = self._members.container_at(network.id, source)
        if query.name in _HOST_NAMES:
            return _records(query, [network.gateway, network.ipv6_gateway])
        if query.name.endswith((".in-addr.arpa", ".ip6.arpa")):
            return self._reverse(query, network, asker)
        if asker is not None:
            endpoints = self._members.resolve_for(asker, query.name)
        else:
            endpoints = self._members.resolve(query.name, [network.id])
        if endpoints:
            shuffled = random.sample(endpoints, len(endpoints))
            return _records(query, [text for e in shuffled for text in (e.ipv4_address, e.ipv6_address)])
        return self._unknown(query, network, asker)

    def _unknown(self, query: Query, network: NetworkConfig, asker: str | None) -> bytes | Verdict:
        mine = self._members.endpoints(asker) if asker else ()
        if network.internal and not any(endpoint.gateway for endpoint in mine):
            return _failure(query, dnslib.RCODE.NXDOMAIN)  # no way out by DNS either
        return Verdict.FORWARD

    def _reverse(self, query: Query, network: NetworkConfig, asker: str | None) -> bytes | Verdict:
        address = _parse_reverse(query.name)
        if address is None:
            return self._unknown(query, network, asker)
        seen = [endpoint.network_id for endpoint in self._members.endpoints(asker)] if asker else [network.id]
        endpoint = self._members.reverse(str(address), seen)
        if endpoint is not None:
            reply = query.record.reply()
            target = f"{_display_name(endpoint)}.{endpoint.network_name}"
            if query.kind in (dnslib.QTYPE.PTR, dnslib.QTYPE.ANY):
                reply.add_answer(dnslib.RR(query.record.q.qname, dnslib.QTYPE.PTR, ttl=TTL_S, rdata=dnslib.PTR(target)))
            return _pack(query, reply)
        for network_id in seen:
            pools = self._members.pools.get(network_id)
            if pools and (address in pools.v4.subnet or (pools.v6 is not None and address in pools.v6.subnet)):
                return _failure(query, dnslib.RCODE.NXDOMAIN)  # other networks' servers know nothing of ours
        return self._unknown(query, network, asker)


def _display_name(endpoint: Endpoint) -> str:
    return (*endpoint.dns_names, *endpoint.aliases, endpoint.endpoint_id[:12])[0]


def _parse_reverse(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    labels = name.split(".")[:-2][::-1]
    try:
        if name.endswith(".in-addr.arpa"):
            return ipaddress.IPv4Address(".".join(labels))
        digits = "".join(labels)
        return ipaddress.IPv6Address(bytes.fromhex(digits)) if len(digits) == len(labels) == 32 else None
    except ValueError:
        return None


def _records(query: Query, addresses: list[str]) -> bytes:
    """A and AAAA records as asked; a name that exists without such records has an empty answer."""
    reply = query.record.reply()
    for text in addresses:
        if not text:
            continue
        kind, data = (dnslib.QTYPE.AAAA, dnslib.AAAA) if ":" in text else (dnslib.QTYPE.A, dnslib.A)
        if query.kind in (kind, dnslib.QTYPE.ANY):
            reply.add_answer(dnslib.RR(query.record.q.qname, kind, ttl=TTL_S, rdata=data(text)))
    return _pack(query, reply)


def _failure(query: Query, code: int) -> bytes:
    reply = query.record.reply()
    reply.header.rcode = code
    return _pack(query, reply)


def _pack(query: Query, reply: dnslib.DNSRecord) -> bytes:
    packed = bytes(reply.pack())
    return packed if len(packed) <= query.limit_bytes else bytes(reply.truncate().pack())
