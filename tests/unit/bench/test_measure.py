from __future__ import annotations

import json
from collections.abc import Mapping

from bench.measure import Figure, PhasedSubject, Ratio, Result, as_json, figures_table, phase_ratios, run_phases, table


def test_phases_are_interleaved_and_the_warm_up_round_is_not_counted() -> None:
    order: list[str] = []

    def subject(name: str, every: int = 1) -> PhasedSubject:
        def act() -> Mapping[str, float]:
            order.append(name)
            return {"output": float(len(order)), "exit": 2.0 * len(order)}

        return PhasedSubject(name, act, limits_ms={"output": 4.0}, every=every)

    results = run_phases("echo", [subject("clone"), subject("cold", every=2)], 3)
    assert order == ["clone", "cold", "clone", "clone", "cold", "clone"]
    assert [(result.case, result.subject, result.times_ms) for result in results] == [
        ("echo: output", "clone", (3.0, 4.0, 6.0)),
        ("echo: output", "cold", (5.0,)),
        ("echo: exit", "clone", (6.0, 8.0, 12.0)),
        ("echo: exit", "cold", (10.0,)),
    ]
    assert [result.verdict for result in results] == ["≤ 4 ms: reached", "≤ 4 ms: missed", "", ""]


def test_the_table_shows_misses_of_times_and_ratios() -> None:
    clone, cold = Result("echo", "clone", (500.0,), 400.0), Result("echo", "cold", (5000.0,))
    lines = table([clone, cold], [Ratio("echo", "cold", 0.1, 0.15)]).splitlines()
    assert lines[2:] == [
        "| echo | clone | 1 | 500.0 | 500.0 |  | ≤ 400 ms: missed |",
        "| echo | cold | 1 | 5000.0 | 5000.0 | 0.10 | ≤ 0.15: reached |",
    ]


def test_figures_say_what_was_not_measured() -> None:
    figures = [
        Figure("memory", "20 clones", 46.0, limit=45.0),
        Figure("parked", "template", None, "ms", 200, 0, "not built"),
    ]
    assert figures_table(figures).splitlines()[2:] == [
        "| memory | 20 clones | 1 | 46.0 MiB | ≤ 45 MiB: missed |",
        "| parked | template |  | not built |  |",
    ]
    rows = json.loads(as_json("vm", [], [], figures))["results"]
    assert rows[0] == {"case": "memory", "subject": "20 clones", "n": 1, "median_mib": 46.0, "limit_mib": 45.0}
    assert rows[1]["median_ms"] is None


def test_phases_are_compared_with_the_first_subject_of_the_same_phase() -> None:
    results = [
        Result("load: loaded", "Silo", (50.0,)),
        Result("load: loaded", "tar", (100.0,)),
        Result("load: on the disk", "Silo", (300.0,)),
        Result("load: on the disk", "tar", (200.0,)),
    ]
    found = phase_ratios(results, {"loaded": {"tar": 1.3}})
    assert [(ratio.case, ratio.against, ratio.ratio, ratio.limit) for ratio in found] == [
        ("load: loaded", "tar", 0.5, 1.3),
        ("load: on the disk", "tar", 1.5, None),
    ]
