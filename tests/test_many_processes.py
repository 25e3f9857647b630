"""Several processes behind one address: every feature of a legacy session works without routing it to one of them."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import minimcp
from tests import helpers
from tests.embedded import wait_until
from tests.held import HELLO
from tests.processes import NOTE, Client, Redis, RoundRobin, Worker, exchange_at, message_of, rest_of, streaming

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
        assert keys and all(0 < inside.ttl(key) <= (172_800 if key == b"minimcp:sessions" else 4200) for key in keys)
        hashes = [inside.hgetall(key) for key in keys if inside.type(key) == b"hash"]
    kept = repr((keys, hashes))
    assert "a://1" in kept
    assert "ann@example.com" not in kept and client.headers["Mcp-Session-Id"] not in kept


# Any client, by turns


def test_our_client_needs_no_process_of_its_own(urls):
    with RoundRobin(urls) as proxy:
        for mode in ("legacy", "modern"):
            heard, logged = [], []
            options = {"elicit": lambda question: {"name": "Ann"}, "log_level": "debug", "on_log": logged.append}
            with minimcp.Client(proxy.url, mode=mode, timeout=60, **options) as client:
                asked = {client.call_tool("ask", {}).text for _ in range(9)}
                assert {each.partition(" ")[0] for each in asked} == {"Ann"}
                assert {client.call_tool("pid", {}).text for _ in range(12)} == {
                    each.partition(" ")[2] for each in asked
                }
                assert [client.call_tool("three", {}, progress=heard.append).text for _ in range(6)] == ["done"] * 6
                assert [each["progress"] for each in heard] == [1, 2, 3] * 6
                with client.listen(tools=True, uris=["a://1"]) as changes:
                    for topic in ("tools", "a://1", "a://2", "tools"):
                        client.call_tool("change", {"topic": topic})
                        if topic != "a://2":
                            assert (
                                changes.receive(timeout=30)["method"]
                                == {
                                    "tools": "notifications/tools/list_changed",
                                    "a://1": "notifications/resources/updated",
                                }[topic]
                            )
                for _ in range(3):
                    client.call_tool("say", {})
                wait_until(lambda logged=logged: len(logged) == 9)


def test_many_clients_by_turns_each_get_their_own_answers(urls):
    with RoundRobin(urls) as proxy, ThreadPoolExecutor(8) as pool:

        def work(number):
            options = {"elicit": lambda question: {"name": f"n{number}"}, "timeout": 60}
            with minimcp.Client(proxy.url, mode="legacy" if number % 3 else "modern", **options) as client:
                return [client.call_tool("ask", {}).text.partition(" ")[0] for _ in range(10)]

        assert list(pool.map(work, range(16))) == [[f"n{number}"] * 10 for number in range(16)]


def test_a_cancelled_call_of_our_client_ends_in_whatever_process_it_runs(urls, tmp_path):
    with RoundRobin(urls) as proxy, minimcp.Client(proxy.url, mode="legacy", timeout=60) as client:
        for number in range(6):
            call = client.start_tool("held", {"until": str(tmp_path / str(number))})
            assert next(iter(call))
            call.cancel()
        for number in range(6):
            (tmp_path / str(number)).touch()


# Faults


def test_while_redis_is_gone_what_does_not_need_it_goes_on_and_the_rest_says_so_and_recovers(go):
    with Redis() as redis, workers(2, redis) as found:
        urls = [worker.url for worker in found]
        known, unknown = Client(urls, **ELICIT).begin(1), Client(urls).begin(0)
        known.request("logging/setLevel", at=0, level="error")
        known.request("resources/subscribe", at=1, uri="a://1")
        with known.listen(at=0) as (_, event), known.call("ask", at=0, id="q") as (_, asking):
            event(), asking()
            asked = message_of(asking())
            redis.kill()
            wait_until(lambda: unknown.send({"jsonrpc": "2.0", "id": 1, "method": "ping"}, at=1)[0] == 503)
            # What needs the other process, or what it knows.
            busy = json.loads(
                b'{"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":'
                b'"The other processes of this server cannot be reached at the moment; try again"}}'
            )
            status, headers, body = unknown.send({"jsonrpc": "2.0", "id": 1, "method": "ping"}, at=1)
            assert (status, headers["Retry-After"], json.loads(body)) == (503, "1", {**busy, "id": 1})
            assert known.send(answer(asked["id"]), at=1)[0] == 503
            assert known.send(None, at=1, method="DELETE")[0] == 503
            for at in range(2):
                assert known.request("logging/setLevel", at, level="debug")["error"] == busy["error"]
                assert known.request("resources/subscribe", at, uri="a://2")["error"] == busy["error"]
                assert known.request("resources/unsubscribe", at, uri="a://1")["error"] == busy["error"]
            # Everything else.
            for at in range(2):
                assert known.request("tools/call", at, name="pid")["result"]["content"]
                assert helpers.post(urls[at], helpers.modern("tools/call", name="pid"))[0] == 200
            with known.call("say", at=1) as (_, saying):
                assert [each.get("params", {}).get("level") for each in rest_of(saying)] == ["error", None]
            assert known.send(answer(asked["id"]), at=0)[0] == 202
            assert message_of(asking())["result"]["content"][0]["text"].startswith("Ann ")
            assert known.request("tools/call", at=0, name="change", arguments={"topic": "a://1"})["result"]
            assert message_of(event())["params"]["uri"] == "a://1"
            late = Client(urls, at=0).begin(0)
            # Said by the other one, which nobody here can hear of now.
            assert known.request("tools/call", at=1, name="change", arguments={"topic": "tools"})["result"]
            redis.start()
            # It has lost everything, and is told again.
            wait_until(lambda: late.send({"jsonrpc": "2.0", "id": 1, "method": "ping"}, at=1)[0] == 200)
            told = {message_of(event())["method"] for _ in range(4)}
            assert "notifications/tools/list_changed" in told
            wait_until(lambda: unknown.send({"jsonrpc": "2.0", "id": 1, "method": "ping"}, at=1)[0] == 200)
        assert known.request("logging/setLevel", at=1, level="debug")["result"] == {}
        with known.call("say", at=0) as (_, event):
            assert len(rest_of(event)) == 4
        assert late.send(None, at=1, method="DELETE")[0] == 204
        assert late.send({"jsonrpc": "2.0", "id": 1, "method": "ping"}, at=0)[0] == 404


def test_what_a_session_was_told_is_there_again_after_redis_lost_it(go):
    with Redis() as redis, workers(3, redis) as found:
        client = Client([worker.url for worker in found]).begin(0)
        client.request("logging/setLevel", at=0, level="error")
        client.request("resources/subscribe", at=0, uri="a://1")
        redis.kill()
        redis.start()
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        # The third process has never seen it.
        wait_until(lambda: client.send(ping, at=2)[0] == 200)
        with client.call("say", at=2) as (_, event):
            assert [each.get("params", {}).get("level") for each in rest_of(event)] == ["error", None]
        with client.listen(at=2) as (_, event):
            event()
            client.request("tools/call", at=1, name="change", arguments={"topic": "a://1"})
            # Beside everything that may have changed while nobody could tell.
            while message_of(event()).get("params", {}).get("uri") != "a://1":
                pass


def test_a_session_goes_on_when_the_process_that_held_it_is_killed(go):
    with Redis() as redis, workers(3, redis) as found:
        client = Client([worker.url for worker in found], **ELICIT).begin(0)
        client.request("logging/setLevel", at=0, level="error")
        client.request("resources/subscribe", at=0, uri="a://1")
        with client.listen(at=0) as (_, listening), client.call("ask", at=0) as (_, event):
            last, first = listening()["id"], event()["id"]
            asked = message_of(event())
            found[0].kill()
            with contextlib.suppress(OSError, http.client.HTTPException):
                assert event() is None and listening() is None
        # Its call has no outcome, and nobody pretends that it had: the answer is for nobody, the stream is none.
        assert client.send(answer(asked["id"]), at=1)[0] == 202
        assert client.send(None, 1, "GET", Accept="text/event-stream", Last_Event_ID=first)[0] == 400
        # What it would have told while nobody read is told now, though nobody knows whether anything changed.
        client.request("tools/call", at=2, name="change", arguments={"topic": "a://1"})
        with client.listen(at=1, last=last) as (_, event):
            event()
            told = [message_of(event()) for _ in range(4)]
        assert sorted((each["method"], each.get("params", {}).get("uri")) for each in told) == [
            ("notifications/prompts/list_changed", None),
            ("notifications/resources/list_changed", None),
            ("notifications/resources/updated", "a://1"),
            ("notifications/tools/list_changed", None),
        ]
        with client.call("say", at=2) as (_, event):
            assert [each.get("params", {}).get("level") for each in rest_of(event)] == ["error", None]


def test_a_process_that_stops_sends_its_listeners_to_others_and_ends_its_calls_first(go):
    with Redis() as redis, workers(2, redis) as found:
        client = Client([worker.url for worker in found], **ELICIT).begin(0)
        modern = helpers.modern("subscriptions/listen", notifications={"toolsListChanged": True})
        with (
            client.listen(at=0) as (_, listening),
            client.call("held", at=0, until=str(go)) as (_, event),
            streaming(found[0].url, modern, helpers.http_headers(modern)) as (_, changes),
        ):
            last = listening()["id"]
            event(), event()
            assert message_of(changes())["method"] == "notifications/subscriptions/acknowledged"
            stopping = threading.Thread(target=found[0].terminate)
            stopping.start()
            ended = listening()
            assert ended is None or ended == {"retry": "500"}
            cancelled, ended = rest_of(changes)
            assert cancelled["method"] == "notifications/cancelled"
            assert ended["result"]["resultType"] == "complete"
            go.touch()
            assert [each.get("result", {}).get("content") for each in rest_of(event)][-1][0]["text"] == "held"
            stopping.join(20)
        with client.listen(at=1, last=last) as (_, event):
            event()
            client.request("tools/call", at=1, name="change", arguments={"topic": "tools"})
            assert any(message_of(event())["method"] == "notifications/tools/list_changed" for _ in range(4))


def test_what_a_client_has_not_got_outlives_the_process_that_stops(tmp_path):
    with Redis() as redis, workers(2, redis) as found:
        client = Client([worker.url for worker in found]).begin(0)
        go = tmp_path / "go"
        with client.call("polled", at=0, until=str(go)) as (_, event):
            events = list(iter(event, None))
        last = [each["id"] for each in events if "id" in each][-1]
        go.touch()
        assert found[0].terminate() == 0
        for _ in range(2):
            with client.listen(at=1, last=last) as (_, event):
                messages = rest_of(event)
            assert messages[0]["params"]["progress"] == 2 and messages[1]["result"]["content"][0]["text"] == "polled"
        with redis.client() as inside:
            (kept,) = [key for key in inside.scan_iter() if b"1." in key]
            assert 0 < inside.ttl(kept) <= 60
