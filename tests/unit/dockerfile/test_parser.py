"""Docker's grammar piece by piece, and every way in which a file is refused, with its line and hint."""

from __future__ import annotations

import pytest

from silo.dockerfile.parser import parse_dockerfile, parse_trigger
from silo.dockerfile.syntax import Instruction
from silo.dockerfile.text import MAXIMUM_FILE_BYTES
from silo.errors import InvalidRequest


def _only(text: str) -> Instruction:
    """The instruction after FROM."""
    return parse_dockerfile(f"FROM a\n{text}".encode()).stages[0].instructions[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Dockerfile: the file holds no instructions (begin with FROM)"),
        ("# only a comment\n\n", "Dockerfile: the file holds no instructions"),
        ("ARG A=1", "Dockerfile: dockerfile contains no stages to build"),
        ("RUN x\nFROM a", "Dockerfile:1: no build stage in current context: RUN before the first FROM"),
        ("FROM a\n\nRNU x", "Dockerfile:3: unknown instruction: RNU (did you mean RUN?)"),
        ("FORM a", "Dockerfile:1: unknown instruction: FORM (did you mean FROM?)"),
        ("FROM a\n\x1b[31mX y", "Dockerfile:2: unknown instruction: �[31mX"),
        ("FROM", "Dockerfile:1: FROM requires at least one argument"),
        ("FROM a b", "Dockerfile:1: FROM requires either one or three arguments"),
        ("FROM a IS b", "Dockerfile:1: FROM requires either one or three arguments"),
        ("FROM a AS 1b", 'Dockerfile:1: invalid name for build stage: "1b", name can\'t start with a number'),
        ("FROM a AS b/c", 'Dockerfile:1: invalid name for build stage: "b/c"'),
        ("FROM a AS x\nFROM b\nFROM c AS X", "Dockerfile:3: x stage name already used in line 1"),
        ("FROM --platfrom=x a", "Dockerfile:1: unknown flag: --platfrom (did you mean --platform?)"),
        ("FROM a\nCMD --x", "Dockerfile:2: unknown flag: --x (CMD has no flags)"),
        ("FROM a\nCOPY --from x y", "Dockerfile:2: missing a value on flag: --from"),
        ("FROM a\nCOPY --link=maybe x y", 'Dockerfile:2: expecting boolean value for flag --link, not: "maybe"'),
        ("FROM a\nCOPY --link= x y", "Dockerfile:2: missing a value on flag: --link"),
        ("FROM a\nCOPY --from=a --from=b x y", "Dockerfile:2: duplicate flag specified: --from"),
        ("FROM a\nCOPY x", "Dockerfile:2: COPY requires at least two arguments, but only one was provided"),
        ("FROM a\nADD", "Dockerfile:2: ADD requires at least two arguments"),
        ('FROM a\nCOPY ["x"]', "Dockerfile:2: COPY requires at least two arguments"),
        ("FROM a\nCOPY x <<EOF\nEOF", "Dockerfile:2: COPY cannot accept a heredoc as a destination"),
        ('FROM a\nCMD ["x", 1]', "Dockerfile:2: when using JSON array syntax, arrays must be comprised of strings"),
        ("FROM a\nENV A", "Dockerfile:2: ENV must have two arguments (write ENV A=value)"),
        ("FROM a\nENV A=b c", 'Dockerfile:2: can\'t find = in "c"'),
        ("FROM a\nENV =b", "Dockerfile:2: ENV names can not be blank"),
        ("FROM a\nLABEL", "Dockerfile:2: LABEL requires at least one argument"),
        ("FROM a\nARG", "Dockerfile:2: ARG requires at least one argument"),
        ("FROM a\nARG =x", "Dockerfile:2: ARG names can not be blank"),
        ("FROM a\nEXPOSE", "Dockerfile:2: EXPOSE requires at least one argument"),
        ("FROM a\nVOLUME []", "Dockerfile:2: VOLUME requires at least one argument"),
        ('FROM a\nVOLUME [" "]', "Dockerfile:2: VOLUME specified can not be an empty string"),
        ("FROM a\nUSER", "Dockerfile:2: USER requires exactly one argument"),
        ("FROM a\nWORKDIR ", "Dockerfile:2: WORKDIR requires exactly one argument"),
        ("FROM a\nSHELL sh -c", "Dockerfile:2: SHELL requires the arguments to be in JSON form"),
        ("FROM a\nSHELL []", "Dockerfile:2: SHELL requires at least one argument"),
        ("FROM a\nHEALTHCHECK", "Dockerfile:2: HEALTHCHECK requires at least one argument"),
        ("FROM a\nHEALTHCHECK NONE x", "Dockerfile:2: HEALTHCHECK NONE takes no arguments"),
        ("FROM a\nHEALTHCHECK CMD []", "Dockerfile:2: missing command after HEALTHCHECK CMD"),
        ("FROM a\nHEALTHCHECK curl x", 'Dockerfile:2: unknown type "curl" in HEALTHCHECK (try CMD)'),
        ("FROM a\nONBUILD", "Dockerfile:2: ONBUILD requires exactly one argument"),
        ("FROM a\nONBUILD onbuild RUN x", "Dockerfile:2: chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("FROM a\nONBUILD FROM b", "Dockerfile:2: FROM isn't allowed as an ONBUILD trigger"),
        ("FROM a\nONBUILD CPY a b", "Dockerfile:2: unknown instruction: CPY (did you mean COPY?)"),
        ("FROM a\nRUN <<A <<B\nA\nx\n", 'Dockerfile:2: unterminated heredoc (a line with "B" alone ends it)'),
        ("# escape=x\nFROM a", 'Dockerfile:1: invalid escape token "x"'),
        ("# escape=`\n# Escape=`\nFROM a", "Dockerfile:2: only one escape parser directive can be used"),
        ("# check=skp=all\nFROM a", 'Dockerfile: invalid check option "skp=all"'),
        ("# check=error=true\nFROM a\nMAINTAINER m\nENV a b", "Dockerfile:3: MAINTAINER is deprecated"),
        ("FROM a\nRUN \0", "Dockerfile:2: the line holds a NUL character"),
        ("\\\n\n", "Dockerfile:1: a continued line holds no instruction"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_dockerfile(text.encode())
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("untrusted", "message"),
    [
        (b"FROM a\nRUN \xff\n", "build/Dockerfile.win:2: byte 11 is not UTF-8"),
        ("FROM a".encode("utf-16"), "build/Dockerfile.win: the file is UTF-16"),
        (b"#" * (MAXIMUM_FILE_BYTES + 1), "build/Dockerfile.win: 1048577 bytes; at most 1048576 can be read"),
    ],
)
def test_what_is_no_text_is_refused_under_the_name_given(untrusted: bytes, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_dockerfile(untrusted, name="build/Dockerfile.win")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("head", "escape"),
    [
        ("# escape=`\n", "`"),
        ("#escape = ` \r\n", "`"),
        ("  # syntax=x\n# EsCaPe=`\n", "`"),
        ("# a comment\n# escape=`\n", "\\"),
        ("\n# escape=`\n", "\\"),
        ("# unknown=x\n# escape=`\n", "\\"),
        ("# escape=\n", "\\"),
        ("ARG A\n# escape=`\n", "\\"),
    ],
)
def test_directives_stand_at_the_very_top(head: str, escape: str) -> None:
    assert parse_dockerfile(f"{head}FROM a\n".encode()).escape == escape


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ("RUN a \\\nb", "a b"),
        ("RUN a\\  \t\nb", "ab"),
        ("RUN a \\\r\n  b\r\n", "a   b"),
        ("RUN a \\\n# c \\\n  # d\nb", "a b"),
        ("RUN a \\\\\nCMD b", "a \\\\"),
        ("RUN a `\nCMD b", "a `"),
        ("RUN a \\", "a"),
        ("\\\nRUN a", "a"),
        ("RUN a\u2028b", "a\u2028b"),
    ],
)
def test_lines_are_joined(lines: str, text: str) -> None:
    assert _only(lines).text == text


def test_an_empty_line_among_continued_ones_is_dropped_with_a_warning() -> None:
    parsed = parse_dockerfile(b"FROM a\nRUN b \\\n\n  \n  c\nRUN d")
    assert [each.text for each in parsed.stages[0].instructions] == ["b   c", "d"]
    assert parsed.warnings == ("Dockerfile:2: empty continuation line found in: RUN b   c (NoEmptyContinuation)",)


@pytest.mark.parametrize("skip", ["all", "x, noemptycontinuation", "NoEmptyContinuation;experimental=all"])
def test_the_check_directive_silences_rules(skip: str) -> None:
    assert parse_dockerfile(f"# check=skip={skip}\nFROM a\nRUN b \\\n\nc".encode()).warnings == ()


@pytest.mark.parametrize(
    ("text", "words", "is_json"),
    [
        ('RUN ["a", "b c"]', ("a", "b c"), True),
        ("RUN ['a']", ("['a']",), False),
        ('RUN ["a",]', ('["a",]',), False),
        ('RUN ["a"] && b', ('["a"] && b',), False),
        ("RUN [ -f a ]", ("[ -f a ]",), False),
        ('RUN ["\\ud800"]', ("�",), True),
        ("CMD []", (), True),
        ("CMD", ("",), False),
        ("RUN " + "[" * 100_000, ("[" * 100_000,), False),
        ("entryPoint top", ("top",), False),
        ("COPY a\t b  c/", ("a", "b", "c/"), False),
        ('COPY "a b" c', ('"a', 'b"', "c"), False),
        ("ENV A=1 B='2 3'  C=\\ 4", ("A=1", "B='2 3'", "C=\\ 4"), False),
        ("ENV A  b = c", ("A=b = c",), False),
        ("ENV A=''", ("A=''",), False),
        ("LABEL a=b\\", ("a=b",), False),
        ("ARG A B= C=1", ("A", "B=", "C=1"), False),
        ("HEALTHCHECK cmd curl  x", ("CMD", "curl  x"), False),
        ("HEALTHCHECK none", ("NONE",), False),
        ("WORKDIR /a b", ("/a b",), False),
        ('SHELL ["sh"]', ("sh",), True),
    ],
)
def test_each_instruction_has_its_own_words(text: str, words: tuple[str, ...], is_json: bool) -> None:
    instruction = _only(text)
    assert (instruction.words, instruction.is_json) == (words, is_json)


@pytest.mark.parametrize(
    ("text", "flags", "rest"),
    [
        ("COPY --from=a --link x y", ("--from=a", "--link"), "x y"),
        ("COPY '--chown=a b' x y", (), "'--chown=a b' x y"),
        ('COPY --chown="a b" x y', ("--chown=a b",), "x y"),
        ("COPY --chown=a\\ b x y", ("--chown=a b",), "x y"),
        ("COPY --link -- --x y", ("--link",), "--x y"),
        (
            "RUN --mount=type=tmpfs,target=/a --mount=type=ssh b --c",
            ("--mount=type=tmpfs,target=/a", "--mount=type=ssh"),
            "b --c",
        ),
    ],
)
def test_flags_stand_before_the_arguments(text: str, flags: tuple[str, ...], rest: str) -> None:
    instruction = _only(text)
    assert (instruction.flags, instruction.text) == (flags, rest)


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("RUN <<A", ["A"]),
        ("RUN << A b", ["A"]),
        ("RUN 3<<A cat", ["A"]),
        ("RUN cat <<A <<'B' <<-\"C D\"", ["A", "B", "C D"]),
        ("RUN cat<<A", []),
        ("RUN cat <<<A", []),
        ("RUN echo '<<A'", []),
        ("RUN echo \\<<A", []),
        ("RUN it's <<A", []),
        ('RUN ["<<A"]', []),
        ("CMD <<A", []),
        ("ONBUILD ADD <<A b", ["A"]),
    ],
)
def test_what_begins_a_heredoc(line: str, names: list[str]) -> None:
    bodies = "".join(f"text\n{name}\n" for name in names)
    parsed = parse_dockerfile(f"FROM a\n{line}\n{bodies}CMD last".encode())
    first, last = parsed.stages[0].instructions
    assert [(each.name, each.text) for each in first.heredocs] == [(name, "text\n") for name in names]
    assert (first.last_line, last.line) == (2 + 2 * len(names), 3 + 2 * len(names))


def test_a_heredoc_keeps_its_text_and_loses_tabs_only_on_demand() -> None:
    plain = _only("RUN <<A\n\ta \\\n#b\n A\n\nA\n").heredocs[0]
    stripped = _only("RUN <<-'A'\n\t\ta\n\t b\n\tA\n").heredocs[0]
    assert (plain.text, plain.expand) == ("\ta \\\n#b\n A\n\n", True)
    assert (stripped.text, stripped.expand) == ("a\n b\n", False)


def test_a_trigger_is_read_again_as_it_was_kept() -> None:
    kept = _only("ONBUILD RUN --network=none <<A cat\nb\nA\n").words[0]
    trigger = parse_trigger(kept, name="ONBUILD of base")
    assert (trigger.name, trigger.flags, trigger.text) == ("RUN", ("--network=none",), "<<A cat")
    assert trigger.heredocs[0].text == "b\n"
    assert trigger.where == "ONBUILD of base:1"


@pytest.mark.parametrize(
    "text", ["", "FROM a", "RUN a\nRUN b", "MAINTAINER x", "ONBUILD FROM x", "X y", "RUN <<A\n", "RUN \ud800\0"]
)
def test_a_trigger_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_trigger(text)


def test_stages_are_in_order_with_what_stands_before_them() -> None:
    parsed = parse_dockerfile(
        b"ARG A\nARG B=1\nFROM x AS One\nRUN a\nFROM --platform=$P one\nFROM scratch as context\n"
    )
    assert [each.text for each in parsed.arguments] == ["A", "B=1"]
    assert [(stage.index, stage.name, stage.source, stage.platform) for stage in parsed.stages] == [
        (0, "one", "x", ""),
        (1, "", "one", "$P"),
        (2, "context", "scratch", ""),
    ]
    assert parsed.warnings == ("Dockerfile:6: the stage name context is reserved (ReservedStageName)",)


def test_ports_of_the_host_are_warned_of() -> None:
    parsed = parse_dockerfile(b"FROM a\nEXPOSE 8080:80\nEXPOSE ${P:-80}")
    assert [warning.partition(": ")[0] for warning in parsed.warnings] == ["Dockerfile:2"]
