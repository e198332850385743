"""What is escaped is read back as it was, by an independent reading of CommandLineToArgvW's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.errors import InvalidRequest
from silo.windows.command_line import MAXIMUM_LENGTH, build_command_line, escape_argument


def parse(line: str) -> list[str]:
    """CommandLineToArgvW: the first word by its own rules, the others by counting backslashes before quotes."""
    words: list[str] = []
    if line.startswith('"'):
        end = line.find('"', 1)
        words.append(line[1 : end if end >= 0 else None])
        at = end + 1 if end >= 0 else len(line)
    else:
        at = next((i for i, character in enumerate(line) if character in " \t"), len(line))
        words.append(line[:at])
    while True:
        while at < len(line) and line[at] in " \t":
            at += 1
        if at >= len(line):
            return words
        word, quoted = "", False
        while at < len(line) and (quoted or line[at] not in " \t"):
            run = 0
            while at < len(line) and line[at] == "\\":
                run += 1
                at += 1
            if at < len(line) and line[at] == '"':
                word += "\\" * (run // 2)
                if run % 2:
                    word += '"'
                elif quoted and line[at + 1 : at + 2] == '"':
                    word += '"'
                    at += 1
                else:
                    quoted = not quoted
                at += 1
            else:
                word += "\\" * run
                if run == 0:
                    word += line[at]
                    at += 1
        words.append(word)


def test_the_reader_knows_microsofts_examples() -> None:
    assert parse(r'p "a b c" d e') == ["p", "a b c", "d", "e"]
    assert parse(r'p "ab\"c" "\\" d') == ["p", 'ab"c', "\\", "d"]
    assert parse(r"p a\\\b d\"e f\"g h") == ["p", "a\\\\\\b", 'd"e', 'f"g', "h"]
    assert parse(r"p a\\\"b c d") == ["p", 'a\\"b', "c", "d"]
    assert parse(r'p a\\\\"b c" d e') == ["p", "a\\\\b c", "d", "e"]


AWKWARD = st.text(alphabet=st.sampled_from('\\" \tab/üx^%&|'), max_size=12)


@given(st.lists(AWKWARD, max_size=6))
def test_arguments_survive(arguments: list[str]) -> None:
    assert parse(build_command_line(["prog", *arguments])) == ["prog", *arguments]


@given(st.text(alphabet="\\ abü.", min_size=0, max_size=10))
def test_programs_survive(program: str) -> None:
    assert parse(build_command_line([program, "x"])) == [program, "x"]


@pytest.mark.parametrize(
    ("argument", "escaped"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("a b", '"a b"'),
        ("C:\\dir\\", "C:\\dir\\"),
        ("C:\\my dir\\", '"C:\\my dir\\\\"'),
        ('say "hi"', '"say \\"hi\\""'),
        ('\\"', '"\\\\\\""'),
        ("a%PATH%^&", "a%PATH%^&"),
    ],
)
def test_escaped_forms(argument: str, escaped: str) -> None:
    assert escape_argument(argument) == escaped


def test_first_element_verbatim() -> None:
    line = build_command_line(['cmd /S /C "echo hi"', "a b"], first_is_escaped=True)
    assert line == 'cmd /S /C "echo hi" "a b"'
    assert build_command_line(["C:\\Program Files\\x.exe", "y"]) == '"C:\\Program Files\\x.exe" y'


@pytest.mark.parametrize(
    "arguments", [["a\0"], ['a"b'], ["p", "x" * MAXIMUM_LENGTH], ["p", "😀" * (MAXIMUM_LENGTH // 2)]]
)
def test_what_cannot_be(arguments: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        build_command_line(arguments)
