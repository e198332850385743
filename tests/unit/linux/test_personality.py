"""Docker's rules for Linux containers: command, environment, capabilities, paths, refusals."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from silo.engine.ports import ExecRequest
from silo.errors import InvalidRequest, SiloError
from silo.linux import LinuxPersonality
from silo.linux.capabilities import ALL, DEFAULT
from silo.model.container import ContainerConfig, Security
from silo.model.image import Image, ImageConfig
from silo.model.mount import MountKind, MountRequest
from silo.model.platform import Platform
from silo.model.runtime import ProcessPlan

PERSONALITY = LinuxPersonality()


def image(**words: Any) -> Image:
    return Image(id="sha256:1", platform=Platform(os="linux", architecture="amd64"), config=ImageConfig(**words))


def config(**words: Any) -> ContainerConfig:
    return ContainerConfig(image="x", **words)


def plan(user: ContainerConfig, of: Image) -> ProcessPlan:
    process, launch = PERSONALITY.plan_main(user, of, hostname="web", container_id="0" * 64)
    assert launch is None
    return process


IMAGE = image(entrypoint=("/entry", "-v"), cmd=("serve",))


@pytest.mark.parametrize(
    ("words", "args"),
    [
        ({}, ("/entry", "-v", "serve")),
        ({"cmd": ("other",)}, ("/entry", "-v", "other")),
        ({"cmd": ()}, ("/entry", "-v", "serve")),
        ({"entrypoint": ("/mine",)}, ("/mine",)),
        ({"entrypoint": ("/mine",), "cmd": ("a", "b")}, ("/mine", "a", "b")),
        ({"entrypoint": ("",), "cmd": ("a",)}, ("a",)),
        ({"entrypoint": ()}, ("serve",)),
    ],
)
def test_entrypoint_and_cmd(words: dict[str, Any], args: tuple[str, ...]) -> None:
    assert plan(config(**words), IMAGE).args == args
    assert PERSONALITY.describe_command(config(**words), IMAGE) == (args[0], args[1:])


@pytest.mark.parametrize(("words", "of"), [({}, image()), ({"entrypoint": ("",)}, IMAGE), ({"cmd": ("",)}, image())])
def test_nothing_to_run_is_refused(words: dict[str, Any], of: Image) -> None:
    with pytest.raises(InvalidRequest, match="no command specified"):
        PERSONALITY.check(config(**words), of)


def test_environment() -> None:
    of = image(cmd=("x",), env=("A=image", "B=image", "C=image"))
    assert plan(config(env=("A=user=1", "B", "D=")), of).env == (
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=web",
        "A=user=1",
        "C=image",
        "D=",
    )
    with_terminal = plan(config(tty=True, env=("PATH=/only", "HOSTNAME=mine")), of).env
    assert {"TERM=xterm", "PATH=/only", "HOSTNAME=mine"} <= set(with_terminal)


def test_working_directory_and_user() -> None:
    of = image(cmd=("x",), working_dir="/srv/", user="app:grp")
    process = plan(config(), of)
    assert (process.cwd, process.user) == ("/srv", "app:grp")
    process = plan(config(working_dir="/a/../b", user="0", group_add=("video",)), of)
    assert (process.cwd, process.user, process.groups) == ("/b", "0", ("video",))
    assert plan(config(), image(cmd=("x",))).cwd == "/"


def caps(**words: Any) -> set[str]:
    return set(plan(config(security=Security(**words)), IMAGE).capabilities)


def test_capabilities() -> None:
    assert caps() == set(DEFAULT) and len(DEFAULT) == 14
    assert caps(cap_add=("NET_ADMIN", "cap_sys_time")) == set(DEFAULT) | {"CAP_NET_ADMIN", "CAP_SYS_TIME"}
    assert caps(cap_drop=("CHOWN",)) == set(DEFAULT) - {"CAP_CHOWN"}
    assert caps(cap_drop=("ALL",), cap_add=("KILL",)) == {"CAP_KILL"}
    assert caps(cap_drop=("all",)) == set()
    assert caps(cap_add=("ALL",), cap_drop=("MKNOD",)) == set(ALL) - {"CAP_MKNOD"}
    assert caps(privileged=True) == set(ALL)
    for words in ({"cap_add": ("FLY",)}, {"cap_drop": ("CAP_",)}):
        with pytest.raises(InvalidRequest, match="invalid capability"):
            PERSONALITY.check(config(security=Security(**words)), IMAGE)


def test_no_new_privileges() -> None:
    assert plan(config(), IMAGE).no_new_privileges
    assert not plan(config(security=Security(no_new_privileges=False)), IMAGE).no_new_privileges
    assert not plan(config(security=Security(privileged=True)), IMAGE).no_new_privileges


def test_exec() -> None:
    of = image(cmd=("x",), env=("A=1",), working_dir="/srv", user="app")
    user = config(env=("B=2",), tty=True, security=Security(cap_drop=("ALL",)))
    request = ExecRequest(args=("sh", "-c", "id"), env=("B=3",))
    process = PERSONALITY.plan_exec(user, of, request, hostname="web")
    assert isinstance(process, ProcessPlan)
    assert (process.args, process.cwd, process.user, process.tty) == (("sh", "-c", "id"), "/srv", "app", False)
    assert {"A=1", "B=3", "HOSTNAME=web"} <= set(process.env) and "TERM=xterm" not in process.env
    assert process.capabilities == ()
    request = ExecRequest(args=("id",), privileged=True, user="root", working_dir="/tmp", tty=True)
    process = PERSONALITY.plan_exec(user, of, request, hostname="")
    assert isinstance(process, ProcessPlan)
    assert (process.cwd, process.user, process.capabilities) == ("/tmp", "root", ALL)
    assert "TERM=xterm" in process.env and not any(pair.startswith("HOSTNAME=") for pair in process.env)
    for bad in (
        ExecRequest(args=()),
        ExecRequest(args=("x",), working_dir="tmp"),
        ExecRequest(args=("x",), env=("=x",)),
    ):
        with pytest.raises(InvalidRequest):
            PERSONALITY.plan_exec(user, of, bad, hostname="web")


@pytest.mark.parametrize(
    ("path", "working_dir", "mapped"),
    [
        ("/", "", "/"),
        ("//etc//x/", "", "/etc/x"),
        ("/a/../../b", "", "/b"),
        ("x/y", "", "/x/y"),
        ("x", "/srv", "/srv/x"),
        ("", "", "/"),
    ],
)
def test_paths(path: str, working_dir: str, mapped: str) -> None:
    assert PERSONALITY.map_path(path, working_dir=working_dir) == mapped


def mount(target: str, kind: MountKind = MountKind.BIND) -> MountRequest:
    return MountRequest(kind=kind, target=target, source="/srv")


@pytest.mark.parametrize(
    ("words", "kind", "text"),
    [
        ({"mounts": (mount("C:\\data"),)}, InvalidRequest, "Windows path"),
        ({"mounts": (mount("c:/data"),)}, InvalidRequest, "Windows path"),
        ({"mounts": (mount("data"),)}, InvalidRequest, "must be absolute"),
        ({"mounts": (mount("\\\\.\\pipe\\x", MountKind.NAMED_PIPE),)}, InvalidRequest, "named pipe"),
        ({"mounts": (mount("/a\0b"),)}, InvalidRequest, "NUL"),
        ({"working_dir": "srv"}, InvalidRequest, "absolute path"),
        ({"hostname": "a\nb"}, InvalidRequest, "hostname"),
        ({"hostname": "a" * 65}, InvalidRequest, "hostname"),
        ({"domainname": "a b"}, InvalidRequest, "domain"),
        ({"env": ("=x",)}, InvalidRequest, "environment"),
        ({"env": ("A=\0",)}, InvalidRequest, "NUL"),
        ({"cmd": ("a\0",)}, InvalidRequest, "NUL"),
        ({"storage_options": {"inodes": "5"}}, InvalidRequest, "--storage-opt: inodes"),
    ],
)
def test_contradictions_are_refused(words: dict[str, Any], kind: type[SiloError], text: str) -> None:
    with pytest.raises(kind, match=text):
        PERSONALITY.check(config(**words), IMAGE)


def test_several_problems_are_all_told() -> None:
    with pytest.raises(InvalidRequest) as caught:
        PERSONALITY.check(config(working_dir="a", mounts=(mount("b"),)), IMAGE)
    assert "'a'" in caught.value.brief and "'b'" in caught.value.details


def test_defaults() -> None:
    assert PERSONALITY.check(config(hostname="web-1.example"), IMAGE) == ()
    assert PERSONALITY.default_stop_signal() == signal.SIGTERM
    assert PERSONALITY.default_stop_timeout_s() == 10
    assert PERSONALITY.scratch_owner(config(), IMAGE) is None
    assert "/proc/kcore" in PERSONALITY.default_masked_paths()
    assert "/proc/sys" in PERSONALITY.default_readonly_paths()
    assert PERSONALITY.health_command(("CMD-SHELL", "test -e /x"), IMAGE) == ("/bin/sh", "-c", "test -e /x")
    assert PERSONALITY.health_command(("CMD-SHELL", "x"), image(shell=("/bin/bash", "-lc"))) == (
        "/bin/bash",
        "-lc",
        "x",
    )
    assert PERSONALITY.health_command(("CMD", "a", "b"), IMAGE) == ("a", "b")
    mounts = PERSONALITY.plan_special_mounts({"hosts": Path("/d/hosts"), "resolv.conf": Path("/d/resolv.conf")})
    assert [(mount.target, mount.source) for mount in mounts] == [
        ("/etc/hosts", Path("/d/hosts")),
        ("/etc/resolv.conf", Path("/d/resolv.conf")),
    ]
