"""Further paths of a server that end in a variable, and a page of the author's at the endpoint."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from minimcp import Server
from tests.helpers import http_headers, modern


def echo(environ: dict[str, Any]) -> Any:
    return 200, [("Content-Type", "text/plain")], [repr(environ["minimcp.route"]).encode()]


def text(said: str) -> Any:
    return lambda environ: (200, [("Content-Type", "text/plain")], [said.encode()])


def routed() -> Server:
    server = Server("routes")
    server.route("/tools/{name}", echo, "POST")
    server.route("/tools/{name}", echo)
    server.route("/tools/first", text("first"), "POST")
    server.route("/files/{+path}", echo)
    server.route("/files/deep/{+path}", text("deeper"))
    server.route("/\u00fc/{name}", echo)
    return server


@pytest.mark.parametrize(
    "method, path, status, body",
    [
        ("POST", "/tools/add", 200, "{'name': 'add'}"),
        ("GET", "/tools/add", 200, "{'name': 'add'}"),
        ("POST", "/tools/first", 200, "first"),
        ("GET", "/tools/first", 200, "{'name': 'first'}"),
        ("GET", "/tools/%C3%BC%20x", 200, "{'name': '\u00fc x'}"),
        ("GET", "/tools/", 404, None),
        ("GET", "/tools/a/b", 404, None),
        ("GET", "/tools/a%2Fb", 404, None),
        ("GET", "/tools/%7Bname%7D", 200, "{'name': '{name}'}"),
        ("GET", "/files/a/b", 200, "{'path': 'a/b'}"),
        ("GET", "/files/a%2Fb", 200, "{'path': 'a/b'}"),
        ("GET", "/files/deep/a", 200, "deeper"),
        ("GET", "/files/", 404, None),
        ("GET", "/%C3%BC/x", 200, "{'name': 'x'}"),
        ("PUT", "/tools/add", 405, None),
        ("PUT", "/tools/first", 405, None),
        ("HEAD", "/files/a", 200, ""),
    ],
)
def test_the_last_segment_of_a_path_may_be_a_variable(method: str, path: str, status: int, body: str | None) -> None:
    answer = Client(routed().wsgi).open(path, method=method)
    assert answer.status_code == status
    assert body is None or answer.text == body
    if status == 405:
        assert sorted(answer.headers["Allow"].split(", ")) == ["GET", "POST"]


def test_what_is_not_utf_8_is_nothing() -> None:
    assert Client(routed().wsgi).get("/", environ_overrides={"PATH_INFO": "/tools/\xff"}).status_code == 404


def test_a_preflight_is_answered_there_too() -> None:
    answer = Client(routed().wsgi).options("/files/a")
    assert (answer.status_code, answer.headers["Allow"]) == (204, "GET")


def test_variables_are_read_below_a_mount() -> None:
    app = Client(DispatcherMiddleware(lambda *_: [], {"/gw": routed().wsgi}))
    assert app.post("/gw/tools/add").text == "{'name': 'add'}"
    message = modern("server/discover")
    assert app.post("/gw/mcp", json=message, headers=http_headers(message)).status_code == 200


def test_a_failure_there_is_answered() -> None:
    server = Server("routes")
    server.route("/x/{name}", lambda environ: 1 / 0)  # type: ignore[arg-type, return-value]
    assert Client(server.wsgi).get("/x/y").status_code == 500


@pytest.mark.parametrize("path", ["/{a}/b", "/a{b}", "/{a}/{b}", "/{}", "/{a b}", "/{*a}", "/a}"])
def test_a_variable_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="last segment"):
        Server("s").route(path, echo)


def test_a_page_at_the_endpoint_leaves_a_client_its_stream() -> None:
    server = Server("routes")
    server.route("/", text("page"))
    app = Client(server.wsgi)
    assert app.get("/").text == app.get("/", headers={"Accept": "text/html"}).text == "page"
    answer = app.get("/", headers={"Accept": "text/event-stream"})
    # The endpoint's own answer to a client without a session.
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
