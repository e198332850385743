"""Identifiers: container and exec ids (64 hex digits), names, and how a user may shorten them."""

from __future__ import annotations

import re
import secrets

# Docker's own rule for container and volume names.
NAME_PATTERN = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]+$")
ID_PATTERN = re.compile(r"^[0-9a-f]{64}$")

_ADJECTIVES = (
    "amber ample brisk calm candid civil clear deft eager early fair fleet fond frank fresh glad grand hardy honest keen "
    "kind lively lucid merry mild modest neat noble patient plain polite prompt proud quick quiet ready robust sharp "
    "silent smooth sober solid spry stable steady sunny swift tidy true vivid warm wise"
).split()
_NOUNS = (
    "acorn anchor arbor barn basin beacon birch bridge brook canal cedar cliff cloud cove delta dune elm ember fern field "
    "fjord forge garden glade grove harbor hazel heath hill island ivy lake larch ledge linden maple marsh meadow mill "
    "moor oak orchard pier pine pond quarry reef ridge river rowan shore silo spring stream thicket tower vale willow"
).split()


def new_id() -> str:
    """A fresh id: 256 random bits as 64 hex digits."""
    return secrets.token_hex(32)


def random_name() -> str:
    """A readable name such as `calm_harbor`; the caller checks that it is free."""
    return f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_NOUNS)}"
