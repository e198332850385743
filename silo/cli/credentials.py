"""Where `silo login` keeps registry credentials: `auth.json`, readable by its owner only; Docker's own file is read, never written.

~/.config/silo/auth.json    {"auths": {"registry.example:5000": {"auth": base64(user:password)}}}
"""

from __future__ import annotations

import binascii
import os

from silo.cli.failure import Failure
from silo.cli.json_text import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEFAULT_REGISTRY = "https://index.docker.io/v1/"


def own_file() -> str:
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return f"{base}/silo/auth.json"


def registry_of(image: str) -> str:
    """The registry that a reference names."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return DEFAULT_REGISTRY if first in ("docker.io", "index.docker.io") else first
    return DEFAULT_REGISTRY


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            value = loads(file.read())
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return {}
    except ValueError:
        raise Failure(f"{path} is not JSON") from None
    return value if isinstance(value, dict) else {}


def find_credentials(registry: str) -> tuple[str, str]:
    """(user, password); empty when there are none."""
    docker = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    for path in (own_file(), f"{docker}/config.json"):
        auths = _load(path).get("auths") or {}
        for key in (registry, f"https://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/"):
            encoded = (auths.get(key) or {}).get("auth")
            if encoded:
                try:
                    text = binascii.a2b_base64(encoded).decode()
                except ValueError:
                    raise Failure(f"the credentials of {registry} in {path} are damaged") from None
                user, _, password = text.partition(":")
                return user, password
    return "", ""


def all_credentials_header() -> dict[str, str]:
    """X-Registry-Config for a build, which may pull from any registry."""
    docker = os.environ.get("DOCKER_CONFIG") or os.path.expanduser("~/.docker")
    registries = dict.fromkeys(
        key for path in (own_file(), f"{docker}/config.json") for key in (_load(path).get("auths") or {})
    )
    known = {}
    for registry in registries:
        user, password = find_credentials(registry)
        if user:
            known[registry] = {"username": user, "password": password, "serveraddress": registry}
    if not known:
        return {}
    encoded = binascii.b2a_base64(dumps(known).encode(), newline=False).replace(b"+", b"-").replace(b"/", b"_")
    return {"X-Registry-Config": encoded.decode()}


def registry_header(image: str) -> dict[str, str]:
    """X-Registry-Auth for a pull or push."""
    registry = registry_of(image)
    user, password = find_credentials(registry)
    if not user:
        return {}
    body = dumps({"username": user, "password": password, "serveraddress": registry}).encode()
    encoded = binascii.b2a_base64(body, newline=False).replace(b"+", b"-").replace(b"/", b"_")
    return {"X-Registry-Auth": encoded.decode()}


def store_credentials(registry: str, user: str, password: str) -> str:
    """Answers the file's path."""
    path = own_file()
    value = _load(path)
    encoded = binascii.b2a_base64(f"{user}:{password}".encode(), newline=False).decode()
    value.setdefault("auths", {})[registry] = {"auth": encoded}
    _write(path, value)
    return path


def remove_credentials(registry: str) -> bool:
    path = own_file()
    value = _load(path)
    found = (value.get("auths") or {}).pop(registry, None) is not None
    if found:
        _write(path, value)
    return found


def _write(path: str, value: dict[str, Any]) -> None:
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    temporary = f"{path}.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(dumps(value, indent="  ") + "\n")
    os.replace(temporary, path)
