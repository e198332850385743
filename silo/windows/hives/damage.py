"""The one error of what is read: a registry file that does not say what it should."""

from __future__ import annotations

from silo.errors import InvalidRequest


class DamagedRegistry(InvalidRequest):
    """A hive or a registry text is damaged, hostile or too large. `offset` counts bytes of the file (characters of a text)."""

    def __init__(self, reason: str, offset: int, *, kind: str = "registry hive", hint: str = "") -> None:
        super().__init__(f"damaged {kind} at offset 0x{offset:x}", details=reason, hint=hint)
        self.reason = reason
        self.offset = offset
