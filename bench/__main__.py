"""The bench's command line, inside its namespaces: see bench/run."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from bench import start, vm
from bench.measure import as_json, table
from bench.plot import draw

BENCHES = {"start": start.main, "vm": vm.main}


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench/run")
    parser.add_argument("name", choices=BENCHES)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path, default=None)
    options = parser.parse_args()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # crun, on its own and under podman, refuses hybrid cgroups; silod hides this for itself.
    if Path("/sys/fs/cgroup/unified/cgroup.procs").exists():
        subprocess.run(["umount", "/sys/fs/cgroup/unified"], check=True)
    outcome = BENCHES[options.name](options.rounds)
    print(table(outcome.results, outcome.ratios))
    for row in outcome.extra:
        limit = f" (limit {row['limit_mib']})" if row["limit_mib"] else ""
        print(f"{row['case']}: {row['subject']}: {row['median_mib']} MiB{limit}")
    for remark in outcome.remarks:
        print(f"Note: {remark}")
    if options.json:
        options.json.write_text(as_json(options.name, outcome.results, outcome.ratios, outcome.extra) + "\n")
    options.plot = options.plot or Path(f"bench/out/{options.name}.svg")
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    options.plot.write_text(draw(outcome.results))
    print(f"plot: {options.plot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
