"""Who a container's or image's `user[:group]` is, by the text of its own /etc/passwd and /etc/group. Pure.

The texts are an image's and untrusted: lines that do not parse are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from silo.errors import InvalidRequest

MAXIMUM_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Identity:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


def resolve_identity(
    untrusted_passwd: str,
    untrusted_group: str,
    user: str,
    extra_groups: Sequence[str] = (),
    *,
    limit: int = MAXIMUM_ID,
) -> Identity:
    """Raises InvalidRequest when a name is unknown or an id is outside of the container's range."""
    name, _, group = user.partition(":")
    accounts = [fields for fields in _rows(untrusted_passwd, 6) if fields[2].isdigit() and fields[3].isdigit()]
    account = next((fields for fields in accounts if fields[0] == name), None) if name else None
    wanted = int(name) if name.isdigit() else 0
    if account is None and name and not name.isdigit():
        raise InvalidRequest(
            f"unable to find user {name}: no matching entries in passwd file",
            hint="use a numeric id or a user of the image",
        )
    account = account or next((fields for fields in accounts if int(fields[2]) == wanted), None)
    uid = int(account[2]) if account else wanted
    gid = int(account[3]) if account else 0
    rows = [fields for fields in _rows(untrusted_group, 3) if fields[2].isdigit()]
    groups: list[int] = []
    if group:
        gid = _find_group(rows, group)
    elif account:
        member = account[0]
        groups = [int(fields[2]) for fields in rows if len(fields) > 3 and member in fields[3].split(",")]
    groups += [_find_group(rows, extra) for extra in extra_groups]
    for number in (uid, gid, *groups):
        if number >= limit:
            raise InvalidRequest(
                f"id {number} is outside of the container's user namespace (0 to {limit - 1})",
                hint="run the container with --userns=host",
            )
    home = account[5] if account and account[5].startswith("/") else "/"
    return Identity(uid, gid, tuple(dict.fromkeys(groups)), home)


def _find_group(rows: Sequence[Sequence[str]], group: str) -> int:
    found = next((int(fields[2]) for fields in rows if fields[0] == group), None)
    if found is not None:
        return found
    if group.isdigit():
        return int(group)
    raise InvalidRequest(f"unable to find group {group}: no matching entries in group file")


def _rows(untrusted_text: str, minimum: int) -> Iterator[list[str]]:
    for line in untrusted_text.splitlines():
        fields = line.split(":")
        if len(fields) >= minimum and not line.startswith("#"):
            yield fields


def resolve_owner(untrusted_passwd: str, untrusted_group: str, words: str) -> tuple[int, int]:
    """(uid, gid) of `--chown user[:group]`: without a group a number is both, a name brings its account's.

    Raises InvalidRequest.
    """
    user, _, group = words.partition(":")
    if not user:
        raise InvalidRequest(f"--chown={words} names no user", hint="user, user:group or numbers")
    if user.isdigit() and not group:
        group = user
    identity = resolve_identity(untrusted_passwd, untrusted_group, f"{user}:{group}" if group else user)
    return identity.uid, identity.gid
