"""Several processes behind one address: every feature of a legacy session works without routing it to one of them."""

from __future__ import annotations

import contextlib
import json
import threading

import pytest

from tests.embedded import wait_until
from tests.held import HELLO, streaming
from tests.processes import NOTE, Client, Redis, RoundRobin, Worker, exchange_at, message_of, rest_of

ELICIT = {"elicitation": {}}


@contextlib.contextmanager
def workers(count, redis):
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(each) for each in [Worker(redis.url) for _ in range(count)]]


@pytest.fixture(scope="module")
def site():
    with Redis() as redis, workers(3, redis) as found:
        yield redis, [worker.url for worker in found]


@pytest.fixture
def urls(site):
    return site[1]


@pytest.fixture
def go(tmp_path):
    path = tmp_path / "go"
    yield path
    path.touch()


def answer(id, name="Ann"):
    return {"jsonrpc": "2.0", "id": id, "result": {"action": "accept", "content": {"name": name}}}


def test_an_answer_reaches_the_call_that_asked_in_another_process(urls):
    client = Client(urls, **ELICIT).begin(1)
    with client.call("ask", at=2) as (_, event):
        event()
        asked = message_of(event())
        assert asked["method"] == "elicitation/create"
        assert client.send(answer(asked["id"]), at=0)[::2] == (202, b"")
        assert message_of(event())["result"]["content"][0]["text"].startswith("Ann ")


def test_a_refusal_reaches_the_call_too(urls):
    client = Client(urls, **ELICIT).begin()
    with client.call("ask", at=0) as (_, event):
        event()
        refusal = {"jsonrpc": "2.0", "id": message_of(event())["id"], "error": {"code": -1, "message": "no"}}
        assert client.send(refusal, at=1)[0] == 202
        assert message_of(event())["result"] == {
            "content": [{"type": "text", "text": "The client refused: no"}],
            "isError": True,
        }


def test_a_cancellation_reaches_the_call_in_another_process(urls, go):
    client = Client(urls).begin()
    with client.call("held", at=0, id="a", until=str(go)) as (_, event):
        event()
        assert message_of(event())["params"]["progress"] == 1
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "a"}}
        assert client.send(cancel, at=1)[0] == 202
        assert event() is None


def test_a_level_is_in_force_in_every_process_when_it_is_answered(urls):
    client = Client(urls).begin(1)
    for at in range(3):
        client.request("tools/list", at=at)
    for level, said in (("error", ["error"]), ("debug", ["debug", "info", "error"]), ("warning", ["error"])):
        assert client.request("logging/setLevel", at=1, level=level) == {"jsonrpc": "2.0", "id": 1, "result": {}}
        for at in range(3):
            with client.call("say", at=at) as (_, event):
                messages = rest_of(event)
            assert [each["params"]["level"] for each in messages[:-1]] == said
            assert messages[-1]["result"]["structuredContent"]["client"] == "c"


def test_a_process_that_never_saw_the_session_has_its_level_and_who_its_client_is(urls):
    client = Client(urls).begin(0)
    client.request("logging/setLevel", at=0, level="error")
    with client.call("say", at=2) as (_, event):
        messages = rest_of(event)
    assert [each.get("params", {}).get("level") for each in messages] == ["error", None]
    assert messages[-1]["result"]["structuredContent"]["client"] == "c"


def test_subscriptions_hold_in_every_process_and_the_stream_is_told_wherever_it_is(urls):
    client = Client(urls).begin(0)
    assert client.request("resources/subscribe", at=0, uri="a://1")["result"] == {}
    with client.listen(at=1) as (_, event):
        event()
        assert client.request("resources/subscribe", at=2, uri="a://2")["result"] == {}
        for uri in ("a://1", "a://3", "a://2"):
            client.request("tools/call", at=0, name="change", arguments={"topic": uri})
        assert [message_of(event())["params"]["uri"] for _ in range(2)] == ["a://1", "a://2"]
        assert client.request("resources/unsubscribe", at=0, uri="a://1")["result"] == {}
        for uri in ("a://1", "a://2"):
            client.request("tools/call", at=2, name="change", arguments={"topic": uri})
        assert message_of(event())["params"]["uri"] == "a://2"


def test_what_nobody_read_comes_with_the_stream_to_the_process_that_opens_it_and_once(urls):
    client = Client(urls).begin(2)
    for topic in ("tools", "prompts"):
        client.request("tools/call", at=0, name="change", arguments={"topic": topic})
    with client.listen(at=1) as (_, event):
        assert event()["data"] == ""
        told = [message_of(event()) for _ in range(2)]
        assert sorted(each["method"] for each in told) == [
            "notifications/prompts/list_changed",
            "notifications/tools/list_changed",
        ]
    # Where it was told, and where it was not, nothing of that is left.
    for at in (2, 1, 0):
        with client.listen(at=at) as (_, event):
            event()
            client.request("tools/call", at=0, name="change", arguments={"topic": "resources"})
            assert message_of(event()) == {"jsonrpc": "2.0", "method": "notifications/resources/list_changed"}


def test_the_newest_get_stream_takes_over_in_whatever_process(urls):
    client = Client(urls).begin(0)
    with client.listen(at=0) as (_, first), client.listen(at=1) as (_, second):
        first(), second()
        assert first() is None
        client.request("tools/call", at=2, name="change", arguments={"topic": "tools"})
        told = second()
        assert message_of(told)["method"] == "notifications/tools/list_changed"
        with client.listen(at=0, last=told["id"]) as (_, third):
            third()
            assert second() is None
            client.request("tools/call", at=1, name="change", arguments={"topic": "prompts"})
            assert message_of(third())["method"] == "notifications/prompts/list_changed"


def test_what_a_get_stream_sent_but_the_client_has_not_got_is_sent_by_another_process(urls):
    client = Client(urls).begin(0)
    with client.listen(at=0) as (_, event):
        primed = event()
        for topic in ("tools", "prompts"):
            client.request("tools/call", at=1, name="change", arguments={"topic": topic})
            event()
    with client.listen(at=1, last=primed["id"]) as (_, event):
        event()
        assert [message_of(event())["method"] for _ in range(2)] == [
            "notifications/tools/list_changed",
            "notifications/prompts/list_changed",
        ]


def test_a_deleted_session_is_not_found_in_any_process_and_its_calls_and_streams_end(urls, go):
    client = Client(urls).begin(0)
    client.request("tools/list", at=2)
    with client.listen(at=1) as (_, listening), client.call("held", at=0, until=str(go)) as (_, event):
        listening(), event(), event()
        assert client.send(None, at=2, method="DELETE")[::2] == (204, b"")
        for at in range(3):
            assert client.send({"jsonrpc": "2.0", "id": 1, "method": "ping"}, at=at)[0] == 404
            assert client.send(None, at=at, method="DELETE")[0] == 404
        assert listening() is None and event() is None


def test_a_call_is_gone_on_with_in_another_process_after_the_last_event(urls):
    client = Client(urls).begin()
    with client.call("three", at=0) as (_, event):
        events = list(iter(event, None))
    ids = [each["id"] for each in events]
    assert len(set(ids)) == 5
    for at in (1, 2, 0):
        with client.listen(at=at, last=ids[2]) as (response, event):
            assert response.status == 200 and response.headers["Content-Type"] == "text/event-stream"
            replayed = [each for each in iter(event, None) if each["data"]]
        assert [(each["id"], each["data"]) for each in replayed] == [(each["id"], each["data"]) for each in events[3:]]


def test_a_call_that_closed_its_stream_is_polled_for_in_another_process(urls, go):
    client = Client(urls).begin()
    with client.call("polled", at=0, until=str(go)) as (_, event):
        events = list(iter(event, None))
    assert events[-1]["retry"] == "40"
    last = [each["id"] for each in events if "id" in each][-1]
    with client.listen(at=1, last=last) as (_, event):
        assert event()["data"] == ""
        go.touch()
        messages = rest_of(event)
    assert messages[0]["params"]["progress"] == 2 and messages[1]["result"]["content"][0]["text"] == "polled"


def test_event_ids_are_unique_in_a_session_wherever_its_calls_run(urls):
    client, seen = Client(urls).begin(), []
    for at in range(3):
        with client.call("three", at=at) as (_, event):
            seen += [each["id"] for each in iter(event, None)]
    assert len(seen) == len(set(seen)) == 15


@pytest.mark.parametrize("last", ["1-1", "99.{}-1", "1.0123456789ab-1", "1.-1", "1.{}-x", "nonsense"])
def test_an_event_id_of_no_stream_is_refused_everywhere(urls, last):
    client = Client(urls).begin()
    with client.call("three", at=0) as (_, event):
        node = event()["id"].partition("-")[0].partition(".")[2]
        rest_of(event)
    for at in (0, 1):
        status, _, body = client.send(None, at, "GET", Accept="text/event-stream", Last_Event_ID=last.format(node))
        assert status == 400
        assert json.loads(body)["error"]["message"] == "Last-Event-ID names no stream of this session"


def test_a_batch_asks_and_is_answered_in_another_process(urls):
    client = Client(urls, "2025-03-26", sampling={}).begin(1)
    batch = [{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "sample"}}]
    with streaming(urls[0], batch, client.headers) as (_, event):
        said = {"role": "assistant", "content": {"type": "text", "text": "hello"}, "model": "m"}
        assert client.send([{"jsonrpc": "2.0", "id": message_of(event())["id"], "result": said}], at=2)[0] == 202
        content = [{"type": "text", "text": "hello"}]
        assert message_of(event()) == [{"jsonrpc": "2.0", "id": 7, "result": {"content": content}}]


def test_the_messages_of_an_http_sse_client_reach_the_process_that_has_its_stream(urls):
    stream = {"Accept": "text/event-stream", "X-User": "ann"}
    with streaming(urls[0].replace("/mcp", "/sse"), None, stream, "GET") as (_, event):
        path = event()["data"]
        posts = [url.replace("/mcp", path) for url in urls]

        def post(message, at, user="ann"):
            headers = {"Content-Type": "application/json", "X-User": user}
            with exchange_at(posts[at], message, headers) as response:
                return response.status, response.read()

        hello = {**HELLO, "protocolVersion": "2024-11-05", "capabilities": {"sampling": {}}}
        assert post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}, 1) == (202, b"")
        assert message_of(event())["result"]["protocolVersion"] == "2024-11-05"
        assert post(NOTE, 2) == (202, b"")
        call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "sample"}}
        assert post(call, 1) == (202, b"")
        said = {"role": "assistant", "content": {"type": "text", "text": "hello"}, "model": "m"}
        assert post({"jsonrpc": "2.0", "id": message_of(event())["id"], "result": said}, 2) == (202, b"")
        assert message_of(event())["result"]["content"] == [{"type": "text", "text": "hello"}]
        # Another principal does not reach it, and a message that is none is refused as ever.
        assert [post(call, at, "bob")[0] for at in range(3)] == [404, 404, 404]
        assert post({"jsonrpc": "2.0", "method": []}, 1) == post({"jsonrpc": "2.0", "method": []}, 0)
    wait_until(lambda: post(call, 0)[0] == 404)
    assert post(call, 1)[0] == 404


def test_the_session_of_another_principal_is_not_found_in_any_process(urls):
    ann, bob = Client(urls, user="ann").begin(), Client(urls, user="bob").begin()
    with ann.call("three", at=0) as (_, event):
        ids = [each["id"] for each in iter(event, None)]
    bob.headers["Mcp-Session-Id"] = ann.headers["Mcp-Session-Id"]
    for at in range(3):
        assert bob.send({"jsonrpc": "2.0", "id": 1, "method": "ping"}, at=at)[0] == 404
        assert bob.send(None, at, "DELETE")[0] == 404
        assert bob.send(None, at, "GET", Accept="text/event-stream", Last_Event_ID=ids[0])[0] == 404
        assert ann.request("ping", at=at)["result"] == {}


def test_what_redis_keeps_of_sessions_is_bounded_expires_and_tells_no_secrets(site):
    redis, urls = site
    client = Client(urls, user="ann@example.com").begin()
    client.request("resources/subscribe", uri="a://1")
    with redis.client() as inside:
        keys = list(inside.scan_iter())
        assert keys and all(0 < inside.ttl(key) <= 1200 for key in keys)
        hashes = [inside.hgetall(key) for key in keys if inside.type(key) == b"hash"]
    kept = repr((keys, hashes))
    assert "a://1" in kept
    assert "ann@example.com" not in kept and client.headers["Mcp-Session-Id"] not in kept
