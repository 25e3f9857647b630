"""A WSGI callable as a server: Streamable HTTP without a port, for tests of headers, authentication and middleware.

The application runs on the thread that calls it, and its iterable is advanced as the reply is read. It cannot be
interrupted there, so a timeout and a cancellation take effect between two pieces of the answer; an event stream has one
at least with every keep-alive comment.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional
from urllib.parse import urlsplit

from ...engines.errors import ConnectionLost, Timeout
from ...engines.http_client.connections import HttpConnections
from ...engines.http_client.pool import Pool
from ...engines.http_client.request import Outgoing, SignedAnswer, is_native, text_of
from ...engines.http_client.response import AnyResponse, Headers
from .http import HttpTransport


class WsgiTransport(HttpTransport):
    """A way to a WSGI application.

    :param url: the address in the environ; its path is that of the MCP endpoint.
    :param headers: sent with every request.
    :param auth: as for `HttpTransport`; one made for `requests` is asked for headers only.
    """

    kind = "wsgi"

    def __init__(
        self,
        app: Any,
        *,
        url: str = "http://localhost/mcp",
        headers: Optional[Headers] = None,
        auth: Any = None,
        limits: Optional[dict[str, float]] = None,
    ) -> None:
        self._app = app
        super().__init__(url, headers=headers, auth=auth, limits=limits)

    def _make_pool(self, headers: Optional[Headers], auth: Any, session: Any) -> Pool:
        if callable(auth) and not is_native(auth):
            auth = _Prepared(auth)
        return Pool(lambda: WsgiConnections(self._app, self.url, headers, auth, self.limits))


class _Prepared:
    """An auth of `requests`, asked for the headers it adds and nothing else."""

    def __init__(self, auth: Any) -> None:
        self._auth = auth

    def sign(self, method: str, url: str, headers: Headers) -> Headers:
        import requests

        prepared = requests.Request(method, url, headers=headers, auth=self._auth).prepare()
        return {name: text_of(value) for name, value in prepared.headers.items() if name.lower() != "content-length"}

    def answered(self, answers: Sequence[SignedAnswer]) -> bool:
        return False


class WsgiConnections(HttpConnections):
    """Requests that are calls of an application."""

    def __init__(
        self, app: Any, url: str, headers: Optional[Headers], auth: Any, limits: Optional[Mapping[str, float]]
    ) -> None:
        super().__init__(url, headers, auth, limits)
        self._app = app

    def open(self, request: Outgoing, deadline: float | None) -> WsgiResponse:
        """Call the application up to the first piece of its answer."""
        from werkzeug.test import EnvironBuilder, run_wsgi_app

        parts = urlsplit(request.url)
        builder = EnvironBuilder(
            path=parts.path or "/",
            base_url=f"{parts.scheme}://{parts.netloc}/",
            query_string=parts.query,
            method=request.method,
            headers=list(request.fields.values()),
            data=request.body or None,
            # A thread of the client may hold the GET stream while others make calls.
            multithread=True,
        )
        try:
            pieces, status, headers = run_wsgi_app(self._app, builder.get_environ())
        except Exception as problem:
            raise ConnectionLost(f"The application failed: {type(problem).__name__}: {problem}") from problem
        return WsgiResponse(pieces, status, headers)


class WsgiResponse(AnyResponse):
    """The answer of an application, which cannot be woken: its reader notices a `shutdown` before the next piece."""

    def __init__(self, pieces: Any, status: str, headers: Any) -> None:
        self.status = int(status.split(" ")[0])
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.cookies = headers.getlist("Set-Cookie")
        self._close = getattr(pieces, "close", None)
        self._pieces: Iterator[bytes] = iter(pieces)

    def read(self, deadline: float | None) -> bytes:
        """Return the next piece, or b"" at the end."""
        while not self.finished:
            if deadline is not None and time.monotonic() >= deadline:
                raise Timeout("The application did not answer in time")
            try:
                data = next(self._pieces, None)
            except Exception as problem:
                raise ConnectionLost(f"The application failed: {type(problem).__name__}: {problem}") from problem
            if data:
                return data
            self.finished = data is None
        return b""

    def close(self) -> None:
        """Tell the application that nobody reads on."""
        close, self._close = self._close, None
        if close is not None:
            close()
