"""Docker's image references: how a user names an image, and the canonical form in which Silo keeps names.

    busybox                 → docker.io/library/busybox:latest
    localhost:5000/a/b:1.0  → localhost:5000/a/b:1.0
    alpine@sha256:…         → docker.io/library/alpine@sha256:…

Grammar: distribution/reference (domain, path components, tag of at most 128 characters, name of at most 255, digest).
"""

from __future__ import annotations

import re

import msgspec

from silo.errors import InvalidRequest

DEFAULT_DOMAIN = "docker.io"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
DEFAULT_TAG = "latest"
_MAX_NAME = 255
_MAX_INPUT = 1024

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HEX64 = re.compile(r"[0-9a-f]{64}")
_ID_PREFIX = re.compile(r"(?:sha256:)?[0-9a-f]{1,64}")


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed name; `tag` and `digest` may be empty."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """As a user writes it: without `docker.io/` and `library/`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(_OFFICIAL)
        return short if "/" not in short else self.path

    @property
    def canonical(self) -> str:
        return self.name + self._suffix()

    @property
    def familiar(self) -> str:
        return self.familiar_name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        """`latest`, unless a tag or digest is given."""
        return self if self.tag or self.digest else msgspec.structs.replace(self, tag=DEFAULT_TAG)

    def with_digest(self, digest: str) -> Reference:
        """The same repository, by digest instead of tag."""
        return msgspec.structs.replace(self, tag="", digest=digest)


def is_digest(text: str) -> bool:
    """A sha256 digest with its algorithm."""
    return _DIGEST.fullmatch(text) is not None


def parse_reference(untrusted_text: str) -> Reference:
    """A user's words → a reference (no default tag is added). Raises InvalidRequest that says what is wrong."""
    if not untrusted_text:
        raise _invalid(untrusted_text, "it is empty")
    if len(untrusted_text) > _MAX_INPUT:
        raise _invalid(untrusted_text[:64] + "…", f"it is longer than {_MAX_INPUT} characters")
    text, at, digest = untrusted_text.partition("@")
    if at and not is_digest(digest):
        raise _invalid(untrusted_text, "a digest is sha256: and 64 hexadecimal digits in lower case")
    text, tag = _split_tag(text, untrusted_text)
    if _HEX64.fullmatch(text):
        raise _invalid(untrusted_text, "a name cannot be 64 hexadecimal digits, that is an id")
    domain, path = _split_domain(text)
    if not _DOMAIN.fullmatch(domain):
        raise _invalid(untrusted_text, f"{domain!r} is not a registry's host[:port]")
    for component in path.split("/"):
        if not _COMPONENT.fullmatch(component):
            raise _invalid(untrusted_text, _explain_component(component))
    if len(domain) + 1 + len(path) > _MAX_NAME:
        raise _invalid(untrusted_text[:64] + "…", f"the name is longer than {_MAX_NAME} characters")
    return Reference(domain=domain, path=path, tag=tag, digest=digest)


def parse_tag_target(untrusted_text: str) -> Reference:
    """A reference that can be given to an image: with a tag (`latest` by default), without digest."""
    reference = parse_reference(untrusted_text)
    if reference.digest:
        raise _invalid(untrusted_text, "an image is tagged with name[:tag], a digest cannot be chosen")
    return reference.with_default_tag()


def parse_id_prefix(text: str) -> str | None:
    """An image id or the beginning of one → its hexadecimal digits; None when it cannot be one."""
    if not _ID_PREFIX.fullmatch(text):
        return None
    return text.removeprefix("sha256:")


def _split_tag(text: str, whole: str) -> tuple[str, str]:
    head, colon, tail = text.rpartition(":")
    if not colon or "/" in tail:  # a colon before a slash belongs to the registry's port
        return text, ""
    if not _TAG.fullmatch(tail):
        raise _invalid(
            whole,
            f"the tag {tail[:40]!r} may hold 1 to 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'",
        )
    return head, tail


def _split_domain(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    looks_like_host = "." in first or ":" in first or first == "localhost" or first.lower() != first
    if not slash or not looks_like_host:
        domain, path = DEFAULT_DOMAIN, text
    else:
        domain, path = (DEFAULT_DOMAIN if first == _LEGACY_DOMAIN else first), rest
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _OFFICIAL + path
    return domain, path


def _explain_component(component: str) -> str:
    if not component:
        return "it has an empty part between slashes"
    if component != component.lower():
        return f"repository name must be lowercase: {component[:40]!r}"
    return f"{component[:40]!r} may hold lower-case letters and digits, separated by '.', '_', '__' or '-'"


def _invalid(text: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"invalid reference format: {text!r}", details=why)
