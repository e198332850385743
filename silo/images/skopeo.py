"""skopeo's command lines, and what its failures mean. Pure; golden tests beside it.

Works with 1.9 (Debian 12) and newer. Credentials go through an authfile, never through the command line; without
credentials of the request none are used, since those of root are not the caller's.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from silo.errors import AccessDenied, CommandFailed, HostError, NoSpace, NotFound, SiloError, Unavailable
from silo.images.references import Reference

POLICY_FILE = Path("/etc/containers/policy.json")
_RETRIES = "2"


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How a registry is talked to."""

    authfile: Path | None = None
    verify_tls: bool = True
    has_policy: bool = True
    """The host has a signature policy, which then applies; skopeo refuses to work without one."""


def _program(access: Access) -> list[str]:
    return ["skopeo"] if access.has_policy else ["skopeo", "--insecure-policy"]


def _registry_options(access: Access, side: str = "") -> list[str]:
    options = [f"--{side}tls-verify={'true' if access.verify_tls else 'false'}"]
    if access.authfile is None:
        options.append(f"--{side}no-creds")
    else:
        options.append(f"--{side}authfile={access.authfile}" if side else f"--authfile={access.authfile}")
    return options


def build_inspect_manifest(reference: Reference, access: Access) -> list[str]:
    """Prints the manifest or index, byte for byte."""
    return [
        *_program(access),
        "inspect",
        "--raw",
        f"--retry-times={_RETRIES}",
        *_registry_options(access),
        f"docker://{reference.canonical}",
    ]


def build_inspect_config(reference: Reference, access: Access) -> list[str]:
    """Prints the config, byte for byte; `reference` names one manifest by digest."""
    return [
        *_program(access),
        "inspect",
        "--config",
        "--raw",
        f"--retry-times={_RETRIES}",
        *_registry_options(access),
        f"docker://{reference.canonical}",
    ]


def build_pull(reference: Reference, access: Access, *, layout: Path, blobs: Path) -> list[str]:
    """Fetch all blobs of one manifest into `blobs`/sha256; those that are there are not fetched."""
    return [
        *_program(access),
        "copy",
        f"--retry-times={_RETRIES}",
        *_registry_options(access, "src-"),
        f"--dest-shared-blob-dir={blobs}",
        f"docker://{reference.canonical}",
        f"oci:{layout}:pulled",
    ]


def build_push(reference: Reference, access: Access, *, source: Path, digest_file: Path) -> list[str]:
    """Send a `dir:` directory as it is."""
    return [
        *_program(access),
        "copy",
        "--preserve-digests",
        f"--digestfile={digest_file}",
        f"--retry-times={_RETRIES}",
        *_registry_options(access, "dest-"),
        f"dir:{source}",
        f"docker://{reference.canonical}",
    ]


def build_login(domain: str, username: str, access: Access) -> list[str]:
    """Try credentials, the password on standard input; they are written to the authfile only."""
    return [
        *_program(access),
        "login",
        f"--tls-verify={'true' if access.verify_tls else 'false'}",
        f"--authfile={access.authfile}",
        f"--username={username}",
        "--password-stdin",
        domain,
    ]


def registry_domain(server: str) -> str:
    """What `docker login` names (`https://index.docker.io/v1/`, `registry.example:5000`, nothing) → the registry's host."""
    host = server.partition("://")[2] if "://" in server else server
    host = host.partition("/")[0]
    return "docker.io" if host in ("", "index.docker.io", "registry-1.docker.io") else host


def explain_login(error: CommandFailed, domain: str) -> SiloError:
    explained = explain_failure(error, Reference(domain=domain, path="login"), pushing=False)
    if isinstance(explained, AccessDenied):
        return AccessDenied(
            f"login attempt to {domain} failed: incorrect username or password", details=explained.details
        )
    return explained


def build_authfile(domain: str, username: str, password: str) -> bytes:
    """The content of an authfile for one registry."""
    token = base64.b64encode(f"{username}:{password}".encode()).decode()
    return msgspec.json.encode({"auths": {domain: {"auth": token}}})


def verifies_tls(domain: str, insecure_registries: Iterable[str]) -> bool:
    """False for registries on this machine's loopback, as with Docker, and for those the administrator names."""
    host = domain.rpartition(":")[0] if ":" in domain and not domain.endswith("]") else domain
    if domain in insecure_registries or host in insecure_registries:
        return False
    if host == "localhost":
        return False
    try:
        return not ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return True


_UNKNOWN_TAG = ("manifest unknown", "manifest_unknown", "reading manifest", "not found")
_UNKNOWN_NAME = ("name unknown", "name_unknown", "repository name not known")
_DENIED = (
    "unauthorized",
    "authentication required",
    "access to the resource is denied",
    "invalid username/password",
    "denied:",
    "403 (forbidden)",
    "no basic auth credentials",
)
_UNREACHABLE = (
    "connection refused",
    "no such host",
    "server misbehaving",
    "i/o timeout",
    "network is unreachable",
    "no route to host",
    "tls handshake timeout",
    "connection reset",
    "unexpected eof",
    ": eof",
    "deadline exceeded",
    "bad gateway",
    "service unavailable",
    "gateway timeout",
    "proxyconnect",
)


def explain_failure(error: CommandFailed, reference: Reference, *, pushing: bool) -> SiloError:
    """skopeo's words → an error that says what to do; texts follow Docker's, since scripts look for them."""
    details = _message(error.stderr)
    text = details.lower()
    name = reference.familiar_name

    def holds(words: Iterable[str]) -> bool:
        return any(word in text for word in words)

    if "no space left on device" in text:
        return NoSpace(
            f"no space left on device while {'pushing' if pushing else 'pulling'} {reference.familiar}", details=details
        )
    if "toomanyrequests" in text or "too many requests" in text:
        return Unavailable(
            f"the registry {reference.domain} limits requests",
            details=details,
            hint="wait, or log in for a higher limit",
        )
    if "http response to https client" in text or "x509:" in text or "certificate" in text:
        return HostError(
            f"no trusted TLS connection to the registry {reference.domain}",
            details=details,
            hint="install its certificate in /etc/containers/certs.d, or name it in the setting insecure_registries",
        )
    if holds(_DENIED):
        if pushing:
            return AccessDenied(
                f"denied: requested access to the resource {name} is denied", details=details, hint="docker login"
            )
        return AccessDenied(
            f"pull access denied for {name}, repository does not exist or may require 'docker login'", details=details
        )
    if holds(_UNREACHABLE):
        return Unavailable(
            f"the registry {reference.domain} cannot be reached",
            details=details,
            hint="is the name right, the network up, and a proxy set where one is needed?",
        )
    if holds(_UNKNOWN_NAME) and not pushing:
        return NotFound(f"repository {name} not found: name unknown", details=details)
    if holds(_UNKNOWN_TAG) and not pushing:
        return NotFound(f"manifest for {reference.familiar} not found: manifest unknown", details=details)
    return HostError(f"cannot {'push' if pushing else 'pull'} {reference.familiar}", details=details)


# skopeo puts it before whatever a registry's first answer was
_IMAGE_NAME = re.compile(r'^Error parsing image name "[^"]*": ')


def _message(stderr: str) -> str:
    """The msg field of skopeo's last fatal log line, or the tail of what it wrote."""
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    for line in reversed(lines):
        if "level=fatal" in line and 'msg="' in line:
            text = line.partition('msg="')[2].removesuffix('"').replace('\\"', '"')
            return _IMAGE_NAME.sub("", text)[:1000]
    return " ".join(lines)[-1000:]
