"""A warm silo becomes a container's: names, writable layer, mounts and limits change while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from silo.errors import HostError, InvalidRequest
from silo.host import mounts, namespaces
from silo.host.cgroups import CgroupTree
from silo.isolation.bind_sources import clone_source
from silo.isolation.process.keeper_client import KeeperClient
from silo.isolation.process.live import Live
from silo.isolation.process.record import Paths, save_record
from silo.isolation.process.silo import Silos
from silo.isolation.process.warm import computer_name, move_scratch
from silo.model.mount import PlannedMount
from silo.model.runtime import ContainerPlan


class Dresser:
    def __init__(self, paths: Paths, keeper: KeeperClient, cgroups: CgroupTree, silos: Silos) -> None:
        self._paths = paths
        self._keeper = keeper
        self._cgroups = cgroups
        self._silos = silos

    async def rename(self, live: Live, plan: ContainerPlan, log_fields: dict[str, Any]) -> None:
        """From here on it is the container of `plan`, prepared and not started."""
        former = live.record.plan
        await asyncio.to_thread(self._move, former, plan)
        live.record = msgspec.structs.replace(live.record, plan=plan, started=False)
        await self._keeper.request("rename", container=former.id, name=plan.id, **log_fields)
        await asyncio.to_thread(save_record, self._paths, live.record)

    def _move(self, former: ContainerPlan, plan: ContainerPlan) -> None:
        (plan.directory / "exit.json").unlink(missing_ok=True)
        self._paths.bundle(former.id).rename(self._paths.bundle(plan.id))
        (self._paths.crun_root / former.id).rename(self._paths.crun_root / plan.id)
        move_scratch(former.rootfs.scratch, plan.rootfs.scratch)

    async def dress(self, live: Live) -> dict[str, Any]:
        """The rest, while the network is being connected. Raises InvalidRequest, HostError, GuestError."""
        plan = live.record.plan
        configuring = asyncio.create_task(self._silos.client(live).configure(computer_name(plan)))
        try:
            await asyncio.to_thread(self._dress_from_outside, live)
            if not plan.open_stdin and "input" in live.streams:
                os.close(live.streams.pop("input"))
                await self._keeper.request("close_input", container=live.id)
            await configuring
        finally:
            configuring.cancel()
        return {"pid": live.record.pid}

    def _dress_from_outside(self, live: Live) -> None:
        plan, pid = live.record.plan, live.record.pid
        self._cgroups.apply(live.record.cgroup, plan.resources)
        if live.processors:
            self._cgroups.narrow(live.record.cgroup)
        namespaces.set_hostname(pid, plan.hostname)
        attach_live(pid, plan.mounts, live.user_namespace, live.record.first_host_uid)


def attach_live(pid: int, planned: Sequence[PlannedMount], user_namespace: int, first_uid: int) -> None:
    """Bind mounts in the mount namespace of a process that runs. Raises InvalidRequest, HostError."""
    if not planned:
        return
    with contextlib.ExitStack() as stack:
        trees: list[tuple[PlannedMount, int, bool]] = []
        for mount in planned:
            tree, is_directory, _ = clone_source(mount, user_namespace)
            stack.callback(os.close, tree)
            mounts.set_private(tree)
            trees.append((mount, tree, is_directory))
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, root)
        namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, namespace)

        def attach_all() -> None:
            namespaces.join(namespace, namespaces.CLONE_NEWNS)
            for mount, tree, is_directory in sorted(trees, key=lambda item: item[0].target.count("/")):
                target = _open_target(root, mount.target, is_directory, first_uid)
                try:
                    mounts.attach_at(tree, target)
                finally:
                    os.close(target)

        try:
            namespaces.in_thread(attach_all, unshare_filesystem=True)
        except OSError as error:
            raise HostError("a mount could not be made in the running container", details=str(error)) from error


def _open_target(root: int, path: str, is_directory: bool, owner: int) -> int:
    """The mount point beneath the container's root, made if it is missing (as its root user)."""
    parts = Path(path).parts[1:]
    if not parts:
        raise InvalidRequest("the container's root cannot be mounted over")
    with mounts.file_system_identity(owner, owner) if owner else contextlib.nullcontext():
        so_far = ""
        for part in parts:
            directory = mounts.open_beneath(root, so_far or "/", os.O_RDONLY | os.O_DIRECTORY)
            so_far += f"/{part}"
            try:
                with contextlib.suppress(FileExistsError):
                    if is_directory or part != parts[-1]:
                        os.mkdir(part, 0o755, dir_fd=directory)
                    else:
                        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                        os.close(os.open(part, flags, 0o644, dir_fd=directory))
            finally:
                os.close(directory)
    return mounts.open_beneath(root, path, os.O_PATH)
