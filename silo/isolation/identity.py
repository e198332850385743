"""Who a program runs as: Docker's `user[:group]` resolved against the container's own /etc/passwd and /etc/group.

The files are the image's and untrusted: opened beneath the container's root, bounded, lines that do not parse are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from silo.errors import InvalidRequest
from silo.host.mounts import read_beneath

_MAXIMUM_FILE_BYTES = 4 << 20
_MAXIMUM_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Identity:
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"


def load_identity(
    root: Path | int, user: str, extra_groups: Sequence[str] = (), *, limit: int = _MAXIMUM_ID
) -> Identity:
    """Resolve against the files beneath `root`. `limit`: ids must be below it (the size of a user namespace)."""
    return resolve_identity(_load(root, "/etc/passwd"), _load(root, "/etc/group"), user, extra_groups, limit=limit)


def resolve_identity(
    untrusted_passwd: str,
    untrusted_group: str,
    user: str,
    extra_groups: Sequence[str] = (),
    *,
    limit: int = _MAXIMUM_ID,
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


def _load(root: Path | int, path: str) -> str:
    """The text, or nothing when the image has no such file (or none that can be used)."""
    try:
        return read_beneath(root, path, maximum_bytes=_MAXIMUM_FILE_BYTES).decode(errors="replace")
    except OSError:
        return ""
