"""What RUN, CMD, ENTRYPOINT execute: exec form as it is, shell form through the image's shell. Pure.

On Windows the shell form is one command line that nothing splits or escapes (ArgsEscaped). A program that a heredoc holds, and a
script of several lines on Windows, whose command lines have one, are shown to the step as a file.
"""

from __future__ import annotations

import msgspec

from silo.dockerfile.run_options import parse_run_command
from silo.dockerfile.syntax import Heredoc, Instruction
from silo.errors import Unsupported
from silo.model.image import ImageConfig

SCRIPTS_LINUX = "/silo-build"
SCRIPTS_WINDOWS = "C:\\silo-build"
"""Where a script that has to be a file is shown to a step; silo.model.leftovers keeps the mount point out of layers."""

_LINUX_SHELL = ("/bin/sh", "-c")
_WINDOWS_SHELL = ("cmd", "/S", "/C")


class Executed(msgspec.Struct, frozen=True, kw_only=True):
    """`args_escaped`: the only argument is a whole Windows command line. `script`: (name, content) of a file to be shown."""

    args: tuple[str, ...]
    args_escaped: bool = False
    script: tuple[str, bytes] | None = None


def shell_of(config: ImageConfig, *, windows: bool) -> tuple[str, ...]:
    return config.shell or (_WINDOWS_SHELL if windows else _LINUX_SHELL)


def command_of(instruction: Instruction, config: ImageConfig, *, windows: bool) -> Executed:
    """Of CMD and ENTRYPOINT."""
    if instruction.is_json:
        return Executed(args=instruction.words)
    return _through_shell(instruction.words[0], config, windows=windows)


def run_command_of(instruction: Instruction, config: ImageConfig, *, windows: bool) -> Executed:
    """Of RUN. Raises Unsupported."""
    command = parse_run_command(instruction)
    if command.words:
        return Executed(args=command.words)
    if windows and instruction.heredocs:
        return _windows_script(instruction, config)
    if command.program is not None:
        name = command.program.name
        return Executed(args=(f"{SCRIPTS_LINUX}/{name}",), script=(name, command.program.text.encode()))
    return _through_shell(command.script, config, windows=windows)


def _through_shell(text: str, config: ImageConfig, *, windows: bool) -> Executed:
    if not text.strip():
        return Executed(args=())
    shell = shell_of(config, windows=windows)
    if windows:
        return Executed(args=(" ".join((*shell, text)),), args_escaped=True)
    return Executed(args=(*shell, text))


def _windows_script(instruction: Instruction, config: ImageConfig) -> Executed:
    heredoc: Heredoc = instruction.heredocs[0]
    shell = shell_of(config, windows=True)
    program = shell[0].replace("/", "\\").rpartition("\\")[2].lower().removesuffix(".exe")
    alone = instruction.text.strip().startswith("<<") and len(instruction.text.split()) == 1
    if not alone or heredoc.text.startswith("#!") or program not in ("cmd", "powershell", "pwsh"):
        raise Unsupported(
            "this heredoc is not supported for Windows",
            details="a command line there has no lines that could be a command's input",
            hint="RUN <<EOF alone is a script of the shell, if that is cmd or PowerShell",
        )
    lines = "\r\n".join(heredoc.text.splitlines())
    ending, text = (".cmd", f"@echo off\r\n{lines}\r\n") if program == "cmd" else (".ps1", f"{lines}\r\n")
    name = heredoc.name + ending
    line = " ".join((*shell, f"{SCRIPTS_WINDOWS}\\{name}"))
    return Executed(args=(line,), args_escaped=True, script=(name, text.encode()))
