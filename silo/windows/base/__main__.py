"""`python -m silo.windows.base DATA_ROOT`: build the base by hand, keep its tree, print its manifest (for developers)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from silo.errors import SiloError, exit_status
from silo.windows.base.build import build_base


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m silo.windows.base", description="Build the Windows base image.")
    parser.add_argument("data_root", type=Path, help="directory for cache and result")
    parser.add_argument("--refresh", action="store_true", help="look for newer packages even if a base is there")
    parser.add_argument(
        "--add", action="append", default=[], metavar="PATH=FILE", help="put FILE into the image as PATH (repeatable)"
    )
    arguments = parser.parse_args()
    extra_files = {path: Path(file) for path, _, file in (word.partition("=") for word in arguments.add)}
    try:
        base = build_base(
            arguments.data_root.absolute(),
            extra_files=extra_files,
            keep_rootfs=True,
            refresh=arguments.refresh,
            progress=lambda step, fraction: print(f"{fraction:4.0%} {step}", file=sys.stderr),
        )
    except SiloError as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_status(error)
    print(base.manifest.as_text())
    print(f"layout: {base.layout}\nrootfs: {base.rootfs}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
