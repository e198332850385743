"""Which paths a .dockerignore leaves out; its matcher against a second one made from the rules' text by regular expressions."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from silo.dockerfile.globs import PatternSet, has_wildcard
from silo.dockerfile.ignore import IgnoreRules, parse_ignore
from silo.errors import InvalidRequest


@pytest.mark.parametrize(
    ("rules", "excluded", "kept"),
    [
        ("build", ["build", "build/a/b"], ["a/build", "buildx"]),
        ("*.o", ["a.o", ".o"], ["d/a.o", "a.oo"]),
        ("*/*.o", ["d/a.o", "d/a.o/x"], ["a.o", "d/e/a.o"]),
        ("**/*.o", ["a.o", "d/a.o", "d/e/a.o"], ["a.c"]),
        ("**/temp", ["temp", "a/temp/b", "a/b/temp"], ["atemp"]),
        ("**temp", ["temp", "atemp", "b/atemp"], ["tempa"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "ab/c"]),
        ("a**", ["a", "ab/c"], ["b/a"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b/z"], ["ab", "a/xb"]),
        ("a**b", ["ab", "a/b", "ax/b"], ["axb"]),
        ("**", ["a", "a/b"], ["."]),
        ("?x", ["ax"], ["x", "aax"]),
        ("a?b", [], ["a/b"]),
        ("[a-c0]x", ["ax", "cx", "0x"], ["dx", "x"]),
        ("[^a]x", ["bx"], ["ax"]),
        ("[\\]\\-]x", ["]x", "-x"], ["\\x"]),
        ("a\\*b", ["a*b"], ["axb"]),
        ("a\\d", ["ad"], ["a1", "a\\d"]),
        ("a.b+(c)", ["a.b+(c)"], ["axb+(c)"]),
        ("/a/./b//c/../", ["a/b"], ["a"]),
        ("../a", [], ["a"]),
        (".", [], ["a", "."]),
        ("*.md\n!README.md", ["a.md"], ["README.md", "d/README.md"]),
        ("!README.md\n*.md", ["README.md"], []),
        ("*.md\n!README*.md\nREADME-secret.md", ["a.md", "README-secret.md"], ["README.md", "README-1.md"]),
        ("d\n!d/keep", ["d", "d/x", "d/keepx"], ["d/keep", "d/keep/y"]),
        ("**\n! src/*", ["a", "src"], ["src/a", "src/a/b"]),
        ("\ufeff# a\n \n a \r\n#b\n\\#c", ["a", "#c"], ["# a", "#b", "b"]),
        ("é?", ["éü"], ["é"]),
    ],
)
def test_what_is_left_out(rules: str, excluded: list[str], kept: list[str]) -> None:
    parsed = parse_ignore(rules.encode())
    assert [path for path in excluded + kept if parsed.excludes(path)] == excluded


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\n[b", '.dockerignore:2: malformed pattern "[b": [ has no ] that closes it'),
        ("#\n\n  []a]", '.dockerignore:3: malformed pattern "[]a]": ] within [ ] must be escaped'),
        ("[b-a]", '.dockerignore:1: malformed pattern "[b-a]": the range b-a is empty'),
        ("[a-]", '.dockerignore:1: malformed pattern "[a-]": ] within'),
        ("a\\", '.dockerignore:1: malformed pattern "a\\": a backslash at the end escapes nothing'),
        ("a\n!", '.dockerignore:2: illegal exclusion pattern: "!"'),
        ("*" * 5001, ".dockerignore:1: malformed pattern"),
        ("a" * 4000 + "\n" + ("b" * 4000 + "\n") * 20, "patterns that leave files out: the patterns are longer"),
    ],
)
def test_a_malformed_pattern_is_told_with_its_line(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_ignore(text.encode())
    assert str(caught.value).startswith(message)


def test_a_directory_is_skipped_only_when_nothing_in_it_comes_back() -> None:
    rules = parse_ignore(b"node_modules\ndocs\n!docs/*/keep\nvendor\n!**/*.lic\nout\n!in")
    assert rules.excludes("docs") and not rules.excludes_all_beneath("docs")
    assert not rules.excludes_all_beneath("docs/a")
    assert rules.excludes("docs/a") and not rules.excludes_all_beneath("node_modules")
    plain = parse_ignore(b"!out/x\nout\n!in\n!outer")
    assert plain.excludes_all_beneath("out") and plain.excludes_all_beneath("out/y")
    assert not plain.excludes_all_beneath("in")


def test_patterns_of_a_flag_are_told_by_their_number() -> None:
    assert IgnoreRules(["*.c", "!a.c"]).excludes("b.c")
    with pytest.raises(InvalidRequest, match="pattern 2: malformed"):
        IgnoreRules(["a", "["])


@pytest.mark.parametrize(
    ("source", "wild"), [("a/b", False), ("a*", True), ("a\\*", False), ("[a", True), ("a\\", False)]
)
def test_which_sources_are_patterns(source: str, wild: bool) -> None:
    assert has_wildcard(source) is wild


def _regular(pattern: str) -> re.Pattern[str]:
    """The reference's rules for `*`, `?` and `**` as an expression; only for patterns that begin with no bare `**`."""
    made = ""
    rest = pattern
    while rest:
        if match := re.match(r"\*\*/?\Z", rest):
            made += ".*"
        elif match := re.match(r"\*\*/?", rest):
            made += "(?:.*/)?"
        elif match := re.match(r"[*?]", rest):
            made += "[^/]*" if match[0] == "*" else "[^/]"
        else:
            match = re.match(r".", rest)
            assert match
            made += re.escape(match[0])
        rest = rest[match.end() :]
    return re.compile(made, re.DOTALL)


_pattern = st.text("ab*?/", min_size=1, max_size=8).filter(lambda text: not re.match(r"\*\*[ab]", text))
_path = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=3).map("/".join)


@given(st.lists(_pattern, min_size=1, max_size=4), st.lists(_path, min_size=1, max_size=5))
def test_the_automaton_is_the_rules(patterns: list[str], paths: list[str]) -> None:
    automaton = PatternSet(patterns)
    expressions = [_regular(pattern) for pattern in patterns]
    for path in paths:
        parts = path.split("/")
        parents = ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]
        whole = {number for number, each in enumerate(expressions) if each.fullmatch(path)}
        above = {number for number, each in enumerate(expressions) if any(map(each.fullmatch, parents))}
        assert automaton.match(path) == whole
        assert automaton.match_with_parents(path) == above
        for parent in parents[:-1]:
            assert whole <= automaton.may_match_beneath(parent)


def test_hostile_patterns_cost_linear_time_and_bounded_memory() -> None:
    rules = IgnoreRules(["*a" * 2000 + "b", "**/" + "a*" * 1000 + "/b", "**/" * 1000 + "x"])
    before = time.monotonic()
    assert not rules.excludes("a" * 5000)
    for letter in range(300):
        assert not rules.excludes(chr(0x4E00 + letter) + "a/" * 50 + "a")
    assert time.monotonic() - before < 20
    assert len(rules._patterns._known) <= rules._patterns._kept
