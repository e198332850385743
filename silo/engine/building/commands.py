"""What RUN, CMD, ENTRYPOINT and HEALTHCHECK execute: exec form as it is, shell form through the image's shell. Pure.

On Windows the shell form is one command line that nothing splits or escapes (ArgsEscaped). A heredoc is the shell's: alone it is
the script, after a command it is that command's input; one that begins with `#!` is a program of its own.
"""

from __future__ import annotations

import msgspec

from silo.dockerfile.syntax import Instruction
from silo.dockerfile.words import parse_heredoc_word
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


def command_of(words: tuple[str, ...], *, is_json: bool, config: ImageConfig, windows: bool) -> Executed:
    """Of CMD, ENTRYPOINT and RUN without heredocs."""
    if is_json:
        return Executed(args=words)
    if not any(words):
        return Executed(args=())
    shell = shell_of(config, windows=windows)
    if windows:
        return Executed(args=(" ".join((*shell, *words)),), args_escaped=True)
    return Executed(args=(*shell, *words))


def run_command_of(instruction: Instruction, config: ImageConfig, *, windows: bool) -> Executed:
    """Of RUN. Raises Unsupported."""
    heredocs = instruction.heredocs
    if not heredocs:
        return command_of(instruction.words, is_json=instruction.is_json, config=config, windows=windows)
    alone = len(heredocs) == 1 and parse_heredoc_word(instruction.text) is not None
    if windows:
        return _windows_script(instruction, config, alone=alone)
    if alone and heredocs[0].text.startswith("#!"):
        script = (heredocs[0].name, heredocs[0].text.encode())
        return Executed(args=(f"{SCRIPTS_LINUX}/{heredocs[0].name}",), script=script)
    text = heredocs[0].text
    if not alone:
        text = instruction.text + "".join(f"\n{heredoc.text}{heredoc.name}" for heredoc in heredocs)
    return Executed(args=(*shell_of(config, windows=False), text))


def _windows_script(instruction: Instruction, config: ImageConfig, *, alone: bool) -> Executed:
    heredoc = instruction.heredocs[0]
    shell = shell_of(config, windows=True)
    program = shell[0].replace("/", "\\").rpartition("\\")[2].lower().removesuffix(".exe")
    if not alone or program not in ("cmd", "powershell", "pwsh"):
        raise Unsupported(
            f"{instruction.where}: a heredoc as input of a command is not supported for Windows",
            hint="RUN <<EOF alone is a script of the shell, if that is cmd or PowerShell",
        )
    lines = "\r\n".join(heredoc.text.splitlines())
    ending, text = (".cmd", f"@echo off\r\n{lines}\r\n") if program == "cmd" else (".ps1", f"{lines}\r\n")
    name = heredoc.name + ending
    line = " ".join((*shell, f"{SCRIPTS_WINDOWS}\\{name}"))
    return Executed(args=(line,), args_escaped=True, script=(name, text.encode()))
