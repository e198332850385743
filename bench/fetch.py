"""Fetch the peers' packages while there still is a network."""

from __future__ import annotations

from bench import peers

for packages in (peers.DOCKER_PACKAGES, peers.PODMAN_PACKAGES, peers.IGZIP_PACKAGES):
    try:
        peers.unpacked(packages)
    except peers.PeerMissing as error:
        print(f"{packages[0]}: {error}")
