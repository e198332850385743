"""DNS answers: packets in, packets out."""

from __future__ import annotations

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.model.network import NetworkConfig
from silo.network.answers import Answers, Query, Verdict, parse_query
from silo.network.members import Members, make_pools
from tests.unit.network.test_members import endpoint

NETWORK = NetworkConfig(id="n", name="net-n", subnet="10.0.0.0/24", gateway="10.0.0.1", bridge="b")
INNER = NetworkConfig(id="i", name="inner", subnet="10.9.0.0/24", gateway="10.9.0.1", bridge="c", internal=True)


def ask(
    answers: Answers, name: str, kind: str = "A", *, source: str = "10.0.0.2", network: NetworkConfig = NETWORK
) -> object:
    query = parse_query(dnslib.DNSRecord.question(name, kind).pack(), tcp=False)
    assert isinstance(query, Query)
    answer = answers.answer(query, network, source)
    if isinstance(answer, Verdict):
        return answer
    reply = dnslib.DNSRecord.parse(answer)
    return [str(entry.rdata) for entry in reply.rr] if not reply.header.rcode else dnslib.RCODE[reply.header.rcode]


@pytest.fixture
def answers() -> Answers:
    members = Members()
    members.pools["n"] = make_pools(NETWORK)
    members.add("a", endpoint("n", "10.0.0.2", names=("web",)))
    return Answers(members)


def test_known_names(answers: Answers) -> None:
    assert ask(answers, "web") == ["10.0.0.2"]
    assert ask(answers, "web", "AAAA") == []
    assert ask(answers, "web", "MX") == []
    assert ask(answers, "2.0.0.10.in-addr.arpa", "PTR") == ["web.net-n."]
    assert ask(answers, "9.0.0.10.in-addr.arpa", "PTR") == "NXDOMAIN"
    assert ask(answers, "gateway.docker.internal") == ["10.0.0.1"]


def test_other_names(answers: Answers) -> None:
    assert ask(answers, "example.org") is Verdict.FORWARD
    assert ask(answers, "8.8.8.8.in-addr.arpa", "PTR") is Verdict.FORWARD
    assert ask(answers, "not-an-address.in-addr.arpa", "PTR") is Verdict.FORWARD
    assert ask(answers, "example.org", source="10.9.0.5", network=INNER) == "NXDOMAIN"
    assert ask(answers, "web", source="192.0.2.1") is Verdict.DROP


def test_large_answers_are_cut_for_udp_only() -> None:
    members = Members()
    for number in range(2, 200):
        members.add(str(number), endpoint("n", f"10.0.0.{number}", names=("pool",)))
    packed = dnslib.DNSRecord.question("pool").pack()
    for tcp, complete in ((False, False), (True, True)):
        query = parse_query(packed, tcp=tcp)
        assert isinstance(query, Query)
        answer = Answers(members).answer(query, NETWORK, "10.0.0.2")
        assert isinstance(answer, bytes)
        reply = dnslib.DNSRecord.parse(answer)
        assert (len(answer) <= 512, bool(reply.header.tc), len(reply.rr)) == (
            not complete,
            not complete,
            198 * complete,
        )


def test_refusals() -> None:
    plain = bytearray(dnslib.DNSRecord.question("x").pack())
    assert parse_query(b"short", tcp=False) is None
    assert parse_query(bytes(plain[:2]) + b"\x80" + bytes(plain[3:]), tcp=False) is None, "answers are not answered"
    assert parse_query(bytes(5000), tcp=True) is None
    status = bytes(plain[:2]) + b"\x10" + bytes(plain[3:])
    refused = parse_query(status, tcp=False)
    assert isinstance(refused, bytes) and refused[3] & 15 == dnslib.RCODE.NOTIMP and refused[:2] == plain[:2]
    two = bytes(plain[:4]) + b"\0\2" + bytes(plain[6:]) + bytes(plain[12:])
    refused = parse_query(two, tcp=False)
    assert isinstance(refused, bytes) and refused[3] & 15 == dnslib.RCODE.FORMERR


@given(st.binary(max_size=600))
def test_any_bytes_are_survived(data: bytes) -> None:
    members = Members()
    query = parse_query(data, tcp=False)
    if isinstance(query, Query):
        Answers(members).answer(query, NETWORK, "10.0.0.2")


@given(st.binary(min_size=1, max_size=200))
def test_any_question_is_survived(tail: bytes) -> None:
    data = bytes.fromhex("123401000001000000000001") + tail
    query = parse_query(data, tcp=False)
    if isinstance(query, Query):
        Answers(Members()).answer(query, NETWORK, "10.0.0.2")
