"""Fetch one file over HTTP(S) for a build: bounded in size and time. Blocks."""

from __future__ import annotations

import email.message
import email.utils
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from silo.errors import InvalidRequest, Unavailable
from silo.host.durable import free_bytes, host_error

_CHUNK_BYTES = 1 << 18
_RESERVE_BYTES = 64 << 20
_SCHEMES = ("http", "https")


@dataclass(frozen=True)
class Downloaded:
    """`name` is the file's name by the URL or the server, "" if neither tells; `modified_s` its Last-Modified, or None."""

    name: str
    content_type: str
    modified_s: float | None


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """A server cannot lead to a file of this host."""

    def redirect_request(self, *arguments: object) -> urllib.request.Request | None:
        target = str(arguments[-1])
        if urllib.parse.urlsplit(target).scheme not in _SCHEMES:
            raise InvalidRequest(f"the server leads to {target[:200]}, which is no web address")
        return super().redirect_request(*arguments)  # type: ignore[arg-type]


def download(
    url: str, target: Path, *, limit_bytes: int, timeout_s: float, check: Callable[[], None] = lambda: None
) -> Downloaded:
    """Write what `url` gives to `target`. `check` is asked between pieces and raises to give up.

    Raises InvalidRequest (no web address, too large, refused by the server), Unavailable (no answer in time), NoSpace.
    """
    if urllib.parse.urlsplit(url).scheme not in _SCHEMES:
        raise InvalidRequest(f"{url[:200]} is no web address", hint="http:// or https://")
    deadline = time.monotonic() + timeout_s
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        _WebOnly(),
    ):
        opener.add_handler(handler)
    try:
        with opener.open(urllib.request.Request(url, headers={"User-Agent": "silo"}), timeout=30) as answer:
            _receive(answer.read, target, url, limit_bytes, deadline, check)
            return _describe(url, answer.url, answer.headers)
    except urllib.error.HTTPError as error:
        error.close()
        raise InvalidRequest(
            f"cannot download {url}", details=f"the server answers {error.code} {error.reason}"
        ) from None
    except TimeoutError as error:
        raise Unavailable(f"cannot download {url}", details="no answer in time") from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.filename == str(target):
            raise host_error(error, f"cannot keep what {url} gives") from error
        reason = getattr(error, "reason", error)
        raise Unavailable(f"cannot download {url}", details=str(reason)) from error


def _receive(
    read: Callable[[int], bytes],
    target: Path,
    url: str,
    limit_bytes: int,
    deadline: float,
    check: Callable[[], None],
) -> None:
    size = 0
    with target.open("xb") as file:
        while data := read(_CHUNK_BYTES):
            check()
            size += len(data)
            if size > limit_bytes:
                raise InvalidRequest(f"{url} gives more than {limit_bytes} bytes")
            if time.monotonic() > deadline:
                raise Unavailable(f"cannot download {url}", details="it takes too long")
            if free_bytes(target.parent) < _RESERVE_BYTES:
                raise host_error(OSError(28, "No space left on device"), f"cannot keep what {url} gives")
            file.write(data)


def _describe(url: str, final_url: str, headers: email.message.Message) -> Downloaded:
    names = (_last_part(url), headers.get_filename() or "", _last_part(final_url))
    untrusted_name = next((name for name in names if name), "")
    modified = email.utils.parsedate_tz(headers.get("Last-Modified", ""))
    moment = None
    if modified is not None:
        try:
            moment = float(email.utils.mktime_tz(modified))
        except (ValueError, OverflowError):
            moment = None
    name = untrusted_name.replace("\\", "/").rpartition("/")[2]
    return Downloaded(
        name="" if name in (".", "..") or "\0" in name else name,
        content_type=headers.get_content_type(),
        modified_s=moment,
    )


def _last_part(url: str) -> str:
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
