"""Negotiation, row by row: what a server makes of the probe, what is tried next, remembered, and told in the end."""

from __future__ import annotations

import json
import sys
import threading

import pytest

import minimcp
from minimcp import Client
from minimcp.client import negotiation
from tests.played import DISCOVERED, INITIALIZED
from tests.scripted import scripted

TOOLS = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
ERROR = {"code": -32601, "message": "Method not found"}
OFFER = {"code": -32022, "message": "no", "data": {"supported": ["2025-11-25"]}}
BOM = b"\xef\xbb\xbf"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
HTML = {"Content_Type": "text/html"}
JSON = {"Content_Type": "application/json"}
PROBE, HELLO, READY, LIST = "server/discover", "initialize", "notifications/initialized", "tools/list"


_met_with_silence = threading.Semaphore(0)


@pytest.fixture(autouse=True)
def _no_verdicts():
    negotiation._legacy.clear()
    yield
    negotiation._legacy.clear()
    while _met_with_silence.acquire(blocking=False):
        pass


@pytest.fixture(autouse=True)
def _what_is_given_up_has_come(monkeypatch):
    """Keep the order of what a server notes: each of its connections has a thread of its own."""

    def probe(conn, *given):
        found = real_probe(conn, *given)
        if found.kind == "silence" and conn.transport.kind == "http":
            assert _met_with_silence.acquire(timeout=20)
        return found

    def initialize(conn, *given):
        try:
            return real_initialize(conn, *given)
        except minimcp.Timeout:
            assert _met_with_silence.acquire(timeout=20)
            raise

    real_probe, real_initialize = negotiation._probe, negotiation.initialize
    monkeypatch.setattr(negotiation, "_probe", probe)
    monkeypatch.setattr(negotiation, "initialize", initialize)


def reply(id, **members):
    return {"jsonrpc": "2.0", "id": id, **members}


# HTTP: each takes the request and the peer, and answers the probe in its way.


def body(status, data=b"", **headers):
    return lambda message, peer: peer.body(data, status, **headers)


def message(status=200, **members):
    return lambda message, peer: peer.json({**reply(message["id"]), **members}, status)


def event(*events):
    return lambda message, peer: [peer.stream(), *(peer.event(each) for each in events), peer.end()]


def silence(message, peer):
    _met_with_silence.release()
    peer.left()


def silent_stream(message, peer):
    _met_with_silence.release()
    peer.stream().left()


def hang_up(sent):
    return lambda message, peer: peer.send(sent).hang_up()


# What came, the row of the table, and the answer.
HTTP = [
    ("500 with a text", "failure", body(500, b"no such method")),
    ("500 with an error", "other error", message(500, error={"code": -32603, "message": "crashed"})),
    ("500 with an error without an id", "other error", message(500, id=None, error=ERROR)),
    ("501", "failure", body(501, b"not implemented")),
    ("502", "overload", body(502, b"<html>Bad Gateway", **HTML)),
    ("503", "overload", body(503)),
    ("504", "overload", body(504)),
    ("429", "overload", body(429, b"slow down", Retry_After="60")),
    ("408", "overload", body(408)),
    ("403", "failure", body(403, b"method not on the list")),
    ("400", "refusal", body(400)),
    ("400 with a text", "refusal", body(400, b"Bad Request: no session")),
    ("400 with other JSON", "refusal", body(400, b'{"detail": "no"}', **JSON)),
    ("400 with an error", "other error", message(400, error={"code": -32000, "message": "no session"})),
    ("400 with an error of a text id", "other error", message(400, id="1", error=ERROR)),
    ("404", "refusal", body(404, b"<html>", **HTML)),
    ("405", "refusal", body(405)),
    ("405 with an error without an id", "refusal", message(405, id=None, error=ERROR)),
    ("406", "refusal", body(406)),
    ("410", "refusal", body(410)),
    ("415", "refusal", body(415)),
    ("422", "refusal", body(422, b"{}", **JSON)),
    ("302 within the origin", "nonsense", body(302, Location="/login")),
    ("307 to another origin", "nonsense", body(307, Location="http://login.example/")),
    ("202", "nonsense", body(202)),
    ("204", "nonsense", lambda message, peer: peer.head(204)),
    ("200 without a body", "nonsense", body(200)),
    ("200 with empty JSON", "nonsense", body(200, **JSON)),
    ("HTML", "nonsense", body(200, b"<html>Welcome", **HTML)),
    ("a text", "nonsense", body(200, b"ok", Content_Type="text/plain")),
    ("half of a JSON", "nonsense", body(200, b'{"jsonrpc":"2.0","id":1', **JSON)),
    ("null", "nonsense", body(200, b"null", **JSON)),
    ("an empty batch", "nonsense", body(200, b"[]", **JSON)),
    ("no version of JSON-RPC", "nonsense", message(jsonrpc="1.0", error=ERROR)),
    ("neither result nor error", "nonsense", message()),
    ("both", "nonsense", message(result={}, error=ERROR)),
    ("another id", "nonsense", message(id=99, error=ERROR)),
    ("compressed", "nonsense", body(200, b"x", Content_Encoding="gzip", **JSON)),
    ("no HTTP", "nonsense", hang_up(b"SSH-2.0-x\r\n\r\n")),
    ("an error", "other error", message(error=ERROR)),
    ("an error of a text id", "other error", message(id="1", error=ERROR)),
    ("an error beside a null", "other error", message(error=ERROR, result=None, method=None, params=None)),
    ("an error without an id", "other error", message(id=None, error={"code": -32600, "message": "no"})),
    ("an error that is none", "other error", message(error="no")),
    ("an error after a BOM", "other error", body(200, BOM + json.dumps(reply(1, error=ERROR)).encode(), **JSON)),
    ("an error as an event", "other error", event(reply(1, error=ERROR))),
    ("another result", "other result", message(result={})),
    ("a result of null", "other result", message(result=None, error=None)),
    ("legacy revisions", "older version", message(result={"supportedVersions": ["2025-06-18", "2025-11-25"]})),
    ("an offer of legacy revisions", "older version", message(400, error=OFFER)),
    ("silence", "silence", silence),
    ("a silent stream", "silence", silent_stream),
    ("a stream of other things", "hang-up", event({}, reply(99, result={}), "ping")),
    ("a stream without events", "hang-up", event()),
    ("a hang-up", "hang-up", hang_up(b"")),
    ("a hang-up in the head", "hang-up", hang_up(HEAD[:30])),
    ("a hang-up in the body", "hang-up", hang_up(HEAD + b"{")),
]


def serve(probe, others=None, get=405):
    """A legacy server that answers the probe in its way.

    :param others: answers by method in place of the right ones.
    """
    others = others or {}

    def answer(request, peer):
        if request.method != "POST":
            return peer.body(b"no stream", get)
        said = request.message
        method = said["method"]
        if method == PROBE:
            return probe(said, peer)
        if method in others:
            return others[method](said, peer)
        if "id" not in said:
            return peer.body(status=202)
        return peer.json(reply(said["id"], result=INITIALIZED if method == HELLO else TOOLS))

    return scripted(answer)


def said(server):
    return [request.message["method"] if request.method == "POST" else request.method for request in server.requests]


@pytest.fixture
def rows(monkeypatch):
    """The rows of the table that were found, in order."""
    found = []

    def probe(*given):
        outcome = real(*given)
        found.append(outcome.kind)
        return outcome

    real = negotiation._probe
    monkeypatch.setattr(negotiation, "_probe", probe)
    return found


@pytest.mark.parametrize(("row", "probe"), [case[1:] for case in HTTP], ids=[case[0] for case in HTTP])
def test_whatever_an_http_server_makes_of_the_probe_the_client_is_connected(row, probe, rows):
    patience = {"probe_timeout": 0.2 if row == "silence" else 20}
    with serve(probe) as server:
        with Client(server.url, **patience) as client:
            assert client.protocol_version == "2025-11-25"
            assert [tool["name"] for tool in client.list_tools()] == ["t"]
        assert rows == [row]
        assert said(server) == [PROBE, HELLO, READY, LIST]
        server.requests.clear()
        with Client(server.url, **patience) as client:
            assert client.protocol_version == "2025-11-25"
        assert said(server)[0] == (PROBE if row in ("overload", "hang-up") else HELLO)


# stdio: what is written, and whether the process goes on, when the first message is no `initialize`.

STDIO_SERVER = """
import json, os, sys

behaviour, heard = sys.argv[1], open(sys.argv[2], "a")
ANSWERS = {
    "an end": None,
    "an end with a word": None,
    "an end of its output": None,
    "an error and an end": '{"jsonrpc":"2.0","id":1,"error":{"code":-32600,"message":"initialize first"}}',
    "an error": '{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}',
    "an error of a text id": '{"jsonrpc":"2.0","id":"1","error":{"code":-32602,"message":"no"}}',
    "an error beside a null": '{"jsonrpc":"2.0","id":1,"result":null,"error":{"code":1,"message":"no"}}',
    "an error after a BOM": '\\ufeff{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"no"}}',
    "an error after a word": '\\n'.join(["Server running on stdio", '{"jsonrpc":"2.0","id":1,"error":{"code":1}}']),
    "another result": '{"jsonrpc":"2.0","id":1,"result":{}}',
    "a broken line": '{"jsonrpc":"2.0","id":1,"result":{"took":NaN}}',
    "a line behind a word": 'Loading... {"jsonrpc":"2.0","id":1,"result":{}}',
    "no version of JSON-RPC": '{"id":1,"error":{"code":1,"message":"no"}}',
    "an error without an id": '{"jsonrpc":"2.0","error":{"code":-32600,"message":"no"},"id":null}',
    "silence": "",
}
TOOLS = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
INFO = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "s", "version": "1"}}
RESULTS = {"initialize": INFO, "tools/list": TOOLS}
for line in sys.stdin:
    message = json.loads(line)
    method = message["method"]
    heard.write(method + "\\n")
    heard.flush()
    if method == "server/discover":
        answer = ANSWERS[behaviour]
        if answer:
            os.write(1, answer.encode() + b"\\n")
        if "word" in behaviour and answer is None:
            sys.stderr.write("expected initialize\\n")
        if "output" in behaviour:
            os.close(1)
        elif "end" in behaviour:
            sys.exit(1)
    elif method in RESULTS:
        print(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": RESULTS[method]}), flush=True)
"""

STDIO = [
    ("an end", "end"),
    ("an end with a word", "end"),
    ("an end of its output", "end"),
    ("an error and an end", "other error"),
    ("an error", "other error"),
    ("an error of a text id", "other error"),
    ("an error beside a null", "other error"),
    ("an error after a BOM", "other error"),
    ("an error after a word", "other error"),
    ("another result", "other result"),
    ("a broken line", "nonsense"),
    ("a line behind a word", "nonsense"),
    ("no version of JSON-RPC", "nonsense"),
    ("an error without an id", "silence"),
    ("silence", "silence"),
]


@pytest.mark.parametrize(("behaviour", "row"), STDIO, ids=[case[0] for case in STDIO])
def test_whatever_a_stdio_server_makes_of_the_probe_the_client_is_connected(behaviour, row, rows, tmp_path):
    log = tmp_path / "heard"
    command = [sys.executable, "-c", STDIO_SERVER, behaviour, str(log)]
    patience = {"probe_timeout": 0.5 if row == "silence" else 20}
    with Client(command, **patience) as client:
        assert client.protocol_version == "2025-11-25"
        assert [tool["name"] for tool in client.list_tools()] == ["t"]
    assert rows == [row]
    assert log.read_text().split() == [PROBE, HELLO, READY, LIST]
    log.unlink()
    with Client(command, **patience) as client:
        assert client.state == "open"
    assert log.read_text().split()[0] == HELLO


# When nothing works: the answers to the probe, to `initialize` and to GET, what is tried, and what the user is told.

HANG_UP = hang_up(b"")
REFUSED = message(400, error={"code": -32602, "message": "protocol 2025-11-25 is disabled"})
STRANGE = message(result={**INITIALIZED, "protocolVersion": "2099-01-01"})
FAILURES = [
    (
        "400",
        body(400, b"no tenant"),
        body(400, b"no tenant"),
        405,
        "HTTPStatus",
        "HTTP 400 .*no tenant; then: HTTP 405",
    ),
    ("404", body(404, b"not here"), body(404, b"not here"), 404, "HTTPStatus", "HTTP 404 .*not here; then: HTTP 404"),
    ("405", body(405), body(405, b"read only"), 500, "HTTPStatus", "HTTP 405 .*read only; then: HTTP 500"),
    ("HTML", body(200, b"<html>", **HTML), body(200, b"<html>", **HTML), None, "ProtocolError", "text/html, neither"),
    ("429", body(429, b"slow down"), body(429, b"slow down"), None, "HTTPStatus", "HTTP 429 .*slow down$"),
    ("500", body(500, b"broken"), body(500, b"broken"), None, "HTTPStatus", "HTTP 500 .*broken$"),
    ("403", body(403, b"not from here"), body(403, b"not from here"), None, "HTTPStatus", "HTTP 403 .*not from here$"),
    ("406", body(406, b"no"), body(406, b"no"), None, "HTTPStatus", "HTTP 406"),
    ("429 and 500", body(429), body(500, b"broken"), None, "HTTPStatus", "HTTP 429 .*; then: HTTP 500 .*broken$"),
    ("500 and 503", body(500, b"no"), body(503), None, "HTTPStatus", "HTTP 500 .*no; then: HTTP 503"),
    ("202 and 500", body(202), body(500, b"broken"), None, "ProtocolError", "without answering it; then: HTTP 500"),
    ("hang-up and 500", HANG_UP, body(500, b"no"), None, "ConnectionLost", "before it answered; then: HTTP 500"),
    ("429 and 405", body(429), body(405), 404, "HTTPStatus", "HTTP 429 .*; then: HTTP 405 .*; then: HTTP 404"),
    ("an error and 500", message(error=ERROR), body(500, b"broken"), None, "HTTPStatus", "^HTTP 500 .*broken$"),
    ("silence and 500", silence, body(500, b"broken"), None, "HTTPStatus", "^HTTP 500 .*broken$"),
    ("silence", silence, silence, None, "Timeout", "initialize"),
    ("hang-up", HANG_UP, HANG_UP, None, "ConnectionLost", "before it answered$"),
    ("an unknown revision", body(400), STRANGE, None, "ProtocolError", "^The server answered initialize .*2099-01-01"),
    ("an error with 400", body(400), REFUSED, 405, "RemoteError", "is disabled .*; then: HTTP 405"),
    ("an error with 200", message(error=ERROR), message(error=ERROR), None, "RemoteError", "^Method not found"),
    ("credentials", body(400), body(401, b"who?"), None, "AuthorizationError", "HTTP 401"),
]


@pytest.mark.parametrize(
    ("probe", "hello", "get", "kind", "told"), [case[1:] for case in FAILURES], ids=[case[0] for case in FAILURES]
)
def test_when_nothing_works_over_http_the_first_reason_is_told(probe, hello, get, kind, told):
    patience = {"probe_timeout": 0.1 if probe is silence else 20, "timeout": 0.2 if hello is silence else 20}
    with serve(probe, {HELLO: hello}, get) as server:
        with pytest.raises(minimcp.ClientError, match=told) as caught:
            Client(server.url, **patience).open()
        asked = said(server)
    assert type(caught.value).__name__ == kind
    tried = [PROBE, HELLO] if get is None else [PROBE, HELLO, "GET"]
    assert asked == ([*tried, PROBE] if probe is silence and hello is silence else tried)
    assert not negotiation._legacy


def test_a_server_that_cannot_be_reached_is_tried_once():
    with serve(silence) as server:
        url = server.url
    with pytest.raises(minimcp.ConnectionLost, match="No connection to") as caught:
        Client(url).open()
    assert "then:" not in str(caught.value) and caught.value.retry == "always"


@pytest.mark.parametrize("code", ["sys.exit(os.getpid())", "sys.stdin.readline(); sys.exit(f'{os.getpid()} says no')"])
def test_when_nothing_works_over_stdio_the_first_last_words_are_told_once(code):
    with pytest.raises(minimcp.ConnectionLost, match="exited with code") as caught:
        Client([sys.executable, "-c", f"import os, sys; {code}"]).open()
    assert str(caught.value).count("exited") == 1 and "then:" not in str(caught.value)
    assert not negotiation._legacy


def test_a_command_that_is_not_there_is_tried_once():
    with pytest.raises(minimcp.ConnectionLost, match="was not found") as caught:
        Client(["/nowhere/server"]).open()
    assert "then:" not in str(caught.value)


# A modern server that was busy, slow or new is found out in the end.


def once(first, then):
    """Answer the first message in one way, and others in another."""
    answers = iter([first])
    return lambda message, peer: next(answers, then)(message, peer)


@pytest.mark.parametrize("first", [silence, body(503), body(500), body(202), HANG_UP], ids=range(5))
@pytest.mark.parametrize("refusal", [ERROR, {"code": -32022, "message": "no", "data": {"supported": ["2026-07-28"]}}])
def test_a_modern_server_that_failed_the_probe_is_probed_again_when_it_knows_no_initialize(first, refusal, monkeypatch):
    def impatient_once(conn, *given):
        found = probed(conn, *given)
        conn.settings = conn.settings._replace(probe_timeout_s=20.0)
        return found

    probed = negotiation._probe
    monkeypatch.setattr(negotiation, "_probe", impatient_once)
    probe = once(first, message(result=DISCOVERED))
    with serve(probe, {HELLO: message(400, error=refusal)}) as server:
        with Client(server.url, probe_timeout=0.5 if first is silence else 20) as client:
            assert client.protocol_version == "2026-07-28"
        assert said(server) == [PROBE, HELLO, PROBE]
    assert not negotiation._legacy


@pytest.mark.parametrize(
    "then", [body(503, b"later"), message(400, error={"code": -32021, "message": "later"}), HANG_UP]
)
def test_a_server_that_offered_a_modern_revision_and_then_fails_is_told_and_not_sent_initialize(then):
    offer = {"code": -32022, "message": "no", "data": {"supported": ["2026-07-28"]}}
    with serve(once(message(400, error=offer), then)) as server:
        with pytest.raises(minimcp.ClientError, match="later|before it answered"):
            Client(server.url).open()
        assert said(server) == [PROBE, PROBE]


@pytest.mark.parametrize("now", [ERROR, OFFER, None], ids=["unknown", "offer", "503"])
def test_a_remembered_server_that_was_upgraded_is_found_out(now):
    with serve(message(error=ERROR)) as server:
        url, key = server.url, negotiation._legacy
        Client(url).open().close()
        assert list(key) == [url]
    hello = body(503) if now is None else message(error=now)
    with serve(message(result=DISCOVERED), {HELLO: hello}) as server:
        negotiation._remember(server.url)
        with Client(server.url) as client:
            assert client.protocol_version == "2026-07-28"
        assert said(server) == [HELLO, PROBE] and server.url not in negotiation._legacy


def test_a_remembered_process_that_ends_of_initialize_is_found_out(tmp_path):
    file = tmp_path / "server.py"
    code = (
        "import json, sys\nfor line in sys.stdin:\n    got = json.loads(line)\n    if got['method'] == 'initialize':\n"
    )
    code += (
        "        sys.exit(2)\n    print(json.dumps({'jsonrpc': '2.0', 'id': got['id'], 'result': %r}), flush=True)\n"
    )
    file.write_text(code % (DISCOVERED,))
    client = Client([sys.executable, str(file)])
    negotiation._remember(client.target.key)
    with client:
        assert client.protocol_version == "2026-07-28" and client.state == "open"
    assert not negotiation._legacy


@pytest.mark.parametrize(
    ("probe", "kind", "told"),
    [
        (message(error=ERROR), "ProtocolError", "does not speak 2026-07-28"),
        (message(result={}), "ProtocolError", "does not speak 2026-07-28"),
        (body(400, b"no"), "ProtocolError", "does not speak 2026-07-28"),
        (body(503, b"later"), "HTTPStatus", "later"),
        (body(202), "ProtocolError", "without answering"),
        (HANG_UP, "ConnectionLost", "before it answered"),
        (silence, "Timeout", "server/discover"),
    ],
    ids=range(7),
)
def test_a_client_that_speaks_only_the_modern_era_asks_once_and_tells_what_came(probe, kind, told):
    with serve(probe) as server:
        with pytest.raises(minimcp.ClientError, match=told) as caught:
            Client(server.url, mode="modern", timeout=0.2 if probe is silence else 20).open()
        assert type(caught.value).__name__ == kind
        assert said(server) == [PROBE]


class Slow:
    """Credentials that take longer than `probe_timeout`, before the probe is sent or after it was refused."""

    def __init__(self, when):
        self.when = when
        self.token = {} if when == "refused" else {"Authorization": "Bearer t"}

    def sign(self, method, url, headers):
        self.pause("sent")
        return self.token

    def answered(self, answers):
        if answers[-1].status != 401 or self.token:
            return False
        self.pause("refused")
        self.token = {"Authorization": "Bearer t"}
        return True

    def pause(self, when):
        if when == self.when:
            threading.Event().wait(2.7)


@pytest.mark.parametrize("when", ["sent", "refused"])
def test_time_in_which_credentials_are_fetched_is_no_silence(when):
    def answer(request, peer):
        if "authorization" not in request.headers:
            return peer.body(status=401)
        return peer.json(reply(request.message["id"], result=DISCOVERED))

    with scripted(answer) as server, Client(server.url, auth=Slow(when), probe_timeout=2.5) as client:
        assert client.protocol_version == "2026-07-28"
        assert set(said(server)) == {PROBE}


# After the handshake, and before it.


@pytest.mark.parametrize("status", [400, 404, 405, 500])
def test_a_server_that_does_not_take_the_notification_after_initialize_is_used_all_the_same(status, caplog):
    with serve(message(error=ERROR), {READY: body(status)}) as server, Client(server.url) as client:
        assert len(client.list_tools()) == 1
    assert f"does not take notifications/initialized: HTTP {status}" in caplog.text


def test_a_server_that_refuses_the_notification_for_want_of_credentials_is_not_used():
    allowed = iter([401])
    ready = {READY: lambda message, peer: peer.body(status=next(allowed, 202))}
    with serve(message(error=ERROR), ready) as server:
        client = Client(server.url)
        with pytest.raises(minimcp.HTTPStatus, match="401"):
            client.open()
        assert client.state == "new"
        with client:
            assert len(client.list_tools()) == 1


def test_a_server_that_does_not_set_its_log_level_is_used_all_the_same(caplog):
    greeting = {**INITIALIZED, "capabilities": {"logging": {}, "tools": {}}}
    others = {HELLO: message(result=greeting), "logging/setLevel": message(error={"code": -32603, "message": "broken"})}
    with serve(message(error=ERROR), others) as server, Client(server.url, log_level="debug") as client:
        assert len(client.list_tools()) == 1
        assert said(server)[3:] == ["logging/setLevel", LIST]
    assert "does not set its log level: RemoteError('broken (-32603)')" in caplog.text


def test_what_a_server_says_before_it_answers_the_probe_reaches_the_callbacks():
    told = threading.Event()
    note = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": "starting"}}
    with serve(
        lambda message, peer: peer.stream().event(note).event(reply(message["id"], result=DISCOVERED)).end()
    ) as server:
        with Client(server.url, on_log=lambda params: told.set()) as client:
            assert client.protocol_version == "2026-07-28"
            assert told.wait(20)
