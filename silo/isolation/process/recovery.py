"""After a restart of the daemon: which containers live, how the others ended, and what was left behind by none of them."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from silo.errors import SiloError
from silo.host import namespaces
from silo.host.cgroups import CgroupTree
from silo.isolation.process.bundle import remove_bundle
from silo.isolation.process.keeper_client import KeeperClient
from silo.isolation.process.live import Live
from silo.isolation.process.record import Paths, load_record
from silo.model.runtime import ExitRecord, RuntimeState

log = logging.getLogger(__name__)


def load_exit(directory: Path) -> ExitRecord | None:
    """exit.json of the last run, None when there is none (or it is damaged)."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((directory / "exit.json").read_bytes(), type=ExitRecord)
    return None


def adopt(
    paths: Paths, cgroups: CgroupTree, container_id: str, kept: Mapping[str, Any] | None
) -> tuple[Live | None, RuntimeState] | None:
    """What became of one container; None when the run directory knows nothing of it. `kept` is the keeper's word of it.

    A container that was prepared and never started is answered with pid 0 and is left to clean_orphans.
    """
    record = load_record(paths, container_id)
    if record is None:
        return None
    if not record.started:
        return None, RuntimeState(id=container_id)
    exit_record = load_exit(record.plan.directory)
    if exit_record is None and kept is not None and kept.get("exit"):
        exit_record = msgspec.convert(kept["exit"], ExitRecord)
    alive = namespaces.start_time(record.pid) == record.pid_started != 0
    live = Live(record, announced=True)
    if exit_record is None and alive:
        return live, RuntimeState(id=container_id, pid=record.pid, paused=cgroups.is_frozen(record.cgroup))
    live.exit = exit_record
    live.ended.set()
    return live, RuntimeState(id=container_id, exit=exit_record)


async def take_back(keeper: KeeperClient, live: Live, log_fields: Mapping[str, object], *, known: bool) -> None:
    """Streams of a living container after a restart of the daemon; a keeper that does not know it shall watch it."""
    if known:
        reply = await keeper.request("streams", container=live.id)
        live.take_streams(reply.values["streams"], reply.descriptors)
    else:
        log.warning("container %s has lost its keeper: its output and input are gone", live.id[:12])
        await hand_over(keeper, live, log_fields)


async def hand_over(keeper: KeeperClient, live: Live, log_fields: Mapping[str, object]) -> None:
    """Make a keeper that is not its parent watch a container, with the copies of its streams that are left."""
    roles = list(live.streams)
    descriptors = [live.streams[role] for role in roles]
    await keeper.request("adopt", descriptors, container=live.id, pid=live.record.pid, streams=roles, **log_fields)


async def hand_over_all(keeper: KeeperClient, running: Sequence[tuple[Live, Mapping[str, object]]]) -> None:
    for live, log_fields in running:
        try:
            await hand_over(keeper, live, log_fields)
        except (SiloError, OSError) as error:
            log.error("container %s: its end will not be seen: %s", live.id[:12], error)


def clean_orphans(paths: Paths, cgroups: CgroupTree, alive: frozenset[str]) -> None:
    """Bundles, crun states and cgroups that belong to no container known alive."""
    found: set[str] = set()
    for directory in (paths.containers, paths.crun_root):
        with contextlib.suppress(FileNotFoundError):
            found |= {entry.name for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)}
    for name in (found | set(cgroups.existing())) - alive:
        if name.startswith("."):
            continue
        try:
            cgroups.kill(name)
            remove_bundle(paths, name)
            cgroups.remove(name)
            log.info("cleaned up after %s", name[:12])
        except (SiloError, OSError) as error:
            log.error("cleaning up after %s: %s", name[:12], error)
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(paths.terminals):
            Path(entry.path).unlink(missing_ok=True)
