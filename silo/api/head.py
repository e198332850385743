"""The head of a request, parsed by httptools; one parser serves one request."""

from __future__ import annotations

from collections.abc import Callable

import httptools

from silo.api.body import Body


class Request:
    """The head of a request; header names are lower case, everything in it is untrusted."""

    __slots__ = ("body", "expects_continue", "headers", "keep_alive", "method", "old_http", "path", "query")

    def __init__(self) -> None:
        self.method = ""
        self.path = ""
        self.query = ""
        self.headers: dict[str, str] = {}
        self.keep_alive = True
        self.old_http = False
        self.expects_continue = False
        self.body: Body


class HeadParser:
    """httptools' callbacks for one request."""

    def __init__(self) -> None:
        self.request = Request()
        self.complete = False
        self.on_chunk: Callable[[bytes], None] | None = None
        self._url = b""
        self.parser = httptools.HttpRequestParser(self)

    def on_message_begin(self) -> None:
        if self.complete:
            raise ValueError("a second request inside the bytes of the first")

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        headers = self.request.headers
        headers[key] = f"{headers[key]}, {text}" if key in headers else text

    def on_headers_complete(self) -> None:
        url, _, query = self._url.decode("latin-1").partition("?")
        if not url.startswith("/"):
            # Absolute form, as proxies get it.
            url = "/" + url.partition("://")[2].partition("/")[2]
        request = self.request
        request.path, request.query = url, query.partition("#")[0]
        request.method = self.parser.get_method().decode("latin-1")
        request.keep_alive = self.parser.should_keep_alive()
        request.old_http = self.parser.get_http_version() == "1.0"
        request.expects_continue = request.headers.get("expect", "").lower() == "100-continue"

    def on_body(self, data: bytes) -> None:
        if self.on_chunk is not None:
            self.on_chunk(data)

    def on_message_complete(self) -> None:
        self.complete = True
