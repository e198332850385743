"""`python -m silo`: the silo command."""

from __future__ import annotations

import sys

from silo.cli.main import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
