"""Gateways under test, with servers in this process behind them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

from minimcp import Client, Gateway, Server
from minimcp.gateway import gateway as gateway_module
from tests.embedded import embedded


@contextlib.contextmanager
def served(server: Server) -> Iterator[str]:
    """Serve a server over HTTP and yield its URL."""
    with embedded(server.wsgi) as listening:
        try:
            yield f"http://127.0.0.1:{listening.port}/mcp"
        finally:
            server.close()


@contextlib.contextmanager
def gateway_of(*servers: Server, gateway: Any = None, entries: Any = None, **options: Any) -> Iterator[Gateway]:
    """A gateway for servers, which it reaches over HTTP; each is named as it names itself.

    :param gateway: the object "gateway" of its configuration.
    :param entries: further members of the entries, by the server's name.
    """
    with contextlib.ExitStack() as stack:
        found = {}
        for server in servers:
            name = server.engine.identity["name"]
            found[name] = {"url": stack.enter_context(served(server)), "probe": 0, **(entries or {}).get(name, {})}
        # Every server is there, however long a busy machine takes to list it.
        stack.enter_context(mock.patch.object(gateway_module, "_GREETING_S", 60.0))
        settings = {"listTimeout": 60, **(gateway or {})}
        made = stack.enter_context(Gateway({"mcpServers": found, "gateway": settings}, **options))
        yield made


@contextlib.contextmanager
def client_of(gateway: Any, mode: str = "modern", **options: Any) -> Iterator[Client]:
    """A client of a gateway in memory."""
    with Client(gateway, mode=mode, **options) as client:
        yield client
