"""Instructions that change an image's configuration only: words with their variables filled in → the new configuration. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable

import msgspec

from silo.dockerfile.expansion import Expander, expand, expand_words
from silo.dockerfile.options import (
    parse_exposed_ports,
    parse_healthcheck,
    parse_pairs,
    parse_stop_signal,
    parse_user,
    parse_volumes,
)
from silo.dockerfile.syntax import Instruction
from silo.engine.building.commands import command_of
from silo.engine.building.variables import Scope
from silo.engine.signals import parse_signal
from silo.model.image import ImageConfig

_replace = msgspec.structs.replace


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome: `text` is what history says of the step."""

    config: ImageConfig
    text: str
    author: str = ""


class Editor:
    """Changes configurations of one stage."""

    def __init__(self, scope: Scope, *, windows: bool, escape: str) -> None:
        self._scope = scope
        self._windows = windows
        self._escape = escape
        self._cmd_is_ours = False
        """A CMD of this stage survives an ENTRYPOINT; an inherited one does not."""

    def apply(self, instruction: Instruction, config: ImageConfig) -> Metadata | None:
        """None for instructions that do more than this. Raises InvalidRequest."""
        rule = _RULES.get(instruction.name)
        return rule(self, instruction, config) if rule is not None else None

    def _expander(self, instruction: Instruction, config: ImageConfig) -> Expander:
        variables = self._scope.variables(config.env)

        def filled(text: str) -> str:
            return expand(text, variables, escape=self._escape, ignore_case=self._windows, where=instruction.where)

        return filled

    def _env(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        pairs = parse_pairs(instruction, self._expander(instruction, config))
        env = config.env
        for name, value in pairs:
            env = with_variable(env, name, value, ignore_case=self._windows)
        return Metadata(config=_replace(config, env=env), text=f"ENV {_shown(pairs)}")

    def _label(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        pairs = parse_pairs(instruction, self._expander(instruction, config))
        return Metadata(config=_replace(config, labels=config.labels | dict(pairs)), text=f"LABEL {_shown(pairs)}")

    def _arg(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        self._scope.declare(instruction, config.env)
        return Metadata(config=config, text=f"ARG {' '.join(instruction.words)}")

    def _expose(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        variables = self._scope.variables(config.env)

        def words(text: str) -> tuple[str, ...]:
            return expand_words(
                text, variables, escape=self._escape, ignore_case=self._windows, where=instruction.where
            )

        ports = parse_exposed_ports(instruction, words)
        exposed = tuple(sorted({*config.exposed_ports, *ports}))
        return Metadata(config=_replace(config, exposed_ports=exposed), text=f"EXPOSE {' '.join(ports)}")

    def _volume(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        words = parse_volumes(instruction, self._expander(instruction, config))
        volumes = tuple(sorted({*config.volumes, *words}))
        return Metadata(config=_replace(config, volumes=volumes), text=f"VOLUME [{' '.join(words)}]")

    def _user(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        user = parse_user(instruction, self._expander(instruction, config))
        return Metadata(config=_replace(config, user=user), text=f"USER {user}")

    def _stop_signal(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        text = parse_stop_signal(instruction, self._expander(instruction, config))
        parse_signal(text)
        return Metadata(config=_replace(config, stop_signal=text), text=f"STOPSIGNAL {text}")

    def _cmd(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        command = command_of(instruction, config, windows=self._windows)
        self._cmd_is_ours = bool(command.args)
        config = _replace(config, cmd=command.args, args_escaped=command.args_escaped)
        return Metadata(config=config, text=f"CMD {_listed(command.args)}")

    def _entrypoint(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        command = command_of(instruction, config, windows=self._windows)
        config = _replace(
            config,
            entrypoint=command.args,
            args_escaped=command.args_escaped,
            cmd=config.cmd if self._cmd_is_ours else (),
        )
        return Metadata(config=config, text=f"ENTRYPOINT {_listed(command.args)}")

    def _shell(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        return Metadata(config=_replace(config, shell=instruction.words), text=f"SHELL {_listed(instruction.words)}")

    def _on_build(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        trigger = instruction.words[0]
        return Metadata(config=_replace(config, on_build=(*config.on_build, trigger)), text=f"ONBUILD {trigger}")

    def _maintainer(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        return Metadata(config=config, text=f"MAINTAINER {instruction.words[0]}", author=instruction.words[0])

    def _health(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        check = parse_healthcheck(instruction)
        shown = " ".join((*instruction.flags, _listed(check.test)))
        return Metadata(config=_replace(config, healthcheck=check), text=f"HEALTHCHECK {shown}")


_Rule = Callable[[Editor, Instruction, ImageConfig], Metadata]
_RULES: dict[str, _Rule] = {
    "ARG": Editor._arg,
    "CMD": Editor._cmd,
    "ENTRYPOINT": Editor._entrypoint,
    "ENV": Editor._env,
    "EXPOSE": Editor._expose,
    "HEALTHCHECK": Editor._health,
    "LABEL": Editor._label,
    "MAINTAINER": Editor._maintainer,
    "ONBUILD": Editor._on_build,
    "SHELL": Editor._shell,
    "STOPSIGNAL": Editor._stop_signal,
    "USER": Editor._user,
    "VOLUME": Editor._volume,
}


def with_variable(env: tuple[str, ...], name: str, value: str, *, ignore_case: bool) -> tuple[str, ...]:
    """The environment with one variable set, in the place that it had."""
    wanted = name.upper() if ignore_case else name
    pair = f"{name}={value}"
    changed = [
        pair if (known.partition("=")[0].upper() if ignore_case else known.partition("=")[0]) == wanted else known
        for known in env
    ]
    return tuple(changed) if pair in changed else (*changed, pair)


def join_directory(current: str, path: str) -> str:
    """WORKDIR of a Linux image: relative to the one before."""
    return "/" + posixpath.normpath(posixpath.join("/", current, path)).lstrip("/")


def _shown(pairs: Iterable[tuple[str, str]]) -> str:
    return " ".join(f"{name}={value}" for name, value in pairs)


def _listed(words: tuple[str, ...]) -> str:
    return "[" + " ".join(f'"{word}"' for word in words) + "]"
