"""Random and mutated Dockerfiles, words and ignore files: they parse or are refused, soon, and with an error of bounded length."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from silo.dockerfile import options, run_options
from silo.dockerfile.expansion import MAXIMUM_RESULT, expand, expand_heredoc, expand_words
from silo.dockerfile.ignore import parse_ignore
from silo.dockerfile.parser import parse_dockerfile, parse_trigger
from silo.dockerfile.syntax import Dockerfile, Instruction
from silo.dockerfile.text import MAXIMUM_FILE_BYTES
from silo.errors import InvalidRequest

SEEDS = [path.read_bytes() for path in sorted((Path(__file__).parents[1] / "golden/dockerfiles").glob("*.dockerfile"))]
ROUNDS = int(os.environ.get("SILO_FUZZ_ROUNDS", "5000"))
PIECES = [
    *(
        b"\\\n",
        b"`\n",
        b"\n",
        b"\r\n",
        b"<<EOF",
        b"<<-'A' ",
        b"\nEOF\n",
        b"[",
        b'["a",',
        b'"',
        b"'",
        b"$",
        b"${",
        b"}",
        b"#",
        b"\0",
    ),
    *(
        b"FROM ",
        b"ONBUILD ",
        b"RUN ",
        b"HEALTHCHECK ",
        b"--mount=",
        b"--from=",
        b"# escape=`\n",
        b"=",
        b"\xff",
        "é\u2028".encode(),
    ),
    *(b"${a/b/c}", b"${a:-", b"${a##*}", b"*" * 50, b"--" * 3, b"AS x\n", b"COPY ", b"ENV ", b"/" * 20, b"9" * 400),
]
VALUES = {"a": "x y", "b": "*" * 20, "PATH": r"C:\x;D:\y"}
LONGEST_ERROR = 600


def _accepts(call: Callable[[], object]) -> object:
    """The result, or None when it is refused as it should be."""
    try:
        return call()
    except InvalidRequest as error:
        assert len(str(error)) < LONGEST_ERROR
        return None


def _use(instruction: Instruction, escape: str) -> None:
    """Everything that a builder asks of an instruction."""

    def fill(text: str) -> str:
        return expand(text, VALUES, escape=escape, where=instruction.where)

    match instruction.name:
        case "COPY" | "ADD":
            _accepts(lambda: options.parse_file_copy(instruction, fill, lambda each: expand_heredoc(each, VALUES)))
        case "RUN":
            _accepts(lambda: run_options.parse_run_options(instruction, fill))
            _accepts(lambda: run_options.parse_run_command(instruction))
        case "HEALTHCHECK":
            _accepts(lambda: options.parse_healthcheck(instruction))
        case "EXPOSE":
            _accepts(
                lambda: options.parse_exposed_ports(instruction, lambda text: expand_words(text, VALUES, escape=escape))
            )
        case "ENV" | "LABEL":
            _accepts(lambda: options.parse_pairs(instruction, fill))
        case "ARG":
            options.parse_arguments(instruction)
        case "ONBUILD":
            # What the parser took once it takes again from an image's configuration.
            parse_trigger(instruction.words[0], escape=escape)
        case _:
            for word in instruction.words:
                _accepts(lambda text=word: fill(text))  # type: ignore[misc]


def _check(untrusted: bytes) -> None:
    parsed = _accepts(lambda: parse_dockerfile(untrusted))
    if parsed is None:
        return
    assert isinstance(parsed, Dockerfile)
    previous = 0
    everything = [*parsed.arguments, *(each for stage in parsed.stages for each in (stage.first, *stage.instructions))]
    for instruction in everything:
        assert previous < instruction.line <= instruction.last_line <= untrusted.count(b"\n") + 1
        previous = instruction.last_line
        _use(instruction, parsed.escape)


def _mutate(data: bytes, source: random.Random) -> bytes:
    made = bytearray(data)
    for _ in range(source.randint(1, 6)):
        at = source.randint(0, len(made))
        match source.randrange(4):
            case 0:
                made[at : at + source.randint(1, 30)] = b""
            case 1:
                made[at:at] = source.choice(PIECES) * source.choice((1, 1, 1, 30))
            case 2 if made:
                made[at % len(made)] = source.randrange(32, 127)
            case _:
                begin = source.randint(0, len(made))
                made[at:at] = made[begin : begin + source.randint(1, 80)]
    return bytes(made)


def test_mutated_files_parse_or_are_refused() -> None:
    source = random.Random(4)
    begin = time.monotonic()
    for _ in range(ROUNDS):
        _check(_mutate(source.choice(SEEDS), source))
    assert time.monotonic() - begin < 0.1 * ROUNDS


@given(st.binary(max_size=300))
def test_any_bytes_parse_or_are_refused(untrusted: bytes) -> None:
    _check(untrusted)
    _accepts(lambda: parse_ignore(untrusted))


@given(st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join))
def test_any_pieces_parse_or_are_refused(untrusted: bytes) -> None:
    _check(b"FROM a\n" + untrusted)


_word = st.lists(
    st.sampled_from(["$a", "${", "a", "}", ":-", "#", "%", "/", "\\", "`", "'", '"', "*", "?", " ", "b", "$"]),
    max_size=25,
)


@given(_word.map("".join), st.sampled_from("\\`"))
def test_any_word_expands_or_is_refused(text: str, escape: str) -> None:
    result = _accepts(lambda: expand(text, VALUES, escape=escape))
    words = _accepts(lambda: expand_words(text, VALUES, escape=escape))
    assert (result is None) == (words is None)
    if isinstance(result, str) and isinstance(words, tuple):
        assert len(result) <= MAXIMUM_RESULT + len(text)
        assert "".join("".join(words).split()) == "".join(result.split())


@given(st.text("ab*?[]^-\\/!# \n", max_size=40), st.text("ab/]*", min_size=1, max_size=12))
@settings(max_examples=300)
def test_any_ignore_file_decides_or_is_refused(text: str, path: str) -> None:
    rules = _accepts(lambda: parse_ignore(text.encode()))
    if rules is not None:
        above = rules.excludes_all_beneath(path)  # type: ignore[attr-defined]
        assert not above or rules.excludes(f"{path}/x")  # type: ignore[attr-defined]


def test_the_largest_files_cost_seconds_at_most() -> None:
    pieces = [
        b"\\\n",
        b"a \\\n",
        b"RUN a\n",
        b"RUN <<A\nA\n",
        b"[",
        b"--a ",
        b"'",
        b"\\ ",
        b"<<A ",
        b"ENV a=b ",
        b" ",
        b"#\n",
        b"FROM a\n",
        b"ENV a=${a#*\n",
    ]
    pieces += [b"COPY a b\n" * 3, b"--exclude=a ", b"--mount=a ", b"EXPOSE 1-65535 ", b"\t", b"\xc3\xa9"]
    for piece in pieces:
        for head in (b"FROM a\nRUN ", b"FROM a\nCOPY ", b"FROM a\nENV "):
            untrusted = (head + piece * (MAXIMUM_FILE_BYTES // len(piece)))[:MAXIMUM_FILE_BYTES]
            begin = time.monotonic()
            _accepts(lambda data=untrusted: parse_dockerfile(data))  # type: ignore[misc]
            assert time.monotonic() - begin < 8, (head, piece)
