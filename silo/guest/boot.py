"""The program that a utility VM's init becomes: installed as /silo/agent, it finds the agent beside it and its port by name."""

from __future__ import annotations

import os
import sys
import time

PLACE = "/silo/lib"
_PORTS = "/sys/class/virtio-ports"
_TRIES = 1000


def find_port(wanted: str) -> str:
    """The device of the port that the host calls ours; drivers find it some time after the boot."""
    for _ in range(_TRIES):
        for name in os.listdir(_PORTS) if os.path.isdir(_PORTS) else ():  # noqa: PTH112, PTH208 - pathlib takes 10 ms
            with open(f"{_PORTS}/{name}/name") as file:
                if file.read().strip() == wanted:
                    return f"/dev/{name}"
        time.sleep(0.005)
    raise SystemExit(f"silo: the host gave this machine no port {wanted}")


if __name__ == "__main__":
    sys.path.insert(0, PLACE)
    from silo.guest.agent import main
    from silo.model.guest_frames import PORT_NAME

    main(["--port", find_port(PORT_NAME)])
