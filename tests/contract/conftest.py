"""The Runtime contract, parametrised over runtime and personality.

Tests are coroutine functions. Each runs in a thread with a mount namespace of its own (the daemon enters one in its first
lines; a test process must not), and with a runtime that has just been opened.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from silo.engine.ports import Runtime
from silo.host import namespaces
from silo.isolation.process.namespace import enter_mount_namespace
from silo.isolation.process.runtime import ProcessRuntime
from silo.isolation.vm.base.images import describe, find_named
from silo.isolation.vm.clones import Shelf
from silo.isolation.vm.runtime import VmRuntime
from silo.model.runtime import ProcessPlan
from silo.model.vm_image import DEFAULT_VM_IMAGE, VmImage
from tests.contract.subjects import LinuxSubject, Subject, WindowsSubject
from tests.support.probes import require, require_program, require_root

HERE = Path(__file__).parent
WINDOWS_LAYERS = tuple(Path(word) for word in os.environ.get("SILO_WINDOWS_LAYERS", "").split(":") if word)
"""Unpacked layers of a Windows base, topmost first; ./check sets this to those that it has built."""


@pytest.fixture(scope="session")
def places() -> Iterator[Path]:
    """A run root and a data root for the session; the keeper that the first test starts is ended here."""
    require_root()
    require_program("crun")
    root = Path(tempfile.mkdtemp(prefix="silo-contract-"))
    root.chmod(0o755)
    for name in ("run", "data"):
        (root / name).mkdir(mode=0o711)
    yield root
    stop_keeper(root / "run" / "keeper.sock")
    shutil.rmtree(root)


def stop_keeper(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        try:
            connection.connect(str(path))
        except OSError:
            return
        connection.settimeout(10)
        with contextlib.suppress(ConnectionError):  # a keeper with nothing to keep ends by itself
            connection.send(b'{"op": "shutdown", "id": 1, "force": true}')
            connection.recv(4096)


@pytest.fixture(scope="session")
def linux_layer(places: Path) -> Path:
    require_program("gcc")
    layer = places / "linux"
    for name in ("bin", "etc", "tmp", "mnt", "var", "proc", "sys", "dev"):
        (layer / name).mkdir(parents=True)
    (layer / "tmp").chmod(0o1777)
    busybox = require_program("busybox", "busybox-static")
    shutil.copy(busybox, layer / "bin" / "busybox")
    (layer / "bin" / "sh").symlink_to("busybox")
    (layer / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n")
    (layer / "etc" / "group").write_text("root:x:0:\napp:x:1000:\nextra:x:1001:app\n")
    subprocess.run(["gcc", "-O1", "-static", "-o", layer / "program", HERE / "program.c"], check=True)
    return layer


@pytest.fixture(scope="session")
def windows_layers(places: Path) -> tuple[Path, ...]:
    found = any((layer / "silo" / "start").exists() for layer in WINDOWS_LAYERS)
    require("a Windows base", found, f"no silo/start in SILO_WINDOWS_LAYERS ({WINDOWS_LAYERS})")
    compiler = require_program("x86_64-w64-mingw32-gcc", "gcc-mingw-w64-x86-64")
    drive = places / "windows" / WindowsSubject.DRIVE.lstrip("/")
    drive.mkdir(parents=True)
    subprocess.run([compiler, "-O1", "-o", drive / "program.exe", HERE / "program.c"], check=True)
    return (places / "windows", *WINDOWS_LAYERS)


def find_vm_image() -> VmImage:
    root = os.environ.get("SILO_CACHE_ROOT", "")
    found = find_named(Path(root), DEFAULT_VM_IMAGE) if root else None
    require("the utility VM's image", found is not None, f"no vm/current in SILO_CACHE_ROOT ({root})")
    assert found is not None
    return describe(found, DEFAULT_VM_IMAGE)


@pytest.fixture(scope="session")
def shelf() -> Iterator[Shelf]:
    """Templates for all tests: each test's runtime would boot its own."""
    made = Shelf()
    yield made
    made.close()


@pytest.fixture(params=["process-linux", "process-windows", "hyperv-linux", "hyperv-linux-parked", "hyperv-windows"])
def subject(request: pytest.FixtureRequest, places: Path, shelf: Shelf) -> Subject:
    """Every isolation level with every personality."""
    if request.param.startswith("hyperv"):
        require_program("qemu-system-x86_64", "qemu-system-x86")
        image = find_vm_image()

        async def find(_: str) -> VmImage:
            return image

        def make_vm() -> VmRuntime:
            return VmRuntime(run_root=places / "run", data_root=places / "data", find_image=find, shelf=shelf)

        if request.param == "hyperv-windows":
            return make_windows_subject(make_vm, places / "data", request.getfixturevalue("windows_layers"))
        linux = LinuxSubject(make_vm, places / "data", (request.getfixturevalue("linux_layer"),))
        linux.parked = request.param == "hyperv-linux-parked"
        return linux

    def make() -> ProcessRuntime:
        return ProcessRuntime(run_root=places / "run", data_root=places / "data", linux_pool=1, windows_pool=0)

    if request.param == "process-linux":
        return LinuxSubject(make, places / "data", (request.getfixturevalue("linux_layer"),))
    return make_windows_subject(make, places / "data", request.getfixturevalue("windows_layers"))


def make_windows_subject(make: Callable[[], Runtime], data_root: Path, layers: tuple[Path, ...]) -> WindowsSubject:
    from silo.windows.base.environment import DRIVE_C, UNIX_ENVIRONMENT
    from silo.windows.personality import START

    env = tuple(f"{name}={value}" for name, value in UNIX_ENVIRONMENT.items())
    return WindowsSubject(make, data_root, layers, ProcessPlan(args=(START,), env=env, cwd=DRIVE_C, user="0:0"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    test = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments: dict[str, Any] = {name: pyfuncitem.funcargs[name] for name in names}
    run_root: Path = pyfuncitem.funcargs.get("places") or pyfuncitem._request.getfixturevalue("places")

    async def body() -> None:
        subject = next(
            (arguments[name] for name in ("subject", "warm_subject", "cold_subject") if name in arguments), None
        )
        if subject is None:
            await test(**arguments)
            return
        async with subject.opened():
            await test(**arguments)

    def in_namespace() -> None:
        enter_mount_namespace(run_root / "run")
        asyncio.run(body())

    namespaces.in_thread(in_namespace, unshare_filesystem=True)
    return True
