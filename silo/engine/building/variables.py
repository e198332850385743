"""Build arguments and environment: which variables an instruction sees. Pure.

Docker's scopes: ARGs before the first FROM are for FROM lines, and give defaults to `ARG NAME` in stages; an ARG in a stage is seen
from its line on, also by stages built on that one; ENV wins over ARG; proxies need no declaration.
Source: https://docs.docker.com/reference/dockerfile/#arg
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from silo.dockerfile.expansion import expand
from silo.dockerfile.options import parse_arguments
from silo.dockerfile.syntax import Instruction

PREDEFINED = frozenset(
    name
    for word in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (word, word.lower())
)
_NOT_FOR_US = "BUILDKIT_"
_WINDOWS_PATH = "c:\\Windows\\System32;c:\\Windows"


def platform_arguments(build_platform: str, target_platform: str) -> dict[str, str]:
    """The platform ARGs; a platform is `os/architecture[/variant]`."""
    return _arguments("BUILD", build_platform) | target_arguments(target_platform)


def target_arguments(platform: str) -> dict[str, str]:
    """TARGETPLATFORM and its parts."""
    return _arguments("TARGET", platform)


def _arguments(prefix: str, platform: str) -> dict[str, str]:
    os_name, _, rest = platform.partition(":")[0].partition("/")
    architecture, _, variant = rest.partition("/")
    architecture = architecture or "amd64"
    return {
        f"{prefix}PLATFORM": "/".join(part for part in (os_name, architecture, variant) if part),
        f"{prefix}OS": os_name,
        f"{prefix}ARCH": architecture,
        f"{prefix}VARIANT": variant,
    }


class Arguments:
    """The arguments of a whole build: what was given, and what stands before the first FROM."""

    def __init__(self, given: Mapping[str, str], platforms: Mapping[str, str], *, escape: str) -> None:
        self.given = dict(given)
        self.platforms = dict(platforms)
        self.escape = escape
        self._used: set[str] = set()
        self._global: dict[str, str] = {}

    def declare_global(self, instruction: Instruction) -> None:
        """An ARG before the first FROM. Raises InvalidRequest."""
        for argument in parse_arguments(instruction):
            name, value = self._value(argument, instruction, self.for_from())
            if value is not None:
                self._global[name] = value

    def for_from(self) -> dict[str, str]:
        """What FROM lines see."""
        return {**self.platforms, **self._global}

    def value_in_stage(
        self,
        argument: tuple[str, str | None],
        instruction: Instruction,
        variables: Mapping[str, str],
        *,
        ignore_case: bool,
    ) -> tuple[str, str | None]:
        """(name, value or None) of `ARG NAME[=default]` in a stage."""
        name, value = self._value(argument, instruction, variables, ignore_case=ignore_case)
        if value is None:
            value = self._global.get(name, self.platforms.get(name))
        return name, value

    def _value(
        self,
        argument: tuple[str, str | None],
        instruction: Instruction,
        variables: Mapping[str, str],
        *,
        ignore_case: bool = False,
    ) -> tuple[str, str | None]:
        def filled(text: str) -> str:
            return expand(text, variables, escape=self.escape, ignore_case=ignore_case, where=instruction.where)

        name, default = filled(argument[0]), argument[1]
        if name in self.given:
            self._used.add(name)
            return name, self.given[name]
        return name, None if default is None else filled(default)

    def predefined(self) -> dict[str, str]:
        """What RUN sees without a declaration."""
        return {name: value for name, value in self.given.items() if name in PREDEFINED}

    def unused(self) -> list[str]:
        """What was given and no ARG asked for."""
        return sorted(
            name
            for name in self.given
            if name not in self._used and name not in PREDEFINED and not name.startswith(_NOT_FOR_US)
        )


class Scope:
    """What the instructions of one stage see."""

    def __init__(self, arguments: Arguments, *, windows: bool, inherited: Mapping[str, str] | None = None) -> None:
        self._arguments = arguments
        self._windows = windows
        self.declared: dict[str, str] = dict(inherited or {})

    def declare(self, instruction: Instruction, env: Iterable[str]) -> None:
        """An ARG. Raises InvalidRequest."""
        for argument in parse_arguments(instruction):
            name, value = self._arguments.value_in_stage(
                argument, instruction, self.variables(env), ignore_case=self._windows
            )
            if value is not None:
                self.declared[name] = value

    def variables(self, env: Iterable[str]) -> dict[str, str]:
        """For the expansion of words: arguments, then the environment over them."""
        found = dict(self.declared)
        if self._windows:
            # The registry's own, which no layer has as an ENV: so that PATH=C:\tools;$PATH means what it says.
            found["PATH"] = _WINDOWS_PATH
        for pair in env:
            name, _, value = pair.partition("=")
            if self._windows:
                for known in [known for known in found if known.upper() == name.upper()]:
                    del found[known]
            found[name] = value
        return found

    def for_run(self, env: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """(all that RUN's environment gets, what of it the cache knows it by), as NAME=value."""
        taken = {self._key(pair.partition("=")[0]) for pair in env}
        known = {name: value for name, value in self.declared.items() if self._key(name) not in taken}
        given = {name: value for name, value in self._arguments.predefined().items() if self._key(name) not in taken}
        return _pairs(given | known), _pairs(known)

    def fill(self, text: str, env: Iterable[str], instruction: Instruction) -> str:
        """One word with its variables. Raises InvalidRequest."""
        return expand(
            text,
            self.variables(env),
            escape=self._arguments.escape,
            ignore_case=self._windows,
            where=instruction.where,
        )

    def _key(self, name: str) -> str:
        return name.upper() if self._windows else name


def _pairs(values: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}={value}" for name, value in sorted(values.items()))
