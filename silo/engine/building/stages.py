"""Which stages a build needs, in order, and how many steps they have. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from silo.dockerfile.flags import parse_flags
from silo.dockerfile.syntax import Dockerfile, Instruction, Stage
from silo.errors import InvalidRequest


def find_stage(stages: Sequence[Stage], word: str, *, by_index: bool = False) -> Stage | None:
    """An earlier stage by its name, or by its number where that is allowed (`--from=0`)."""
    named = next((stage for stage in reversed(stages) if stage.name and stage.name == word.lower()), None)
    if named is None and by_index and word.isascii() and word.isdigit() and int(word) < len(stages):
        return stages[int(word)]
    return named


def find_target(dockerfile: Dockerfile, target: str) -> Stage:
    """The stage that `--target` names, the last without one. Raises InvalidRequest."""
    if not target:
        return dockerfile.stages[-1]
    found = find_stage(dockerfile.stages, target, by_index=True)
    if found is None:
        names = ", ".join(stage.name for stage in dockerfile.stages if stage.name) or "no stage has a name"
        raise InvalidRequest(f"failed to reach build target {target} in Dockerfile", hint=names)
    return found


def choose_stages(dockerfile: Dockerfile, target: Stage, source_of: Callable[[Stage], str]) -> tuple[Stage, ...]:
    """The target and all that it takes from, in the file's order. `source_of` is a FROM's word with its variables filled in."""
    needed: set[int] = set()
    pending = [target]
    while pending:
        stage = pending.pop()
        if stage.index in needed:
            continue
        needed.add(stage.index)
        earlier = dockerfile.stages[: stage.index]
        parent = find_stage(earlier, source_of(stage))
        if parent is not None:
            pending.append(parent)
        for instruction in stage.instructions:
            for word in sources_of(instruction):
                found = find_stage(earlier, word, by_index=True)
                if found is not None:
                    pending.append(found)
    return tuple(stage for stage in dockerfile.stages if stage.index in needed)


def sources_of(instruction: Instruction) -> tuple[str, ...]:
    """The stages or images that an instruction takes files from."""
    if instruction.name not in ("COPY", "RUN"):
        return ()
    flags = parse_flags(instruction.name, instruction.flags, where=instruction.where)
    if instruction.name == "COPY":
        return tuple(filter(None, (flags.text("from"),)))
    fields = (field.partition("=") for mount in flags.list("mount") for field in mount.split(","))
    return tuple(value for name, _, value in fields if name.strip().lower() == "from")


def count_steps(dockerfile: Dockerfile, stages: Sequence[Stage], *, labels: bool) -> int:
    """Every ARG before the first FROM, every FROM and what follows; one for the labels of the command line."""
    return len(dockerfile.arguments) + sum(1 + len(stage.instructions) for stage in stages) + labels
