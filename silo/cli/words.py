"""What several commands read of the user's words: maps, environment, files of lines. Local files are read here only."""

from __future__ import annotations

import os

from silo.cli.failure import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_FILE_BYTES = 16 * 1024 * 1024


def read_file(path: str, flag: str) -> str:
    """Raises UsageError naming the flag."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{flag} {path}: {error.strerror}") from None
    if len(text) > MAX_FILE_BYTES:
        raise UsageError(f"{flag} {path}: the file is too long")
    return text


def read_lines(path: str, flag: str) -> list[str]:
    """Lines without blank ones and # comments."""
    text = read_file(path, flag).removeprefix("\ufeff")
    return [line.lstrip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def read_environment(files: Iterable[str], words: Iterable[str], *, flag: str = "--env") -> list[str]:
    """NAME=value entries; a bare NAME passes on our own value; without one, a file's is left out."""
    entries: list[str] = []
    for path in files:
        for line in read_lines(path, "--env-file"):
            name, equals, _ = line.partition("=")
            if not name or any(letter.isspace() for letter in name.strip() if name != name.rstrip()):
                raise UsageError(f"--env-file {path}: invalid line {line!r}")
            entries.extend(_own(line) if not equals else [line])
    for word in words:
        if word.startswith("=") or not word:
            raise UsageError(f"invalid argument {word!r} for {flag}: the variable has no name")
        # A name that is not set here goes over alone: it unsets the image's.
        entries.extend([word] if "=" in word else _own(word) or [word])
    return entries


def _own(name: str) -> list[str]:
    name = name.strip()
    value = os.environ.get(name)
    return [] if value is None else [f"{name}={value}"]


def read_labels(files: Iterable[str], words: Iterable[str]) -> dict[str, str]:
    """`--label-file` and `--label`: key or key=value."""
    labels: dict[str, str] = {}
    for path in files:
        labels.update(read_map(read_lines(path, "--label-file"), "--label-file"))
    labels.update(read_map(words, "--label"))
    return labels


def read_map(words: Iterable[str], flag: str, *, need_value: bool = False) -> dict[str, str]:
    """key=value words."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or (need_value and not equals):
            raise UsageError(f"invalid argument {word!r} for {flag}: it is written key=value")
        found[key] = value
    return found


def split_csv(text: str) -> list[str]:
    """The fields of one line of CSV, as --mount and --network take them; a field may be quoted by \"…\"."""
    fields, field, quoted, index = [], "", False, 0
    while index < len(text):
        letter = text[index]
        index += 1
        if quoted:
            if letter == '"' and text[index : index + 1] == '"':
                field, index = field + '"', index + 1
            elif letter == '"':
                quoted = False
            else:
                field += letter
        elif letter == '"' and not field:
            quoted = True
        elif letter == ",":
            fields.append(field)
            field = ""
        else:
            field += letter
    return [*fields, field]


def parse_bool(text: str, flag: str) -> bool:
    if text.lower() in ("", "1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise UsageError(f"invalid value for {flag}: {text!r} is neither true nor false")
