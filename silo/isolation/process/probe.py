"""What this host can do for process isolation: probed by doing it once, named in `info`, never assumed."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from silo.errors import HostError, ToolMissing
from silo.host import capabilities, mounts
from silo.host.cgroups import Layout
from silo.host.run import run
from silo.isolation.process.bundle import mount_root, unmount_bundle
from silo.isolation.process.keeper_client import KeeperClient
from silo.isolation.process.record import Paths
from silo.isolation.slots import FIRST_ID, RANGE_SIZE
from silo.isolation.spec import SECCOMP_ANNOTATION
from silo.model.runtime import Rootfs


@dataclass(frozen=True, slots=True)
class HostFacts:
    """`own_cgroups`: we make and enter the groups, crun is told to leave them alone (v1 and hybrid)."""

    crun: Path
    crun_identity: tuple[int, int]
    """(device, inode): a process that executes this file has not become the program yet."""
    null_device: Path
    crun_version: str
    own_cgroups: bool
    user_namespaces: bool
    attach_layers: bool
    """This kernel wants id-mapped layers attached somewhere while an overlay is made of them."""
    seccomp_annotation: bool
    init_program: str
    capabilities: frozenset[str]
    facts: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def find_crun(paths: Paths) -> Path:
    """crun, bound read-only in our own namespace: then it need not copy itself into memory at each start (1.7 of 3.5 ms)."""
    found = shutil.which("crun", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise ToolMissing("crun")
    return bind_read_only(Path(found).resolve(), paths.crun)


def bind_read_only(source: Path, target: Path) -> Path:
    """A read-only view of a host file at `target`, made once a daemon's namespace."""
    if not mounts.is_mount_point(target):
        target.touch()
        tree = mounts.clone_tree(source)
        try:
            mounts.set_read_only(tree)
            mounts.attach(tree, target)
        finally:
            os.close(tree)
    return target


async def probe_host(
    paths: Paths, data_root: Path, layout: Layout, keeper: KeeperClient, warnings: tuple[str, ...]
) -> HostFacts:
    """Blocking for some tens of milliseconds at most; raises ToolMissing."""
    crun = find_crun(paths)
    version = (
        run([crun, "--version"]).stdout.decode(errors="replace").split("\n")[0].removeprefix("crun version ").strip()
    )
    annotation = _binary_contains(crun, SECCOMP_ANNOTATION.encode())
    problem, attach = await _probe_user_namespaces(data_root, keeper)
    facts = {
        "Control groups": "v2" if layout.version == 2 else "hybrid, v1 controllers used" if layout.hybrid else "v1",
        "User namespaces": f"each container its own {RANGE_SIZE} ids" if not problem else f"not used: {problem}",
        "Layers": "mounted as they are" if problem else "id-mapped, attached first" if attach else "id-mapped",
        "Bind mounts": "as they are"
        if problem
        else "id-mapped; where a file system cannot, by their permissions for others",
        "Seccomp filters": "compiled once" if annotation else "compiled by crun at each start",
        "crun": version,
    }
    found = list(warnings)
    if problem:
        found.append(f"containers run in the host's user namespace: {problem}")
    init = shutil.which("tini-static", path="/usr/bin:/usr/local/bin") or ""
    return HostFacts(
        crun=crun,
        crun_identity=(crun.stat().st_dev, crun.stat().st_ino),
        null_device=bind_read_only(Path("/dev/null"), paths.run_root / "null"),
        crun_version=version,
        own_cgroups=layout.version == 1,
        user_namespaces=not problem,
        attach_layers=attach,
        seccomp_annotation=annotation,
        init_program=init,
        capabilities=capabilities.bounding(),
        facts=facts,
        warnings=tuple(found),
    )


def _binary_contains(path: Path, needle: bytes) -> bool:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(needle) >= 0


def check_passable(directory: Path) -> None:
    """A container's own users look their root up by its path. Raises HostError naming the directory that stops them."""
    for step in (directory, *directory.parents):
        if not step.stat().st_mode & stat.S_IXOTH:
            raise HostError(
                f"containers with user namespaces cannot be mounted beneath {step}: others may not pass through it",
                hint=f"chmod o+x {step}, or choose another run root",
            )


async def _probe_user_namespaces(data_root: Path, keeper: KeeperClient) -> tuple[str, bool]:
    """Make one, mount an id-mapped overlay on the layers' file system and write to it.

    Answers (what is wrong, or "", whether layers have to be attached for it).
    """
    try:
        reply = await keeper.request("park", key="probe", entry_files=[], user=[FIRST_ID, RANGE_SIZE], network=True)
    except HostError as error:
        return f"the kernel refuses them ({error.details})", False
    finally:
        with contextlib.suppress(HostError):
            await keeper.request("discard", key="probe")
    user_namespace = reply.descriptors[0]
    try:
        first = _probe_idmapped_overlay(data_root, user_namespace, attach=False)
        if not first:
            return "", False
        return _probe_idmapped_overlay(data_root, user_namespace, attach=True), True
    finally:
        for descriptor in reply.descriptors:
            os.close(descriptor)


def _probe_idmapped_overlay(directory: Path, user_namespace: int, *, attach: bool) -> str:
    place = Path(tempfile.mkdtemp(prefix="probe-", dir=directory))
    rootfs = Rootfs(layers=(place / "lower",), scratch=place / "scratch", volatile=True)
    try:
        for name in ("lower", "scratch/upper", "scratch/work", "merged"):
            (place / name).mkdir(parents=True)
        mount_root(place, rootfs, user_namespace, FIRST_ID, attach_layers=attach)
        with mounts.file_system_identity(FIRST_ID, FIRST_ID):
            (place / "merged" / "file").write_text("")
        if (place / "scratch" / "upper" / "file").stat().st_uid != 0:
            return "an id-mapped overlay does not keep owners"
    except (OSError, HostError) as error:
        return f"the kernel or the file system of {directory} cannot id-map layers ({error})"
    finally:
        unmount_bundle(place)
        shutil.rmtree(place, ignore_errors=True)
    return ""
