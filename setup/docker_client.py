"""Fetch the clients that the tests drive, for a machine that has none or old ones: `docker_client.py DIRECTORY`.

Debian 12 and Ubuntu 24.04 have a `docker` that lacks options which the tests use and no compose of today, so they come from the
release of Debian that the base image is made of, taken out of their packages: no Docker engine is installed or started.
Prints the paths of the two, a line each.

    <directory>/usr/…               what the packages hold
    <directory>/apt/                private state of apt
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = "usr/libexec/docker/cli-plugins"


@dataclass(frozen=True)
class Client:
    """`places`: where its package has it; `version` is what it is asked with."""

    program: str
    package: str
    oldest_major: int
    places: tuple[str, ...]
    version: tuple[str, ...]


DOCKER = Client("docker", "docker-cli", 26, ("usr/bin/docker",), ("--version",))
COMPOSE = Client(
    "docker-compose", "docker-compose", 2, (f"{PLUGINS}/docker-compose", "usr/bin/docker-compose"), ("version",)
)


def find_client(client: Client, directory: Path) -> Path | None:
    """One that is new enough: the machine's own, or the one fetched before."""
    own = [Path("/", place) for place in client.places]
    fetched = [directory / place for place in client.places]
    for candidate in (shutil.which(client.program), *own, *fetched):
        if candidate and Path(candidate).exists():
            said = subprocess.run([candidate, *client.version], capture_output=True, text=True).stdout
            version = re.search(r"version v?(\d+)\.", said)
            if version and int(version[1]) >= client.oldest_major:
                return Path(candidate)
    return None


def ensure_clients(directory: Path, clients: tuple[Client, ...] = (DOCKER, COMPOSE)) -> list[Path]:
    """Their paths. Ends the program with a reason when one cannot be fetched."""
    missing = [client for client in clients if find_client(client, directory) is None]
    if missing:
        fetch(directory, [client.package for client in missing])
    found = []
    for client in clients:
        path = find_client(client, directory)
        found.append(path or sys.exit(f"the package {client.package} has no {client.program} that runs here"))
    return found


def fetch(directory: Path, packages: list[str]) -> None:
    sys.path.insert(0, str(ROOT))
    from silo.debian.packages import open_apt, update_index
    from silo.errors import SiloError
    from silo.host.run import run

    try:
        apt = open_apt(directory / "apt")
        update_index(apt)
        for package in packages:
            run(["apt-get", "download", "-qq", package], env=apt.environment, cwd=apt.debs, timeout_s=300)
            for deb in apt.debs.glob(f"{package}_*.deb"):
                run(["dpkg-deb", "--extract", deb, directory])
                deb.unlink()
    except SiloError as error:
        sys.exit(f"{' and '.join(packages)} cannot be fetched: {error}")


if __name__ == "__main__":
    for path in ensure_clients(Path(sys.argv[1])):
        print(path)
