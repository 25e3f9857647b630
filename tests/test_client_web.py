"""The requests under the client's HTTP links: redirects, credentials, sessions of `requests`, threads and forks."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time

import pytest

from minimcp.client.errors import HTTPStatus
from minimcp.client.transports.http import HttpTransport
from minimcp.engines.errors import ConnectionLost, ProtocolError, Timeout
from tests.scripted import NOTE, PING, Linked, received, result, scripted
from tests.transports import ROOT

# Redirects


@pytest.mark.parametrize("status", [307, 308])
def test_a_redirect_within_the_origin_is_followed_with_all_that_was_sent(status):
    def answer(request, peer):
        if request.path == "/mcp":
            peer.body(b"moved", status, Location="/mcp/?x=1")
        else:
            peer.json(result())

    with Linked(answer, headers={"X-Key": "secret"}, auth=("user", "password")) as linked:
        assert linked.call() == [result()]
    first, second = linked.server.requests
    assert second.path == "/mcp/?x=1"
    assert second.body == first.body
    assert second.headers == first.headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("there", ["http://localhost:{port}/mcp", "https://127.0.0.1:{port}/mcp", "//127.0.0.2/"])
def test_a_redirect_to_another_origin_sends_nothing_there(status, there):
    target = there.format(port="{port}")

    def answer(request, peer):
        peer.body(b"", status, Location=target.format(port=linked.server.port) + "?token=abc")

    with Linked(answer, headers={"X-Key": "secret"}, auth=("user", "password")) as linked:
        with pytest.raises(ProtocolError) as caught:
            linked.call()
        assert "another origin" in str(caught.value)
        assert target.format(port=linked.server.port).strip("/") in str(caught.value)
        assert "abc" not in str(caught.value)
        assert len(linked.server.requests) == 1


def test_a_redirect_that_loses_the_message_is_refused():
    with Linked(lambda request, peer: peer.body(b"", 302, Location="/login")) as linked:
        with pytest.raises(ProtocolError, match="/login' with HTTP 302"):
            linked.call()
        assert len(linked.server.requests) == 1


@pytest.mark.parametrize(
    ("location", "path"),
    [("/a b", "/a%20b"), ("/\u00e4?\u00e4", "/%C3%A4?%C3%A4"), ("/a%20b#c", "/a%20b"), ("?x", "/mcp?x")],
)
def test_the_address_of_a_redirect_is_written_as_http_wants_it(location, path):
    def answer(request, peer):
        if request.path == "/mcp":
            peer.body(b"", 307, Location=location)
        else:
            peer.json(result())

    with Linked(answer) as linked:
        assert linked.call() == [result()]
        assert linked.server.requests[1].path == path
        assert linked.server.requests[1].headers["host"] == f"127.0.0.1:{linked.server.port}"


def test_redirects_in_a_circle_end():
    with Linked(lambda request, peer: peer.body(b"", 307, Location="/mcp")) as linked:
        with pytest.raises(ProtocolError, match="circle"):
            linked.call()
        assert len(linked.server.requests) == 6


# Credentials, and sessions of `requests`


def test_auth_is_asked_for_every_request_and_its_fingerprint_is_known():
    tokens = iter(["one", "one", "two"])

    def auth(prepared):
        prepared.headers["Authorization"] = f"Bearer {next(tokens)}"
        return prepared

    with Linked(lambda request, peer: peer.json(result()), auth=auth) as linked:
        identities = []
        for _ in range(3):
            exchange = linked.transport.start(PING, {}, 5)
            exchange.receive(20)
            identities.append(exchange.identity)
        assert [request.headers["authorization"] for request in linked.server.requests] == [
            "Bearer one",
            "Bearer one",
            "Bearer two",
        ]
        assert identities[0] == identities[1] != identities[2]
        assert not any("one" in identity or not identity for identity in identities)


def test_a_response_hook_of_an_auth_may_send_the_request_again():
    def answer(request, peer):
        if request.headers.get("authorization") == "Bearer fresh":
            peer.stream().event(NOTE).event(result()).end()
        else:
            peer.body(b'{"error":"invalid_token"}', 401, WWW_Authenticate="Bearer")

    seen = []

    def again(response, **options):
        seen.append((response.status_code, response.headers.get("WWW-Authenticate"), response.text))
        if response.status_code != 401:
            return response
        prepared = response.request.copy()
        prepared.headers["Authorization"] = "Bearer fresh"
        return response.connection.send(prepared, **options)

    def auth(prepared):
        prepared.headers["Authorization"] = "Bearer stale"
        prepared.register_hook("response", again)
        return prepared

    with Linked(answer, auth=auth) as linked:
        exchange = linked.transport.start(PING, {}, 5)
        assert received(exchange) == [NOTE, result()]
        assert seen == [(401, "Bearer", '{"error":"invalid_token"}')]
        # All of it is over before the exchange begins.
        assert len(exchange.identity) == 16 and exchange.identity != linked.transport.identity()
        assert [request.body for request in linked.server.requests] == [linked.server.requests[0].body] * 2


class Signing:
    """Credentials that the HTTP client asks itself: one token after another, as long as the server refuses."""

    def __init__(self, *tokens):
        self.left = list(tokens)
        self.token = self.left.pop(0)
        self.asked = []

    def sign(self, method, url, headers):
        self.asked.append((method, url, "Content-Length" in headers))
        return {"Authorization": f"Bearer {self.token}"}

    def answered(self, answers):
        newest = answers[-1]
        self.asked.append((len(answers), newest.status, newest.headers.get("www-authenticate"), newest.sent["accept"]))
        if newest.status != 401:
            return False
        self.token = self.left.pop(0) if self.left else self.token
        return True


def test_native_credentials_sign_a_request_again_when_it_is_refused():
    def answer(request, peer):
        if request.headers["authorization"] == "Bearer fresh":
            peer.stream().event(NOTE).event(result()).end()
        else:
            peer.body(b"no", 401, WWW_Authenticate="Bearer")

    auth = Signing("stale", "fresh")
    with Linked(answer, auth=auth) as linked:
        exchange = linked.transport.start(PING, {}, 5)
        stale = exchange.identity
        assert received(exchange) == [NOTE, result()]
        assert exchange.identity != stale
        assert [request.body for request in linked.server.requests] == [linked.server.requests[0].body] * 2
        assert {request.connection for request in linked.server.requests} == {1}
        accept = "application/json, text/event-stream"
        signed = ("POST", linked.server.url, True)
        assert auth.asked == [signed, (1, 401, "Bearer", accept), signed, (2, 200, None, accept)]


def test_native_credentials_that_never_do_are_not_tried_for_ever():
    with Linked(lambda request, peer: peer.body(b"no", 401), auth=Signing("a")) as linked:
        with pytest.raises(HTTPStatus):
            linked.call()
        assert len(linked.server.requests) == 11


def test_native_credentials_sign_every_hop_and_stay_within_the_origin():
    def answer(request, peer):
        there = "/again" if request.path == "/mcp" else "http://127.0.0.2:1/"
        peer.body(b"", 307, Location=there)

    auth = Signing("a")
    with Linked(answer, auth=auth) as linked:
        with pytest.raises(ProtocolError, match="another origin"):
            linked.call()
        signed = [each[1] for each in auth.asked if each[0] == "POST"]
        assert signed == [linked.server.url, linked.server.origin + "/again"]
        assert len(linked.server.requests) == 2


@pytest.fixture
def passes(monkeypatch):
    """A function by which seconds pass at once, by the clock of the client."""
    passed, clock = [], time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: clock() + sum(passed))
    return passed.append


def test_the_time_that_native_credentials_take_does_not_count(passes):
    class Slow(Signing):
        def sign(self, *arguments):
            passes(80)
            return super().sign(*arguments)

        def answered(self, answers):
            passes(80)
            return super().answered(answers)

    def answer(request, peer):
        peer.body(b"", 401) if request.headers["authorization"] == "Bearer a" else peer.json(result())

    with Linked(answer, auth=Slow("a", "b")) as linked:
        exchange = linked.transport.start(PING, {}, 70)
        assert exchange.receive(70) == result()
        assert 320 <= exchange.paused_s < 350


def test_native_credentials_work_in_a_session_too():
    import requests

    def answer(request, peer):
        peer.json(result()) if request.headers["authorization"] == "Bearer b" else peer.body(b"no", 401)

    with requests.Session() as session, Linked(answer, auth=Signing("a", "b"), session=session) as linked:
        assert linked.call() == [result()]
        assert [request.headers["authorization"] for request in linked.server.requests] == ["Bearer a", "Bearer b"]


def test_an_auth_cannot_send_a_request_to_another_origin():
    def auth(prepared):
        prepared.url = elsewhere.url
        return prepared

    with scripted(lambda request, peer: peer.json(result())) as elsewhere:
        with Linked(lambda request, peer: peer.json(result()), auth=auth) as linked:
            with pytest.raises(ProtocolError, match="another origin"):
                linked.call()
            assert linked.server.requests == elsewhere.requests == []


def test_an_answer_that_came_late_in_a_session_is_not_taken_for_a_whole_one():
    import requests

    over = threading.Event()

    def answer(request, peer):
        peer.send(b"HTTP/1.1 200 x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        peer.chunk(b'{"jsonrpc":"2.0","id":1,"result":{}}')
        over.wait(10)

    with requests.Session() as session, Linked(answer, session=session) as linked:
        exchange = linked.transport.start(PING, {}, 5)
        with pytest.raises(Timeout):
            exchange.receive(0.1)
        with pytest.raises(ConnectionLost, match="silent"):
            exchange.receive(0.1)
        over.set()


def test_cookies_are_kept_without_a_session():
    def answer(request, peer):
        cookies = {1: "route=a; Path=/mcp", 2: "other=b; Path=/elsewhere", 3: "route=; Max-Age=0; Path=/mcp"}
        number = request.message["id"]
        peer.json(result(number), **({"Set_Cookie": cookies[number]} if number in cookies else {}))

    with Linked(answer) as linked:
        for number in (1, 2, 3, 4):
            linked.call({**PING, "id": number})
        linked.call({**PING, "id": 1})
        linked.call({**PING, "id": 5}, headers={"Cookie": "mine=1"})
        sent = [request.headers.get("cookie") for request in linked.server.requests]
        assert sent == [None, "route=a", "route=a", None, None, "mine=1"]


def test_a_redirect_in_a_session_is_not_read_to_an_end_that_it_does_not_have():
    import requests

    def answer(request, peer):
        peer.send(b"HTTP/1.1 307 x\r\nLocation: http://127.0.0.2:1/\r\n\r\n")
        while True:
            peer.send(b"x" * 65536)

    with requests.Session() as session, Linked(answer, session=session) as linked:
        with pytest.raises(ProtocolError, match="another origin"):
            linked.call(timeout_s=5)
        assert len(linked.server.requests) == 1


def test_a_response_that_ends_with_its_connection_is_read_and_cancelled_in_a_session():
    import requests

    def answer(request, peer):
        peer.send(b"HTTP/1.1 200 x\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
        peer.send(b"data: " + json.dumps(NOTE).encode() + b"\n\n")
        assert peer.left()

    with requests.Session() as session, Linked(answer, session=session) as linked:
        exchange = linked.transport.start(PING, {}, 20)
        assert exchange.receive(20) == NOTE
        with pytest.raises(Timeout):
            exchange.receive(0.05)
        ending = threading.Timer(0.1, exchange.abort, [ConnectionLost("enough")])
        ending.start()
        with pytest.raises(ConnectionLost, match="enough"):
            exchange.receive(20)
        ending.join()


def test_the_time_that_an_auth_takes_does_not_count(passes):
    def slow(response, **options):
        passes(80)

    def auth(prepared):
        passes(80)
        prepared.register_hook("response", slow)
        return prepared

    with Linked(lambda request, peer: peer.stream().event(result()).end(), auth=auth) as linked:
        exchange = linked.transport.start(PING, {}, 70)
        assert 80 <= exchange.paused_s < 190
        assert exchange.receive(70) == result()
        assert 160 <= exchange.paused_s < 190


def test_a_connection_that_was_idle_for_long_is_not_used_again():
    with Linked(lambda request, peer: peer.json(result()), limits={"idle_s": 0}) as linked:
        linked.call()
        linked.call()
        assert [request.connection for request in linked.server.requests] == [1, 2]


def test_a_hook_may_read_the_answer():
    import requests

    session = requests.Session()
    seen = []
    session.hooks["response"].append(lambda response, **options: seen.append(response.json()))
    with session, Linked(lambda request, peer: peer.json(result()), session=session) as linked:
        assert linked.call() == linked.call() == [result()]
        assert seen == [result()] * 2
        assert {request.connection for request in linked.server.requests} == {1}


def test_the_settings_of_a_session_are_used():
    import requests

    def answer(request, peer):
        peer.json(result(), Set_Cookie="route=a; Path=/")

    with requests.Session() as session:
        session.headers["X-Mine"] = "yes"
        session.auth = ("user", "password")
        with Linked(answer, session=session) as linked:
            linked.call()
            linked.call()
        first, second = linked.server.requests
        assert first.headers["x-mine"] == "yes"
        assert first.headers["authorization"] == "Basic dXNlcjpwYXNzd29yZA=="
        assert first.headers["accept-encoding"] == "identity"
        assert "cookie" not in first.headers
        assert second.headers["cookie"] == "route=a"
        assert session.cookies["route"] == "a"


def test_an_adapter_of_the_users_sends_itself():
    import requests

    class Adapter(requests.adapters.HTTPAdapter):
        sent = 0

        def send(self, *arguments, **options):
            self.sent += 1
            return super().send(*arguments, **options)

    go = threading.Event()

    def answer(request, peer):
        number = request.message["id"]
        if number == 1:
            peer.json(result(1))
        elif number == 2:
            peer.stream().event(NOTE).event(result(2)).end()
        else:
            peer.stream().event(NOTE)
            go.set()
            assert peer.left()

    with requests.Session() as session:
        adapter = Adapter()
        session.mount("http://", adapter)
        with Linked(answer, session=session) as linked:
            assert linked.call() == [result(1)]
            assert linked.call({**PING, "id": 2}) == [NOTE, result(2)]
            exchange = linked.transport.start({**PING, "id": 3}, {}, 5)
            assert exchange.receive(20) == NOTE
            assert go.wait(10)
            ending = threading.Timer(0.1, exchange.abort, [ConnectionLost("enough")])
            ending.start()
            with pytest.raises(ConnectionLost, match="enough"):
                exchange.receive(20)
            ending.join()
            assert adapter.sent == 3
            assert {request.connection for request in linked.server.requests} == {1}


def test_a_proxy_of_the_session_is_used_and_none_of_the_environment(monkeypatch):
    import requests

    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with Linked(lambda request, peer: peer.json(result())) as linked:
        assert linked.call() == [result()]
        proxy = linked.server
        with requests.Session() as session:
            session.trust_env = False
            session.proxies["http"] = proxy.origin
            link = HttpTransport("http://server.example/mcp", session=session)
            link.open(5)
            exchange = link.start(PING, {}, 5)
            assert exchange.receive(20) == result()
            link.close()
        assert proxy.requests[-1].path == "http://server.example/mcp"


def test_credentials_in_the_address_are_sent_and_not_shown():
    with scripted(lambda request, peer: peer.body(b"", 500)) as server:
        link = HttpTransport(server.url.replace("://", "://user:password@"))
        link.open(5)
        with pytest.raises(HTTPStatus) as caught:
            link.start(PING, {}, 5).receive(20)
        link.close()
        assert server.requests[0].headers["authorization"] == "Basic dXNlcjpwYXNzd29yZA=="
        assert server.requests[0].headers["host"] == f"127.0.0.1:{server.port}"
        assert "password" not in str(caught.value)


def test_netrc_is_not_looked_at(tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with Linked(lambda request, peer: peer.json(result())) as linked:
        linked.call()
        assert "authorization" not in linked.server.requests[0].headers


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "\u20ac"])
def test_a_header_value_cannot_add_a_header(value):
    with Linked(lambda request, peer: peer.json(result())) as linked:
        with pytest.raises(ProtocolError):
            linked.call(headers={"Mcp-Name": value})
        assert linked.server.requests == []


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
@pytest.mark.parametrize("way", ["native", "session"])
def test_tls_is_verified_as_the_session_says_or_as_requests_does(tmp_path, monkeypatch, way):
    import requests

    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    def answer(request, peer):
        peer.stream().event(NOTE)
        if request.message["id"] == 1:
            peer.event(result()).end()
        else:
            peer.left()

    with scripted(answer, tls=context) as server:
        stranger = HttpTransport(server.url)
        stranger.open(5)
        with pytest.raises(ConnectionLost) as caught:
            stranger.start(PING, {}, 5)
        assert caught.value.retry == "never"
        stranger.close()
        with requests.Session() as session:
            session.trust_env = False
            session.verify = str(cert)
            if way == "native":
                monkeypatch.setattr("requests.utils.DEFAULT_CA_BUNDLE_PATH", str(cert))
            link = HttpTransport(server.url, session=session if way == "session" else None)
            link.open(5)
            for _ in range(3):
                assert received(link.start(PING, {}, 5)) == [NOTE, result()]
            exchange = link.start({**PING, "id": 2}, {}, 5)
            assert exchange.receive(20) == NOTE
            with pytest.raises(Timeout):
                exchange.receive(0.05)
            ending = threading.Timer(0.1, exchange.abort, [ConnectionLost("enough")])
            ending.start()
            with pytest.raises(ConnectionLost, match="enough"):
                exchange.receive(20)
            ending.join()
            link.close()
        assert len({request.connection for request in server.requests}) == 1


# Many at once, and elsewhere


def test_threads_share_a_link():
    with Linked(lambda request, peer: peer.json(result(request.message["id"]))) as linked:
        wrong = []

        def work(base):
            for number in range(base, base + 50):
                if linked.call({**PING, "id": number}) != [result(number)]:
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(1000 * number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not wrong
        assert len(linked.server.requests) == 400
        assert len({request.connection for request in linked.server.requests}) <= 8


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own():
    with Linked(lambda request, peer: peer.json(result(request.message["id"]))) as linked:
        assert linked.call() == [result()]

        def work():
            assert linked.call({**PING, "id": 2}) == [result(2)]

        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert linked.call({**PING, "id": 3}) == [result(3)]
        assert [request.connection for request in linked.server.requests] == [1, 2, 1]


def test_requests_is_not_loaded_for_a_server_that_needs_nothing_of_it():
    code = """
import sys
from minimcp.client.transports.http import HttpTransport
transport = HttpTransport(sys.argv[1], auth=("user", "password"))
transport.open(5)
found = transport.start({"jsonrpc": "2.0", "id": 1, "method": "ping"}, {}, 5).receive(20)
print(found["result"], "requests" in sys.modules)
"""
    with scripted(lambda request, peer: peer.json(result())) as server:
        run = subprocess.run([sys.executable, "-c", code, server.url], capture_output=True, text=True, cwd=ROOT)
        assert run.stdout == "{} False\n", run.stderr


@pytest.mark.parametrize("url", ["http://", "ftp://x/mcp", "http://[::1/mcp", "http://x:port/", "http://x:99999/"])
def test_an_address_that_is_none(url):
    with pytest.raises(ProtocolError):
        HttpTransport(url).open(5)
