"""Dockerfile instructions in `commit --change` and `import --change`: text → a changed image configuration."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable

import msgspec

from silo.errors import InvalidRequest
from silo.model.image import ImageConfig


def apply_instructions(config: ImageConfig, instructions: Iterable[str], *, shell: tuple[str, ...]) -> ImageConfig:
    """Apply CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and WORKDIR in order.

    `shell` is what the shell form of CMD and ENTRYPOINT runs through. Raises InvalidRequest naming the instruction.
    """
    has_command = False
    for text in instructions:
        word, _, rest = text.strip().partition(" ")
        config = _apply(config, word.upper(), rest.strip(), text, shell)
        has_command = has_command or word.upper() == "CMD"
        if word.upper() == "ENTRYPOINT" and not has_command:
            # the image's arguments were for another program
            config = msgspec.structs.replace(config, cmd=())
    return config


def _apply(config: ImageConfig, word: str, rest: str, text: str, shell: tuple[str, ...]) -> ImageConfig:
    if not rest:
        raise InvalidRequest(f"the change '{text}' has no argument")
    replace = msgspec.structs.replace
    match word:
        case "CMD":
            return replace(config, cmd=_command(rest, shell))
        case "ENTRYPOINT":
            return replace(config, entrypoint=_command(rest, shell))
        case "ENV":
            pairs = _pairs(rest, text)
            kept = tuple(pair for pair in config.env if pair.partition("=")[0] not in pairs)
            return replace(config, env=(*kept, *(f"{name}={value}" for name, value in pairs.items())))
        case "LABEL":
            return replace(config, labels=config.labels | _pairs(rest, text))
        case "EXPOSE":
            ports = (port if "/" in port else f"{port}/tcp" for port in rest.split())
            return replace(config, exposed_ports=tuple(dict.fromkeys((*config.exposed_ports, *ports))))
        case "VOLUME":
            return replace(config, volumes=tuple(dict.fromkeys((*config.volumes, *_words(rest)))))
        case "USER":
            return replace(config, user=rest)
        case "WORKDIR":
            return replace(config, working_dir=rest)
        case "STOPSIGNAL":
            return replace(config, stop_signal=rest)
        case "ONBUILD":
            return replace(config, on_build=(*config.on_build, rest))
    raise InvalidRequest(f"{word} is not a valid change command")


def _words(rest: str) -> tuple[str, ...]:
    if not rest.startswith("["):
        return tuple(rest.split())
    try:
        return msgspec.convert(json.loads(rest), tuple[str, ...])
    except (ValueError, msgspec.ValidationError):
        raise InvalidRequest(f"{rest} is not a JSON list of strings") from None


def _command(rest: str, shell: tuple[str, ...]) -> tuple[str, ...]:
    return _words(rest) if rest.startswith("[") else (*shell, rest)


def _pairs(rest: str, text: str) -> dict[str, str]:
    """`NAME=VALUE …` with quotes, or the old `NAME VALUE`."""
    first = rest.split(maxsplit=1)
    if "=" not in first[0]:
        if len(first) != 2:
            raise InvalidRequest(f"the change '{text}' has no value")
        return {first[0]: first[1]}
    pairs = {}
    for word in shlex.split(rest):
        name, separator, value = word.partition("=")
        if not separator or not name:
            raise InvalidRequest(f"the change '{text}' is not NAME=VALUE")
        pairs[name] = value
    return pairs
