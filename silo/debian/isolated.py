"""Run a command inside the tree under construction, cut off from the host.

Own mount, process, network, IPC and host-name namespaces: nothing that its programs do (mounts, sockets
in /tmp, background services, look-ups on the network) reaches the host, and all of it ends with the command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from silo.host.run import CompletedCommand, run

HOST_NAME = "SILO"
"""The host name while an image is built; each container has its own."""

# Runs as process 1 of the new namespaces. $1 is the root of the tree; then NAME=VALUE words up to "--"; then the command.
_SCRIPT = """
set -eu
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
for name in null zero full random urandom; do
    : > "$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
done
hostname "$1"
shift
variables=
while [ "$1" != -- ]; do variables="$variables $1"; shift; done
shift
cd "$root"
chroot=$(command -v chroot)
exec env -i $variables "$chroot" "$root" "$@"
"""


def run_isolated(
    root: Path, argv: Sequence[str], *, env: Mapping[str, str], timeout_s: float, check: bool = True
) -> CompletedCommand:
    """Run `argv` with `root` as its file system and exactly `env` (no spaces in it). Raises CommandFailed, HostError."""
    variables = [f"{name}={value}" for name, value in env.items()]
    namespaces = ["--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child"]
    words = ["unshare", *namespaces, "bash", "-c", _SCRIPT, "isolated", str(root), HOST_NAME, *variables, "--", *argv]
    return run(words, timeout_s=timeout_s, check=check)
