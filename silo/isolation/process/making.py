"""Preparing a container: namespaces, cgroup, root, mounts, spec; and crun's `create`, all without running anything of it.

`Maker` is the half of ProcessRuntime that ends with a container waiting on crun's exec.fifo. Order: the cgroup, then a parked
child enters it while the namespaces are made; then the root and the mounts; then crun, in the background, so that it works
while the network is being connected.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from silo.errors import InvalidRequest
from silo.host import mounts
from silo.host.cgroup_files import DEFAULT_DEVICE_RULES
from silo.host.cgroups import CgroupTree
from silo.isolation.identity import load_identity
from silo.isolation.process import bundle as bundles
from silo.isolation.process.failures import translate_failure
from silo.isolation.process.joining import Joined, join_namespaces
from silo.isolation.process.keeper_client import KeeperClient
from silo.isolation.process.live import Live
from silo.isolation.process.pool import SandboxPool
from silo.isolation.process.probe import HostFacts, check_passable
from silo.isolation.process.record import Paths, save_record
from silo.isolation.process.silo import PROCESSORS, bind_launcher_socket, processor_mask
from silo.isolation.seccomp import SeccompSource
from silo.isolation.slots import RANGE_SIZE, Slots
from silo.isolation.spec import DeviceNode, SpecInputs, build_spec, device_rule
from silo.model.container import Device
from silo.model.runtime import ContainerPlan

log = logging.getLogger(__name__)

# attached clients read the log, so there is always one; unkept, it is kept small
_UNKEPT_LOG_BYTES = 1 << 20
CRUN_ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8")


class Maker:
    def __init__(
        self,
        paths: Paths,
        keeper: KeeperClient,
        cgroups: CgroupTree,
        facts: HostFacts,
        slots: Slots,
        seccomp: SeccompSource,
        pool: SandboxPool,
    ) -> None:
        self._paths = paths
        self._keeper = keeper
        self._cgroups = cgroups
        self._facts = facts
        self._slots = slots
        self._seccomp = seccomp
        self._pool = pool
        self._sequence = 0

    async def make(self, live: Live, others: Mapping[str, Live]) -> None:
        """Bring `live` to where crun is at work; raises and leaves the undoing to the caller's release."""
        plan = live.record.plan
        joined = join_namespaces(plan, others, user_namespaces=self._facts.user_namespaces)
        pooled = self._pool.take() if joined.own_user_namespace and joined.own_network else None
        if pooled is not None:
            live.parked = pooled.name
            live.user_namespace, live.network_namespace = pooled.user_namespace, pooled.network_namespace
            live.record = msgspec.structs.replace(live.record, cgroup=pooled.name, first_host_uid=pooled.first_host_uid)
        await asyncio.to_thread(self._make_directories, live, made=pooled is not None)
        if pooled is None:
            await self._make_sandbox(live, joined)
        owner = await asyncio.to_thread(self._fill_bundle, live, joined)
        if plan.launch is not None:
            live.listener_socket = bind_launcher_socket(self._paths.bundle(live.id))
        live.creating = asyncio.create_task(self._create(live, owner), name=f"crun-create-{live.id[:12]}")

    async def _make_sandbox(self, live: Live, joined: Joined) -> None:
        user: list[int] | None = None
        if joined.own_user_namespace:
            first = self._slots.take()
            live.record = msgspec.structs.replace(live.record, first_host_uid=first)
            user = [first, RANGE_SIZE]
        elif joined.first_host_uid:
            self._slots.mark(joined.first_host_uid)
            live.record = msgspec.structs.replace(live.record, first_host_uid=joined.first_host_uid)
            live.user_namespace = os.open(joined.paths["user"], os.O_RDONLY | os.O_CLOEXEC)
        if joined.paths.get("network"):
            live.network_namespace = os.open(joined.paths["network"], os.O_RDONLY | os.O_CLOEXEC)
        await self._park(live, user, network=joined.own_network)

    def _make_directories(self, live: Live, *, made: bool) -> None:
        plan, cgroup = live.record.plan, live.record.cgroup
        bundle = self._paths.bundle(plan.id)
        if self._facts.user_namespaces:
            check_passable(bundle.parent)
        bundle.mkdir(0o711)
        (bundle / "merged").mkdir()
        (plan.directory / "exit.json").unlink(missing_ok=True)
        if not made:
            self._cgroups.create(cgroup)
        self._cgroups.apply(cgroup, plan.resources)
        if plan.launch is not None:
            live.processors = self._cgroups.narrow(cgroup)

    async def _park(self, live: Live, user: list[int] | None, *, network: bool) -> None:
        live.parked = live.id
        entry_files = self._cgroups.entry_files(live.record.cgroup) if self._facts.own_cgroups else ()
        # a network namespace made elsewhere than in the container's user namespace would make crun bind the host's /sys
        inside = [live.user_namespace] if live.user_namespace >= 0 else []
        reply = await self._keeper.request(
            "park", inside, key=live.parked, entry_files=entry_files, user=user, network=network
        )
        made = list(reply.descriptors)
        if user is not None:
            live.user_namespace = made.pop(0)
        if network:
            live.network_namespace = made.pop(0)

    def _fill_bundle(self, live: Live, joined: Joined) -> int:
        """Answers the host uid that the program will have."""
        record, plan = live.record, live.record.plan
        bundle = self._paths.bundle(live.id)
        root = self._paths.root(live.id)
        user_namespace = live.user_namespace if live.user_namespace >= 0 else None
        bundles.mount_root(
            bundle, plan.rootfs, user_namespace, record.first_host_uid, attach_layers=self._facts.attach_layers
        )
        limit = RANGE_SIZE if user_namespace is not None else 2**31 - 1
        identity = load_identity(root, plan.process.user, plan.process.groups, limit=limit)
        if plan.process.cwd not in ("", "/"):
            bundles.ensure_directory(root, plan.process.cwd, record.first_host_uid)
        staged, warnings = bundles.stage_mounts(bundle, plan.mounts, user_namespace)
        for warning in warnings:
            log.warning("container %s: %s", live.id[:12], warning)
        nodes, rules = self._devices(plan)
        if nodes and record.first_host_uid:
            staged = (*staged, *bundles.stage_devices(bundle, nodes, record.first_host_uid))
            nodes = ()
        inputs = SpecInputs(
            root=str(root),
            identity=identity,
            namespaces=self._namespace_paths(live, joined),
            mounts=staged,
            cgroup_path="" if self._facts.own_cgroups else f"/{self._cgroups.parent}/{record.cgroup}",
            shm_source=self._shared_memory(live, joined),
            devices=nodes,
            device_rules=rules,
            init_source=self._init(plan),
            host_message_queues=Path("/dev/mqueue").is_dir(),
            oom_score_adj=plan.resources.oom_score_adj or None,
            **self._seccomp.select(plan),
        )
        if self._facts.own_cgroups:
            self._cgroups.apply_devices(record.cgroup, rules)
        bundles.write_spec(bundle, build_spec(self._fit(live), inputs))
        save_record(self._paths, record)
        return record.first_host_uid + identity.uid

    def _fit(self, live: Live) -> ContainerPlan:
        """The plan with what only this host and this start can say."""
        plan, process = live.record.plan, live.record.plan.process
        allowed = tuple(name for name in process.capabilities if name in self._facts.capabilities)
        env = (*process.env, f"{PROCESSORS}={processor_mask(live.processors):x}") if live.processors else process.env
        return msgspec.structs.replace(plan, process=msgspec.structs.replace(process, capabilities=allowed, env=env))

    def _namespace_paths(self, live: Live, joined: Joined) -> dict[str, str]:
        """What is held as a descriptor here is named through this process: crun runs in another one."""
        paths = dict(joined.paths)
        for kind, descriptor in (("user", live.user_namespace), ("network", live.network_namespace)):
            if kind in paths and descriptor >= 0:
                paths[kind] = f"/proc/{os.getpid()}/fd/{descriptor}"
        return paths

    def _shared_memory(self, live: Live, joined: Joined) -> str:
        """A mount of our own where another container may want the same memory; else crun makes a private one."""
        if joined.memory_owner:
            return str(self._paths.bundle(joined.memory_owner) / "shm")
        if live.record.plan.namespaces.ipc != "shareable":
            return ""
        place = self._paths.bundle(live.id) / "shm"
        place.mkdir()
        first = live.record.first_host_uid
        size = live.record.plan.resources.shm_size_bytes
        flags = mounts.MS_NOSUID | mounts.MS_NODEV | mounts.MS_NOEXEC
        mounts.mount("shm", place, "tmpfs", flags, f"mode=1777,size={size},uid={first},gid={first}")
        return str(place)

    def _devices(self, plan: ContainerPlan) -> tuple[tuple[DeviceNode, ...], tuple[str, ...]]:
        if plan.privileged:
            every = bundles.inspect_device(Device(host_path="/dev", container_path="/dev"))
            hidden = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/dev/tty", "/dev/ptmx")
            return tuple(node for node in every if not node.path.startswith(hidden)), ("a",)
        nodes: list[DeviceNode] = []
        rules = list(DEFAULT_DEVICE_RULES)
        for device in plan.resources.devices:
            for node in bundles.inspect_device(device):
                nodes.append(node)
                rules.append(device_rule(node, device))
        return tuple(nodes), (*rules, *plan.resources.device_cgroup_rules)

    def _init(self, plan: ContainerPlan) -> str:
        if not plan.init:
            return ""
        if not self._facts.init_program:
            raise InvalidRequest("--init needs the program tini-static on the host", hint="apt-get install tini")
        return self._facts.init_program

    async def _create(self, live: Live, owner: int) -> dict[str, Any]:
        """crun create, through the keeper. Raises ProcessStartFailed, InvalidRequest, HostError."""
        plan, bundle = live.record.plan, self._paths.bundle(live.id)
        self._sequence += 1
        passed = [live.listener_socket] if live.listener_socket >= 0 else []
        argv = [str(self._facts.crun), f"--root={self._paths.crun_root}"]
        if self._facts.own_cgroups:
            argv.append("--cgroup-manager=disabled")
        argv += ["create", f"--bundle={bundle}", f"--pid-file={bundle / 'pid'}"]
        console = f"{self._paths.terminals}/{os.getpid()}-{self._sequence}"
        if plan.process.tty:
            argv.append(f"--console-socket={console}")
        if passed:
            argv.append("--preserve-fds=2")
        key, live.parked = live.parked, ""
        reply = await self._keeper.request(
            "create",
            passed,
            key=key,
            container=live.id,
            argv=[*argv, live.id],
            env=CRUN_ENVIRONMENT,
            cwd=str(bundle),
            terminal=plan.process.tty,
            console=console,
            input=plan.open_stdin,
            owner=owner,
            status=bool(passed),
            pid_file=str(bundle / "pid"),
            **self.log_fields(live),
        )
        if passed:
            os.close(live.listener_socket)
            live.listener_socket = -1
        if reply.values["status"] != 0:
            program = plan.process.args[0] if plan.process.args else ""
            raise translate_failure(program, str(reply.values["message"]))
        live.take_streams(reply.values["streams"], reply.descriptors)
        live.root = await asyncio.to_thread(bundles.detach_mounts, bundle)
        return reply.values

    def log_fields(self, live: Live) -> dict[str, object]:
        return self.log_fields_of(live.record.plan, live.record.cgroup)

    def log_fields_of(self, plan: ContainerPlan, cgroup: str) -> dict[str, object]:
        """What the keeper has to know of a container's log and end."""
        return {
            "directory": str(plan.directory),
            "log": str(plan.directory / "log"),
            "log_max_bytes": plan.log_max_bytes if plan.keep_log else plan.log_max_bytes or _UNKEPT_LOG_BYTES,
            "memory_file": self._cgroups.out_of_memory_file(cgroup),
        }
