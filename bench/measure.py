"""Interleaved timing: every subject of a case in turn, again and again, so that the machine's moods hit all of them alike.

A result is a median and a 95th percentile of whole wall-clock times; a claim is a ratio of medians from the same run.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Subject:
    """One competitor in a case. `action` does the thing once and raises when it did not work."""

    name: str
    action: Callable[[], None]
    between: Callable[[], None] = lambda: None
    """Untimed, after each action (a pool fills up again, a container is removed)."""


@dataclass(frozen=True)
class Case:
    """One question. `against` names the subjects whose median divides that of the first one; `limits` what is to be reached."""

    name: str
    subjects: tuple[Subject, ...]
    limits: dict[str, float] = field(default_factory=dict)
    rounds: int = 20


@dataclass(frozen=True)
class Result:
    case: str
    subject: str
    times_ms: tuple[float, ...]
    limit_ms: float | None = None
    """To be reached by the median."""

    @property
    def median_ms(self) -> float:
        return statistics.median(self.times_ms)

    @property
    def verdict(self) -> str:
        return "" if self.limit_ms is None else _verdict(self.median_ms, self.limit_ms, " ms")

    @property
    def p95_ms(self) -> float:
        ordered = sorted(self.times_ms)
        return ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1)))]


@dataclass(frozen=True)
class Ratio:
    case: str
    against: str
    ratio: float
    limit: float | None

    @property
    def verdict(self) -> str:
        return "" if self.limit is None else _verdict(self.ratio, self.limit)


@dataclass(frozen=True)
class Figure:
    """Anything that is no wall-clock time of many runs; `value` is None, and `remark` says why, where it could not be measured."""

    case: str
    subject: str
    value: float | None
    unit: str = "MiB"
    limit: float | None = None
    n: int = 1
    remark: str = ""

    @property
    def verdict(self) -> str:
        return "" if self.limit is None or self.value is None else _verdict(self.value, self.limit, f" {self.unit}")

    def row(self) -> dict[str, Any]:
        unit = "".join(sign if sign.isalnum() else "_" for sign in self.unit.lower())
        return {
            "case": self.case,
            "subject": self.subject,
            "n": self.n,
            f"median_{unit}": self.value,
            f"limit_{unit}": self.limit,
        }


def _verdict(value: float, limit: float, unit: str = "") -> str:
    return f"≤ {limit:g}{unit}: {'reached' if value <= limit else 'missed'}"


@dataclass(frozen=True)
class PhasedSubject:
    """As Subject, of an action that tells itself how many milliseconds each of its phases took.

    `limits_ms`: by phase. `every`: it takes part in every so many rounds only, because it takes long.
    """

    name: str
    action: Callable[[], Mapping[str, float]]
    between: Callable[[], object] = lambda: None
    limits_ms: Mapping[str, float] = field(default_factory=dict)
    every: int = 1


def run_phases(name: str, subjects: Sequence[PhasedSubject], rounds: int) -> list[Result]:
    """Interleaved as in `run_case`; answers the results phase by phase, each as a case "NAME: PHASE"."""
    times: dict[str, dict[str, list[float]]] = {}
    for number in range(rounds + 1):
        for subject in subjects:
            if number % subject.every:
                continue
            subject.between()
            for phase, took_ms in subject.action().items():
                if number:
                    times.setdefault(phase, {}).setdefault(subject.name, []).append(took_ms)
        _draw_progress(f"{name} {number}/{rounds}")
    _draw_progress("")
    limits = {subject.name: subject.limits_ms for subject in subjects}
    return [
        Result(f"{name}: {phase}", subject, tuple(values), limits[subject].get(phase))
        for phase, by_subject in times.items()
        for subject, values in by_subject.items()
    ]


def run_case(case: Case, rounds: int) -> list[Result]:
    """One warm-up round, then `rounds` counted ones."""
    times: dict[str, list[float]] = {subject.name: [] for subject in case.subjects}
    for number in range(rounds + 1):
        for subject in case.subjects:
            began = time.perf_counter()
            subject.action()
            took_ms = (time.perf_counter() - began) * 1000
            subject.between()
            if number:
                times[subject.name].append(took_ms)
        _draw_progress(f"{case.name} {number}/{rounds}")
    _draw_progress("")
    return [Result(case.name, name, tuple(values)) for name, values in times.items()]


def phase_ratios(results: Sequence[Result], limits: Mapping[str, Mapping[str, float]]) -> list[Ratio]:
    """Of `run_phases`' results: in each phase the first subject's median over every other's.

    `limits`: by the phase's end of the case's name, then by subject.
    """
    firsts: dict[str, Result] = {}
    answer = []
    for result in results:
        first = firsts.setdefault(result.case, result)
        if first is not result:
            limit = limits.get(result.case.rpartition(": ")[2], {}).get(result.subject)
            answer.append(Ratio(result.case, result.subject, first.median_ms / result.median_ms, limit))
    return answer


def _draw_progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def ratios(case: Case, results: Sequence[Result]) -> list[Ratio]:
    """The first subject's median over every other's."""
    first, *others = results
    return [
        Ratio(case.name, other.subject, first.median_ms / other.median_ms, case.limits.get(other.subject))
        for other in others
    ]


def machine() -> dict[str, Any]:
    """What a reader needs to place the figures."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "",
    )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "date": time.strftime("%Y-%m-%d"),
    }


def as_json(bench: str, results: Sequence[Result], comparisons: Sequence[Ratio], figures: Sequence[Figure]) -> str:
    rows: list[dict[str, Any]] = [
        {
            "case": result.case,
            "subject": result.subject,
            "n": len(result.times_ms),
            "median_ms": round(result.median_ms, 2),
            "p95_ms": round(result.p95_ms, 2),
            **({"limit_ms": result.limit_ms} if result.limit_ms is not None else {}),
        }
        for result in results
    ]
    return json.dumps(
        {
            "bench": bench,
            "machine": machine(),
            "results": [*rows, *(figure.row() for figure in figures)],
            "ratios": [{"case": r.case, "against": r.against, "ratio": round(r.ratio, 3)} for r in comparisons],
        },
        indent=1,
    )


def table(results: Sequence[Result], comparisons: Sequence[Ratio]) -> str:
    """Markdown, as it goes into docs/performance.md."""
    by_key = {(ratio.case, ratio.against): ratio for ratio in comparisons}
    lines = ["| case | subject | n | median ms | p95 ms | Silo ÷ this | to reach |", "|---|---|---|---|---|---|---|"]
    for result in results:
        ratio = by_key.get((result.case, result.subject))
        compared = (f"{ratio.ratio:.2f}" if ratio else "", ratio.verdict if ratio else result.verdict)
        lines.append(
            f"| {result.case} | {result.subject} | {len(result.times_ms)} | {result.median_ms:.1f} | {result.p95_ms:.1f} "
            f"| {compared[0]} | {compared[1]} |"
        )
    return "\n".join(lines)


def figures_table(figures: Sequence[Figure]) -> str:
    lines = ["| figure | of | n | value | to reach |", "|---|---|---|---|---|"]
    for figure in figures:
        value = figure.remark if figure.value is None else f"{figure.value:,.1f} {figure.unit}"
        lines.append(f"| {figure.case} | {figure.subject} | {figure.n or ''} | {value} | {figure.verdict} |")
    return "\n".join(lines)
