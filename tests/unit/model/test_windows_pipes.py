"""Names of named pipes."""

from __future__ import annotations

import pytest

from silo.errors import InvalidRequest
from silo.model.windows_pipes import check_target, is_pipe, parse_pipe, pipe_file_name, pipe_key


def test_what_a_pipe_is() -> None:
    assert is_pipe("\\\\.\\pipe\\docker_engine") and is_pipe("//./PIPE/x") and not is_pipe("C:\\pipe")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("\\\\.\\pipe\\x", "\\\\.\\pipe\\x"),
        ("//./PIPE/Docker_Engine", "\\\\.\\pipe\\Docker_Engine"),
        ("\\\\.\\pipe\\a/b", "\\\\.\\pipe\\a\\b"),
        ("\\\\.\\pipe\\größe 1", "\\\\.\\pipe\\größe 1"),
    ],
)
def test_canonical_names(text: str, name: str) -> None:
    assert parse_pipe(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "C:\\x",
        "\\\\.\\pipe\\",
        "\\\\server\\pipe\\x",
        "\\\\.\\pipe\\a\\",
        "\\\\.\\pipe\\a:b",
        "\\\\.\\pipe\\a\nb",
        "\\\\.\\pipe\\" + "x" * 250,
        "\\\\.\\pipe\\" + "ß" * 60,
        "\\\\.\\pipe\\\udc80",
    ],
)
def test_what_is_no_name(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_pipe(text)


@pytest.mark.parametrize("name", ["svcctl", "SvcCtl", "ntsvcs", "lrpc\\x", "Win32.Pipes.00000020.00000001"])
def test_pipes_of_windows_itself_are_no_targets(name: str) -> None:
    with pytest.raises(InvalidRequest, match="Windows itself"):
        check_target(parse_pipe(f"\\\\.\\pipe\\{name}"))


def test_an_ordinary_target() -> None:
    check_target(parse_pipe("\\\\.\\pipe\\docker_engine"))


@pytest.mark.parametrize(
    ("name", "file"), [("Meet", "meet"), ("..", "%2E."), ("a\\b", "a%5Cb"), ("50%", "50%25"), ("ß", "%C3%9F")]
)
def test_the_socket_of_a_pipe_lies_where_it_shall(name: str, file: str) -> None:
    canonical = parse_pipe(f"\\\\.\\pipe\\{name}")
    assert pipe_key(canonical) == name.lower()
    assert pipe_file_name(canonical) == file
