"""Fixtures for pytest: a client of anything, a Server on a port, a Server as a child process. Nothing async.

    def test_forecast(mcp_client, mcp_http_server):
        client = mcp_client(mcp_http_server(server))
        assert client.call_tool("forecast", city="Oslo").text == "rain"

pytest loads this by itself where minimcp is installed. Whatever a test opened is closed at its end, last first.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .client.client import Client

_JOIN_S = 10.0


@pytest.fixture
def _mcp_opened() -> Iterator[contextlib.ExitStack]:
    """The stack of things to close: clients go before the servers they were opened on."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def mcp_client(_mcp_opened: contextlib.ExitStack) -> Callable[..., Client]:
    """`mcp_client(target, **options)` returns an opened client; the options are those of `Client`."""

    def make(target: Any, **options: Any) -> Client:
        from .client.client import Client

        return _mcp_opened.enter_context(Client(target, **options))

    return make


@pytest.fixture
def mcp_http_server(_mcp_opened: contextlib.ExitStack) -> Callable[..., str]:
    """`mcp_http_server(server, path="/mcp")` serves a Server or a WSGI callable on a free port and returns the URL.

    Further keywords are limits of the embedded server.
    """

    def make(server: Any, path: str = "/mcp", **limits: float) -> str:
        from .engines.http_server.wsgi_server import make_server
        from .transports.http import HttpApp

        is_server = hasattr(server, "engine") and not callable(server)
        app = HttpApp(server.engine, (path, path + "/")) if is_server else server
        listening = make_server(app, port=0, limits={"grace_s": 1.0, **limits})
        if is_server:
            listening.on_shutdown.append(server.close)
        thread = threading.Thread(target=listening.serve_forever, name="minimcp-pytest", daemon=True)
        thread.start()
        _mcp_opened.callback(thread.join, _JOIN_S)
        _mcp_opened.callback(listening.close)
        return listening.url + path

    return make


@pytest.fixture
def mcp_stdio_server(tmp_path: Path) -> Callable[..., list[str]]:
    """`mcp_stdio_server(path_or_source)` returns the command that serves a file, or a source text, with a Server.

    A name of one among several Servers follows the path after a colon, as for `minimcp run`. The interpreter is the one
    of the tests; minimcp must be installed there, or be in the current folder.
    """
    count = 0

    def make(source: str | os.PathLike[str]) -> list[str]:
        nonlocal count
        text = os.fspath(source)
        if "\n" in text:
            count += 1
            path = tmp_path / f"mcp_server_{count}.py"
            path.write_text(text, encoding="utf-8")
            text = str(path)
        return [sys.executable, "-m", "minimcp", "run", text]

    return make
