"""The tools of a server for callers that speak plain HTTP: `POST /tools/{name}`, and `GET /openapi.json`.

Each request becomes an ordinary `tools/call` or `tools/list` of 2026-07-28: rules, hooks and limits are the same.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Optional

from ..engines.errors import InvalidArguments
from ..engines.schema.validator import Undecided, Validator
from ..protocol import spec, wire
from ..protocol.errors import HttpAnswer
from ..protocol.served import Environ, Headers, Response
from ..transports.bodies import read_message, respond
from ..transports.hangups import watched
from ..transports.origin import Refused, embedded_in_page
from ..transports.outbox import Outbox
from ..transports.streams import gone
from . import openapi

if TYPE_CHECKING:
    from ..protocol.principal import Principal
    from ..server.context import Context
    from ..server.server import Server

Message = dict[str, Any]

_META = {spec.META_VERSION: spec.MODERN_VERSIONS[-1], spec.META_CAPABILITIES: {}}
_FIELDS: Headers = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff"), ("Vary", "Authorization")]
_MOST_PAGES = 1000


def install_rest(server: Server, below: str = "", at: Server | None = None) -> None:
    """Add the routes of a server's tools.

    :param below: the path below which they are, such as "/api".
    :param at: the server at which they are, by default the same.
    """
    facade, at = Facade(server), at or server
    tools, document = rest_paths(below)
    at.route(tools, facade.call, "POST")
    at.route(document, facade.describe)


def rest_paths(below: str) -> tuple[str, str]:
    """Return the paths of the routes: that of a tool, and that of the document."""
    return below + "/tools/{+name}", below + "/openapi.json"


class Facade:
    """Answers plain HTTP requests with what a server's tools return."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def call(self, environ: Environ) -> Response:
        """Answer `POST /tools/{name}`, whose body is the JSON object of the arguments.

        The answer is the structured content of the result, or the result itself when it has none; an error is
        `{"error": {"code", "message", "data"?}}`, with a status that says whose it is.

        :raises McpError: when the request is refused before a call is made of it.
        """
        principal = self._caller(environ)
        arguments = self._arguments(environ)
        params = {"name": environ["minimcp.route"]["name"], "arguments": arguments}
        reply, http, ctx = self._run(environ, principal, "tools/call", params)
        if reply is None:
            return respond(202)
        if "error" in reply:
            return _failure(reply["error"], http, ctx)
        result = reply["result"]
        if result.get("resultType", "complete") != "complete":
            said = "This tool asks its caller something, which REST has no way to answer; call it over MCP"
            asked = result.get("inputRequests")
            return _respond(409, {"error": {"message": said, "data": {"inputRequests": asked}}})
        if result.get("isError") is True:
            return _tool_failure(result, ctx, arguments)
        if "structuredContent" in result:
            return _respond(200, result["structuredContent"])
        return _respond(200, _bare(result))

    def describe(self, environ: Environ) -> Response:
        """Answer `GET /openapi.json` with the tools that the caller may see.

        :raises McpError: when the request is refused.
        """
        principal = self._caller(environ)
        tools: list[Message] = []
        params: Message = {}
        for _ in range(_MOST_PAGES):
            reply, http, ctx = self._run(environ, principal, "tools/list", params)
            if reply is None:
                return respond(202)
            if "error" in reply:
                if reply["error"].get("code") == spec.METHOD_NOT_FOUND:
                    break  # a server that has no tools yet
                return _failure(reply["error"], http, ctx)
            tools += reply["result"]["tools"]
            if "nextCursor" not in reply["result"]:
                break
            params = {"cursor": reply["result"]["nextCursor"]}
        engine = self._server.engine
        info = {"title": engine.identity.get("title", engine.identity["name"]), "version": engine.identity["version"]}
        if engine.instructions:
            info["description"] = engine.instructions
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        base = path[: -len("/openapi.json")].encode("latin-1").decode("utf-8", "replace")
        return _respond(200, openapi.document(info, tools, base, engine.auth is not None))

    def _caller(self, environ: Environ) -> Optional[Principal]:
        if embedded_in_page(environ):
            raise Refused(403, "Pages of other origins may not call this server; allowed_origins decides")
        return self._server.wsgi.authenticate(environ)

    def _arguments(self, environ: Environ) -> Message:
        if environ.get("CONTENT_LENGTH") in (None, "", "0") and not environ.get("HTTP_TRANSFER_ENCODING"):
            return {}
        arguments = read_message(environ, self._server.engine.limits)
        if not isinstance(arguments, dict):
            raise Refused(400, "The body is a JSON object: the arguments of the tool")
        return arguments

    def _run(
        self, environ: Environ, principal: Optional[Principal], method: str, params: Message
    ) -> tuple[Optional[Message], Optional[HttpAnswer], Context]:
        """Run a request as one of MCP; return its reply, None when the client has gone, its HTTP answer and context."""
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": _META}}
        app, engine = self._server.wsgi, self._server.engine
        call: Any = engine.call(message, principal=principal, request=environ)
        if not call.interactive:
            return call.run(), call.http, call.ctx
        outbox = Outbox()
        app.run_in_worker(environ, call, None, outbox.finish)
        with watched(environ, outbox.nudge):
            while not outbox.wait(engine.limits["keepalive_s"]):
                if gone(environ):
                    call.cancel("the client has gone")
                    return None, None, call.ctx
        reply: Any = outbox.reply
        return reply, call.http, call.ctx


def _failure(error: Message, http: Optional[HttpAnswer], ctx: Context) -> Response:
    """Build the response to a JSON-RPC error."""
    entry, code, data = ctx._entry, error.get("code"), error.get("data")
    data = data if isinstance(data, dict) else {}
    if http is not None:
        status, fields = http
        return _respond(status, {"error": error}, fields)
    if code == spec.METHOD_NOT_FOUND or (ctx.method == "tools/call" and (entry is None or ctx._denied)):
        return _respond(404, {"error": error})
    if code == spec.INVALID_PARAMS:
        return _respond(400, {"error": error})
    if code == spec.MISSING_CAPABILITY:
        return _respond(409, {"error": error})
    wait_ms = data.get("retryAfterMs")
    if isinstance(wait_ms, (int, float)):
        return _respond(503, {"error": error}, [("Retry-After", str(max(1, math.ceil(wait_ms / 1000))))])
    if entry is None or not entry.origin:
        return _respond(500, {"error": error})
    return _respond(504 if data.get("timedOut") else 502, {"error": error})


def _tool_failure(result: Message, ctx: Context, arguments: Message) -> Response:
    """Build the response to a result with `isError`: 400 when the arguments do not fit the schema, else 422.

    A status of a failing server would have clients repeat what may have had an effect.
    """
    blocks = result.get("content")
    blocks = [each for each in blocks if isinstance(each, dict)] if isinstance(blocks, list) else []
    text = "\n".join(each["text"] for each in blocks if isinstance(each.get("text"), str))
    entry = ctx._entry
    try:
        if entry is not None:
            Validator(entry.definition.get("inputSchema") or {}, "inputSchema", True).check(arguments)
        status = 422
    except (Undecided, ValueError):
        status = 422  # nothing can be judged by the schema
    except InvalidArguments:
        status = 400
    return _respond(status, {"error": {"message": text or "The tool failed", "result": _bare(result)}})


def _bare(result: Message) -> Message:
    """Return a result without what is of MCP's own."""
    meta = {name: each for name, each in (result.get("_meta") or {}).items() if name != spec.META_SERVER}
    rest = {name: each for name, each in result.items() if name not in ("resultType", "_meta")}
    return {**rest, "_meta": meta} if meta else rest


def _respond(status: int, data: Any, extra: Headers | None = None) -> Response:
    return respond(status, wire.encode(data), _FIELDS + (extra or []))
