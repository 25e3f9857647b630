"""A WSGI callable as a server: Streamable HTTP without a port, for tests of headers, authentication and middleware.

The application runs on the thread that calls it, and its iterable is advanced as the reply is asked for. What runs on
the caller's own thread cannot be interrupted, so a timeout and a cancellation take effect between two pieces of the
answer; an event stream has one at least with every keep-alive comment.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Optional
from urllib.parse import urlsplit

from ...engines.errors import ConnectionLost, Timeout
from ...engines.http_client.pool import Pool
from ...engines.http_client.response import Headers
from ...engines.http_client.settings import Fields, HttpSettings
from .http import HttpTransport


class WsgiTransport(HttpTransport):
    """A way to a WSGI application.

    :param url: the address the application is to think it has; its path is where the MCP endpoint is.
    :param headers: sent with every request.
    :param auth: as `requests` takes it; hooks that send a request again are not of use here.
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

    def _make_web(self, headers: Optional[Headers], auth: Any, session: Any) -> Pool:
        return _Calls(self._app, self.url, headers, auth, self.limits)


class _Calls(Pool):
    """Requests that are calls of an application."""

    def __init__(self, app: Any, url: str, headers: Optional[Headers], auth: Any, limits: dict[str, float]) -> None:
        super().__init__(url, headers, auth, None, limits)
        self._app = app

    def open(
        self,
        setup: HttpSettings,
        method: str,
        url: str,
        fields: Fields,
        body: bytes,
        prepared: Any,
        deadline: float | None,
    ) -> _Called:
        """Call the application up to the first piece of its answer."""
        from werkzeug.test import EnvironBuilder, run_wsgi_app

        parts = urlsplit(url)
        builder = EnvironBuilder(
            path=parts.path or "/",
            base_url=f"{parts.scheme}://{parts.netloc}/",
            query_string=parts.query,
            method=method,
            headers=list(fields.values()),
            data=body or None,
            # A thread of the client may hold the GET stream while others make calls.
            multithread=True,
        )
        try:
            pieces, status, headers = run_wsgi_app(self._app, builder.get_environ())
        except Exception as problem:
            raise ConnectionLost(f"The application failed: {type(problem).__name__}: {problem}") from problem
        return _Called(pieces, status, headers)

    def keep(self, setup: HttpSettings, source: Any) -> None:
        """There is no connection to keep."""
        source.close()


class _Called:
    """The answer of an application, like `reading.Incoming`."""

    connection = None
    reusable = False

    def __init__(self, pieces: Any, status: str, headers: Any) -> None:
        self.status = int(status.split(" ")[0])
        self.headers: Headers = {name.lower(): value for name, value in headers.items()}
        self.cookies = headers.getlist("Set-Cookie")
        self.finished = False
        self._close = getattr(pieces, "close", None)
        self._pieces: Iterator[bytes] = iter(pieces)

    def head(self, deadline: float | None) -> None:
        """It is there already."""

    def read(self, deadline: float | None) -> bytes:
        """The next piece, or b"" at the end."""
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

    def shutdown(self) -> None:
        """Nothing wakes an application; whoever reads notices before the next piece."""

    def close(self) -> None:
        """Tell the application that nobody reads on."""
        close, self._close = self._close, None
        if close is not None:
            close()
