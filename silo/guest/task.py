"""One program of the container, as the agent keeps it until the host releases it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from silo.guest.crun import Job
    from silo.guest.entry import Entry
    from silo.guest.launching import Launcher
    from silo.guest.streams import Input, Output


class Task:
    def __init__(self, name: str, container: str, process: dict[str, Any]) -> None:
        self.name = name
        self.container = container
        """The container's task that this one belongs to; its own name for the main program."""
        self.tty = bool(process.get("terminal"))
        self.process = process
        self.state = "starting"
        self.pid = 0
        self.windows_pid = 0
        """Of a program that the container's launcher has started; it has no `pid` then."""
        self.launcher: Launcher | None = None
        self.entry: Entry | None = None
        """Of a Linux container that was begun ahead of its order."""
        self.cgroup = ""
        self.exit: dict[str, Any] | None = None
        self.input: Input | None = None
        self.outputs: list[Output] = []
        self.terminal = -1
        self.job: Job | None = None
        """While it is not known whether the kernel took the program."""

    @property
    def is_container(self) -> bool:
        return self.name == self.container

    def streams(self) -> list[Output | Input]:
        return [*self.outputs, *([self.input] if self.input else [])]

    def close_helpers(self) -> None:
        for helper in (self.launcher, self.entry):
            if helper is not None:
                helper.close()

    def describe(self) -> dict[str, Any]:
        return {
            "task": self.name,
            "container": self.container,
            "state": self.state,
            "pid": self.pid or self.windows_pid,
            "tty": self.tty,
            "exit": self.exit,
            "input": self.input.describe() if self.input else None,
            "outputs": [output.describe() for output in self.outputs],
        }
