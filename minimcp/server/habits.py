"""Names and options that servers of other kits have, and what is written here in their place."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

_LOG = 'ctx.log("{0}", "...")'
_OF_A_CONTEXT = {
    **{level: _LOG.format(level) for level in ("debug", "info", "warning", "error")},
    "report_progress": "ctx.progress(done, total)",
    "session_id": "ctx.session, which is None on 2026-07-28",
    "request_context": "ctx itself",
    "client_id": "ctx.principal",
    "lifespan_context": "ctx.app",
}
_OF_A_SERVER = {
    "add_tool": "server.tool(function)",
    "add_resource": 'server.resource("config://app")(function)',
    "add_prompt": "server.prompt(function)",
    "resource_template": '@server.resource("note://{id}")',
    "custom_route": 'server.route("/healthz", handler)',
    "http_app": "server.wsgi",
    "streamable_http_app": "server.wsgi",
    "sse_app": "server.wsgi",
    "run_stdio_async": "server.run()",
    "run_http_async": "server.run_http(port=...)",
    "run_async": "server.run()",
    "call_tool": "Client(server).call_tool(...)",
    "list_tools": "Client(server).list_tools()",
    "read_resource": "Client(server).read_resource(...)",
    "add_middleware": "Server(..., around_call=f) or Server(..., around_request=f)",
    "import_server": 'server.mount("prefix", other)',
}
_OF_RUNNING = ("host", "port", "path", "streamable_http_path", "log_level", "stateless_http", "json_response")


def of_a_context(name: str) -> str:
    """Return the text for an attribute that a context does not have."""
    return _without("A context", name, _OF_A_CONTEXT)


def of_a_server(name: str) -> str:
    """Return the text for an attribute that a server does not have."""
    return _without("A server", name, _OF_A_SERVER)


def _without(what: str, name: str, known: dict[str, str]) -> str:
    return f"{what} has no {name}{f': write {known[name]}' if name in known else ''}"


def check_making(cls: Any, given: tuple[object, ...], options: Collection[str]) -> None:
    """Refuse a call of `Server` without a name, or with an option that there is not.

    :raises TypeError: with what to write.
    """
    made = cls.__init__
    if made.__code__.co_varnames[1] != "name":
        return  # A subclass has parameters of its own.
    if not given and "name" not in options:
        raise TypeError(f'{cls.__name__} needs a name: {cls.__name__}("my-server")')
    known = ["name", "version", *made.__kwdefaults__]
    for name in options:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            if name in _OF_RUNNING:
                hint = "; how it is served is said later: server.run_http(port=...)"
            raise TypeError(f"{cls.__name__} has no option {name}{hint}")


def check_running(given: tuple[object, ...], options: Collection[str]) -> None:
    """Refuse arguments of `Server.run`.

    :raises TypeError: with what to write.
    """
    if given or options:
        raise TypeError("run() serves over stdio and takes nothing; over HTTP write server.run_http(port=...)")
