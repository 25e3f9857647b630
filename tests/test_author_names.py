"""The names that an author may use: `dir(server)` and `dir(ctx)` show them and nothing else."""

from __future__ import annotations

from minimcp import Context, Server
from tests.helpers import Legacy, result

SERVER = {
    # Registering.
    *("tool", "resource", "prompt", "completion", "remove_tool", "remove_resource", "remove_prompt", "use", "route"),
    # Putting servers together.
    "mount",
    "page",
    # Telling clients.
    *("changed", "updated"),
    # Work that outlives its call.
    "tasks",
    # Serving.
    *("run", "run_http", "wsgi", "flask_view", "django_view", "handle", "explain", "close"),
    # The part that transports, extensions and gateways use.
    "engine",
}
CONTEXT = {
    # The server.
    "app",
    # The request.
    *("method", "params", "meta", "request_id", "version"),
    # The caller.
    *("principal", "capabilities", "client_info", "session", "request", "can", "extension"),
    # The way back.
    *("progress", "track", "log", "close_stream", "private"),
    # Questions.
    *("elicit", "elicit_url", "sample", "list_roots", "ask", "idempotency_key"),
    # Work that outlives the call.
    "task",
    # The end.
    *("cancelled", "check", "on_cancel", "detach"),
}


def names(thing):
    return {name for name in dir(thing) if not name.startswith("_")}


def test_a_server_shows_its_authors_names():
    assert names(Server("s")) == SERVER


def test_a_context_shows_its_authors_names():
    server, seen = Server("s"), []

    @server.tool
    def tool(ctx: Context) -> str:
        seen.append(names(ctx))
        return "x"

    result(server, "tools/call", name="tool")
    Legacy(server).result("tools/call", name="tool")
    assert seen == [CONTEXT, CONTEXT]
