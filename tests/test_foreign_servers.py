"""The WSGI callable on other people's servers: gunicorn with both kinds of workers, waitress and uWSGI."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import pathlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.helpers import BOTH, Process, events, exchange, http_headers, modern, post, stopped
from tests.test_frameworks import short_post

ROOT = pathlib.Path(__file__).parent.parent
APP = "tests.peers.foreign_app:application"
FORMS = {"elicitation": {}}

GUNICORN = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--graceful-timeout", "1", APP]
UWSGI = ["uwsgi", "--http-socket", "127.0.0.1:0", "--module", APP, "--enable-threads", "--die-on-term", "--master"]
UWSGI += ["--need-app", "--worker-reload-mercy", "1", "--pyhome", sys.prefix]
COMMANDS = {
    "gunicorn sync": [*GUNICORN, "--workers", "1"],
    "gunicorn gthread": [*GUNICORN, "--workers", "1", "--threads", "4"],
    "waitress": [sys.executable, "-m", "waitress", "--listen=127.0.0.1:0", "--threads=4", APP],
    "uwsgi": [*UWSGI, "--threads", "4"],
    "gunicorn, 4 workers": [*GUNICORN, "--workers", "4"],
    "uwsgi, 2 processes": [*UWSGI, "--processes", "2", "--threads", "2"],
}
READY = r"(?:Listening at: http://|Serving on http://|bound to TCP address )([\d.]+:\d+)"
# Where a listen stream would take the only thread.
SINGLE = ("gunicorn sync",)


def require(name: str) -> None:
    """Skip, by name, what is not installed."""
    program = name.split()[0].rstrip(",")
    if program != "uwsgi":
        if importlib.util.find_spec(program) is None:
            pytest.skip(f"{program} is not installed")
        return
    if shutil.which("uwsgi") is None:
        pytest.skip("uwsgi is not on the PATH")
    found = subprocess.run(["uwsgi", "--python-version"], capture_output=True, text=True, timeout=20).stdout
    if tuple(found.strip().split(".")[:2]) != tuple(map(str, sys.version_info[:2])):
        pytest.skip(f"uwsgi is built for Python {found.strip()}")


@contextlib.contextmanager
def running(name: str, home: Any, **env: str) -> Iterator[tuple[str, Process]]:
    require(name)
    env = {"HOME": str(home), "PYTHONPATH": str(ROOT), "MINIMCP_SECRET": "", **env}
    with Process(COMMANDS[name], cwd=str(ROOT), **env) as process:
        yield f"http://{process.wait_for(READY).group(1)}/mcp", process


@pytest.fixture(scope="module", params=["gunicorn sync", "gunicorn gthread", "waitress", "uwsgi"])
def served(request: Any, tmp_path_factory: Any) -> Iterator[tuple[str, str]]:
    with running(request.param, tmp_path_factory.mktemp("home")) as (url, _):
        yield request.param, url


@contextlib.contextmanager
def reports() -> Iterator[tuple[int, Any]]:
    """A port for a tool to report to, and a function that takes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener, contextlib.ExitStack() as stack:
        listener.settimeout(20)

        def accept() -> socket.socket:
            connection = stack.enter_context(listener.accept()[0])
            connection.settimeout(20)
            return connection

        yield listener.getsockname()[1], accept


def tool(name: str, id: Any = 1, **arguments: Any) -> dict[str, Any]:
    return modern("tools/call", id, capabilities=FORMS, meta={"progressToken": "p"}, name=name, arguments=arguments)


def listen(id: Any = 1) -> dict[str, Any]:
    return modern("subscriptions/listen", id, notifications={"toolsListChanged": True})


def test_a_plain_call_is_answered_in_json(served: Any) -> None:
    _, url = served
    with exchange(url, tool("where"), http_headers(tool("where"))) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "application/json")
        assert json.load(response)["result"]["structuredContent"]["pid"] > 0


def test_an_error_keeps_its_status(served: Any) -> None:
    _, url = served
    status, reply = post(url, modern("nothing/here"))
    assert (status, reply["error"]["code"]) == (404, -32601)
    with exchange(url, tool("where"), {"Content-Type": "text/plain"}) as response:
        assert response.status == 415
    with exchange(
        url, {"jsonrpc": "2.0", "method": "notifications/x"}, {"Content-Type": "application/json"}
    ) as response:
        assert response.status in (202, 400)


def test_a_body_that_is_too_large_is_refused(served: Any) -> None:
    _, url = served
    message = tool("where", text="x" * (4 * 1024 * 1024))
    try:
        with exchange(url, message, http_headers(message)) as response:
            assert response.status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # the server may hang up before it is told everything
    assert post(url, tool("where"))[0] == 200


def test_a_body_that_ends_early_is_not_executed(served: Any) -> None:
    _, url = served
    with contextlib.suppress(ConnectionError, http.client.BadStatusLine):
        # Waitress and uWSGI hang up instead: to them the request has never arrived.
        assert short_post(url, tool("plain")) == (400, -32600)


def test_each_event_of_a_stream_arrives_when_it_is_sent(served: Any) -> None:
    _, url = served
    with reports() as (port, accept):
        message = tool("steps", port=port)
        with exchange(url, message, http_headers(message)) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            coming = events(response)
            test = accept()
            for step in (1, 2, 3):
                # The tool goes on only when the test has read this.
                event = next(coming)
                assert event["params"] == {"progressToken": "p", "progress": step, "total": 3}
                test.sendall(b".")
            assert next(coming)["result"]["content"] == [{"type": "text", "text": "done"}]
            assert list(coming) == []


@pytest.mark.parametrize("talk", [True, False], ids=["in a stream", "before anything was sent"])
def test_a_client_that_goes_away_cancels_its_call(served: Any, talk: bool) -> None:
    _, url = served
    with reports() as (port, accept):
        message = tool("patience", port=port, talk=talk)
        body = json.dumps(message).encode()
        lines = [b"POST /mcp HTTP/1.1", b"Host: localhost", b"Content-Length: %d" % len(body)]
        lines += [f"{name}: {value}".encode() for name, value in http_headers(message).items()]
        host, _, number = url[len("http://") : -len("/mcp")].partition(":")
        with socket.create_connection((host, int(number)), 20) as client:
            client.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + body)
            test = accept().makefile("rb")
            assert test.readline() == b"running\n"
        assert test.readline() == b"cancelled\n"
        test.close()
    assert post(url, tool("where"))[0] == 200


def test_streams_are_capped_so_that_calls_are_served(served: Any) -> None:
    name, url = served
    with contextlib.ExitStack() as stack:
        opened = []
        if name not in SINGLE:
            for id in (1, 2):
                opened.append(events(stack.enter_context(exchange(url, listen(id), http_headers(listen(id))))))
                assert next(opened[-1])["params"]["notifications"] == {"toolsListChanged": True}
        with exchange(url, listen("x"), http_headers(listen("x"))) as response:
            acknowledged, cancelled, result = events(response)
        assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
        assert acknowledged["params"]["notifications"] == {}
        assert (cancelled["method"], cancelled["params"]["requestId"]) == ("notifications/cancelled", "x")
        assert (result["id"], result["result"]["resultType"]) == ("x", "complete")
        assert post(url, tool("grow"))[0] == 200
        for stream in opened:
            assert next(stream)["method"] == "notifications/tools/list_changed"


def test_a_legacy_session_has_its_stream_where_threads_allow_it(served: Any) -> None:
    name, url = served
    _, session = initialize(url)
    headers = {"Accept": BOTH, "Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
    until = time.monotonic() + 20
    while True:
        with exchange(url, None, headers, "GET") as response:
            if response.status == 405:
                assert response.headers["Allow"] == "POST, DELETE"
                if name in SINGLE:
                    return
                # The streams of the test before this one may not be missed yet.
                assert time.monotonic() < until
                continue
            assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream")
            assert legacy_call(url, session, "grow")[0] == 200
            assert next(events(response))["method"] == "notifications/tools/list_changed"
            return


def test_the_place_of_a_listener_that_left_is_given_back(served: Any) -> None:
    name, url = served
    if name in SINGLE:
        pytest.skip(f"{name} holds no streams")
    for _ in range(6):
        # A departure is noticed at one of the next comments; until then the stream may be refused.
        until = time.monotonic() + 20
        while time.monotonic() < until:
            with exchange(url, listen(), http_headers(listen())) as response:
                coming = events(response)
                if next(coming)["params"]["notifications"]:
                    break
                list(coming)
        else:
            pytest.fail("no place is given back")


@pytest.mark.parametrize("name", ["gunicorn sync", "gunicorn gthread", "waitress", "uwsgi"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "with a stream open"])
def test_sigterm_ends_the_server(name: str, busy: bool, tmp_path: Any) -> None:
    with running(name, tmp_path) as (url, process), contextlib.ExitStack() as stack:
        assert post(url, tool("where"))[0] == 200
        if busy:
            response = stack.enter_context(exchange(url, listen(), http_headers(listen())))
            assert next(events(response))["method"] == "notifications/subscriptions/acknowledged"
        assert process.terminate(60) in (0, -15)


def test_closing_the_server_on_sigterm_spares_gunicorn_its_wait_for_streams(tmp_path: Any) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(CLOSE_ON_SIGTERM)
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", "--threads", "4", APP]
    command += ["--graceful-timeout", "300"]
    require("gunicorn")
    env = {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    with Process([*command, "--config", str(tmp_path / "gunicorn.conf.py")], cwd=str(ROOT), **env) as process:
        url = f"http://{process.wait_for(READY).group(1)}/mcp"
        with exchange(url, listen(), http_headers(listen())) as response:
            coming = events(response)
            assert next(coming)["params"]["notifications"] == {"toolsListChanged": True}
            process.child.terminate()
            assert next(coming)["method"] == "notifications/cancelled"
            assert next(coming)["result"]["resultType"] == "complete"
        # Without the hook it would wait for its graceful timeout.
        assert process.child.wait(60) == 0


CLOSE_ON_SIGTERM = """
import signal, threading
from tests.peers.foreign_app import server

def post_worker_init(worker):
    before = signal.getsignal(signal.SIGTERM)

    def end(*args):
        threading.Thread(target=server.close).start()
        before(*args)

    signal.signal(signal.SIGTERM, end)
"""


@pytest.mark.parametrize("name", ["gunicorn, 4 workers", "uwsgi, 2 processes"])
def test_workers_with_one_secret_serve_each_others_retries_and_sessions(name: str, tmp_path: Any) -> None:
    with running(name, tmp_path, MINIMCP_SECRET="one-secret-for-all-workers") as (url, process):
        status, asked = post(url, tool("confirm"))
        assert (status, asked["result"]["resultType"]) == (200, "input_required")
        asker = who_asked(process)
        with stopped(asker):
            status, reply = answer(url, asked)
        assert (status, reply["result"]["structuredContent"]["sure"]) == (200, True)
        assert reply["result"]["structuredContent"]["pid"] != asker

        _, session = initialize(url)
        first = legacy_call(url, session)
        with stopped(first[1]["result"]["structuredContent"]["pid"]):
            second = legacy_call(url, session)
        assert (first[0], second[0]) == (200, 200)
        assert first[1]["result"]["structuredContent"] != second[1]["result"]["structuredContent"]
        assert not any("MINIMCP_SECRET" in line for line in process.lines)


def test_without_a_common_secret_another_worker_refuses_the_retry(tmp_path: Any) -> None:
    with running("gunicorn, 4 workers", tmp_path) as (url, process):
        _, asked = post(url, tool("confirm"))
        with stopped(who_asked(process)):
            status, reply = answer(url, asked)
        assert (status, reply["error"]["code"]) == (400, -32602)


def test_workers_without_a_secret_say_so_once_each(tmp_path: Any) -> None:
    with running("gunicorn, 4 workers", tmp_path) as (url, process):
        with ThreadPoolExecutor(4) as pool:
            statuses = set(pool.map(lambda _: post(url, tool("where"))[0], range(40)))
        assert statuses == {200}
        process.wait_for("set MINIMCP_SECRET")
        assert 1 <= sum("set MINIMCP_SECRET" in line for line in process.lines) <= 4


def test_one_process_without_a_secret_says_nothing(served: Any, tmp_path: Any) -> None:
    with running(served[0], tmp_path) as (url, process):
        assert post(url, tool("where"))[0] == 200
        process.terminate()
        assert not any("MINIMCP_SECRET" in line for line in process.lines)


def who_asked(process: Process) -> int:
    """The pid of the worker that asked last."""
    process.wait_for(r"^asked by \d+$")
    return int([line for line in process.lines if line.startswith("asked by ")][-1].split()[-1])


def answer(url: str, asked: Any) -> tuple[int, Any]:
    responses = dict.fromkeys(asked["result"]["inputRequests"], {"action": "accept", "content": {"sure": True}})
    retry = tool("confirm", 2)
    retry["params"].update(requestState=asked["result"]["requestState"], inputResponses=responses)
    return post(url, retry)


def initialize(url: str) -> tuple[Any, str]:
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize"}
    message["params"] = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "t", "version": "1"},
    }
    with exchange(url, message, {"Content-Type": "application/json", "Accept": BOTH}) as response:
        return json.load(response), response.headers["Mcp-Session-Id"]


def legacy_call(url: str, session: str, name: str = "where") -> tuple[int, Any]:
    headers = {"Content-Type": "application/json", "Accept": BOTH, "Mcp-Session-Id": session}
    headers["MCP-Protocol-Version"] = "2025-11-25"
    message = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": name, "arguments": {}}}
    with exchange(url, message, headers) as response:
        return response.status, json.load(response)
