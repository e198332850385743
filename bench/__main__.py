"""The bench's command line, inside its namespaces: see bench/run."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from bench import images, start, vm
from bench.measure import as_json, figures_table, table
from bench.plot import draw
from bench.start import Outcome

BENCHES = ("start", "vm", "images")
QUICK_ROUNDS = 3


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/run")
    parser.add_argument("name", choices=BENCHES)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="few rounds and small crowds: whether it works")
    parser.add_argument("--profile", action="store_true", help="vm: where the time goes, instead of the table")
    parser.add_argument("--only", default="", help="vm, images: the parts to measure, by commas")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, default=None)
    options = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # crun, on its own and under podman, refuses hybrid cgroups; silod hides this for itself.
    if Path("/sys/fs/cgroup/unified/cgroup.procs").exists():
        subprocess.run(["umount", "/sys/fs/cgroup/unified"], check=True)
    rounds = QUICK_ROUNDS if options.quick else options.rounds
    parts = tuple(filter(None, options.only.split(",")))
    if options.name == "vm":
        if options.profile:
            print(vm.profile(rounds))
            return 0
        outcome = vm.main(rounds, quick=options.quick, only=parts, after=_show)
    elif options.name == "images":
        outcome = images.main(rounds, only=parts, after=_show)
    else:
        outcome = start.main(rounds)
    print(table(outcome.results, outcome.ratios))
    if outcome.figures:
        print(f"\n{figures_table(outcome.figures)}")
    for remark in outcome.remarks:
        print(f"Note: {remark}")
    if options.json:
        options.json.write_text(as_json(options.name, outcome.results, outcome.ratios, outcome.figures) + "\n")
    options.plot = options.plot or Path(f"bench/out/{options.name}.svg")
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    options.plot.write_text(draw(outcome.results))
    print(f"plot: {options.plot}")
    return 0


def _show(part: str, outcome: Outcome) -> None:
    print(
        f"{part}\n{table(outcome.results, outcome.ratios)}\n{figures_table(outcome.figures)}",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
