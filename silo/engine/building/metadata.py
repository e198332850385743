"""Instructions that change an image's configuration only: words with their variables filled in → the new configuration. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from itertools import chain

import msgspec

from silo.dockerfile.expansion import expand_words
from silo.dockerfile.flags import Flags, parse_flags
from silo.dockerfile.syntax import Instruction
from silo.engine.building.commands import command_of
from silo.engine.building.variables import Scope
from silo.engine.signals import parse_signal
from silo.errors import InvalidRequest
from silo.model.image import Healthcheck, ImageConfig

_replace = msgspec.structs.replace
_DURATION = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_UNIT_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PORT = re.compile(r"(?:.*:)?(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
_MOST_PORTS = 65535


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
        """None for instructions that do more than this. Raises InvalidRequest with file and line."""
        rule = _RULES.get(instruction.name)
        if rule is None:
            return None
        try:
            return rule(self, instruction, config)
        except InvalidRequest as error:
            if error.brief.startswith(instruction.file):
                raise
            raise InvalidRequest(
                f"{instruction.where}: {error.brief}", details=error.details, hint=error.hint
            ) from error

    def _fill(self, text: str, instruction: Instruction, config: ImageConfig) -> str:
        return self._scope.fill(text, config.env, instruction)

    def _pairs(self, instruction: Instruction, config: ImageConfig) -> list[tuple[str, str]]:
        """All of one instruction see the environment before it."""
        pairs = []
        for word in instruction.words:
            name, _, value = word.partition("=")
            pairs.append((self._fill(name, instruction, config), self._fill(value, instruction, config)))
            if not pairs[-1][0]:
                raise InvalidRequest(f"{instruction.name} names can not be blank")
        return pairs

    def _env(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        pairs = self._pairs(instruction, config)
        env = config.env
        for name, value in pairs:
            env = with_variable(env, name, value, ignore_case=self._windows)
        return Metadata(config=_replace(config, env=env), text=f"ENV {_shown(pairs)}")

    def _label(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        pairs = self._pairs(instruction, config)
        return Metadata(config=_replace(config, labels=config.labels | dict(pairs)), text=f"LABEL {_shown(pairs)}")

    def _arg(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        self._scope.declare(instruction, config.env)
        return Metadata(config=config, text=f"ARG {' '.join(instruction.words)}")

    def _expose(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        variables = self._scope.variables(config.env)
        words = list(
            chain.from_iterable(
                expand_words(word, variables, escape=self._escape, ignore_case=self._windows, where=instruction.where)
                for word in instruction.words
            )
        )
        ports = list(chain.from_iterable(map(parse_ports, words)))
        exposed = tuple(sorted({*config.exposed_ports, *ports}))
        return Metadata(config=_replace(config, exposed_ports=exposed), text=f"EXPOSE {' '.join(ports)}")

    def _volume(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        words = [self._fill(word, instruction, config) for word in instruction.words]
        if not all(word.strip() for word in words):
            raise InvalidRequest("VOLUME specified can not be an empty string")
        volumes = tuple(sorted({*config.volumes, *words}))
        return Metadata(config=_replace(config, volumes=volumes), text=f"VOLUME [{' '.join(words)}]")

    def _user(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        user = self._fill(instruction.words[0], instruction, config)
        if not user:
            raise InvalidRequest("USER names nobody: the variables in it are empty")
        return Metadata(config=_replace(config, user=user), text=f"USER {user}")

    def _stop_signal(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        text = self._fill(instruction.words[0], instruction, config)
        parse_signal(text)
        return Metadata(config=_replace(config, stop_signal=text), text=f"STOPSIGNAL {text}")

    def _cmd(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        command = command_of(instruction.words, is_json=instruction.is_json, config=config, windows=self._windows)
        self._cmd_is_ours = bool(command.args)
        config = _replace(config, cmd=command.args, args_escaped=command.args_escaped)
        return Metadata(config=config, text=f"CMD {_listed(command.args)}")

    def _entrypoint(self, instruction: Instruction, config: ImageConfig) -> Metadata:
        command = command_of(instruction.words, is_json=instruction.is_json, config=config, windows=self._windows)
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
        kind, *rest = instruction.words
        if kind == "NONE":
            return Metadata(config=_replace(config, healthcheck=Healthcheck(test=("NONE",))), text="HEALTHCHECK NONE")
        flags = parse_flags("HEALTHCHECK", instruction.flags, where=instruction.where)
        test = ("CMD", *rest) if instruction.is_json else ("CMD-SHELL", *rest)
        check = parse_health_flags(flags, test)
        shown = " ".join((*instruction.flags, _listed(test)))
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


def parse_ports(text: str) -> list[str]:
    """`80`, `80/udp`, `8000-8002`: one word for each port. Raises InvalidRequest."""
    match = _PORT.fullmatch(text)
    first = int(match[1]) if match else -1
    last = int(match[2]) if match and match[2] else first
    if match is None or not 0 < first <= last <= _MOST_PORTS:
        raise InvalidRequest(f"invalid containerPort: {text}", hint="such as 80, 53/udp or 8000-8010")
    return [f"{port}/{(match[3] or 'tcp').lower()}" for port in range(first, last + 1)]


def parse_health_flags(flags: Flags, test: tuple[str, ...]) -> Healthcheck:
    """Raises InvalidRequest."""
    default = Healthcheck()
    retries = flags.text("retries")
    if retries and not (retries.isascii() and retries.isdigit()):
        raise InvalidRequest(f"--retries={retries} is not a number")
    return Healthcheck(
        test=test,
        interval_s=_seconds(flags, "interval") or default.interval_s,
        timeout_s=_seconds(flags, "timeout") or default.timeout_s,
        start_period_s=_seconds(flags, "start-period"),
        start_interval_s=_seconds(flags, "start-interval") or default.start_interval_s,
        retries=int(retries or 0) or default.retries,
    )


def _seconds(flags: Flags, name: str) -> float:
    """0 when nothing is said."""
    text = flags.text(name)
    if text in ("", "0"):
        return 0.0
    parts = _DURATION.findall(text)
    if "".join(number + unit for number, unit in parts) != text:
        raise InvalidRequest(f"--{name}={text} is not a duration", hint="such as 30s or 1m30s")
    seconds = sum(float(number) * _UNIT_S[unit] for number, unit in parts)
    if 0 < seconds < 0.001:
        raise InvalidRequest(f"Interval {text!r} cannot be less than 1ms")
    return seconds


def _shown(pairs: list[tuple[str, str]]) -> str:
    return " ".join(f"{name}={value}" for name, value in pairs)


def _listed(words: tuple[str, ...]) -> str:
    return "[" + " ".join(f'"{word}"' for word in words) + "]"
