"""The ports of the engine: what it needs of isolation levels, personalities, images, networks and storage.

Terms. A *plan* is frozen data that says what shall be; a port's method makes it so or raises and leaves nothing behind. All
`async` methods may be cancelled; then they undo what they did. Ids are container ids of 64 hex digits.

Life of a container at a Runtime: `prepare` (rootfs mounted, namespaces and cgroup made, nothing runs) → `start` → it ends
(`on_exit` is called exactly once for each start, also when it ended while the daemon was away, then from `recover`) → `release`
(everything but the container's directory is gone). `release` is idempotent and right in every state, also half-made ones.

    sandbox = await runtime.prepare(plan)
    await networks.connect(plan.id, sandbox, requests)
    started = await runtime.start(plan.id)
    ...
    await runtime.release(plan.id)
"""

from __future__ import annotations

from silo.engine.ports.images import ImageChange, ImageStore, Progress, PullRequest, UnpackedLayer, WindowsLayers
from silo.engine.ports.isolation import FileChange, RootFiles, RunningExec, Runtime, RuntimeListener
from silo.engine.ports.networks import Networks
from silo.engine.ports.personality import ExecRequest, Personality
from silo.engine.ports.registry import RegistrySource, RegistryViewer
from silo.engine.ports.storage import Storage, VolumeInfo

__all__ = [
    "Progress",
    "RuntimeListener",
    "RunningExec",
    "FileChange",
    "RootFiles",
    "Runtime",
    "Personality",
    "ExecRequest",
    "PullRequest",
    "ImageChange",
    "UnpackedLayer",
    "WindowsLayers",
    "ImageStore",
    "Networks",
    "VolumeInfo",
    "Storage",
    "RegistrySource",
    "RegistryViewer",
]
