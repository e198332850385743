"""What `cp` copies where: Docker's rules for files, directories and trailing slashes. Pure.

SRC file,  DST a directory   → DST/name      DST a file or nothing → DST
SRC dir,   DST a directory   → DST/name      DST nothing           → DST      DST a file → error
SRC dir/.  DST a directory   → its contents into DST
"""

from __future__ import annotations

from silo.cli.failure import Failure


def split_operand(text: str) -> tuple[str, str]:
    """`CONTAINER:PATH` → both; a local path has no container. `/a:b` and `./a:b` are local, `box:C:\\data` is not."""
    if text.startswith(("/", ".", "~")) or text == "-":
        return "", text
    container, colon, path = text.partition(":")
    return (container, path) if colon else ("", text)


def is_windows(path: str) -> bool:
    return "\\" in path or (len(path) > 1 and path[0].isalpha() and path[1] == ":")


def split_path(path: str) -> tuple[str, str]:
    """(directory, last name) of a container's path in either spelling; the root's name is empty."""
    separators = "\\/" if is_windows(path) else "/"
    body = path.rstrip(separators)
    if not body or (len(body) == 2 and body[1] == ":"):
        return path, ""
    cut = max(body.rfind(separator) for separator in separators)
    if cut < 0:
        return ".", body
    directory = body[:cut]
    if not directory or (len(directory) == 2 and directory[1] == ":"):
        directory = body[: cut + 1]
    return directory, body[cut + 1 :]


def wants_contents(path: str) -> bool:
    """`dir/.` means what is in it."""
    return path == "." or path.endswith(("/.", "\\."))


def wants_directory(path: str) -> bool:
    return path.endswith(("/", "\\")) or wants_contents(path)


def plan_target(
    *, source_name: str, source_is_dir: bool, contents: bool, target: str, target_exists: bool, target_is_dir: bool
) -> tuple[str, str]:
    """(an existing directory, the name to make in it; empty: the contents go right into it). Raises Failure."""
    directory, name = split_path(target)
    if target_exists and target_is_dir:
        if source_is_dir and contents:
            return target, ""
        return target, source_name
    if target_exists and source_is_dir:
        raise Failure("cannot copy directory: the destination is a file")
    if target_exists:
        if wants_directory(target):
            raise Failure(f"{target} is not a directory")
        return directory, name
    if not source_is_dir and wants_directory(target):
        raise Failure(f"no such directory: {target}")
    return directory, name
