"""What runs as the agent of a utility VM in the tests: says what it finds there on the console, then ends the VM."""

import ctypes
import fcntl
import json
import os
import pty
import select
import shutil
import signal
import socket
import struct
import subprocess
import tarfile
import termios
from pathlib import Path

_POWER_OFF = 0x4321FEDC
_USED = (fcntl, pty, select, signal, socket, struct, tarfile, termios)


def _output(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def _run_container() -> str:
    """What a container printed: own namespaces, cgroup with a limit, busybox of the root as its only file."""
    Path("/tmp/bundle/rootfs/bin").mkdir(parents=True)
    shutil.copy("/usr/bin/busybox", "/tmp/bundle/rootfs/bin/busybox")
    subprocess.run(["crun", "spec"], cwd="/tmp/bundle", check=True)
    with open("/tmp/bundle/config.json") as stream:
        config = json.load(stream)
    script = "busybox cat /sys/fs/cgroup/memory.max; echo pid $$"
    config["process"] |= {"terminal": False, "args": ["/bin/busybox", "sh", "-c", script]}
    config["linux"]["resources"] = {"memory": {"limit": 33554432}}
    config["linux"]["cgroupsPath"] = "/silo/test"
    with open("/tmp/bundle/config.json", "w") as stream:
        json.dump(config, stream)
    done = subprocess.run(
        ["crun", "--cgroup-manager", "cgroupfs", "run", "test"], cwd="/tmp/bundle", capture_output=True, text=True
    )
    return done.stdout + done.stderr


def _report() -> dict[str, object]:
    with open("/proc/mounts") as stream:
        mounts = {words[1]: words for words in map(str.split, stream)}
    with open("/proc/meminfo") as stream:
        memory = {line.split(":")[0]: int(line.split()[1]) for line in stream}
    with open("/sys/fs/cgroup/cgroup.subtree_control") as stream:
        controllers = stream.read().split()
    with open("/proc/uptime") as stream:
        uptime_s = float(stream.read().split()[0])
    with open("/silo/written", "w") as stream:
        stream.write("the root can be written to")
    with open("/tmp/disk", "wb") as stream:
        stream.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "/tmp/disk"], check=True)
    return {
        "kernel": os.uname().release,
        "pid": os.getpid(),
        "uptime_s": uptime_s,
        "base": mounts["/run/silo/base"],
        "root": mounts["/"],
        "cached_kib": memory["Cached"],
        "total_kib": memory["MemTotal"],
        "controllers": controllers,
        "crun": _output("crun", "--version"),
        "loopback": _output("ip", "addr", "show", "lo"),
        "pty": bool(os.openpty()),
        "container": _run_container(),
    }


if __name__ == "__main__":
    print("python ok", flush=True)
    try:
        print("report: " + json.dumps(_report()), flush=True)
    finally:
        os.sync()
        ctypes.CDLL(None).reboot(_POWER_OFF)
