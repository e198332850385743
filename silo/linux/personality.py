"""Linux containers: an image's and a user's configuration become the process to run. Pure; rules as in Docker."""

from __future__ import annotations

import posixpath
import re
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path

from silo.engine.ports import ExecRequest
from silo.errors import InvalidRequest
from silo.linux.capabilities import choose_capabilities
from silo.model.command import merge_command
from silo.model.container import ContainerConfig, Resources
from silo.model.image import Image
from silo.model.kernel_paths import MASKED_PATHS, READONLY_PATHS
from silo.model.mount import MountKind, PlannedMount
from silo.model.platform import Isolation, PersonalityName
from silo.model.runtime import LaunchPlan, ProcessPlan, ScratchOwner
from silo.model.storage_options import parse_scratch_size

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")
STOP_TIMEOUT_S = 10

_SPECIAL_FILES = {"hosts": "/etc/hosts", "hostname": "/etc/hostname", "resolv.conf": "/etc/resolv.conf"}
_HOSTNAME = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$")
_DRIVE = re.compile(r"^[A-Za-z]:[\\/]|^\\\\")


class LinuxPersonality:
    """silo.engine.ports.Personality for images with os=linux."""

    name = PersonalityName.LINUX

    def check(self, config: ContainerConfig, image: Image) -> tuple[str, ...]:
        problems = [*_path_problems(config), *_word_problems(config)]
        if problems:
            raise InvalidRequest(problems[0], details="; ".join(problems[1:]))
        parse_scratch_size(config.storage_options)
        _check_environment(config.env)
        choose_capabilities(add=config.security.cap_add, drop=config.security.cap_drop)
        merge_command(config, image.config)
        return self.check_resources(config.resources, config.isolation)

    def check_resources(self, resources: Resources, isolation: Isolation) -> tuple[str, ...]:  # noqa: ARG002 - the port's
        """As Docker on Linux has it, which takes a percentage for nothing and says so."""
        if resources.cpu_count:
            raise InvalidRequest("--cpu-count is for Windows containers", hint="--cpus limits any container")
        if resources.cpu_percent:
            return ("linux does not support CPU percent. Percent discarded.",)
        return ()

    def limits(self, resources: Resources, isolation: Isolation) -> Resources:  # noqa: ARG002 - the port's
        return resources

    def plan_main(
        self,
        config: ContainerConfig,
        image: Image,
        *,
        hostname: str,
        container_id: str,  # noqa: ARG002 - the port's; Windows has a use for it
    ) -> tuple[ProcessPlan, LaunchPlan | None]:
        plan = ProcessPlan(
            args=merge_command(config, image.config).args,
            env=_environment(config, image, hostname=hostname, tty=config.tty),
            cwd=_working_dir(config, image),
            user=_user(config, image),
            groups=config.group_add,
            tty=config.tty,
            capabilities=_capabilities(config),
            no_new_privileges=config.security.no_new_privileges and not config.security.privileged,
            console_size=config.console_size,
        )
        return plan, None

    def scratch_owner(self, config: ContainerConfig, image: Image) -> ScratchOwner | None:  # noqa: ARG002 - the port's
        """Linux programs take their root as it is."""
        return None

    def describe_command(self, config: ContainerConfig, image: Image) -> tuple[str, tuple[str, ...]]:
        args = merge_command(config, image.config).args
        return args[0], args[1:]

    def plan_exec(
        self, config: ContainerConfig, image: Image, request: ExecRequest, *, hostname: str
    ) -> ProcessPlan | LaunchPlan:
        if not request.args or not request.args[0]:
            raise InvalidRequest("No exec command specified")
        _check_environment(request.env)
        if request.working_dir and not request.working_dir.startswith("/"):
            raise InvalidRequest(f"the working directory '{request.working_dir}' is not an absolute path")
        privileged = config.security.privileged or request.privileged
        return ProcessPlan(
            args=request.args,
            env=_environment(config, image, hostname=hostname, tty=request.tty, more=request.env),
            cwd=self.map_path(request.working_dir) if request.working_dir else _working_dir(config, image),
            user=request.user or _user(config, image),
            groups=config.group_add,
            tty=request.tty,
            capabilities=choose_capabilities(privileged=True) if privileged else _capabilities(config),
            no_new_privileges=config.security.no_new_privileges and not privileged,
            console_size=request.console_size,
        )

    def map_path(self, path: str, *, working_dir: str = "") -> str:
        """Lexically clean and absolute; a relative path is of `working_dir`, else of the root, as in `docker cp`."""
        if "\0" in path:
            raise InvalidRequest(f"the path {path!r} holds a NUL byte")
        return "/" + posixpath.normpath(posixpath.join("/", working_dir, path)).lstrip("/")

    def plan_special_mounts(self, files: Mapping[str, Path]) -> tuple[PlannedMount, ...]:
        return tuple(
            PlannedMount(target=_SPECIAL_FILES[name], source=path, kind=MountKind.BIND) for name, path in files.items()
        )

    def default_masked_paths(self) -> tuple[str, ...]:
        return MASKED_PATHS

    def default_readonly_paths(self) -> tuple[str, ...]:
        return READONLY_PATHS

    def default_stop_signal(self) -> int:
        return signal.SIGTERM

    def default_stop_timeout_s(self) -> int:
        return STOP_TIMEOUT_S

    def health_command(self, test: tuple[str, ...], image: Image) -> tuple[str, ...]:
        if test[:1] == ("CMD-SHELL",):
            return (*(image.config.shell or DEFAULT_SHELL), *test[1:])
        return test[1:]


def _working_dir(config: ContainerConfig, image: Image) -> str:
    return posixpath.normpath(posixpath.join("/", config.working_dir or image.config.working_dir or "/"))


def _user(config: ContainerConfig, image: Image) -> str:
    return config.user or image.config.user


def _capabilities(config: ContainerConfig) -> tuple[str, ...]:
    security = config.security
    return choose_capabilities(add=security.cap_add, drop=security.cap_drop, privileged=security.privileged)


def _environment(
    config: ContainerConfig, image: Image, *, hostname: str, tty: bool, more: Iterable[str] = ()
) -> tuple[str, ...]:
    """PATH, HOSTNAME and TERM as defaults, then the image's, the user's, and `more`; a bare NAME removes. HOME depends on the
    user, whom only the runtime can look up: it adds it."""
    variables = {"PATH": DEFAULT_PATH}
    if hostname:
        variables["HOSTNAME"] = hostname
    if tty:
        variables["TERM"] = "xterm"
    for pair in (*image.config.env, *config.env, *more):
        name, separator, value = pair.partition("=")
        if separator:
            variables[name] = value
        else:
            variables.pop(name, None)
    return tuple(f"{name}={value}" for name, value in variables.items())


def _check_environment(env: Iterable[str]) -> None:
    for pair in env:
        if pair.startswith("=") or not pair:
            raise InvalidRequest(f"invalid environment variable: {pair!r}", hint="NAME=VALUE")
        if "\0" in pair:
            raise InvalidRequest(f"the environment variable {pair.partition('=')[0]} holds a NUL byte")


def _path_problems(config: ContainerConfig) -> Iterable[str]:
    directory = config.working_dir
    if directory and not directory.startswith("/"):
        yield f"the working directory '{directory}' is invalid, it needs to be an absolute path"
    for request in config.mounts:
        target = request.target
        if request.kind is MountKind.NAMED_PIPE:
            yield f"the mount {target} is a named pipe: Linux containers have none"
        elif _DRIVE.match(target):
            yield f"invalid mount path: '{target}' is a Windows path in a Linux container"
        elif not target.startswith("/"):
            yield f"invalid mount path: '{target}' mount path must be absolute"
        elif "\0" in target:
            yield f"invalid mount path: {target!r} holds a NUL byte"


def _word_problems(config: ContainerConfig) -> Iterable[str]:
    if config.hostname and not _HOSTNAME.match(config.hostname):
        yield f"invalid hostname format: {config.hostname!r}"
    if config.domainname and not _HOSTNAME.match(config.domainname):
        yield f"invalid domain name format: {config.domainname!r}"
    for word in (*(config.entrypoint or ()), *(config.cmd or ())):
        if "\0" in word:
            yield f"the argument {word!r} holds a NUL byte"
