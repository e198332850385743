"""Profiles decided for one container, and compiled filters carried out by hand on a few calls."""

from __future__ import annotations

import struct

import pytest

from silo.errors import InvalidRequest
from silo.host.seccomp import compile_filter
from silo.isolation.seccomp_profile import default_profile, parse_profile, select_rules

X86_64 = 0xC000003E
ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
MKDIR, UNSHARE, CLONE, CLONE3, SOCKET, BPF, PERSONALITY = 83, 272, 56, 435, 41, 321, 135


def verdict(program: bytes, number: int, *arguments: int) -> int:
    """What the kernel would answer: an interpreter of the few BPF instructions that libseccomp writes."""
    data = struct.pack("<IIQ6Q", number, X86_64, 0, *arguments, *[0] * (6 - len(arguments)))
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator, at = 0, 0
    while True:
        operation, true, false, value = code[at]
        at += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x05:
            at += value
        elif operation == 0x06:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x25: accumulator > value, 0x35: accumulator >= value}[operation]
            at += true if holds else false


def compiled(*capabilities: str) -> bytes:
    return compile_filter(select_rules(default_profile(), capabilities=capabilities, machine="x86_64", kernel="6.1.0"))


def test_the_default_profile() -> None:
    program = compiled("CAP_CHOWN")
    assert verdict(program, MKDIR) == ALLOW
    assert verdict(program, UNSHARE) == EPERM and verdict(program, BPF) == EPERM
    assert verdict(program, 999_999) == EPERM
    assert verdict(program, CLONE3) == ENOSYS
    assert verdict(program, CLONE, 17) == ALLOW and verdict(program, CLONE, 0x10000000) == EPERM
    assert verdict(program, SOCKET, 2) == ALLOW and verdict(program, SOCKET, 40) == EPERM
    assert verdict(program, PERSONALITY, 8) == ALLOW and verdict(program, PERSONALITY, 0x40000) == EPERM


def test_a_capability_opens_its_calls() -> None:
    program = compiled("CAP_SYS_ADMIN")
    assert verdict(program, UNSHARE) == ALLOW and verdict(program, CLONE, 0x10000000) == ALLOW
    assert verdict(program, CLONE3) == ALLOW
    assert verdict(compiled("CAP_BPF"), BPF) == ALLOW and verdict(compiled("CAP_BPF"), UNSHARE) == EPERM


def test_a_profile_of_ones_own() -> None:
    text = """{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [], "syscalls": [
        {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"name": "unshare", "action": "SCMP_ACT_KILL_PROCESS", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}]},
        {"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "99.0"}}]}"""
    rules = select_rules(parse_profile(text), capabilities=(), machine="x86_64", kernel="6.1")
    program = compile_filter(rules)
    assert verdict(program, MKDIR) == ENOSYS and verdict(program, UNSHARE) == 0x80000000
    assert verdict(program, SOCKET, 2) == EPERM and verdict(program, SOCKET, 1) == ALLOW
    assert verdict(program, BPF) == ALLOW


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"defaultAction": 1}', '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [1]}']
)
def test_what_is_no_profile(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_profile(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"defaultAction": "SCMP_ACT_MAYBE"}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}',
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",'
        ' "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_LIKE"}]}]}',
    ],
)
def test_words_that_are_not_supported(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not supported"):
        compile_filter(select_rules(parse_profile(text), capabilities=(), machine="x86_64", kernel="6.1"))
