"""Whole Dockerfiles, in the manner of public ones, against what they say.

To accept a change on purpose: SILO_WRITE_GOLDEN=1 pytest tests/unit/dockerfile/test_golden.py.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from silo.dockerfile.parser import parse_dockerfile
from silo.dockerfile.syntax import Dockerfile, Instruction

GOLDEN = Path(__file__).parents[2] / "golden" / "dockerfiles"
FILES = sorted(GOLDEN.glob("*.dockerfile"))


def _instruction(instruction: Instruction) -> dict[str, Any]:
    lines = f"{instruction.line}-{instruction.last_line}"
    shown: dict[str, Any] = {"lines": lines, "name": instruction.name, "words": instruction.words}
    if instruction.is_json:
        shown["json"] = True
    if instruction.flags:
        shown["flags"] = instruction.flags
    if instruction.heredocs:
        shown["heredocs"] = [[each.name, each.text, each.expand] for each in instruction.heredocs]
    return shown


def _shown(parsed: Dockerfile) -> dict[str, Any]:
    return {
        "escape": parsed.escape,
        "syntax": parsed.syntax,
        "arguments": [_instruction(each) for each in parsed.arguments],
        "stages": [
            {
                "name": stage.name,
                "source": stage.source,
                "platform": stage.platform,
                "instructions": [_instruction(each) for each in (stage.first, *stage.instructions)],
            }
            for stage in parsed.stages
        ],
        "warnings": parsed.warnings,
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_whole_file_says_what_is_expected(path: Path) -> None:
    shown = json.loads(json.dumps(_shown(parse_dockerfile(path.read_bytes(), name=path.name))))
    golden = path.with_suffix(".json")
    if os.environ.get("SILO_WRITE_GOLDEN"):
        golden.write_text(json.dumps(shown, indent=1, ensure_ascii=False) + "\n")
    assert shown == json.loads(golden.read_text())


def test_there_are_files_of_both_personalities() -> None:
    names = [path.stem for path in FILES]
    assert len(names) >= 12
    assert {name.partition("_")[0] for name in names} >= {"linux", "windows"}
