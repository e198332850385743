"""A file's bytes as text, or why not. Standard library only, as everything that `ignore` needs: the command line imports it."""

from __future__ import annotations

from silo.dockerfile.mistakes import mistake

MAXIMUM_FILE_BYTES = 1 << 20
"""Far above what people write; a bound for the time that a file can cost."""


def decode_text(untrusted: bytes, *, name: str) -> str:
    """The file as text without its byte order mark. Raises InvalidRequest for what is too large or not UTF-8."""
    if len(untrusted) > MAXIMUM_FILE_BYTES:
        raise mistake(name, f"{len(untrusted)} bytes; at most {MAXIMUM_FILE_BYTES} can be read")
    if untrusted.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise mistake(name, "the file is UTF-16", hint="save it as UTF-8; PowerShell: Set-Content -Encoding utf8")
    try:
        text = untrusted.decode("utf-8")
    except UnicodeDecodeError as error:
        line = untrusted.count(b"\n", 0, error.start) + 1
        raise mistake(f"{name}:{line}", f"byte {error.start} is not UTF-8", hint="save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise mistake(f"{name}:{line}", "the line holds a NUL character", hint="save the file as UTF-8")
    return text.removeprefix("\ufeff")
