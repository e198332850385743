"""Variables, quotes and escapes, with either escape character; what is refused, and that nothing grows without end."""

from __future__ import annotations

import time

import pytest

from silo.dockerfile.expansion import MAXIMUM_RESULT, expand, expand_heredoc, expand_words
from silo.dockerfile.patterns import remove_prefix, remove_suffix, replace_pattern
from silo.dockerfile.syntax import Heredoc
from silo.errors import InvalidRequest

VALUES = {
    "dir": "/opt/app",
    "empty": "",
    "file": "a.tar.gz.tar",
    "win": r"C:\Program Files\x",
    "two": "p  q ",
    "é": "ü",
}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$dir/x", "/opt/app/x"),
        ("${dir}x$dirx", "/opt/appx"),
        ("$é", "ü"),
        ("'$dir'", "$dir"),
        ('"$dir"', "/opt/app"),
        ("\\$dir \\${dir}", "$dir ${dir}"),
        ('"\\$dir \\" \\\\ \\n"', '$dir " \\ \\n'),
        ("a\\b\\\\c\\", "ab\\c"),
        ("a'b\\'c", "ab\\c"),
        ("$", "$"),
        ("$.$/", "$.$/"),
        ("<$1>$@$22a", "<>a"),
        ("${empty:-w}${empty-w}", "w"),
        ("${none-w}${none:-$dir}", "w/opt/app"),
        ("${dir:+y}${empty:+y}${empty+z}${none+n}", "yz"),
        ("${dir:?m}${empty?m}", "/opt/app"),
        ("${none:-${other:-'a b}'}}", "a b}"),
        ("${none:-a\\}b}", "a}b"),
        ("${none:-{}", "{"),
        ("${file#*.}", "tar.gz.tar"),
        ("${file##*.}", "tar"),
        ("${file%.*}", "a.tar.gz"),
        ("${file%%.*}", "a"),
        ("${file%?a?}", "a.tar.gz."),
        ("${file#x}${none#x}", "a.tar.gz.tar"),
        ("${file/tar/zip}", "a.zip.gz.tar"),
        ("${file//tar/$dir}", "a./opt/app.gz./opt/app"),
        ("${file//t*r/_}", "a._"),
        ("${file//./}", "atargztar"),
        ("${dir//\\//-}", "-opt-app"),
        ("$win", r"C:\Program Files\x"),
        ("$two", "p  q "),
    ],
)
def test_what_a_text_becomes(text: str, result: str) -> None:
    assert expand(text, VALUES, escape="\\") == result


@pytest.mark.parametrize(
    ("text", "result"),
    [
        (r"C:\app\$dir", r"C:\app\/opt/app"),
        ("`$dir ``", "$dir `"),
        ('"C:\\a`"b`$"', 'C:\\a"b$'),
        (r"${win#C:\\}", r"Program Files\x"),
        (r"${win##*\}", "x"),
        (r"${win//\//}", r"C:/Program Files/x"),
        (r"${win/?:\P*s/D:}", r"D:\x"),
    ],
)
def test_with_a_backtick_backslashes_are_paths(text: str, result: str) -> None:
    assert expand(text, VALUES, escape="`") == result


def test_names_without_case_for_windows() -> None:
    assert expand("$PATH ${path:-x}", {"Path": "p"}, escape="`", ignore_case=True) == "p p"
    assert expand("$PATH", {"Path": "p"}, escape="`") == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$two", ("p", "q")),
        ('"$two"', ("p  q ",)),
        ("a$two b", ("ap", "q", "b")),
        ("a\\ b 'c d'e", ("a b", "c de")),
        ("$none ''", ()),
    ],
)
def test_words_are_parted_after_expansion(text: str, words: tuple[str, ...]) -> None:
    assert expand_words(text, VALUES, escape="\\") == words


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ab${", 'D:7: bad substitution: missing }, at character 3 of "ab${"'),
        ("${dir", "D:7: bad substitution: missing }, at character 1"),
        ("${}", "D:7: bad substitution: no variable's name after ${"),
        ("${.}", "D:7: bad substitution: no variable's name"),
        ("${:-x}", "D:7: bad substitution: no variable's name"),
        ("x ${dir:=y}", 'D:7: bad substitution: unsupported modifier ":=", at character 3'),
        ("${dir:#y}", 'D:7: bad substitution: unsupported modifier ":#"'),
        ("${dir^}", 'D:7: bad substitution: unsupported modifier "^"'),
        ("${dir:", "D:7: bad substitution: missing }"),
        ("${dir:-${x}", "D:7: bad substitution: missing }"),
        ("${dir/a}", "D:7: bad substitution: missing / after the pattern"),
        ("${dir/a/b", "D:7: bad substitution: missing }"),
        ("${dir#\\x}", "D:7: invalid pattern in substitution: \\x is no escape"),
        ("${none?}", "D:7: none: is not allowed to be unset"),
        ("${empty:?give $dir}", "D:7: empty: give /opt/app"),
        ("a'b", "D:7: no matching single-quote, at character 2"),
        ('a"b\\"', "D:7: no matching double-quote, at character 2"),
        ("${a:-" * 60 + "}" * 60, "D:7: variables are nested deeper than 50"),
        ("${dir#" + "?" * 1001 + "}", "D:7: invalid pattern in substitution: it has 1001 characters"),
    ],
)
def test_a_bad_substitution_is_told_with_its_position(text: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        expand(text, VALUES, escape="\\", where="D:7")
    assert str(caught.value).startswith(message)


def test_doubling_values_come_to_an_end() -> None:
    value = "x" * 1000
    with pytest.raises(InvalidRequest, match="more than 1048576 characters"):
        for _ in range(30):
            value = expand("$v$v", {"v": value}, escape="\\")
    assert len(value) <= MAXIMUM_RESULT
    with pytest.raises(InvalidRequest, match="would make more than"):
        expand("${v//x/$v}", {"v": "x" * 2000}, escape="\\")


def test_a_heredoc_keeps_its_quotes() -> None:
    text = 'it\'s "$dir" \\$x `y` \\\\\n'
    filled = expand_heredoc(Heredoc(name="E", text=text, expand=True), VALUES)
    assert filled == 'it\'s "/opt/app" $x `y` \\\n'
    assert expand_heredoc(Heredoc(name="E", text=text, expand=False), VALUES) == text


def test_hostile_patterns_cost_linear_time() -> None:
    value = "a" * 200_000
    pattern = "*a" * 400 + "b"
    before = time.monotonic()
    for longest in (False, True):
        assert remove_prefix(value, pattern, longest=longest) == value
        assert remove_suffix(value, pattern, longest=longest) == value
    assert replace_pattern(value, pattern, "", everywhere=True) == value
    assert time.monotonic() - before < 5


@pytest.mark.parametrize(
    ("value", "pattern", "everywhere", "result"),
    [
        ("aXbXc", "X*X", True, "a_c"),
        ("aXbXcX", "X*X", True, "a_"),
        ("abc", "*", True, "_"),
        ("abc", "", False, "_abc"),
        ("a\nb", "a?b", False, "_"),
        ("a*b*", r"\*", True, "a_b_"),
    ],
)
def test_a_replacement_takes_the_longest_match(value: str, pattern: str, everywhere: bool, result: str) -> None:
    assert replace_pattern(value, pattern, "_", everywhere=everywhere) == result
