"""Windows containers: an image's and a user's configuration become the silo's first process and the program to launch. Pure.

The first process is a Linux one (Wine's server and the launcher, see base/); what the user asked for is a LaunchPlan that the
launcher carries out inside. Words and defaults are those of Docker for Windows.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from silo.engine.ports import ExecRequest
from silo.errors import InvalidRequest
from silo.model.command import merge_command
from silo.model.container import ContainerConfig, Resources
from silo.model.image import Image
from silo.model.kernel_paths import MASKED_PATHS, READONLY_PATHS
from silo.model.mount import MountKind, PlannedMount
from silo.model.platform import Isolation, PersonalityName
from silo.model.runtime import LaunchPlan, ProcessPlan, ScratchOwner
from silo.windows import options, paths
from silo.windows.base.environment import (
    ADMINISTRATOR,
    ADMINISTRATOR_UID,
    DRIVE_C,
    PREFIX,
    SILO_DIRECTORY,
    UNIX_ENVIRONMENT,
    USER,
    USER_REGISTRY_DIRECTORY,
    USER_UID,
)
from silo.windows.command_line import build_command_line
from silo.windows.processors import check_processors, discarded, kernel_limits

START = f"{SILO_DIRECTORY}/start"
"""The first process of a silo, in the base image."""

DEFAULT_COMMAND = ("c:\\windows\\system32\\cmd.exe",)
DEFAULT_SHELL = ("cmd", "/S", "/C")
DEFAULT_DIRECTORY = "C:\\"
STOP_TIMEOUT_S = 30

# A RUN message of the launcher's protocol holds 131,072 bytes; the rest is for the command line and directories.
_MAXIMUM_ENVIRONMENT_BYTES = 64 * 1024
_HOSTNAME = re.compile(r"^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,62}[A-Za-z0-9])?$")
# PST8PDT, <+0530>-5:30, CET-1CEST,M3.5.0,M10.5.0/3
_TIME_ZONE_NAME = r"(?:[A-Za-z]{3,10}|<[+-]?[A-Za-z0-9+-]{3,10}>)"
_TIME_ZONE_RULE = re.compile(
    rf"{_TIME_ZONE_NAME}[+-]?\d{{1,2}}(?::\d\d){{0,2}}(?:{_TIME_ZONE_NAME}[+-]?[\d:]{{0,9}}(?:,[MJ0-9.,/:+-]{{1,60}})?)?",
    re.ASCII,
)
_UIDS = {ADMINISTRATOR.lower(): ADMINISTRATOR_UID, USER.lower(): USER_UID}
_REGISTRIES = {ADMINISTRATOR: ADMINISTRATOR_UID, USER: USER_UID}
# Wine looks names up in the C library; a file bound into C: would be a foreign file system in the drive.
_SPECIAL_FILES = {"hosts": "/etc/hosts", "hostname": "/etc/hostname", "resolv.conf": "/etc/resolv.conf"}


class WindowsPersonality:
    """silo.engine.ports.Personality for images with os=windows."""

    name = PersonalityName.WINDOWS

    def __init__(self, find_time_zone_rule: Callable[[str], str] = str) -> None:
        """`find_time_zone_rule`: the common name of a time zone → its rule as POSIX writes it, "" if it is none."""
        self._find_rule = find_time_zone_rule

    def check(self, config: ContainerConfig, image: Image) -> tuple[str, ...]:
        options.check_options(config)
        options.check_mounts(config)
        if config.hostname and not _HOSTNAME.match(config.hostname):
            raise InvalidRequest(f"invalid hostname format: {config.hostname!r}")
        _user_id(config, image)
        _directory(config, image)
        _environment(image.config.env, config.env)
        _command_line(config, image)
        return self.check_resources(config.resources, config.isolation)

    def check_resources(self, resources: Resources, isolation: Isolation) -> tuple[str, ...]:
        check_processors(resources)
        return discarded(resources, isolation)

    def limits(self, resources: Resources, isolation: Isolation) -> Resources:
        return kernel_limits(resources, isolation, present=os.cpu_count() or 1)

    def plan_main(
        self,
        config: ContainerConfig,
        image: Image,
        *,
        hostname: str,  # noqa: ARG002 - the port's; Wine makes the computer's name of it, upper case, cut to 15 characters
        container_id: str,  # noqa: ARG002 - the port's
    ) -> tuple[ProcessPlan, LaunchPlan | None]:
        user = _user_id(config, image)
        process = ProcessPlan(
            args=(START,),
            env=(
                *(f"{name}={value}" for name, value in UNIX_ENVIRONMENT.items()),
                *self._time_zone((*image.config.env, *config.env)),
            ),
            # Wine programs inherit it, and it has to be on a drive
            cwd=DRIVE_C,
            user=f"{user}:{user}",
            tty=config.tty,
            console_size=config.console_size,
        )
        launch = LaunchPlan(
            command_line=_command_line(config, image),
            directory=_directory(config, image),
            environment=_environment(image.config.env, config.env),
            tty=config.tty,
            console_size=config.console_size,
        )
        return process, launch

    def _time_zone(self, pairs: Iterable[str]) -> tuple[str, ...]:
        """Wine takes its zone from the C library. There is no table of names in a container, so a name is given as its rule."""
        given = [value for name, _, value in (pair.partition("=") for pair in pairs) if name.upper() == "TZ"]
        zone = given[-1] if given else ""
        rule = zone if _TIME_ZONE_RULE.fullmatch(zone) else self._find_rule(zone)
        return (f"TZ={rule}",) if rule and _TIME_ZONE_RULE.fullmatch(rule) else ()

    def scratch_owner(self, config: ContainerConfig, image: Image) -> ScratchOwner | None:
        """Wine refuses a prefix that is another user's; owning the directory itself is enough. The registry of the user who
        had it is put aside, and comes back with that user: Dockerfiles change the USER to and fro."""
        uid = _user_id(config, image)
        own = f"{PREFIX}/user.reg"
        aside = {owner: f"{USER_REGISTRY_DIRECTORY}/{name}/user.reg" for name, owner in _REGISTRIES.items()}
        return ScratchOwner(
            path=PREFIX,
            uid=uid,
            gid=uid,
            keeps=tuple((owner, own, place) for owner, place in aside.items() if owner != uid),
            copies=((aside[uid], own),),
        )

    def describe_command(self, config: ContainerConfig, image: Image) -> tuple[str, tuple[str, ...]]:
        args = merge_command(config, image.config, default=DEFAULT_COMMAND).args
        return args[0], args[1:]

    def plan_exec(
        self,
        config: ContainerConfig,
        image: Image,
        request: ExecRequest,
        *,
        hostname: str,  # noqa: ARG002 - the port's
    ) -> ProcessPlan | LaunchPlan:
        if not request.args or not request.args[0]:
            raise InvalidRequest("No exec command specified")
        if request.privileged:
            raise InvalidRequest("Windows containers do not support exec --privileged")
        if request.user and _parse_user(request.user) != _user_id(config, image):
            raise InvalidRequest(
                f"exec as {request.user} is not possible: all programs of a silo run as the container's user",
                hint="create the container with --user",
            )
        directory = _directory(config, image)
        return LaunchPlan(
            command_line=build_command_line(request.args),
            directory=paths.normalize_path(request.working_dir, working_dir=directory)
            if request.working_dir
            else directory,
            environment=_environment(image.config.env, config.env, request.env),
            tty=request.tty,
            console_size=request.console_size,
        )

    def map_path(self, path: str, *, working_dir: str = "") -> str:
        return paths.map_path(path, working_dir=working_dir or DEFAULT_DIRECTORY)

    def plan_special_mounts(self, files: Mapping[str, Path]) -> tuple[PlannedMount, ...]:
        return tuple(
            PlannedMount(target=_SPECIAL_FILES[name], source=path, kind=MountKind.BIND) for name, path in files.items()
        )

    def default_masked_paths(self) -> tuple[str, ...]:
        return MASKED_PATHS

    def default_readonly_paths(self) -> tuple[str, ...]:
        return READONLY_PATHS

    def default_stop_signal(self) -> int:
        """Any but SIGKILL and SIGINT reaches the program as CTRL_SHUTDOWN_EVENT."""
        return signal.SIGTERM

    def default_stop_timeout_s(self) -> int:
        return STOP_TIMEOUT_S

    def health_command(self, test: tuple[str, ...], image: Image) -> tuple[str, ...]:
        if test[:1] == ("CMD-SHELL",):
            return (*(image.config.shell or DEFAULT_SHELL), *test[1:])
        return test[1:]


def _command_line(config: ContainerConfig, image: Image) -> str:
    command = merge_command(config, image.config, default=DEFAULT_COMMAND)
    escaped = image.config.args_escaped if command.first_from_image else False
    return build_command_line(
        command.args, first_is_escaped=escaped if config.args_escaped is None else config.args_escaped
    )


def _directory(config: ContainerConfig, image: Image) -> str:
    given = config.working_dir or image.config.working_dir
    if not given:
        return DEFAULT_DIRECTORY
    if given[1:2] != ":" and not given.startswith(("\\", "/")):
        raise InvalidRequest(f"the working directory '{given}' is invalid, it needs to be an absolute path")
    return paths.normalize_path(given)


def _user_id(config: ContainerConfig, image: Image) -> int:
    return _parse_user(config.user or image.config.user or ADMINISTRATOR)


def _parse_user(text: str) -> int:
    """`ContainerUser`, in any case, with or without an authority before it."""
    authority, _, name = text.rpartition("\\")
    uid = _UIDS.get(name.lower())
    if uid is None or authority.lower() not in ("", ".", "user manager"):
        raise InvalidRequest(
            f"unable to find user {text}: a Windows container has {ADMINISTRATOR} and {USER}",
            hint=f"--user {ADMINISTRATOR}",
        )
    return uid


def _environment(*layers: Iterable[str]) -> tuple[str, ...]:
    """Later layers win over earlier ones, names without case; a bare NAME takes an earlier layer's away. What is not named
    here comes from the registry (PATH as well)."""
    variables: dict[str, str] = {}
    for pair in (pair for layer in layers for pair in layer):
        name, separator, value = pair.partition("=")
        if not name:
            raise InvalidRequest(f"invalid environment variable: {pair!r}", hint="NAME=VALUE")
        if any(character in pair for character in "\0\n\r"):
            raise InvalidRequest(f"the environment variable {name!r} holds a line break or NUL character")
        variables.pop(name.upper(), None)
        if separator:
            variables[name.upper()] = f"{name}={value}"
    pairs = tuple(variables.values())
    if sum(len(pair.encode("utf-8", "surrogateescape")) + 1 for pair in pairs) > _MAXIMUM_ENVIRONMENT_BYTES:
        raise InvalidRequest(f"the environment is larger than {_MAXIMUM_ENVIRONMENT_BYTES} bytes")
    return pairs
