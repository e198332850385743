"""`completion SHELL`, and `__complete`, which the printed scripts call at every press of Tab.

The scripts know nothing but how to ask; verbs and flags come from the tables, names from a running daemon (none is started).
"""

from __future__ import annotations

from silo.cli.client import Client
from silo.cli.failure import Failure, UsageError
from silo.cli.grammar import Command
from silo.cli.index import ALIASES, GROUPS, HIDDEN, VERBS, load_command
from silo.cli.listing import print_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from silo.cli.grammar import Values

FILES = ":files"
_SCRIPTS = {
    "bash": """_silo() {
    local IFS=$'\\n' words
    words=$(silo __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [[ $words == ":files" ]]; then
        compopt -o default
        COMPREPLY=()
    else
        COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
    fi
}
complete -F _silo silo
""",
    "zsh": """#compdef silo
_silo() {
    local -a found
    found=("${(@f)$(silo __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    if [[ ${found[1]} == ":files" ]]; then
        _files
    else
        compadd -a found
    fi
}
if [[ ${funcstack[1]} == _silo ]]; then _silo "$@"; else compdef _silo silo; fi
""",
    "fish": """function __silo_complete
    set -l words (commandline -opc) (commandline -ct)
    set -l found (silo __complete -- $words[2..-1] 2>/dev/null)
    if test "$found[1]" = ":files"
        __fish_complete_path (commandline -ct)
    else
        printf '%s\\n' $found
    end
end
complete -c silo -f -a '(__silo_complete)'
""",
}
# What a flag's value is.
_FLAG_VALUES = {
    "vm": "vms", "network": "networks", "net": "networks", "volumes-from": "containers", "link": "containers", "env-file": "files",
    "label-file": "files", "cidfile": "files", "input": "files", "output": "files", "volume": "files", "mount": "files",
    "disk": "files",
}  # fmt: skip
_WORDS = {"shells": tuple(_SCRIPTS), "bases": ("windows", "vm"), "vm": ("vm",)}
_CHOICES = {
    "isolation": ("default", "process", "hyperv", "vm"),
    "disk-format": ("raw", "qcow2", "vhdx", "vmdk"),
    "disk-bus": ("virtio", "sata"),
    "firmware": ("uefi", "bios"),
    "nic": ("virtio", "e1000"),
    "pull": ("always", "missing", "never"),
    "type": ("container", "image", "network", "volume"),
    "restart": ("no", "always", "on-failure", "unless-stopped"),
    "format": ("json", "table"),
    "platform": ("linux/amd64", "windows/amd64"),
}


def completion(_client: Client, values: Values) -> int:
    shell = values.arguments[0]
    if shell not in _SCRIPTS:
        raise UsageError(f"no completion for {shell!r}: {', '.join(_SCRIPTS)}")
    print_lines([_SCRIPTS[shell].rstrip("\n")])
    return 0


def complete(client: Client, values: Values) -> int:
    print_lines(candidates(values.arguments, lambda kind: _names(client, kind)))
    return 0


def candidates(words: Sequence[str], names: Callable[[str], list[str]]) -> list[str]:
    """What may stand for the last of `words`; `names(kind)` asks the daemon. `:files` alone: the shell completes paths."""
    words = list(words) or [""]
    if words[0] in ("-H", "--host") and len(words) > 1:
        words = words[2:] or [""]
    *before, current = words
    verb = before[0] if before else ""
    if not before:
        return _starting(
            current, [*(verb for verb in VERBS if " " not in verb and verb not in HIDDEN), *GROUPS, "help"]
        )
    if verb == "help":
        return _starting(current, [name for name in VERBS if " " not in name and name not in HIDDEN])
    if verb in GROUPS:
        if len(before) == 1:
            known = [name.split()[1] for name in (*VERBS, *ALIASES) if name.startswith(f"{verb} ")]
            return _starting(current, sorted(set(known)))
        verb = f"{verb} {before[1]}"
        verb, before = ALIASES.get(verb, verb), before[1:]
    if verb not in VERBS:
        return []
    return _after_verb(load_command(verb), before[1:], current, names)


def _after_verb(command: Command, before: Sequence[str], current: str, names: Callable[[str], list[str]]) -> list[str]:
    rows = {f"--{row[0]}": row for row in command.flags} | {f"-{row[1]}": row for row in command.flags if row[1]}
    arguments, index = [], 0
    while index < len(before):
        word = before[index]
        index += 1
        row = rows.get(word)
        if row and not row[2].startswith("bool"):
            if index == len(before):
                return _flag_values(row[0], current, names)
            index += 1
        elif not word.startswith("-"):
            arguments.append(word)
    if command.stops and arguments:
        return [FILES]
    if current.startswith("-"):
        return _starting(current, [*(f"--{row[0]}" for row in command.flags), "--help"])
    takes = command.takes
    if takes == "networks" and arguments and command.most == 2:
        takes = "containers"
    if takes == "containers" and arguments and command.words in ("rename", "port", "commit"):
        return []
    if command.words in ("base rm", "base import") and not arguments:
        takes = "vm"
    if takes == "files" and command.words == "cp" and "/" not in current and not current.startswith("."):
        return [f"{name}:" for name in _starting(current, names("containers"))] or [FILES]
    return _of_kind(takes, current, names)


def _flag_values(flag: str, current: str, names: Callable[[str], list[str]]) -> list[str]:
    if flag in _CHOICES:
        return _starting(current, _CHOICES[flag])
    return _of_kind(_FLAG_VALUES.get(flag, ""), current, names)


def _of_kind(kind: str, current: str, names: Callable[[str], list[str]]) -> list[str]:
    if kind == "files":
        return [FILES]
    if kind in _WORDS:
        return _starting(current, _WORDS[kind])
    return _starting(current, names(kind)) if kind else []


def _starting(current: str, words: Sequence[str]) -> list[str]:
    return [word for word in words if word.startswith(current)]


def _names(client: Client, kind: str) -> list[str]:
    """From the daemon if one runs: Tab must neither start one nor complain."""
    quiet = Client(client.path)
    try:
        if kind == "containers":
            found = quiet.get("/containers/json", {"all": "1"})
            return [container["Names"][0].removeprefix("/") for container in found]
        if kind == "images":
            tags = [tag for image in quiet.get("/images/json") for tag in image.get("RepoTags") or []]
            return [tag for tag in tags if not tag.startswith("<none>")]
        if kind == "networks":
            return [network["Name"] for network in quiet.get("/networks")]
        if kind == "vms":
            return [image["Name"] for image in quiet.get("/silo/v1/base/vm")]
        if kind == "volumes":
            return [volume["Name"] for volume in quiet.get("/volumes")["Volumes"] or []]
    except Failure:
        return []
    return []


COMMANDS = (
    Command("completion", "bash|zsh|fish", "Print the completion script of a shell", (), completion,
            least=1, most=1, takes="shells",
            examples=("source <(silo completion bash)", "silo completion fish > ~/.config/fish/completions/silo.fish")),
    Command("__complete", "WORDS", "Candidates for the last word", (), complete),
)  # fmt: skip
