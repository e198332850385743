"""The seccomp filter of a container: compiled once for all containers with the same profile and capabilities.

Compiled filters are kept by the digest of what went in, in `RUN_ROOT/seccomp/DIGEST.bpf`, and given to crun as base64 in an
annotation (1 ms a start instead of 16); a crun that does not know it gets the rules and compiles them itself.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from pathlib import Path
from typing import TypedDict

import msgspec

from silo.host.seccomp import Filter, compile_filter
from silo.isolation.run_files import write_private
from silo.isolation.seccomp_profile import Profile, default_profile, parse_profile, select_rules
from silo.isolation.spec import Json
from silo.model.runtime import ContainerPlan

_REMEMBERED = 64


class SeccompInputs(TypedDict):
    """The two fields of SpecInputs."""

    seccomp_filter: str
    seccomp_section: Json | None


class SeccompSource:
    def __init__(self, directory: Path, *, use_annotation: bool) -> None:
        self._directory = directory
        self.use_annotation = use_annotation
        self._default = default_profile()
        self._ready: dict[tuple[str, frozenset[str]], SeccompInputs] = {}
        # Containers are prepared in threads: one of them compiles, the others wait for it.
        self._lock = threading.Lock()

    def select(self, plan: ContainerPlan) -> SeccompInputs:
        """Raises InvalidRequest (a profile that cannot be read: nothing is then started without a filter)."""
        if plan.privileged or plan.seccomp == "unconfined":
            return {"seccomp_filter": "", "seccomp_section": None}
        key = (plan.seccomp, frozenset(plan.process.capabilities))
        with self._lock:
            found = self._ready.get(key)
            if found is None:
                profile = self._default if plan.seccomp in ("default", "") else parse_profile(plan.seccomp)
                found = self._make(profile, key[1])
                if len(self._ready) >= _REMEMBERED:
                    self._ready.pop(next(iter(self._ready)))
                self._ready[key] = found
            return found

    def stop_using_annotation(self) -> None:
        """This crun ignores it."""
        with self._lock:
            self.use_annotation = False
            self._ready.clear()

    def _make(self, profile: Profile, capabilities: frozenset[str]) -> SeccompInputs:
        machine = os.uname()
        rules = select_rules(profile, capabilities=capabilities, machine=machine.machine, kernel=machine.release)
        if not self.use_annotation:
            return {"seccomp_filter": "", "seccomp_section": build_section(rules)}
        return {"seccomp_filter": base64.b64encode(self._compiled(rules)).decode(), "seccomp_section": None}

    def _compiled(self, rules: Filter) -> bytes:
        self._directory.mkdir(mode=0o700, exist_ok=True)
        file = self._directory / f"{hashlib.sha256(msgspec.json.encode(rules)).hexdigest()}.bpf"
        if file.exists() and (kept := file.read_bytes()):
            return kept
        program = compile_filter(rules)
        fresh = file.with_suffix(".new")
        write_private(fresh, program)
        fresh.rename(file)
        return program


def build_section(rules: Filter) -> Json:
    """`linux.seccomp` of the OCI spec."""
    syscalls: list[Json] = []
    for rule in rules.rules:
        entry: Json = {"names": list(rule.names), "action": rule.action}
        if rule.action == "SCMP_ACT_ERRNO":
            entry["errnoRet"] = rule.errno
        if rule.comparisons:
            entry["args"] = [
                {"index": c.index, "value": c.value, "valueTwo": c.value_two, "op": c.op} for c in rule.comparisons
            ]
        syscalls.append(entry)
    section: Json = {
        "defaultAction": rules.default_action,
        "architectures": list(rules.architectures),
        "syscalls": syscalls,
    }
    if rules.default_action == "SCMP_ACT_ERRNO":
        section["defaultErrnoRet"] = rules.default_errno
    return section
