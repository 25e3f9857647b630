"""Mounted in Flask, Django and Bottle: their context, login, middleware and database are there inside handlers."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import sqlite3
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from minimcp import Context, Server
from minimcp.transports.http import HttpApp
from tests.embedded import embedded
from tests.helpers import BOTH, events, exchange, http_headers, modern, post, serving

FORMS = {"elicitation": {}}
YES = {"action": "accept", "content": {"sure": True}}
TIMEOUT_S = 20


def tool(name: str, **arguments: Any) -> dict[str, Any]:
    return modern("tools/call", capabilities=FORMS, meta={"progressToken": "p"}, name=name, arguments=arguments)


def call(url: str, name: str, arguments: Any = None, **headers: str) -> Any:
    """Call a tool and return its structured content."""
    status, reply = post(url, tool(name, **(arguments or {})), **headers)
    assert status == 200, reply
    assert "isError" not in reply["result"], reply
    return reply["result"].get("structuredContent")


def leave_a_running_call(url: str, server: Server, talk: bool) -> bool:
    """Call a tool, hang up while it runs, and say whether it was cancelled."""
    running, cancelled = threading.Event(), threading.Event()

    @server.tool
    def patience(ctx: Context) -> str:
        if talk:
            ctx.progress(1)
        running.set()
        if ctx.cancelled.wait(TIMEOUT_S):
            cancelled.set()
        return "never read"

    message = tool("patience")
    body = json.dumps(message).encode()
    lines = [b"POST /mcp HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % len(body)]
    lines += [f"{name}: {value}".encode() for name, value in http_headers(message).items()]
    host, _, port = url[len("http://") : -len("/mcp")].partition(":")
    with socket.create_connection((host, int(port)), TIMEOUT_S) as client:
        client.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        assert running.wait(TIMEOUT_S)
    return cancelled.wait(TIMEOUT_S)


def check_routes(root: str, server: Server, headers: dict[str, str] | None = None) -> None:
    """Reach every further path of a server that `root`/mcp is the endpoint of, HTTP+SSE too."""
    metadata = "/.well-known/oauth-protected-resource/mcp"
    server.route(metadata, lambda environ: (200, [("Content-Type", "application/json")], [b"{}"]))
    server.route("/status/\u00fc", lambda environ: (203, [("Content-Type", "text/html")], [b"<p>", b"fine"]))
    server.route(
        "/status/\u00fc",
        lambda environ: (202, [], [environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))]),
        "POST",
    )
    server.route("/broken", lambda environ: 1 / 0)  # type: ignore[arg-type, return-value]
    headers = headers or {}
    with exchange(root + metadata, None, headers, "GET") as response:
        assert (response.status, response.headers["Content-Type"], response.read()) == (200, "application/json", b"{}")
    for method, status, body in (("GET", 203, b"<p>fine"), ("POST", 202, b'"said"'), ("DELETE", 405, None)):
        said = "said" if method == "POST" else None
        with exchange(root + "/mcp/status/%C3%BC", said, headers, method) as response:
            assert response.status == status
            assert response.read() == body or body is None
    # The endpoint is where it was mounted for its callers, and not where everybody may read metadata.
    for name in ("mcp", "sse", "messages"):
        for method in ("GET", "POST", "OPTIONS"):
            with exchange(f"{root}/.well-known/{name}", None, headers, method) as response:
                assert response.status == 404
    with exchange(root + "/mcp/broken", None, headers, "GET") as response:
        assert (response.status, json.load(response)["error"]["code"]) == (500, -32603)
    with exchange(root + "/mcp/nowhere", None, headers, "GET") as response:
        assert response.status == 404
    assert post(root + "/mcp", modern("tools/list"), **headers)[0] == 200
    with exchange(root + "/mcp/sse", None, headers, "GET") as stream:
        assert stream.readline() == b"event: endpoint\n"
        target = stream.readline()[6:].decode().strip()
        assert target.startswith("/mcp/messages?session_id=")
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        host, _, port = root[len("http://") :].partition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
        connection.request("POST", target, json.dumps(ping), {"Content-Type": "application/json", **headers})
        assert connection.getresponse().status == 202
        connection.close()
        assert next(events(stream))["result"] == {}


# Plain WSGI


def test_further_paths_are_reached_where_the_callable_is_mounted() -> None:
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    server = Server("routes")
    server.tool(lambda: "x", "plain")
    app = DispatcherMiddleware(lambda *_: [], {"/mcp": server.wsgi, "/.well-known": server.wsgi})
    with serving(app) as url:
        check_routes(url, server)


def test_further_paths_are_reached_on_the_embedded_server() -> None:
    server = Server("routes")
    server.route("/", lambda environ: (200, [("Content-Length", "4")], [b"home"]))
    server.route("/deep/path", lambda environ: (200, [], iter([b"a", b"b"])))
    with embedded(HttpApp(server.engine, ("/mcp",))) as listening:
        url = listening.url
        for path, body in (("/", b"home"), ("/deep/path", b"ab")):
            with exchange(url + path, None, {}, "GET") as response:
                assert response.read() == body
        assert post(url + "/mcp", modern("server/discover"))[0] == 200
        # Host and Origin are checked here too.
        with exchange(url + "/", None, {"Host": "evil.example"}, "GET") as response:
            assert response.status == 403
        with exchange(url + "/", None, {"Origin": "http://localhost:1"}, "GET") as response:
            assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:1"
    with pytest.raises(ValueError, match="begins with a slash"):
        server.route("status", lambda environ: (200, [], []))


def test_a_page_at_the_endpoint_leaves_the_endpoint_where_it_is() -> None:
    server = Server("routes")
    server.route("/mcp", lambda environ: (200, [("Content-Length", "4")], [b"page"]))
    with embedded(server.wsgi) as listening:
        url = listening.url + "/mcp"
        with exchange(url, None, {}, "GET") as response:
            assert response.read() == b"page"
        assert post(url, modern("server/discover"))[0] == 200
        with exchange(url, None, {}, "PUT") as response:
            assert (response.status, response.headers["Allow"]) == (405, "GET, POST, DELETE")


def test_the_callable_keeps_the_rules_of_wsgi() -> None:
    from wsgiref.simple_server import WSGIRequestHandler, make_server
    from wsgiref.validate import validator

    server = Server("plain", limits={"body_bytes": 1000})

    @server.tool
    def steps(ctx: Context) -> str:
        ctx.progress(1)
        return "done"

    class Quiet(WSGIRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    # Both the validator and this server refuse what WSGI forbids.
    with make_server("127.0.0.1", 0, validator(server.wsgi), handler_class=Quiet) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        url = f"http://127.0.0.1:{httpd.server_port}"
        try:
            assert post(url + "/mcp", modern("tools/list"))[0] == 200
            assert post(url + "/mcp", tool("steps"))[1]["result"]["content"][0]["text"] == "done"
            with exchange(url + "/mcp", tool("steps", text="x" * 1000), http_headers(tool("steps"))) as response:
                assert response.status == 413
            with exchange(url + "/nowhere", None, {}, "GET") as response:
                assert response.status == 404
        finally:
            httpd.shutdown()
            thread.join(TIMEOUT_S)


def test_a_refusal_has_no_header_that_only_servers_may_send() -> None:
    from wsgiref.util import is_hop_by_hop

    server = Server("plain", limits={"body_bytes": 10})
    started: list[Any] = []
    environ = {"REQUEST_METHOD": "POST", "CONTENT_TYPE": "application/json", "CONTENT_LENGTH": "11", "PATH_INFO": "/"}
    list(server.wsgi(environ, lambda status, headers: started.extend([status, headers])))
    assert started[0].startswith("413")
    assert [name for name, _ in started[1] if is_hop_by_hop(name)] == []


def test_bottle_mounts_it() -> None:
    bottle = pytest.importorskip("bottle", reason="bottle is not installed")
    server = Server("bottled")

    @server.tool
    def steps(ctx: Context) -> str:
        ctx.progress(1)
        return "done"

    app = bottle.Bottle()
    app.route("/", callback=lambda: "the site")
    app.mount("/mcp", server.wsgi)
    with serving(app) as url:
        for path in ("/mcp", "/mcp/"):
            with exchange(url + path, tool("steps"), http_headers(tool("steps"))) as response:
                assert response.headers["Content-Type"] == "text/event-stream"
                assert [event.get("method", "result") for event in events(response)][-1] == "result"
        assert post(url + "/mcp", modern("nothing/here"))[0] == 404
        with exchange(url + "/", None, {}, "GET") as response:
            assert response.read() == b"the site"


# Flask


@pytest.fixture
def flask() -> Any:
    return pytest.importorskip("flask", reason="flask is not installed")


def test_flask_mounts_it_beside_the_application(flask: Any) -> None:
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    server = Server("mounted")
    server.tool(lambda: {"in context": flask.has_app_context()}, "where")
    app = flask.Flask("site")
    app.add_url_rule("/", view_func=lambda: "the site")
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/mcp": server.wsgi})
    with serving(app) as url:
        assert call(url + "/mcp", "where") == call(url + "/mcp/", "where") == {"in context": False}
        with exchange(url + "/", None, {}, "GET") as response:
            assert response.read() == b"the site"


class Site:
    """A Flask application that keeps the user and a database connection in `g`, and writes down what happens."""

    def __init__(self, flask: Any, database: Any = ":memory:", **options: Any) -> None:
        g, self.log = flask.g, []  # type: ignore[var-annotated]
        self.torn_down = threading.Event()
        self.server = Server("site", auth=[lambda request: g.user, "public"], **options)
        self.app = app = flask.Flask("site")

        @app.before_request
        def load() -> None:
            g.user = flask.request.headers.get("Test-User")
            # Refuses to be used by another thread than this one.
            g.db = sqlite3.connect(database)
            self.note("before")

        @app.teardown_request
        def close_request(error: Any) -> None:
            self.note("teardown request")

        @app.teardown_appcontext
        def close(error: Any) -> None:
            db = g.pop("db", None)
            if db is not None:
                db.close()
                self.note("closed")
            self.torn_down.set()

    def note(self, what: str) -> None:
        self.log.append((what, threading.get_ident()))

    def threads(self, what: str) -> list[int]:
        return [thread for noted, thread in self.log if noted == what]

    @contextlib.contextmanager
    def serve(self) -> Iterator[str]:
        bp = sys.modules["flask"].Blueprint("mcp", "mcp")
        bp.add_url_rule("/mcp", view_func=self.server.flask_view(), strict_slashes=False)
        self.app.register_blueprint(bp)
        with serving(self.app) as url:
            yield url + "/mcp"


def test_a_flask_view_serves_both_paths_and_every_method(flask: Any) -> None:
    site = Site(flask)
    site.server.tool(lambda: "x", "plain")
    with site.serve() as url:
        assert post(url, modern("tools/list"), Test_User="ann")[0] == 200
        assert post(url + "/", modern("tools/list"), Test_User="ann")[0] == 200
        with exchange(url, None, {"Origin": url[: -len("/mcp")]}, "OPTIONS") as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Methods"] == "POST, GET, DELETE"
        for method in ("GET", "DELETE"):
            with exchange(url, None, {"Accept": BOTH, "Mcp-Session-Id": "x"}, method) as response:
                assert response.status == 404
        with exchange(url, None, {}, "PUT") as response:
            assert response.status == 405
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        note["params"] = {"_meta": modern("x")["params"]["_meta"], "requestId": 1}
        headers = http_headers(note)
        with exchange(url, note, headers) as response:
            assert (response.status, response.headers["Content-Type"], response.read()) == (202, None, b"")


def test_further_paths_are_reached_through_a_flask_view(flask: Any) -> None:
    server, app = Server("routes"), flask.Flask("site")
    server.tool(lambda: "x", "plain")
    view = server.flask_view()
    for rule in ("/mcp", "/mcp/<path:rest>", "/.well-known/<path:rest>"):
        app.add_url_rule(rule, view_func=view)
    with serving(app) as url:
        check_routes(url, server)


def test_a_handler_in_a_flask_view_sees_what_a_view_sees(flask: Any) -> None:
    site = Site(flask)

    @site.server.tool
    def plain() -> dict:
        site.note("handler")
        return {"user": flask.g.user, "path": flask.request.path, "db": flask.g.db.execute("select 1").fetchone()[0]}

    with site.serve() as url:
        assert call(url, "plain", Test_User="ann") == {"user": "ann", "path": "/mcp", "db": 1}
    assert [what for what, _ in site.log] == ["before", "handler", "teardown request", "closed"]
    assert len({thread for _, thread in site.log}) == 1


def test_a_handler_on_a_worker_has_a_flask_context_of_its_own(flask: Any) -> None:
    site = Site(flask)

    @site.server.tool
    def talks(ctx: Context) -> dict:
        site.note("handler")
        return {"user": flask.g.user, "me": ctx.principal.id, "db": flask.g.db.execute("select 1").fetchone()[0]}

    with site.serve() as url:
        assert call(url, "talks", Test_User="ann") == {"user": "ann", "me": "ann", "db": 1}
    (worker,) = site.threads("handler")
    assert [what for what, thread in site.log if thread == worker] == [
        "before",
        "handler",
        "teardown request",
        "closed",
    ]
    assert [what for what, thread in site.log if thread != worker] == ["before", "teardown request", "closed"]
    assert site.log[-1][1] != worker  # the request ends after the call


def test_a_flask_context_outlives_the_view_of_a_stream(flask: Any) -> None:
    site = Site(flask)

    @site.server.tool
    def talks(ctx: Context) -> dict:
        ctx.progress(1)
        assert site.torn_down.wait(TIMEOUT_S)  # the view has returned, and its context is gone
        return {
            "user": flask.g.user,
            "agent": flask.request.user_agent.string,
            "db": flask.g.db.execute("select 1").fetchone(),
        }

    with site.serve() as url:
        assert call(url, "talks", Test_User="ann", User_Agent="test") == {"user": "ann", "agent": "test", "db": [1]}
    assert len(site.threads("closed")) == 2


def test_a_waiting_stream_holds_no_flask_context(flask: Any) -> None:
    site = Site(flask)
    site.server.tool(lambda: "x", "first")
    message = modern("subscriptions/listen", notifications={"toolsListChanged": True})
    with site.serve() as url, exchange(url, message, http_headers(message)) as response:
        coming = events(response)
        assert next(coming)["method"] == "notifications/subscriptions/acknowledged"
        assert site.torn_down.wait(TIMEOUT_S)
        site.server.tool(lambda: "x", "second")
        assert next(coming)["method"] == "notifications/tools/list_changed"
        site.server.close()
        assert [event.get("method", "result") for event in coming] == ["notifications/cancelled", "result"]


def test_what_a_decorator_of_the_view_leaves_in_g_reaches_the_worker(flask: Any) -> None:
    server, app = Server("decorated"), flask.Flask("site")

    @server.tool
    def talks(ctx: Context) -> dict:
        return {"token": flask.g.token, "cached": "_cached" in flask.g}

    view = server.flask_view()

    def authenticated() -> Any:
        flask.g.token, flask.g._cached = flask.request.headers["Authorization"], "of the request's thread"
        return view()

    app.add_url_rule("/mcp", view_func=authenticated, methods=["POST"])
    with serving(app) as url:
        assert call(url + "/mcp", "talks", Authorization="Bearer x") == {"token": "Bearer x", "cached": False}


@pytest.mark.parametrize("abort", [False, True])
def test_a_hook_that_refuses_the_worker_fails_the_call(flask: Any, abort: bool) -> None:
    site, seen = Site(flask), []

    @site.server.tool
    def talks(ctx: Context) -> str:
        return "never"

    @site.app.before_request
    def once() -> Any:
        seen.append(1)
        if len(seen) > 1:
            return flask.abort(429) if abort else ("too many", 429)
        return None

    with site.serve() as url:
        status, reply = post(url, tool("talks"), Test_User="ann")
    assert (status, reply["error"]["code"]) == (400, -32600)
    assert reply["error"]["message"] == "A before_request hook of the application refused the request"


def test_a_flask_application_may_read_the_body_first_and_limit_it(flask: Any) -> None:
    site, seen = Site(flask), []
    site.server.tool(lambda: {"fine": True}, "plain")
    site.app.config["MAX_CONTENT_LENGTH"] = 2000

    with site.serve() as url:
        status, reply = post(url, tool("plain", text="x" * 2000), Test_User="ann")
        assert (status, reply["error"]["code"]) == (413, -32600)
        assert "MAX_CONTENT_LENGTH" in reply["error"]["message"]

    site = Site(flask)
    site.server.tool(lambda: {"fine": True}, "plain")
    site.app.before_request(lambda: seen.append(flask.request.get_json()["method"]))
    with site.serve() as url:
        assert call(url, "plain", Test_User="ann") == {"fine": True}
    assert seen == ["tools/call"]


def test_flask_decides_by_its_trusted_hosts(flask: Any) -> None:
    site = Site(flask)
    site.server.tool(lambda: "x", "plain")
    headers = {"Host": "shop.example"}
    with site.serve() as url:
        assert post(url, modern("tools/list"), **headers)[0] == 403
        site.app.config["TRUSTED_HOSTS"] = ["shop.example"]
        assert post(url, modern("tools/list"), **headers)[0] == 200


def test_a_legacy_question_is_asked_from_a_flask_context(flask: Any) -> None:
    site = Site(flask)

    @site.server.tool
    def confirm(ctx: Context) -> dict:
        answer = ctx.elicit("Sure?", {"sure": bool})
        return {"user": flask.g.user, "sure": answer["sure"]}

    with site.serve() as url:
        headers = {"Content-Type": "application/json", "Accept": BOTH, "Test-User": "ann"}
        message: Any = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
        client = {"capabilities": FORMS, "clientInfo": {"name": "t", "version": "1"}}
        message["params"] = {"protocolVersion": "2025-06-18", **client}
        with exchange(url, message, headers) as response:
            headers["Mcp-Session-Id"] = response.headers["Mcp-Session-Id"]
        message = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "confirm", "arguments": {}}}
        with exchange(url, message, headers) as response:
            coming = events(response)
            question = next(coming)
            assert question["method"] == "elicitation/create"
            with exchange(url, {"jsonrpc": "2.0", "id": question["id"], "result": YES}, headers) as accepted:
                assert accepted.status == 202
            assert next(coming)["result"]["structuredContent"] == {"user": "ann", "sure": True}


@pytest.mark.parametrize("talk", [True, False], ids=["in a stream", "before anything was sent"])
def test_a_client_that_leaves_a_flask_view_cancels_its_call(flask: Any, talk: bool) -> None:
    server, app = Server("patient", limits={"keepalive_s": 0.1, "silence_s": 30}), flask.Flask("site")
    app.add_url_rule("/mcp", view_func=server.flask_view())
    with serving(app) as url:
        assert leave_a_running_call(url + "/mcp", server, talk)
