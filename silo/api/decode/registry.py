"""Registry credentials in headers and bodies."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from silo.api.decode.shapes import decode_struct
from silo.api.decode.wire import AuthBody
from silo.errors import InvalidRequest, Unsupported

MAX_HEADER_CHARACTERS = 16 * 1024


def parse_registry_auth(headers: Mapping[str, str]) -> AuthBody:
    """X-Registry-Auth: base64url of a JSON object; absent or `{}` is anonymous. Raises InvalidRequest, Unsupported."""
    untrusted_text = headers.get("x-registry-auth", "").strip()
    if not untrusted_text:
        return AuthBody()
    if len(untrusted_text) > MAX_HEADER_CHARACTERS:
        raise InvalidRequest("X-Registry-Auth is too long")
    try:
        padded = untrusted_text.rstrip("=") + "=" * (-len(untrusted_text.rstrip("=")) % 4)
        body = base64.b64decode(
            padded, altchars=b"-_" if "+" not in padded and "/" not in padded else None, validate=True
        )
    except (binascii.Error, ValueError):
        raise InvalidRequest("X-Registry-Auth is not base64") from None
    return check_auth(decode_struct(body, AuthBody, empty=True))


def check_auth(auth: AuthBody) -> AuthBody:
    """Fill name and password from `auth` (base64 of both). Raises Unsupported for tokens."""
    if auth.identitytoken or auth.registrytoken:
        raise Unsupported("registry login by identity token is not supported", hint="log in with a name and a password")
    if auth.auth and not auth.username:
        try:
            name, _, password = base64.b64decode(auth.auth, validate=True).decode().partition(":")
        except (binascii.Error, ValueError):
            raise InvalidRequest("the member auth of the credentials is not base64") from None
        auth.username, auth.password = name, password
    return auth
