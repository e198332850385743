"""One instruction on one configuration: what becomes of it, and what history says."""

from __future__ import annotations

from typing import Any

import pytest

from silo.dockerfile.parser import parse_dockerfile
from silo.engine.building.commands import command_of, run_command_of
from silo.engine.building.metadata import Editor, Metadata, join_directory, with_variable
from silo.engine.building.variables import Arguments, Scope, platform_arguments
from silo.errors import InvalidRequest, Unsupported
from silo.model.image import Healthcheck, ImageConfig


def apply(*lines: str, windows: bool = False, args: dict[str, str] | None = None, **config: Any) -> Metadata:
    """The outcome of the last of several instructions."""
    dockerfile = parse_dockerfile("\n".join(("FROM x", *lines)).encode())
    scope = Scope(Arguments(args or {}, {}, escape="\\"), windows=windows)
    editor = Editor(scope, windows=windows, escape="\\")
    found = Metadata(config=ImageConfig(**config), text="")
    for instruction in dockerfile.stages[0].instructions:
        outcome = editor.apply(instruction, found.config)
        assert outcome is not None
        found = outcome
    return found


def test_environment_of_one_line_sees_what_was_before_it() -> None:
    found = apply("ENV a=1 b=2", "ENV a=3 c=$a d='$a'", env=("z=0", "b=9"))
    assert found.config.env == ("z=0", "b=2", "a=3", "c=1", "d=$a")
    assert found.text == "ENV a=3 c=1 d=$a"


def test_windows_names_have_no_case() -> None:
    assert apply("ENV Path=x", "ENV PATH=$path;y", windows=True).config.env == ("PATH=x;y",)
    assert with_variable(("A=1", "b=2"), "B", "3", ignore_case=False) == ("A=1", "b=2", "B=3")


@pytest.mark.parametrize(
    ("line", "field", "value", "text"),
    [
        ("EXPOSE 80 53/UDP 90-91", "exposed_ports", ("53/udp", "80/tcp", "90/tcp", "91/tcp"), "EXPOSE 80/tcp 53/udp 90/tcp 91/tcp"),
        ("VOLUME /b /a", "volumes", ("/a", "/b"), "VOLUME [/b /a]"),
        ('VOLUME ["/c d"]', "volumes", ("/c d",), "VOLUME [/c d]"),
        ("USER me:us", "user", "me:us", "USER me:us"),
        ("STOPSIGNAL sigint", "stop_signal", "sigint", "STOPSIGNAL sigint"),
        ('SHELL ["/bin/bash", "-c"]', "shell", ("/bin/bash", "-c"), 'SHELL ["/bin/bash" "-c"]'),
        ("ONBUILD RUN x", "on_build", ("RUN x",), "ONBUILD RUN x"),
        ("LABEL a=b c='d e'", "labels", {"a": "b", "c": "d e"}, "LABEL a=b c=d e"),
        ('CMD ["a", "b"]', "cmd", ("a", "b"), 'CMD ["a" "b"]'),
        ("HEALTHCHECK NONE", "healthcheck", Healthcheck(test=("NONE",)), 'HEALTHCHECK ["NONE"]'),
        (
            "HEALTHCHECK --interval=1m30s --retries=2 CMD x y", "healthcheck",
            Healthcheck(test=("CMD-SHELL", "x y"), interval_s=90, retries=2),
            'HEALTHCHECK --interval=1m30s --retries=2 ["CMD-SHELL" "x y"]',
        ),
    ],
)  # fmt: skip
def test_fields(line: str, field: str, value: Any, text: str) -> None:
    found = apply(line)
    assert getattr(found.config, field) == value and found.text == text


def test_an_entrypoint_drops_an_inherited_command() -> None:
    assert apply("ENTRYPOINT x", cmd=("y",)).config.cmd == ()
    assert apply('CMD ["z"]', "ENTRYPOINT x", cmd=("y",)).config.cmd == ("z",)


def test_shells() -> None:
    config = ImageConfig(shell=("/bin/bash", "-ec"))
    dockerfile = parse_dockerfile(b"FROM x\nCMD a b\nCMD []\n")
    shell, nothing = dockerfile.stages[0].instructions
    assert command_of(shell, config, windows=False).args == ("/bin/bash", "-ec", "a b")
    assert command_of(nothing, config, windows=False).args == ()
    assert command_of(shell, ImageConfig(), windows=True).args == ("cmd /S /C a b",)


def test_scripts() -> None:
    def command(text: str, *, windows: bool, **config: Any) -> Any:
        instruction = parse_dockerfile(f"FROM x\n{text}".encode()).stages[0].instructions[0]
        return run_command_of(instruction, ImageConfig(**config), windows=windows)

    assert command("RUN <<E\na\nb\nE\n", windows=False).args == ("/bin/sh", "-c", "a\nb\n")
    assert command("RUN cat <<A <<B\n1\nA\n2\nB\n", windows=False).args[-1] == "cat <<A <<B\n1\nA\n2\nB"
    program = command("RUN <<E\n#!/bin/x\nE\n", windows=False)
    assert program.args == ("/silo-build/E",) and program.script == ("E", b"#!/bin/x\n")
    batch = command("RUN <<E\na\nb\nE\n", windows=True)
    assert batch.args == ("cmd /S /C C:\\silo-build\\E.cmd",) and batch.script == ("E.cmd", b"@echo off\r\na\r\nb\r\n")
    power = command("RUN <<E\na\nE\n", windows=True, shell=("C:\\w\\PowerShell.exe", "-File"))
    assert power.args == ("C:\\w\\PowerShell.exe -File C:\\silo-build\\E.ps1",)
    for text in ("RUN more <<E\na\nE\n", "RUN <<E\n#!x\nE\n"):
        with pytest.raises(Unsupported):
            command(text, windows=True)
    with pytest.raises(Unsupported):
        command("RUN <<E\na\nE\n", windows=True, shell=("bash", "-c"))


def test_arguments_of_platforms() -> None:
    found = platform_arguments("linux/amd64", "linux/arm64/v8:1")
    assert (
        found["TARGETPLATFORM"] == "linux/arm64/v8" and found["TARGETVARIANT"] == "v8" and found["BUILDVARIANT"] == ""
    )


def test_directories() -> None:
    assert (
        join_directory("/a", "b/../c") == "/a/c"
        and join_directory("", "x") == "/x"
        and join_directory("/a", "/b//") == "/b"
    )


@pytest.mark.parametrize(
    "line", ["STOPSIGNAL SIGNOTHING", "EXPOSE 70000", "EXPOSE x", "ENV a=${b:?no}", "VOLUME $none"]
)
def test_what_is_wrong_is_an_invalid_request(line: str) -> None:
    with pytest.raises(InvalidRequest):
        apply(line)
