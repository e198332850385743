"""Fetch the docker client that the tests drive, for a machine that has none or an old one: `docker_client.py DIRECTORY`.

Debian 12 and Ubuntu 24.04 have releases of the client that lack options which the tests use, so it comes from the release
of Debian that the base image is made of, taken out of its package: no Docker engine is installed or started.

    <directory>/usr/bin/docker
    <directory>/apt/                private state of apt
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST_MAJOR = 26
PACKAGE = "docker-cli"


def find_docker(directory: Path) -> Path | None:
    """A client that is new enough: the machine's own, or the one fetched before."""
    for candidate in (shutil.which("docker"), str(directory / "usr/bin/docker")):
        if candidate and Path(candidate).exists():
            said = subprocess.run([candidate, "--version"], capture_output=True, text=True).stdout
            version = re.search(r"version (\d+)\.", said)
            if version and int(version[1]) >= OLDEST_MAJOR:
                return Path(candidate)
    return None


def ensure_docker(directory: Path) -> Path:
    """The path of a client. Ends the program with a reason when none can be fetched."""
    found = find_docker(directory)
    if found is not None:
        return found
    sys.path.insert(0, str(ROOT))
    from silo.debian.packages import open_apt, update_index
    from silo.errors import SiloError
    from silo.host.run import run

    try:
        apt = open_apt(directory / "apt")
        update_index(apt)
        run(["apt-get", "download", "-qq", PACKAGE], env=apt.environment, cwd=apt.debs, timeout_s=300)
        for deb in apt.debs.glob(f"{PACKAGE}_*.deb"):
            run(["dpkg-deb", "--extract", deb, directory])
            deb.unlink()
    except SiloError as error:
        sys.exit(f"the docker client cannot be fetched: {error}")
    found = find_docker(directory)
    return found or sys.exit(f"the package {PACKAGE} has no docker client that runs here")


if __name__ == "__main__":
    print(ensure_docker(Path(sys.argv[1])))
