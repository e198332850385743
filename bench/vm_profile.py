"""Where the time of one container goes: what the host asks of QEMU and of the guest's agent, when, and for how long."""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from silo.isolation.vm.agent import AgentClient
from silo.isolation.vm.choosing import Chooser
from silo.isolation.vm.clones import Clones
from silo.isolation.vm.machine import VirtualMachine
from silo.isolation.vm.qmp import QmpClient
from silo.isolation.vm.runtime import VmRuntime
from silo.isolation.vm.session import GuestSession
from silo.isolation.vm.starting import Starter
from silo.isolation.vm.watching import Watcher

_STEPS: tuple[tuple[type, str, str], ...] = (
    (VmRuntime, "prepare", "prepare"),
    (Chooser, "clone", "a clone, made or taken"),
    (Clones, "start", "a clone: made, agent answers"),
    (Clones, "limit", "limits of its cgroup"),
    (Starter, "set_up", "guest's part of prepare"),
    (VmRuntime, "start", "start"),
    (GuestSession, "identity", "identity"),
    (Watcher, "_settle", "what it wrote reaches its disk"),
    (VmRuntime, "release", "release"),
    (VirtualMachine, "end", "QEMU ends"),
    (Clones, "clear", "directory and cgroup go"),
)
"""Methods that are awaited, and what they are called in the table."""


class Breakdown:
    """Of several runs of the same: medians of when each step began and ended, in milliseconds from the order."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._runs: list[dict[tuple[str, int], tuple[float, float]]] = []
        self._began = 0.0
        self._seen: Counter[str] = Counter()

    @contextlib.contextmanager
    def watch(self) -> Iterator[None]:
        """One run; several at once would be mixed up."""
        with ExitStack() as stack:
            for owner, method, title in _STEPS:
                stack.enter_context(
                    patch.object(owner, method, self._timed(getattr(owner, method), lambda *_, title=title: title))
                )
            executed = self._timed(QmpClient.execute, lambda _, command, *__: f"  QMP {command}")
            stack.enter_context(patch.object(QmpClient, "execute", executed))
            asked = self._timed(AgentClient.connect, lambda *_: "  agent: hello")
            stack.enter_context(patch.object(AgentClient, "connect", asked))
            begins: dict[tuple[int, int], float] = {}
            stack.enter_context(patch.object(AgentClient, "begin", _begin(begins)))
            stack.enter_context(patch.object(AgentClient, "finish", self._finish(begins)))
            self._runs.append({})
            self._seen.clear()
            self._began = time.perf_counter()
            yield

    def note_end(self, phases_ms: Mapping[str, float]) -> None:
        spoke, ended = phases_ms["first output"], phases_ms["exit"]
        self._runs[-1][("first output", 0)] = (0.0, spoke)
        self._runs[-1][("exit", 0)] = (0.0, ended)
        self._runs[-1][("nothing left", 0)] = (0.0, ended + phases_ms["exit to nothing left"])

    def _timed(self, method: Callable[..., Awaitable[Any]], title: Callable[..., str]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(method)
        async def timed(*words: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return await method(*words, **named)
            finally:
                self._note(title(*words), began)

        return timed

    def _finish(self, begins: dict[tuple[int, int], float]) -> Callable[..., Awaitable[Any]]:
        finish = AgentClient.finish

        async def timed(client: AgentClient, number: int, name: str, *words: Any, **named: Any) -> Any:
            try:
                return await finish(client, number, name, *words, **named)
            finally:
                self._note(f"  agent: {name}", begins.pop((id(client), number)))

        return timed

    def _note(self, title: str, began: float) -> None:
        span = ((began - self._began) * 1000, (time.perf_counter() - self._began) * 1000)
        self._runs[-1][(title, self._seen[title])] = span
        self._seen[title] += 1

    def table(self) -> str:
        spans: defaultdict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
        for run in self._runs:
            for key, span in run.items():
                spans[key].append(span)
        rows = []
        for (title, _), found in spans.items():
            # the pool's refilling comes into some runs only
            if len(found) * 2 > len(self._runs):
                began, ended = (statistics.median(span[end] for span in found) for end in (0, 1))
                rows.append((began, -ended, title, ended))
        lines = [f"{self._title}: medians of {len(self._runs)}", f"{'from':>8} {'to':>8} {'took':>7}  ms"]
        lines += [f"{began:8.1f} {ended:8.1f} {ended - began:7.1f}  {title}" for began, _, title, ended in sorted(rows)]
        return "\n".join(lines)


def _begin(begins: dict[tuple[int, int], float]) -> Callable[..., int]:
    begin = AgentClient.begin

    def noted(client: AgentClient, *words: Any, **named: Any) -> int:
        began = time.perf_counter()
        number = begin(client, *words, **named)
        begins[id(client), number] = began
        return number

    return noted
