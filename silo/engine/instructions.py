"""Dockerfile instructions in `commit --change` and `import --change`: text → a changed image configuration. Pure.

They are those of a build, with the variables that the configuration's ENV has. For Windows the escape character is the backtick,
so that paths keep their backslashes.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from silo.dockerfile.expansion import EXPANDED, expand
from silo.dockerfile.options import parse_path
from silo.dockerfile.parser import parse_instruction
from silo.engine.building.metadata import Editor, join_directory
from silo.engine.building.variables import Arguments, Scope
from silo.errors import InvalidRequest
from silo.model.image import ImageConfig

_CHANGES = frozenset(
    ("CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR")
)
_NAME = "--change"


def _single_backslashes(text: str) -> str:
    """Docker's escape character here is the backslash, so that its users write two; JSON has rules of its own."""
    name, _, rest = text.strip().partition(" ")
    return text if name.upper() not in EXPANDED or rest.lstrip().startswith("[") else text.replace("\\\\", "\\")


def join_windows_directory(current: str, path: str) -> str:
    """WORKDIR of a Windows image: relative to the one before."""
    if path[1:2] == ":" or path.startswith(("\\", "/")):
        return path
    return (current or "C:").rstrip("\\/") + "\\" + path


def apply_instructions(config: ImageConfig, instructions: Iterable[str], *, windows: bool) -> ImageConfig:
    """Apply them in order. `windows`: whose image it is. Raises InvalidRequest naming the instruction."""
    escape = "`" if windows else "\\"
    scope = Scope(Arguments({}, {}, escape=escape), windows=windows)
    editor = Editor(scope, windows=windows, escape=escape)
    for text in instructions:
        if windows:
            text = _single_backslashes(text)
        instruction = parse_instruction(text, escape=escape, name=_NAME)
        if instruction.name not in _CHANGES:
            raise InvalidRequest(f"{instruction.name} is not a valid change command", hint=", ".join(sorted(_CHANGES)))
        if instruction.name == "WORKDIR":
            variables = scope.variables(config.env)
            path = parse_path(
                instruction,
                lambda word: expand(word, variables, escape=escape, ignore_case=windows, where=_NAME),  # noqa: B023 - used at once
            )
            join = join_windows_directory if windows else join_directory
            directory = join(config.working_dir, path)
            config = msgspec.structs.replace(config, working_dir=directory)
            continue
        changed = editor.apply(instruction, config)
        assert changed is not None
        config = changed.config
    return config
