"""Seccomp filters compiled to BPF by libseccomp, called through ctypes (the library crun itself is linked with).

Source: libseccomp's `seccomp.h`. A compiled filter is an array of `struct sock_filter`, as seccomp(2) takes it.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

import msgspec

from silo.errors import HostError, InvalidRequest, ToolMissing

_OPTIMIZE = 8  # SCMP_FLTATR_CTL_OPTIMIZE
_BINARY_TREE = 2
_UNKNOWN_SYSCALL = -1
_EDOM = 33
_EEXIST = 17

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_WITH_NUMBER = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_ARCHITECTURES = {
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X32": 0x4000003E,
    "SCMP_ARCH_ARM": 0x40000028,
    "SCMP_ARCH_AARCH64": 0xC00000B7,
}


class Comparison(msgspec.Struct, frozen=True, array_like=True):
    """A condition on one argument of the call; for MASKED_EQ `value` is the mask and `value_two` what must come out."""

    index: int
    op: str
    value: int
    value_two: int = 0


class FilterRule(msgspec.Struct, frozen=True, array_like=True):
    names: tuple[str, ...]
    action: str
    errno: int
    comparisons: tuple[Comparison, ...] = ()


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Rules with nothing left to decide. The first of `architectures` is the machine's own."""

    default_action: str
    default_errno: int
    architectures: tuple[str, ...]
    rules: tuple[FilterRule, ...]


class _ArgumentComparison(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def _library() -> Any:
    try:
        library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    except OSError as error:
        raise ToolMissing("libseccomp.so.2", "libseccomp2") from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_attr_set.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_ArgumentComparison),
    ]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    return library


def action_value(action: str, number: int) -> int:
    """Raises InvalidRequest for an action that is unknown (or needs a listener, as NOTIFY does)."""
    if action not in _ACTIONS:
        raise InvalidRequest(f"the seccomp action {action!r} is not supported")
    return _ACTIONS[action] | (number & 0xFFFF if action in _WITH_NUMBER else 0)


def compile_filter(filter_: Filter) -> bytes:
    """BPF of a filter; about ten milliseconds. Raises InvalidRequest (unknown words), HostError.

    Names that this library does not know are left out, as other engines do: they then meet the default action.
    """
    library = _library()
    context = library.seccomp_init(action_value(filter_.default_action, filter_.default_errno))
    if not context:
        raise HostError("libseccomp could not begin a filter")
    try:
        library.seccomp_attr_set(context, _OPTIMIZE, _BINARY_TREE)
        for name in filter_.architectures[1:]:
            _checked(library.seccomp_arch_add(context, _ARCHITECTURES[name]), f"architecture {name}")
        for rule in filter_.rules:
            _add_rule(library, context, filter_, rule)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _add_rule(library: Any, context: int, filter_: Filter, rule: FilterRule) -> None:
    action = action_value(rule.action, rule.errno)
    if action == action_value(filter_.default_action, filter_.default_errno):
        return
    comparisons = (_ArgumentComparison * max(1, len(rule.comparisons)))()
    for place, comparison in zip(comparisons, rule.comparisons, strict=False):
        if comparison.op not in _OPERATORS or not 0 <= comparison.index <= 5:
            raise InvalidRequest(
                f"seccomp comparison {comparison.op!r} of argument {comparison.index} is not supported"
            )
        place.arg, place.op = comparison.index, _OPERATORS[comparison.op]
        place.a, place.b = comparison.value & (2**64 - 1), comparison.value_two & (2**64 - 1)
    for name in rule.names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != _UNKNOWN_SYSCALL:
            result = library.seccomp_rule_add_array(context, action, number, len(rule.comparisons), comparisons)
            _checked(result, f"rule for {name}")


def _export(library: Any, context: int) -> bytes:
    descriptor = os.memfd_create("filter")
    with open(descriptor, "rb") as file:
        _checked(library.seccomp_export_bpf(context, descriptor), "export")
        file.seek(0)
        return file.read()


def _checked(result: int, what: str) -> None:
    # EDOM: the call does not exist on one of the architectures; EEXIST: said twice
    if result < 0 and -result not in (_EDOM, _EEXIST):
        raise HostError(f"libseccomp refused the {what}", details=os.strerror(-result))
