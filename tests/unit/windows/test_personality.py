"""Docker for Windows' words: what becomes of them, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from silo.engine.ports import ExecRequest
from silo.errors import InvalidRequest, SiloError, Unsupported
from silo.model.container import ContainerConfig, Device, Namespaces, Resources, Security, Ulimit
from silo.model.image import Image, ImageConfig
from silo.model.mount import MountKind, MountRequest
from silo.model.platform import Platform
from silo.model.runtime import LaunchPlan, ProcessPlan
from silo.windows.base.environment import DRIVE_C
from silo.windows.personality import WindowsPersonality

PERSONALITY = WindowsPersonality()


def image(**words: Any) -> Image:
    return Image(id="sha256:1", platform=Platform(os="windows", architecture="amd64"), config=ImageConfig(**words))


def config(**words: Any) -> ContainerConfig:
    return ContainerConfig(image="x", **words)


def plans(user: ContainerConfig, of: Image, hostname: str = "web") -> tuple[ProcessPlan, LaunchPlan]:
    process, launch = PERSONALITY.plan_main(user, of, hostname=hostname, container_id="0" * 64)
    assert launch is not None
    return process, launch


BASE = image(cmd=("c:\\windows\\system32\\cmd.exe",))


def test_defaults() -> None:
    process, launch = plans(config(), BASE)
    assert launch.command_line == "c:\\windows\\system32\\cmd.exe"
    assert (launch.directory, launch.environment, launch.tty) == ("C:\\", (), False)
    assert process.args == ("/silo/start",) and process.cwd == DRIVE_C and process.user == "0:0"
    assert process.capabilities == () and process.no_new_privileges
    assert "WINEPREFIX=/silo/prefix" in process.env
    assert plans(config(), image())[1].command_line == "c:\\windows\\system32\\cmd.exe"
    assert PERSONALITY.check(config(), BASE) == ()
    assert PERSONALITY.default_stop_timeout_s() == 30
    assert PERSONALITY.default_stop_signal() == 15


SHELL_FORM = image(entrypoint=('cmd /S /C "echo hi"',), args_escaped=True)


@pytest.mark.parametrize(
    ("words", "of", "line"),
    [
        ({"cmd": ("cmd", "/c", "echo a b")}, BASE, 'cmd /c "echo a b"'),
        ({}, SHELL_FORM, 'cmd /S /C "echo hi"'),
        ({"cmd": ("a b",)}, SHELL_FORM, 'cmd /S /C "echo hi" "a b"'),
        ({"entrypoint": ("C:\\my prog.exe",), "cmd": ("x",)}, SHELL_FORM, '"C:\\my prog.exe" x'),
        ({"args_escaped": False}, image(cmd=("cmd /c ver",), args_escaped=True), '"cmd /c ver"'),
        ({"cmd": ("cmd /c ver",), "args_escaped": True}, BASE, "cmd /c ver"),
        ({"cmd": ("p", "x\\")}, image(cmd=("q",), args_escaped=True), "p x\\"),
    ],
)
def test_command_lines(words: dict[str, Any], of: Image, line: str) -> None:
    assert plans(config(**words), of)[1].command_line == line


def test_described() -> None:
    assert PERSONALITY.describe_command(config(cmd=("a", "b")), BASE) == ("a", ("b",))


def test_environment_is_merged_without_case() -> None:
    of = image(env=("Path=C:\\image", "A=1", "B=1", "C=1"))
    launch = plans(config(env=("PATH=C:\\user;C:\\windows", "a=2", "B", "c=")), of)[1]
    assert launch.environment == ("PATH=C:\\user;C:\\windows", "a=2", "c=")
    assert plans(config(), of)[1].environment == ("Path=C:\\image", "A=1", "B=1", "C=1")


def test_directory() -> None:
    of = image(working_dir="c:/app")
    assert plans(config(), of)[1].directory == "C:\\app"
    assert plans(config(working_dir="\\srv\\x\\"), of)[1].directory == "C:\\srv\\x"


@pytest.mark.parametrize(
    ("user", "identity"),
    [
        ("ContainerAdministrator", "0:0"),
        ("containeruser", "1000:1000"),
        ("User Manager\\ContainerUser", "1000:1000"),
    ],
)
def test_users(user: str, identity: str) -> None:
    assert plans(config(user=user), BASE)[0].user == identity
    assert plans(config(), image(user=user))[0].user == identity


def test_the_user_owns_the_prefix() -> None:
    owner = PERSONALITY.scratch_owner(config(user="ContainerUser"), BASE)
    assert owner is not None and (owner.path, owner.uid, owner.gid) == ("/silo/prefix", 1000, 1000)
    assert owner.copies == (("/silo/users/ContainerUser/user.reg", "/silo/prefix/user.reg"),)
    assert owner.keeps == ((0, "/silo/prefix/user.reg", "/silo/users/ContainerAdministrator/user.reg"),)
    owner = PERSONALITY.scratch_owner(config(), BASE)
    assert owner is not None and owner.uid == 0
    assert owner.keeps == ((1000, "/silo/prefix/user.reg", "/silo/users/ContainerUser/user.reg"),)
    assert owner.copies == (("/silo/users/ContainerAdministrator/user.reg", "/silo/prefix/user.reg"),)


PIPE = "\\\\.\\pipe\\x"


def mount(target: str, kind: MountKind = MountKind.BIND, *, source: str = "/srv", **words: Any) -> MountRequest:
    return MountRequest(kind=kind, target=target, source=source, **words)


def secure(**words: Any) -> dict[str, Any]:
    return {"security": Security(**words)}


@pytest.mark.parametrize(
    ("words", "kind", "named"),
    [
        (secure(privileged=True), InvalidRequest, "--privileged"),
        (secure(cap_add=("NET_ADMIN",)), InvalidRequest, "--cap-add"),
        (secure(cap_drop=("ALL",)), InvalidRequest, "--cap-drop"),
        (secure(seccomp="unconfined"), InvalidRequest, "seccomp"),
        (secure(no_new_privileges=False), InvalidRequest, "no-new-privileges"),
        (secure(masked_paths=()), InvalidRequest, "systempaths"),
        (secure(options=("credentialspec=file://x",)), Unsupported, "credentialspec"),
        ({"read_only_root": True}, InvalidRequest, "--read-only"),
        ({"init": True}, InvalidRequest, "--init"),
        ({"sysctls": {"a": "b"}}, InvalidRequest, "--sysctl"),
        ({"group_add": ("x",)}, InvalidRequest, "--group-add"),
        ({"resources": Resources(ulimits=(Ulimit(name="nofile", soft=1, hard=1),))}, InvalidRequest, "--ulimit"),
        (
            {"resources": Resources(devices=(Device(host_path="/dev/x", container_path="x"),))},
            InvalidRequest,
            "--device",
        ),
        ({"resources": Resources(shm_size_bytes=1)}, InvalidRequest, "--shm-size"),
        ({"namespaces": Namespaces(pid="host")}, InvalidRequest, "--pid"),
        ({"namespaces": Namespaces(ipc="host")}, InvalidRequest, "--ipc"),
        ({"storage_options": {"inodes": "5"}}, InvalidRequest, "--storage-opt: inodes"),
        ({"mounts": (mount("C:\\x", MountKind.TMPFS),)}, InvalidRequest, "--tmpfs"),
        ({"mounts": (mount("C:\\x", propagation="rslave"),)}, InvalidRequest, "bind-propagation"),
        ({"mounts": (mount("C:\\"),)}, InvalidRequest, "destination path"),
        ({"mounts": (mount("c:"),)}, InvalidRequest, "destination path"),
        ({"mounts": (mount("D:"),)}, Unsupported, "drive D:"),
        ({"mounts": (mount("data"),)}, InvalidRequest, "must be absolute"),
        ({"mounts": (mount("C:\\con"),)}, InvalidRequest, "device's name"),
        ({"mounts": (mount("C:\\x", MountKind.NAMED_PIPE, source="/s"),)}, InvalidRequest, "not a valid pipe path"),
        ({"mounts": (mount(PIPE, MountKind.NAMED_PIPE, source="C:\\x"),)}, InvalidRequest, "not a valid pipe path"),
        ({"mounts": (mount(PIPE, MountKind.NAMED_PIPE, source=PIPE, read_only=True),)}, InvalidRequest, "read-only"),
        ({"mounts": (mount("\\\\.\\pipe\\svcctl", MountKind.NAMED_PIPE, source=PIPE),)}, InvalidRequest, "Windows"),
        (
            {"mounts": tuple(mount(f"{PIPE}{n}", MountKind.NAMED_PIPE, source=PIPE) for n in range(33))},
            InvalidRequest,
            "at most 32",
        ),
        ({"mounts": (mount(PIPE),)}, InvalidRequest, "only a named pipe or a Unix socket"),
        ({"user": "app"}, InvalidRequest, "unable to find user app"),
        ({"user": "OTHER\\ContainerUser"}, InvalidRequest, "unable to find user"),
        ({"user": "1000"}, InvalidRequest, "unable to find user 1000"),
        ({"working_dir": "app"}, InvalidRequest, "absolute path"),
        ({"working_dir": "D:\\app"}, Unsupported, "drive D:"),
        ({"hostname": "a b"}, InvalidRequest, "hostname"),
        ({"env": ("A=x\nB=y",)}, InvalidRequest, "line break"),
        ({"env": ("=x",)}, InvalidRequest, "environment"),
        ({"env": ("A=" + "x" * 70_000,)}, InvalidRequest, "environment"),
        ({"cmd": ("a\0",)}, InvalidRequest, "NUL"),
    ],
)
def test_refused(words: dict[str, Any], kind: type[SiloError], named: str) -> None:
    with pytest.raises(kind, match=named):
        PERSONALITY.check(config(**words), BASE)


def test_all_foreign_options_are_told_at_once() -> None:
    with pytest.raises(InvalidRequest, match="--read-only, --init"):
        PERSONALITY.check(config(init=True, read_only_root=True), BASE)


def test_taken() -> None:
    good = config(
        mounts=(mount("C:\\data"), mount("c:/windows/temp", MountKind.VOLUME), mount("\\x")),
        resources=Resources(memory_bytes=1 << 29, nano_cpus=10**9, pids_limit=50),
        hostname="web-1",
        namespaces=Namespaces(user="host"),
        user="ContainerUser",
    )
    assert PERSONALITY.check(good, BASE) == ()


def test_exec() -> None:
    user = config(env=("A=1",), working_dir="C:\\app", user="ContainerUser")
    launch = PERSONALITY.plan_exec(
        user,
        BASE,
        ExecRequest(args=("cmd", "/c", "set x"), env=("a=2", "B=3"), tty=True, console_size=(24, 80)),
        hostname="",
    )
    assert isinstance(launch, LaunchPlan)
    assert launch.command_line == 'cmd /c "set x"' and launch.directory == "C:\\app"
    assert launch.environment == ("a=2", "B=3") and launch.tty and launch.console_size == (24, 80)
    launch = PERSONALITY.plan_exec(
        user, BASE, ExecRequest(args=("x",), working_dir="sub", user="containeruser"), hostname=""
    )
    assert isinstance(launch, LaunchPlan) and launch.directory == "C:\\app\\sub"
    for bad in (
        ExecRequest(args=()),
        ExecRequest(args=("x",), privileged=True),
        ExecRequest(args=("x",), user="ContainerAdministrator"),
        ExecRequest(args=("x",), user="nobody"),
    ):
        with pytest.raises(InvalidRequest):
            PERSONALITY.plan_exec(user, BASE, bad, hostname="")


def test_paths_health_and_special_files() -> None:
    assert PERSONALITY.map_path("C:\\data") == f"{DRIVE_C}/data"
    assert PERSONALITY.map_path("data", working_dir="C:\\srv") == f"{DRIVE_C}/srv/data"
    assert PERSONALITY.health_command(("CMD-SHELL", "ver"), BASE) == ("cmd", "/S", "/C", "ver")
    shell = image(shell=("powershell", "-Command"))
    assert PERSONALITY.health_command(("CMD-SHELL", "x"), shell) == ("powershell", "-Command", "x")
    assert PERSONALITY.health_command(("CMD", "a", "b"), BASE) == ("a", "b")
    mounts = PERSONALITY.plan_special_mounts({"hosts": Path("/d/hosts")})
    assert [(item.target, item.source) for item in mounts] == [("/etc/hosts", Path("/d/hosts"))]
    assert PERSONALITY.default_masked_paths() and PERSONALITY.default_readonly_paths()


@pytest.mark.parametrize("target", ["C:\\Windows", "c:/windows/", "C:\\windows\\SYSTEM32", "\\windows"])
def test_nothing_is_mounted_over_windows_itself(target: str) -> None:
    with pytest.raises(InvalidRequest, match="Windows itself lies there"):
        PERSONALITY.check(config(mounts=(mount(target),)), image())
