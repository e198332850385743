"""The peers, taken out of their packages (nothing is installed, no service starts) and run beside Silo in this bench's own
mount and network namespaces, each with its own state below one scratch folder.

A peer is a context manager that answers how to run things on it; one that cannot run here raises PeerMissing with the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("SILO_CACHE", ROOT / ".cache"))
PACKAGES = CACHE / "bench-peers"
DOCKER_PACKAGES = ("docker.io", "containerd", "runc", "libdevmapper1.02.1")
PODMAN_PACKAGES = (
    "podman",
    "conmon",
    "catatonit",
    "netavark",
    "aardvark-dns",
    "libsubid4",
    "libgpgme11",
    "libassuan0",
    "libdevmapper1.02.1",
)
IGZIP_PACKAGES = ("isal", "libisal2")


class PeerMissing(Exception):
    """This peer cannot run on this machine; says why."""


def quiet(argv: Sequence[str | Path], **options: object) -> None:
    """Run; raise with the program's own words when it fails."""
    done = subprocess.run([str(word) for word in argv], capture_output=True, **options)  # type: ignore[call-overload]
    if done.returncode:
        raise RuntimeError(f"{argv[0]} … → {done.returncode}: {done.stderr.decode(errors='replace').strip()[-500:]}")


def unpacked(names: Sequence[str]) -> Path:
    """The packages' files, downloaded once."""
    root = PACKAGES / names[0]
    if not (root / ".complete").exists():
        root.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["apt-get", "-q", "download", *names], cwd=root, capture_output=True, text=True)
        if done.returncode:
            raise PeerMissing(f"its packages cannot be downloaded: {done.stderr.strip()[-200:]}")
        for package in root.glob("*.deb"):
            quiet(["dpkg", "-x", package, root])
            package.unlink()
        (root / ".complete").touch()
    return root


def environment(root: Path, **more: str) -> dict[str, str]:
    """Programs and libraries of an unpacked peer first."""
    path = f"{root}/usr/bin:{root}/usr/sbin:{root}/usr/libexec/podman:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/bin"
    return {"PATH": path, "LD_LIBRARY_PATH": f"{root}/usr/lib/x86_64-linux-gnu", "HOME": "/root", **more}


def wait_for(path: Path, process: subprocess.Popen[bytes], log: Path, timeout_s: float = 40) -> None:
    deadline = time.monotonic() + timeout_s
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise PeerMissing(f"it did not come up: {log.read_text(errors='replace').strip()[-300:]}")
        time.sleep(0.05)


@contextmanager
def dockerd(scratch: Path, image_tar: Path) -> Iterator[str]:
    """Debian's dockerd; answers its DOCKER_HOST."""
    root = unpacked(DOCKER_PACKAGES)
    state = scratch / "dockerd"
    state.mkdir()
    log = state / "log"
    socket = state / "docker.sock"
    argv = ["dockerd", "--data-root", f"{state}/data", "--exec-root", f"{state}/exec", "-H", f"unix://{socket}"]
    argv += ["--pidfile", f"{state}/pid", "--iptables=false", "--storage-driver=overlay2"]
    with log.open("wb") as output:
        process = subprocess.Popen(argv, env=environment(root), stdout=output, stderr=output)
    try:
        wait_for(socket, process, log)
        host = f"unix://{socket}"
        quiet(["docker", "load", "-i", image_tar], env=os.environ | {"DOCKER_HOST": host})
        yield host
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def podman(scratch: Path, image_tar: Path, *, runs: bool = True) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Debian's podman over crun; answers (argv to prefix, environment). `runs`: containers are to be run on it."""
    root = unpacked(PODMAN_PACKAGES)
    state = scratch / "podman"
    state.mkdir()
    (state / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    # Its default limits exceed what this machine's hard limits allow where CAP_SYS_RESOURCE is missing.
    (state / "containers.conf").write_text(
        f'[containers]\ndefault_ulimits=["nofile=1024:1024","nproc=1024:1024"]\n[engine]\ncgroup_manager="cgroupfs"\n'
        f'events_logger="file"\nruntime="crun"\nconmon_path=["{root}/usr/bin/conmon"]\n'
        f'helper_binaries_dir=["{root}/usr/lib/podman"]\n'
        f'[network]\nnetwork_backend="netavark"\nnetwork_config_dir="{state}/networks"\n'
    )
    # conmon starts podman again at a container's end, and hands it no LD_LIBRARY_PATH.
    quiet(["ldconfig", "-X", "-C", state / "ld.so.cache", root / "usr/lib/x86_64-linux-gnu"])
    quiet(["mount", "--bind", state / "ld.so.cache", "/etc/ld.so.cache"])
    env = environment(root, CONTAINERS_CONF=f"{state}/containers.conf")
    prefix = [f"{root}/usr/bin/podman", "--root", f"{state}/root", "--runroot", f"{state}/run"]
    try:
        quiet([*prefix, "load", "--signature-policy", state / "policy.json", "-i", image_tar], env=env)
        began = time.monotonic()
        if runs:
            quiet([*prefix, "run", "--rm", "--network", "none", "localhost/busybox", "true"], env=env)
        if time.monotonic() - began > 10:
            raise PeerMissing("its run hangs for 20 s waiting for conmon on this machine")
    except RuntimeError as error:
        raise PeerMissing(str(error)) from None
    yield prefix, env


def podman_policy(scratch: Path) -> list[str]:
    """What its `load` wants to be told where no policy is installed."""
    return ["--signature-policy", str(scratch / "podman" / "policy.json")]


def igzip() -> dict[str, str]:
    """The environment in which `igzip` is ISA-L's, the decompressor that Silo uses."""
    return environment(unpacked(IGZIP_PACKAGES))


@contextmanager
def crun_bundle(scratch: Path, rootfs: Path) -> Iterator[list[str]]:
    """A bundle as `crun spec` makes it, for create-to-exit of bare crun; answers the argv but for the id."""
    bundle = scratch / "crun"
    bundle.mkdir()
    quiet(["crun", "spec"], cwd=bundle)
    spec = json.loads((bundle / "config.json").read_text())
    spec["process"].update(terminal=False, args=["/bin/true"])
    spec["process"].pop("rlimits", None)
    spec["root"] = {"path": str(rootfs), "readonly": True}
    (bundle / "config.json").write_text(json.dumps(spec))
    yield ["crun", "run", "--bundle", str(bundle)]
