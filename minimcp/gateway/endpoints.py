"""Further endpoints of a gateway: each shows a part of what there is, under a path, with sessions of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..server.server import Server
from ..transports.http import HttpApp
from ..views.view import View
from .gateway_options import server_options
from .rest import install_rest, rest_paths

if TYPE_CHECKING:
    from ..server.catalog import Catalog
    from .gateway import Gateway

Message = dict[str, Any]

_METHODS = ("POST", "GET", "DELETE")


def make_catalog(gateway: Gateway, spec: Message, name: str = "the gateway") -> Catalog:
    """Return the part of the gateway's catalog that an endpoint shows, or all of it.

    :param name: of the endpoint, for messages.
    """
    # An empty list lets nothing through, unlike none.
    narrowed = any(value is not None and value is not False for value in spec.values())
    return View(gateway.federation, spec, name) if narrowed else gateway.federation


def make_endpoint(gateway: Gateway, name: str, spec: Message, options: Message) -> Server:
    """Make the server of an endpoint, which shares everything with the gateway but its catalog and its sessions.

    :raises ValueError: naming what is wrong with its settings.
    """
    own = gateway.engine
    # A session id of one endpoint is none of another, even for the same principal.
    secret = [f"{each}/{name}" for each in options["secret"]] if options["secret"] else None
    more = {"name": own.identity["name"], "auth": None, "secret": secret, "bus": own.bus}
    more["catalog"] = make_catalog(gateway, spec, f"the endpoint {name}")
    server = Server(**{**server_options(options), **more})
    engine = server.engine
    engine.identity = own.identity
    engine.auth, engine.public, engine.debug, engine.page_size = own.auth, own.public, own.debug, own.page_size
    engine.extensions, engine.in_force = own.extensions, own.in_force
    gateway.prepare(engine)
    return server


def serve_endpoint(gateway: Gateway, name: str, server: Server) -> None:
    """Serve an endpoint below its name, such as /finance/mcp."""
    path = f"/{name}{gateway.settings.options['path']}"
    app = HttpApp(server.engine, (path, path + "/"))

    def answer(environ: Message) -> tuple[int, list[tuple[str, str]], Iterable[bytes]]:
        begun: list[Any] = []
        body = app(environ, lambda status, fields: begun.extend((int(status[:3]), fields)))
        return begun[0], begun[1], body

    for each in (path, path + "/"):
        for method in _METHODS:
            gateway.route(each, answer, method)
    if gateway.settings.options["rest"]:
        install_rest(server, f"/{name}", gateway)


def close_endpoint(gateway: Gateway, name: str, server: Server) -> None:
    """End an endpoint and its sessions."""
    path = f"/{name}{gateway.settings.options['path']}"
    for each in (path, path + "/", *rest_paths(f"/{name}")):
        gateway.engine.routes.pop(each, None)
    server.close()
