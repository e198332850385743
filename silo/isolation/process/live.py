"""A container as the daemon holds it: the record plus what only a living daemon has (descriptors, tasks)."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from typing import Any

from silo.isolation.process.record import Record
from silo.model.runtime import ExitRecord


@dataclass(slots=True, eq=False)
class Live:
    """`creating` is crun's work in the background since prepare; `ended` is set by the keeper's exit event."""

    record: Record
    user_namespace: int = -1
    network_namespace: int = -1
    root: int = -1
    """The root (O_PATH). Once crun has its own copy, the mounts leave the daemon's namespace: crun clones all that is there,
    and the two hundredth container shall start as fast as the first."""
    parked: str = ""
    """The key of a child that waits in the cgroups to become crun."""
    creating: asyncio.Task[dict[str, Any]] | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    exit: ExitRecord | None = None
    announced: bool = False
    """start() has answered: the end is the listener's business."""
    releasing: bool = False
    processors: frozenset[int] = frozenset()
    """What it may use once its start is over; empty when the start is not confined to one of them."""
    widening: asyncio.Task[None] | None = None
    warm: bool = False
    """Windows: pid 1 and its launcher ran before the container was asked for."""
    streams: dict[str, int] = field(default_factory=dict)
    """Copies of the keeper's descriptors by role (input, terminal, output1, …), should the keeper die."""
    listener_socket: int = -1
    """Windows: the launcher's listening socket until crun has it."""

    @property
    def id(self) -> str:
        return self.record.plan.id

    @property
    def running(self) -> bool:
        return self.record.started and self.exit is None and not self.releasing

    def close_descriptors(self) -> None:
        for name in ("user_namespace", "network_namespace", "listener_socket", "root"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
                setattr(self, name, -1)
        for descriptor in self.streams.values():
            with contextlib.suppress(OSError):
                os.close(descriptor)
        self.streams = {}

    def take_streams(self, roles: list[str], descriptors: list[int]) -> None:
        self.streams = dict(zip(roles, descriptors, strict=True))
