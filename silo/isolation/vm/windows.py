"""Windows containers in a VM: a silo (Wine's services and the launcher, docs/launcher-protocol.md) begun, saved warm, dressed.

Cold, in any clone that has the container's disks (`plug_disk`, or a Machine with `image` and `scratch`):

    await begin_silo(guest, "c1", order)            # mounts, owner, process 1
    await guest.start_main("c1", launch)            # waits until programs can be started

Warm: a template is booted with the container's own image and an empty scratch as disks from the beginning (`Machine.image`,
`Machine.scratch`), `warm_silo` is its `Warm`. So the image's own registry is the one that the silo runs on. A clone gets a copy of
the template's scratch, made with `copy_disk`, which becomes the container's: what the silo had written by then, what the
container writes, and the registry all lie on it, and a later cold start finds a scratch like any other. A container whose scratch
has been written to before, or that wants what the template has not (see `SiloOrder`), has to start cold.

    clone = await start_clone(template, directory, uid=…, scratch=copy)
    greeting = await client.connect(clone.connect_agent())
    main = await dress_silo(guest, greeting, dress)
    await guest.start_main(SILO, launch)
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from silo.errors import GuestError, NotFound
from silo.isolation.vm.answers import Greeting
from silo.isolation.vm.command import IMAGE, SCRATCH
from silo.isolation.vm.programs import Guest, GuestProgram
from silo.model.runtime import LaunchPlan, ScratchOwner

SILO = "silo"
"""The task of a silo that was begun before it had an owner, in all clones of its template."""

IMAGE_AT, SCRATCH_AT, ROOT = "/run/container/image", "/run/container/scratch", "/run/container/root"

_DISK_PATIENCE_S = 20.0
_DISK_PAUSE_S = 0.005
_SEED_BYTES = 64
_MAXIMUM_NAME = 15
# What has run once costs a clone less: its pages are there, the console's process runs, and the service that is begun after the
_FIRST_PROGRAM = LaunchPlan(command_line="C:\\windows\\system32\\cmd.exe /c ver", directory="C:\\")

Mount = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiloOrder:
    """What a silo is begun with, and what a template is made for: nothing of it can be changed in a clone.

    `config` is the OCI configuration. For a template it has no UTS and no network namespace of its own (the VM has), because the
    silo's names and network come when it runs already, and no terminal. `mounts` are the guest's, and make `config`'s root.
    """

    config: Mapping[str, Any]
    mounts: tuple[Mount, ...]
    owner: ScratchOwner | None = None
    root: str = ROOT
    files: Mapping[str, str] = field(default_factory=dict)
    """Path in the guest → text, for `config` to bind (/etc/hosts, …); a clone may write them anew, see `Dress`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dress:
    """What makes a clone's silo a container: its names, and the texts of files that `SiloOrder.files` has named."""

    hostname: str
    computer_name: str = ""
    """"" makes it of the host name, as Wine does."""
    machine_id: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    open_stdin: bool = True


def build_root_mounts() -> tuple[Mount, ...]:
    """The disks IMAGE (EROFS, read-only) and SCRATCH (ext4) as the overlay at ROOT."""
    layers = f"lowerdir={IMAGE_AT},upperdir={SCRATCH_AT}/upper,workdir={SCRATCH_AT}/work"
    return (
        {"type": "erofs", "source": f"serial:{IMAGE}", "target": IMAGE_AT, "options": ["ro"], "mkdir": True},
        {
            "type": "ext4",
            "source": f"serial:{SCRATCH}",
            "target": SCRATCH_AT,
            "options": ["noatime"],
            "mkdir": True,
            "then_mkdir": ["upper", "work"],
        },
        {"type": "overlay", "source": "root", "target": ROOT, "options": [layers], "mkdir": True},
    )


async def begin_silo(guest: Guest, name: str, order: SiloOrder, *, stdin: bool) -> GuestProgram:
    """Process 1 of a Windows container; its launcher is ready some time later. The guest has been reseeded.

    Raises ProcessStartFailed, InvalidRequest, GuestError, Unavailable.
    """
    if order.files:
        await guest.client.request("write", {"files": dict(order.files)})
    await _mount_when_there(guest, order.mounts)
    if order.owner is not None:
        await guest.own(order.root, order.owner)
    return await guest.run(name, order.config, stdin=stdin, launcher=True)


async def _mount_when_there(guest: Guest, mounts: tuple[Mount, ...]) -> None:
    """A disk that has just been plugged in is found some time later."""
    deadline = asyncio.get_running_loop().time() + _DISK_PATIENCE_S
    while True:
        try:
            await guest.client.request("mount", {"mounts": list(mounts)})
            return
        except NotFound:
            if asyncio.get_running_loop().time() > deadline:
                raise
        await asyncio.sleep(_DISK_PAUSE_S)


async def warm_silo(guest: Guest, order: SiloOrder) -> None:
    """In a template that has just booted: a silo as the task SILO, ready, with one program run. Then the machine can be saved.

    The host's client has to be closed before that. Raises as `begin_silo` does.
    """
    await reseed(guest, hostname="silo")
    await begin_silo(guest, SILO, order, stdin=True)
    await guest.until_ready(SILO)
    await exercise(guest)
    # a registry like that on the disk need not be written again, by each clone, half a minute after its start
    await guest.save(SILO)
    await guest.client.request("sync")
    await guest.client.request("void_seed")


async def exercise(guest: Guest) -> None:
    """Run one small program in the silo SILO: a clone that waits in a pool will start the next one faster. Raises GuestError."""
    program = await guest.launch("exercise", SILO, _FIRST_PROGRAM, wanted=(False, False, False))
    end = await program.wait()
    await guest.release(program)
    if end.code != 0:
        raise GuestError(f"the first program in the silo ended with {end.code:#x}")


async def dress_silo(guest: Guest, greeting: Greeting, dress: Dress) -> GuestProgram:
    """A clone's silo becomes a container's, up to where its main program can be started (`Guest.start_main(SILO, …)`).

    The network and mounts can be made meanwhile. Answers the container's program, whose streams are those of the main one.
    Raises GuestError, InvalidRequest, Unavailable.
    """
    state = next((task for task in greeting.tasks if task.task == SILO and task.state == "running"), None)
    if state is None:
        raise GuestError("the clone holds no silo that runs")
    program = guest.adopt(state)
    await reseed(guest, hostname=dress.hostname, machine_id=dress.machine_id)
    if dress.files:
        await guest.client.request("write", {"files": dict(dress.files)})
    if not dress.open_stdin and program.stdin is not None:
        program.stdin.close()
    await guest.configure(SILO, dress.computer_name or dress.hostname.split(".")[0].upper()[:_MAXIMUM_NAME])
    return program


async def reseed(guest: Guest, *, hostname: str, machine_id: str = "") -> None:
    """Own randomness, the host's time, a name: before anything of a container's runs, in every clone."""
    identity = {"hostname": hostname, "time_ns": time.time_ns(), "machine_id": machine_id}
    await guest.client.request("reseed", {"entropy": os.urandom(_SEED_BYTES).hex(), **identity})
