"""Which program a container runs: Docker's rules for laying a user's words over an image's."""

from __future__ import annotations

import msgspec

from silo.errors import InvalidRequest
from silo.model.container import ContainerConfig
from silo.model.image import ImageConfig


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """`args` is never empty. `first_from_image`: the first element is the image's (its ArgsEscaped applies to it)."""

    args: tuple[str, ...]
    first_from_image: bool


def merge_command(config: ContainerConfig, image: ImageConfig, *, default: tuple[str, ...] = ()) -> Command:
    """A user's entrypoint takes the place of the image's and drops the image's cmd; `--entrypoint ""` removes it.

    Raises InvalidRequest when nothing is left to run and there is no `default`.
    """
    entrypoint, cmd = config.entrypoint, config.cmd or ()
    cmd_from_image = False
    if not entrypoint and not cmd:
        cmd, cmd_from_image = image.cmd, True
    entrypoint_from_image = entrypoint is None
    entrypoint = image.entrypoint if entrypoint is None else entrypoint
    if entrypoint == ("",):
        entrypoint = ()
    args = (*entrypoint, *cmd)
    if not args:
        args, cmd_from_image = default, False
    if not args or not args[0]:
        raise InvalidRequest("no command specified", hint="the image has none either: give a program to run")
    return Command(args=args, first_from_image=entrypoint_from_image if entrypoint else cmd_from_image)
