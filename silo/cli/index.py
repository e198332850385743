"""Which module holds which verb, and the second names of verbs."""

from __future__ import annotations

from silo.cli.failure import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from silo.cli.grammar import Command

MODULES = {
    "running": ("run", "create", "start", "attach"),
    "executing": ("exec",),
    "containers": ("ps",),
    "life": ("restart", "stop", "kill", "rm", "pause", "unpause", "wait", "rename", "update", "container prune"),
    "looking": ("logs", "top", "diff", "port", "inspect", "container inspect"),
    "statistics": ("stats",),
    "building": ("build", "builder prune"),
    "images": ("images", "rmi", "tag", "history", "image inspect", "image prune", "commit"),
    "moving": ("pull", "push", "load", "save", "import", "export"),
    "registries": ("login", "logout"),
    "copying": ("cp",),
    "networks": tuple(
        f"network {verb}" for verb in ("ls", "create", "rm", "inspect", "connect", "disconnect", "prune")
    ),
    "volumes": tuple(f"volume {verb}" for verb in ("ls", "create", "rm", "inspect", "prune")),
    "system": ("info", "version", "system df", "system prune"),
    "happenings": ("events",),
    "bases": ("base build", "base ls", "base rm", "base import"),
    "registry": ("registry query", "registry export", "registry diff"),
    "daemon": ("daemon",),
    "completion": ("completion", "__complete"),
}
VERBS = {verb: module for module, verbs in MODULES.items() for verb in verbs}
HIDDEN = ("__complete",)
GROUPS = {
    "container": "Work with containers",
    "image": "Work with images",
    "builder": "Work with what builds leave",
    "network": "Work with networks",
    "volume": "Work with volumes",
    "system": "Work with the whole of Silo",
    "base": "Work with the base images that Silo builds itself",
    "registry": "Look at the registry of Windows images, containers and hives",
}
_CONTAINER_VERBS = (
    "attach", "commit", "cp", "create", "diff", "exec", "export", "kill", "logs", "pause", "port", "rename", "restart",
    "rm", "run", "start", "stats", "stop", "top", "unpause", "update", "wait",
)  # fmt: skip
ALIASES = {
    **{f"container {verb}": verb for verb in _CONTAINER_VERBS},
    "container ls": "ps",
    "container list": "ps",
    "container ps": "ps",
    "container remove": "rm",
    **{f"image {verb}": verb for verb in ("history", "import", "load", "pull", "push", "save", "tag")},
    "image build": "build",
    "builder build": "build",
    "image ls": "images",
    "image list": "images",
    "image rm": "rmi",
    "image remove": "rmi",
    "network list": "network ls",
    "network remove": "network rm",
    "volume list": "volume ls",
    "volume remove": "volume rm",
    "system info": "info",
    "system events": "events",
    "base list": "base ls",
    "base remove": "base rm",
}


def load_command(verb: str) -> Command:
    """The command of a verb in VERBS."""
    module = __import__(f"silo.cli.commands.{VERBS[verb]}", fromlist=["COMMANDS"])
    return next(command for command in module.COMMANDS if command.words == verb)  # type: ignore[no-any-return]


def find_verb(words: Sequence[str]) -> tuple[str, int]:
    """The verb that words begin with, and of how many words it is. Raises Failure with what is near."""
    first = words[0]
    if first in GROUPS:
        second = words[1] if len(words) > 1 and not words[1].startswith("-") else ""
        verb = f"{first} {second}"
        verb = ALIASES.get(verb, verb)
        if second and verb in VERBS:
            return verb, 2
        known = [name.split()[1] for name in (*VERBS, *ALIASES) if name.startswith(f"{first} ")]
        if not second:
            raise Failure(f"silo {first} needs a command: {', '.join(sorted(set(known)))}\nSee 'silo {first} --help'.")
        from silo.cli.grammar import suggest

        raise Failure(f"'{second}' is not a silo {first} command{suggest(second, known)}\nSee 'silo {first} --help'.")
    if first in VERBS:
        return first, 1
    from silo.cli.grammar import suggest

    known = [verb for verb in VERBS if verb not in HIDDEN] + list(GROUPS)
    raise Failure(f"'{first}' is not a silo command{suggest(first, known)}\nSee 'silo --help'.")


def find_command(words: Sequence[str]) -> tuple[Command, Sequence[str]]:
    """The command and the words after its verb."""
    if words[0] in GROUPS and len(words) > 1 and words[1] in ("--help", "-h"):
        from silo.cli.failure import Ended
        from silo.cli.help import print_help

        raise Ended(print_help([words[0]]))
    verb, count = find_verb(words)
    return load_command(verb), words[count:]
