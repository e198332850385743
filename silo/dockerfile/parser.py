"""A Dockerfile's bytes → its stages. Docker's grammar, and Docker's words for what is wrong with a file.

Source: the Dockerfile reference, https://docs.docker.com/reference/dockerfile/. Only what can be told without a variable's
value is told here: names, flags, the number of arguments, how stages follow one another.
"""

from __future__ import annotations

import re

import msgspec

from silo.dockerfile.arguments import INSTRUCTIONS, parse_words
from silo.dockerfile.checks import Checks
from silo.dockerfile.flags import parse_flags
from silo.dockerfile.mistakes import mistake, nearest, shown
from silo.dockerfile.source import LogicalLine, SourceReader
from silo.dockerfile.syntax import BACKSLASH, Dockerfile, Heredoc, Instruction, Stage
from silo.dockerfile.text import decode_text
from silo.dockerfile.words import BLANKS, find_heredocs, split_flags

MAXIMUM_STAGES = 1000
_STAGE_NAME = re.compile(r"[a-z][a-z0-9_.-]*")
_RESERVED_STAGE_NAMES = ("scratch", "context")
_HEREDOC_INSTRUCTIONS = ("RUN", "COPY", "ADD")
_NO_TRIGGERS = ("FROM", "MAINTAINER")


def parse_dockerfile(untrusted: bytes, *, name: str = "Dockerfile") -> Dockerfile:
    """A whole file. `name` is what errors and warnings call it.

    Raises InvalidRequest, whose brief begins with `name:line: `, with a hint where one helps.
    """
    reader = SourceReader(decode_text(untrusted, name=name), name=name)
    checks = Checks.parse(reader.directives.get("check", ""), where=name)
    instructions = []
    while (line := reader.read_line()) is not None:
        instructions.append(_read_instruction(reader, line, name, checks))
    if not instructions:
        raise mistake(name, "the file holds no instructions", hint="begin with FROM")
    arguments, stages = _group(instructions, name, checks)
    return Dockerfile(
        escape=reader.escape,
        syntax=reader.directives.get("syntax", ""),
        arguments=arguments,
        stages=stages,
        warnings=checks.finish(),
    )


def parse_trigger(untrusted: str, *, escape: str = BACKSLASH, name: str = "ONBUILD") -> Instruction:
    """One ONBUILD trigger, as an image's configuration holds it. Raises InvalidRequest."""
    instruction = parse_instruction(untrusted, escape=escape, name=name)
    _check_trigger(instruction)
    return instruction


def parse_instruction(untrusted: str, *, escape: str = BACKSLASH, name: str) -> Instruction:
    """A text that is one instruction, called `name` in errors. Raises InvalidRequest."""
    text = decode_text(untrusted.encode("utf-8", "replace"), name=name)
    reader = SourceReader(text, name=name, escape=escape, has_directives=False)
    line = reader.read_line()
    if line is None:
        raise mistake(name, "it holds no instruction")
    instruction = _read_instruction(reader, line, name, Checks())
    if reader.read_line() is not None:
        raise mistake(f"{name}:{reader.line}", "it holds more than one instruction")
    return instruction


def _read_instruction(reader: SourceReader, line: LogicalLine, file: str, checks: Checks) -> Instruction:
    instruction = _parse_instruction(line, file, reader.escape)
    checks.look_at(instruction, has_blank=line.has_blank)
    heredocs = _read_heredocs(reader, instruction)
    if not heredocs:
        return instruction
    words = instruction.words
    if instruction.name == "ONBUILD":
        bodies = "".join(f"\n{heredoc.text}{heredoc.name}" for heredoc in heredocs)
        words = (instruction.text + bodies,)
    return msgspec.structs.replace(instruction, words=words, heredocs=heredocs, last_line=reader.line)


def _parse_instruction(line: LogicalLine, file: str, escape: str) -> Instruction:
    where = f"{file}:{line.first}"
    original = line.text.strip()
    if not original:
        raise mistake(where, "a continued line holds no instruction", hint=f"remove the {escape} that stands alone")
    name, *rest = BLANKS.split(original, maxsplit=1)
    upper = name.upper()
    if upper not in INSTRUCTIONS:
        raise mistake(where, f"unknown instruction: {shown(name)[1:-1]}", hint=nearest(upper, INSTRUCTIONS))
    flags, text = split_flags(rest[0] if rest else "", escape=escape)
    parse_flags(upper, flags, where=where)
    words, is_json = parse_words(upper, text, escape=escape, where=where)
    instruction = Instruction(
        name=upper,
        flags=flags,
        text=text,
        words=words,
        is_json=is_json,
        line=line.first,
        last_line=line.last,
        original=original,
        file=file,
    )
    if upper == "ONBUILD":
        _check_trigger(_triggered(instruction, escape))
    return instruction


def _triggered(instruction: Instruction, escape: str) -> Instruction:
    line = LogicalLine(text=instruction.text, first=instruction.line, last=instruction.last_line, has_blank=False)
    name = BLANKS.split(instruction.text, maxsplit=1)[0].upper()
    if name == "ONBUILD":
        raise mistake(instruction.where, "chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    return _parse_instruction(line, instruction.file, escape)


def _check_trigger(trigger: Instruction) -> None:
    if trigger.name in _NO_TRIGGERS:
        raise mistake(trigger.where, f"{trigger.name} isn't allowed as an ONBUILD trigger")


def _read_heredocs(reader: SourceReader, instruction: Instruction) -> tuple[Heredoc, ...]:
    holder = instruction
    if instruction.name == "ONBUILD" and "<<" in instruction.text:
        holder = _triggered(instruction, reader.escape)
    if holder.name not in _HEREDOC_INSTRUCTIONS or holder.is_json:
        return ()
    return tuple(
        Heredoc(
            name=start.name,
            text=reader.read_heredoc(start.name, strip_tabs=start.strip_tabs, where=instruction.where),
            expand=start.expand,
        )
        for start in find_heredocs(instruction.original)
    )


def _group(
    instructions: list[Instruction], file: str, checks: Checks
) -> tuple[tuple[Instruction, ...], tuple[Stage, ...]]:
    starts = [index for index, instruction in enumerate(instructions) if instruction.name == "FROM"]
    before = instructions[: starts[0]] if starts else instructions
    for instruction in before:
        if instruction.name != "ARG":
            what = f"no build stage in current context: {instruction.name} before the first FROM"
            raise mistake(instruction.where, what, hint="only ARG may stand before FROM")
    if not starts:
        raise mistake(file, "dockerfile contains no stages to build", hint="add a FROM instruction")
    if len(starts) > MAXIMUM_STAGES:
        raise mistake(file, f"{len(starts)} stages; at most {MAXIMUM_STAGES} can be built")
    stages: list[Stage] = []
    names: dict[str, int] = {}
    for index, (start, end) in enumerate(zip(starts, [*starts[1:], len(instructions)], strict=True)):
        stage = _stage(instructions[start], tuple(instructions[start + 1 : end]), index)
        if stage.name in names:
            what = f"{stage.name} stage name already used in line {names[stage.name]}"
            raise mistake(stage.first.where, what, hint="give every stage a name of its own")
        if stage.name:
            names[stage.name] = stage.first.line
        if stage.name in _RESERVED_STAGE_NAMES:
            checks.warn("ReservedStageName", stage.first, f"the stage name {stage.name} is reserved")
        stages.append(stage)
    return tuple(before), tuple(stages)


def _stage(first: Instruction, instructions: tuple[Instruction, ...], index: int) -> Stage:
    words = first.words
    named = len(words) == 3 and words[1].lower() == "as"
    if not named and len(words) != 1:
        raise mistake(
            first.where, "FROM requires either one or three arguments", hint="FROM image, or FROM image AS name"
        )
    name = words[2].lower() if named else ""
    if named and not _STAGE_NAME.fullmatch(name):
        what = f"invalid name for build stage: {shown(words[2])}, name can't start with a number or contain symbols"
        raise mistake(first.where, what, hint="letters, digits, - _ and . may follow a letter")
    return Stage(
        name=name,
        source=words[0],
        platform=parse_flags("FROM", first.flags, where=first.where).text("platform"),
        first=first,
        instructions=instructions,
        index=index,
    )
