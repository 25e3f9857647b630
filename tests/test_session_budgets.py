"""The budgets of legacy sessions: calls in flight, kept events, notices, subscriptions, and sessions as such."""

from __future__ import annotations

import base64
import json
import threading
import time

import pytest
from werkzeug.test import Client

from minimcp import Context, Principal, Server
from minimcp.protocol.errors import SessionNotFound
from minimcp.server import sessions as session_module
from minimcp.transports.legacy_http import session_streams
from minimcp.transports.outbox import Outbox
from minimcp.transports.streams import open_calls
from minimcp.transports.workers import Workers
from tests.embedded import wait_until
from tests.held import Steps, held_server, legacy, opened, post, streaming
from tests.helpers import BOTH, Legacy, exchange, modern, problem, serving
from tests.test_http_sessions import called, session

SECRET = "0123456789abcdef"


@pytest.fixture
def steps():
    return Steps()


@pytest.fixture
def server(steps):
    yield from held_server(steps)


def on_worker(url, headers, id, name="held"):
    """Send a call and leave, as soon as it runs."""
    with streaming(url, called(name, id), headers) as (response, event):
        assert response.status == 200
        event()


def test_calls_in_flight_of_a_session_are_limited_and_ping_is_not(server, steps):
    server.engine.limits["calls"] = 3
    with session(server) as (url, headers):
        for _ in range(3):
            # The same id each time: such calls count as well.
            on_worker(url, headers, 1)
        with exchange(url, called("held", "one more"), headers) as refused:
            reply = json.loads(refused.read())
            assert refused.status == 429 and refused.headers["Retry-After"]
            assert reply["id"] == "one more" and reply["error"]["code"] == -32603
        with exchange(url, {"jsonrpc": "2.0", "id": 5, "method": "ping"}, headers) as answer:
            assert json.loads(answer.read()) == {"jsonrpc": "2.0", "id": 5, "result": {}}
        steps.go.set()
        (kept,) = server.engine.sessions.all()
        wait_until(lambda: not kept.calls and not kept._doubles)
        with exchange(url, called("plain", 6), headers) as answer:
            assert answer.status == 200


def test_ending_a_session_cancels_every_call_of_it_and_those_under_one_id_too(server, steps):
    ended = threading.Semaphore(0)

    @server.tool
    def count(ctx: Context) -> str:
        ctx.progress(1)
        ctx.cancelled.wait(10)
        ended.release()
        return "x"

    with session(server) as (url, headers):
        for _ in range(3):
            on_worker(url, headers, 1, "count")
        with exchange(url, None, headers, "DELETE") as gone:
            assert gone.status == 204
        assert all(ended.acquire(timeout=20) for _ in range(3))


def test_calls_in_flight_over_sse_are_limited_and_ping_is_not(server, steps):
    server.engine.limits["calls"] = 2
    client = Client(server.wsgi)
    with serving(server.wsgi) as url, streaming(url + "/sse", None, {}, "GET") as (_, event):
        target = event()["data"]
        hello = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {}}
        assert post(client, {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}, path=target)
        event()
        for id in (1, 2):
            assert post(client, called("held", id), path=target).status_code == 202
            assert "progress" in event()["data"]
        refused = post(client, called("held", 3), path=target)
        assert (refused.status_code, refused.json["id"], refused.json["error"]["code"]) == (429, 3, -32603)
        assert post(client, {"jsonrpc": "2.0", "id": "p", "method": "ping"}, path=target).status_code == 202
        assert json.loads(event()["data"])["id"] == "p"
        steps.go.set()


def test_calls_of_all_sessions_are_limited(server, steps):
    server.engine.limits["session_calls"] = open_calls().used + 2
    with session(server) as (url, one), session(server) as (other, two):
        on_worker(url, one, 1)
        on_worker(other, two, 1)
        with exchange(url, called("held", 2), one) as refused:
            reply = json.loads(refused.read())
            assert refused.status == 503 and refused.headers["Retry-After"]
            assert reply["id"] == 2
        assert all(not each.calls.get(2) for each in server.engine.sessions.all())
        steps.go.set()
        wait_until(lambda: open_calls().used == server.engine.limits["session_calls"] - 2)


@pytest.mark.parametrize("door", ["http", "sse", "modern"])
def test_a_call_that_finds_no_thread_leaves_nothing_behind(server, door, monkeypatch):
    monkeypatch.setattr("minimcp.transports.http.http_workers", lambda: Workers(5, 5, 1000))
    client = Client(server.wsgi)

    def start(thread):
        raise RuntimeError("can't start new thread")

    before = open_calls().used
    if door == "sse":
        outbox, kept = Outbox(), server.engine.open_session()
        kept.version = "2024-11-05"
        server.wsgi.routes["/messages"]["POST"].__self__._sessions["x"] = kept, outbox, None
        monkeypatch.setattr(threading.Thread, "start", start)
        refused = post(client, called("three", 4), path="/messages?session_id=x")
    elif door == "http":
        id = opened(client)
        (kept,) = server.engine.sessions.all()
        monkeypatch.setattr(threading.Thread, "start", start)
        refused = post(client, called("three", 4), {"Mcp-Session-Id": id})
        assert session_streams().of(kept, server.engine.limits)._calls == {}
    else:
        kept = server.engine.open_session()
        message = modern("tools/call", 4, name="three")
        names = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": "three"}
        monkeypatch.setattr(threading.Thread, "start", start)
        refused = post(client, message, names)
    assert refused.status_code == 503 and refused.headers["Retry-After"] and refused.json["id"] == 4
    assert not kept.calls and not kept._doubles and open_calls().used == before


def test_workers_that_cannot_start_a_thread_lose_no_other_job(monkeypatch):
    workers, ran, go = Workers(10, 3, 100), [], threading.Event()
    real = threading.Thread.start

    def start(thread):
        raise RuntimeError("can't start new thread")

    started = threading.Event()
    workers.submit(lambda: (started.set(), go.wait(10)))
    assert started.wait(10)
    monkeypatch.setattr(threading.Thread, "start", start)
    # One thread is there: jobs wait for it, as many as may wait and as many bytes as they may hold.
    workers.submit(lambda: ran.append(1), 60)
    with pytest.raises(RuntimeError):
        workers.submit(lambda: ran.append("too large"), 60)
    for n in (2, 3):
        workers.submit(lambda n=n: ran.append(n))
    with pytest.raises(RuntimeError):
        workers.submit(lambda: ran.append("too many"))
    monkeypatch.setattr(threading.Thread, "start", real)
    go.set()
    wait_until(lambda: ran == [1, 2, 3])
    alone = Workers(1, 3, 100)
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError):
        alone.submit(lambda: ran.append("never"))
    assert not alone._jobs
    monkeypatch.setattr(threading.Thread, "start", real)
    alone.submit(lambda: ran.append(4))
    wait_until(lambda: ran == [1, 2, 3, 4])


def test_a_jobs_failure_is_logged_and_its_thread_goes_on(caplog):
    workers, ran = Workers(1, 10, 100), threading.Event()
    workers.submit(lambda: 1 / 0)
    workers.submit(ran.set)
    assert ran.wait(10) and "ZeroDivisionError" in caplog.text


@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18"])
def test_a_question_ends_when_nobody_reads_the_stream_on_which_it_was_asked(server, version):
    failed = threading.Event()
    server.engine.limits.update(unread_s=0.2, ask_s=30)

    @server.tool
    def wait(ctx: Context) -> str:
        try:
            return str(ctx.elicit("Name?", {"name": str}))
        finally:
            failed.set()

    with (
        session(server, version, elicitation={}) as (url, headers),
        streaming(url, called("wait"), headers) as (_, event),
    ):
        assert any("elicitation/create" in each["data"] for each in iter(event, None))
        # As long as it is read, it is waited for.
        assert not failed.wait(0.7)
    assert failed.wait(20)
    with session(server, version, elicitation={}) as (url, headers):
        failed.clear()
        on_worker(url, headers, 1, "wait")
        assert failed.wait(20)


def test_a_batch_is_cancelled_with_its_session_and_by_the_id_of_a_member(server, steps):
    told = []

    @server.tool
    def hold(ctx: Context) -> str:
        told.append(ctx)
        ctx.cancelled.wait(10)
        return "x"

    client = Legacy(server, "2025-03-26")
    batch = [{**called("hold", id), "params": {"name": "hold"}} for id in (1, 2)]
    replies = []
    call = server.engine.call(batch, session=client.session)
    call.session = client.session.add_call(call)
    thread = threading.Thread(target=lambda: replies.append(call.run()), daemon=True)
    thread.start()
    wait_until(lambda: len(told) == 1)
    client.notify("notifications/cancelled", requestId=1)
    wait_until(lambda: len(told) == 2)
    call.cancel("enough")
    thread.join(10)
    assert replies == [None] and [ctx.cancelled.is_set() for ctx in told] == [True, True]
    client.session.remove_call(call)
    assert client.session.calls == {}


def large(server, size):
    @server.tool
    def big(ctx: Context) -> str:
        ctx.progress(1)
        return "x" * size


def read(url, headers, id, name="big"):
    with streaming(url, called(name, id), headers) as (_, event):
        return [each["id"] for each in iter(event, None)]


def test_a_large_stream_is_dropped_once_it_was_read_to_the_end(server):
    large(server, 1_000_000)
    before = session_streams().kept.used
    with session(server) as (url, headers):
        for id in range(5):
            assert len(read(url, headers, id)) == 3
        wait_until(lambda: session_streams().kept.used - before < 10_000)


def test_a_small_stream_is_dropped_a_while_after_its_end(server):
    # Streams of other servers that ended before would be looked at first.
    session_streams()._read.clear()
    session_streams()._unread.clear()
    with session(server) as (url, headers):
        ids = read(url, headers, 1, "three")
        get = {**headers, "Accept": "text/event-stream", "Last-Event-ID": ids[2]}
        with exchange(url, None, get, "GET") as again:
            assert again.status == 200 and b'"text":"done"' in again.read()
        server.engine.limits["event_s"] = 0
        read(url, headers, 2, "three")
        wait_until(lambda: status(url, get) == 400)


def status(url, headers):
    with exchange(url, None, headers, "GET") as response:
        response.read()
        return response.status


def test_what_all_streams_keep_is_bounded_and_what_was_read_goes_first(server):
    every, limits = session_streams(), server.engine.limits
    limits["event_bytes"] = every.kept.used + 125_000
    one, two = server.engine.open_session(), server.engine.open_session()

    def ended(session, read):
        stream = every.of(session, limits).add()
        stream.finish({"jsonrpc": "2.0", "id": 1, "result": {"text": "x" * 30_000}})
        every.end(every.of(session, limits), stream)
        if read:
            every.end(every.of(session, limits), stream, read=True)
        return stream

    unread, others = ended(one, False), [ended(two, True) for _ in range(4)]
    assert [bool(stream.held) for stream in others] == [False, True, True, True] and unread.held
    more = [ended(one, False) for _ in range(4)]
    assert every.kept.used <= limits["event_bytes"] and not unread.held and more[-1].held
    one.close()
    two.close()
    for stream in (*others, *more):
        stream.forget()


def test_a_running_call_keeps_no_more_than_its_share(server):
    outbox = session_streams()
    session = server.engine.open_session()
    server.engine.limits["event_bytes"] = outbox.kept.used + 10_000
    stream = outbox.of(session, server.engine.limits).add()
    for n in range(50):
        stream.send({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": "x" * 1000, "n": n}})
    assert stream.held <= 10_000 and stream.newest == 50
    session.close()
    stream.forget()


def test_a_reply_is_kept_once():
    stream = Outbox(number=1)
    stream.send({"jsonrpc": "2.0", "method": "x"})
    stream.finish({"jsonrpc": "2.0", "id": 1, "result": {"text": "x" * 1000}})
    assert stream.reply is None and b"x" * 1000 in stream.take(0, 0)[0][-1][1]


def test_notices_without_a_reader_are_one_for_each_thing_that_changed(server, monkeypatch):
    client = Client(server.wsgi)
    ids = [opened(client) for _ in range(20)]
    for id in ids:
        assert legacy(client, "resources/subscribe", session=id, uri="a://1").json["result"] == {}
    outboxes = [session_streams().of(each, server.engine.limits).standing for each in server.engine.sessions.all()]
    for _ in range(100):
        server.changed("tools")
        server.updated("a://1")
    assert all(len(box._notes) == 2 and not box._events for box in outboxes)
    # Encoded once for all of them.
    assert all(box._notes[key] is data for box in outboxes for key, data in outboxes[0]._notes.items())
    with serving(server.wsgi) as url:
        get = {"Accept": "text/event-stream", "Mcp-Session-Id": ids[0]}
        with streaming(url + "/mcp", None, get, "GET") as (_, event):
            heard = [each["data"] for each in (event(), event(), event())]
            assert heard[0] == "" and "tools/list_changed" in heard[1] and '"uri":"a://1"' in heard[2]
            server.changed("prompts")
            assert "prompts/list_changed" in event()["data"]


@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18", "2025-11-25"])
def test_the_head_of_a_get_stream_comes_at_once(server, version):
    server.engine.limits["keepalive_s"] = 60
    with session(server, version) as (url, headers):
        with exchange(url, None, {**headers, "Accept": "text/event-stream"}, "GET", timeout_s=30) as response:
            assert response.status == 200
            assert response.readline() == (b"id: 0-0\n" if version == "2025-11-25" else b":\n")
            server.close()


def test_subscribed_uris_are_weighed_in_bytes():
    server = Server("s", limits={"subscription_bytes": 1000, "all_subscription_bytes": 1500})
    server.resource("a://{id}")(lambda id: "x")
    one, two = Legacy(server), Legacy(server)
    assert one.result("resources/subscribe", uri="a://" + "x" * 900) == {}
    assert one.result("resources/subscribe", uri="a://" + "x" * 900) == {}
    assert one.problem("resources/subscribe", uri="a://" + "y" * 100)["code"] == -32602
    assert two.problem("resources/subscribe", uri="a://" + "z" * 700)["code"] == -32603
    for _ in range(3):
        one.result("resources/unsubscribe", uri="a://" + "x" * 900)
        assert server.engine.subscribed.used == 0
        assert one.result("resources/subscribe", uri="a://" + "x" * 900) == {}
    one.session.close()
    one.session.close()
    assert server.engine.subscribed.used == 0
    assert two.result("resources/subscribe", uri="a://" + "z" * 700) == {}


@pytest.mark.parametrize(
    "more", [{"uris": ["a://" + "x" * 400] * 3}, {"junk": "x" * 1100}, {"junk": [[]] * 300}, {"uris": ["a://1"] * 300}]
)
def test_listen_streams_are_weighed_in_bytes(more):
    server = Server("s", limits={"subscription_bytes": 1000, "subscriptions": 50, "all_subscription_bytes": 1500})
    server.resource("a://{id}")(lambda id: "x")
    wanted = {"resourceSubscriptions": more.pop("uris", ["a://1"])}
    assert problem(server, "subscriptions/listen", notifications=wanted, **more)["code"] == -32602
    fits = {"resourceSubscriptions": ["a://" + "x" * 600]}
    streams = [server.engine.call(modern("subscriptions/listen", n, notifications=fits)).messages() for n in range(2)]
    assert "acknowledged" in next(streams[0])["method"]
    assert next(streams[1])["error"]["code"] == -32603
    streams[0].close()
    assert server.engine.subscribed.used == 0


def _noted(ctx: Context) -> str:
    return "x"


def hello(server, peer="", principal=None):
    session = server.engine.open_session(principal=principal)
    session.peer, session.version = peer, "2025-11-25"
    return server.engine.keep_session(session)


def test_sessions_never_used_make_room_first_and_those_of_who_has_too_many():
    server = Server("s", limits={"sessions": 20})
    used, idle = hello(server, "victim"), hello(server, "victim")
    server.engine.open_session(id=used)
    for _ in range(200):
        hello(server, "flood")
    # The one that was never used is another's, who has no more than a share.
    assert server.engine.open_session(id=used) and server.engine.open_session(id=idle)
    for _ in range(200):
        server.engine.open_session(id=hello(server, "flood"))
    assert server.engine.open_session(id=used) and server.engine.open_session(id=idle)
    assert len(server.engine.sessions.all()) == 20
    ann = hello(server, "flood", Principal("ann"))
    for _ in range(40):
        hello(server, "flood", Principal("bob"))
    assert server.engine.open_session(id=ann, principal=Principal("ann"))
    for each in server.engine.sessions.all():
        server.engine.close_session(each)
    assert server.engine.sessions._owners == {}


@pytest.mark.parametrize("lost", ["subscription", "level", None])
def test_a_session_is_restored_only_if_its_id_says_all_of_it(lost):
    server = Server("s", secret=SECRET, limits={"sessions": 2})
    server.resource("a://{id}")(lambda id: "x")
    server.resource("b://1")(_noted)
    client = Legacy(server)
    id = server.engine.keep_session(client.session)
    if lost == "subscription":
        client.result("resources/subscribe", uri="a://1")
    elif lost == "level":
        client.result("logging/setLevel", level="error")
    for _ in range(2):
        hello(server)
    if lost is None:
        assert server.engine.open_session(id=id).version == "2025-11-25"
    else:
        with pytest.raises(SessionNotFound):
            server.engine.open_session(id=id)


def test_a_deleted_session_stays_so_after_any_number_of_others(monkeypatch):
    server = Server("s", secret=SECRET, limits={"sessions": 3})
    first = hello(server)
    server.engine.close_session(server.engine.open_session(id=first))
    for _ in range(10):
        server.engine.close_session(server.engine.open_session(id=hello(server)))
    with pytest.raises(SessionNotFound):
        server.engine.open_session(id=first)
    # Not even when more were deleted than are remembered one by one: then older ids are not restored at all.
    monkeypatch.setattr(session_module, "_MOST_ENDED", 5)
    for _ in range(10):
        server.engine.close_session(server.engine.open_session(id=hello(server)))
    with pytest.raises(SessionNotFound):
        server.engine.open_session(id=first)
    assert len(server.engine.sessions._ended) == 5


def test_a_session_id_does_not_show_its_principal():
    server = Server("s", secret=SECRET)
    id = hello(server, principal=Principal("ann@example.com", "https://issuer.example"))
    payload = base64.urlsafe_b64decode(id.split(".")[0] + "==")
    assert b"ann" not in payload and b"issuer" not in payload


def test_callbacks_that_raise_do_not_keep_a_server_from_closing(server):
    closed = []
    for _ in range(3):
        client = Legacy(server)
        server.engine.keep_session(client.session)
        call = server.engine.call({**called("three"), "params": {"name": "three"}}, session=client.session)
        call.ctx.on_cancel(lambda: 1 / 0)
        call.ctx.on_cancel(lambda: (_ for _ in ()).throw(SystemExit(3)))
        client.session.add_call(call)
        client.session.on_close += [lambda: 1 / 0, lambda: closed.append(1)]
    server.close()
    assert len(closed) == 3 and server.engine.sessions.all() == []


def test_a_sender_that_waits_for_a_slow_reader_uses_no_processor_time():
    outbox, message = Outbox(limit=1), {"jsonrpc": "2.0", "method": "x"}
    outbox.send(message)
    threads = [threading.Thread(target=outbox.send, args=(message,), daemon=True) for _ in range(50)]
    for thread in threads:
        thread.start()
    began = time.process_time()
    assert not threads[0].join(0.5) and time.process_time() - began < 0.2
    outbox.finish()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_null_is_absent_wherever_a_member_may_be():
    server = Server("s")
    server.tool(lambda: "x", "t")
    server.prompt(lambda: "x", "p")
    server.completion("p", "a")(lambda value, arguments: [str(arguments)])
    params = {"protocolVersion": "2025-11-25", "capabilities": None, "clientInfo": None}
    client = Legacy(server)
    assert client.result("initialize", **params)["protocolVersion"] == "2025-11-25"
    assert client.result("tools/call", name="t", arguments=None, _meta=None)["content"]
    assert client.result("prompts/get", name="p", arguments=None)["messages"]
    assert client.result("tools/list", cursor=None)["tools"]
    asked = {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": ""}}
    for context in (None, {"arguments": None}, {}):
        assert client.result("completion/complete", **asked, context=context)["completion"]["values"] == ["{}"]
    assert server.handle({"jsonrpc": "2.0", "id": 1, "method": "ping", "params": None}, session=client.session)
    info = {"io.modelcontextprotocol/clientInfo": None, "io.modelcontextprotocol/logLevel": None}
    assert server.handle(modern("tools/call", meta=info, name="t", arguments=None))["result"]["content"]


def test_before_a_handshake_what_only_a_modern_client_sends_is_judged_as_such():
    server = Server("s")
    capabilities = {"io.modelcontextprotocol/clientCapabilities": {}}
    for method, params in (("tools/list", {"_meta": capabilities}), ("server/discover", {}), ("server/discover", None)):
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        for found in (None, server.engine.open_session()):
            assert server.handle(message, session=found)["error"]["code"] == -32602
    assert Legacy(server).problem("server/discover")["code"] == -32601


@pytest.mark.parametrize("extra", [{"error": None}, {"error": None, "result": None}, {"error": 5}, {"error": "x"}])
def test_a_response_with_an_odd_error_is_no_failure_of_the_server(server, extra):
    client = Client(server.wsgi)
    headers = {"Mcp-Session-Id": opened(client), "Accept": BOTH}
    response = post(client, {"jsonrpc": "2.0", "id": "s1", **extra}, headers)
    assert response.status_code in (202, 400)
