"""The session form of Streamable HTTP: ids, kept streams, GET and DELETE."""

from __future__ import annotations

import contextlib
import json

import pytest
from werkzeug.test import Client

from minimcp.transports.http import HttpApp
from tests.held import HELLO, META, Steps, held_server, legacy, opened, post, streaming
from tests.helpers import BOTH, events, exchange, serving


@pytest.fixture
def steps():
    return Steps()


@pytest.fixture
def server(steps):
    yield from held_server(steps)


@pytest.fixture
def client(server):
    return Client(server.wsgi)


def test_a_session_is_assigned_with_the_answer_and_needed_afterwards(client):
    response = legacy(client, "initialize", **HELLO)
    id = response.headers["Mcp-Session-Id"]
    assert set(map(ord, id)) <= set(range(0x21, 0x7F)) and id != opened(client)
    assert legacy(client, "tools/list", session=id).json["result"]["tools"]
    without = legacy(client, "tools/list")
    assert without.status_code == 400 and without.json["error"]["code"] == -32600
    for unknown in ("nonsense", id + "x"):
        assert legacy(client, "tools/list", session=unknown).status_code == 404


def test_a_failed_handshake_opens_no_session(client):
    response = legacy(client, "initialize", protocolVersion=5)
    assert response.json["error"]["code"] == -32602 and "Mcp-Session-Id" not in response.headers


def test_the_version_header_is_checked_and_may_be_absent(client):
    id = opened(client, "2025-06-18")
    call = {"name": "plain"}
    assert legacy(client, "tools/call", session=id, version="2025-06-18", **call).status_code == 200
    assert legacy(client, "tools/call", session=id, version=None, **call).status_code == 200
    for bad in ("2020-01-01", "nonsense", ""):
        assert legacy(client, "tools/call", session=id, version=bad, **call).status_code == 400


def test_deleting_a_session_ends_it(client):
    id = opened(client)
    headers = {"Mcp-Session-Id": id}
    assert client.delete("/mcp", headers=headers).status_code == 204
    assert legacy(client, "tools/list", session=id).status_code == 404
    assert client.get("/mcp", headers={**headers, "Accept": "text/event-stream"}).status_code == 404
    assert client.delete("/mcp", headers=headers).status_code == 404
    assert client.delete("/mcp").status_code == 405 and client.get("/mcp").status_code == 405
    assert client.put("/mcp").status_code == 405 and "POST" in client.put("/mcp").headers["Allow"]


def test_notifications_and_responses_are_accepted_without_a_word(client):
    headers = {"Mcp-Session-Id": opened(client, "2025-03-26")}
    note, answer = {"jsonrpc": "2.0", "method": "notifications/x"}, {"jsonrpc": "2.0", "id": 1, "result": {}}
    for body in (note, answer, [note, answer]):
        response = post(client, body, headers)
        assert response.status_code == 202 and response.data == b""
    assert post(client, {"jsonrpc": "2.0", "method": []}, headers).status_code == 400


def test_errors_of_a_session_are_answers_with_status_200(client):
    id = opened(client)
    response = legacy(client, "nonsense", session=id)
    assert response.status_code == 200 and response.json["error"]["code"] == -32601
    response = legacy(client, "resources/read", session=id, uri="a://2")
    assert response.status_code == 200 and response.json["error"]["code"] == -32002


def test_a_batch_is_answered_with_an_array(client):
    headers = {"Mcp-Session-Id": opened(client, "2025-03-26")}
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "plain"}}
    assert [each["id"] for each in post(client, [ping, call], headers).json] == [1, 2]
    refused = post(client, [ping], {"Mcp-Session-Id": opened(client)})
    assert refused.status_code == 400 and refused.json["error"]["code"] == -32600


@contextlib.contextmanager
def session(server, version="2025-11-25", **capabilities):
    """A server on a socket and the headers of a session with it."""
    id = opened(Client(server.wsgi), version, **capabilities)
    with serving(server.wsgi) as url:
        yield (
            url + "/mcp",
            {
                "Content-Type": "application/json",
                "Accept": BOTH,
                "Mcp-Session-Id": id,
                "MCP-Protocol-Version": version,
            },
        )


def called(name, id=1, meta=META):
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": name, "_meta": meta}}


def test_a_2025_11_25_stream_is_primed_numbered_and_ended(server):
    with session(server) as (url, headers), streaming(url, called("three"), headers) as (_, event):
        primed = event()
        assert primed["data"] == "" and primed["retry"] == "500" and primed["id"]
        events = [event() for _ in range(4)]
        assert event() is None
    assert [json.loads(each["data"]).get("method", "reply") for each in events] == ["notifications/progress"] * 3 + [
        "reply"
    ]
    ids = [primed["id"], *(each["id"] for each in events)]
    assert len(set(ids)) == 5


@pytest.mark.parametrize("version", ["2025-03-26", "2025-06-18"])
def test_older_clients_are_neither_primed_nor_left(server, steps, version):
    steps.go.set()
    with session(server, version) as (url, headers), streaming(url, called("polled"), headers) as (_, event):
        events = [event() for _ in range(3)]
        assert event() is None
    assert all("retry" not in each and each["data"] for each in events)


def test_event_ids_are_unique_in_a_session_and_name_their_stream(server):
    seen = []
    with session(server) as (url, headers):
        for id in (1, 2):
            with streaming(url, called("three", id), headers) as (_, event):
                seen.append([event()["id"] for _ in range(5)])
        assert len({*seen[0], *seen[1]}) == 10
        # Coming back after the second event of the first stream brings what followed it there, and nothing else.
        get = {**headers, "Accept": "text/event-stream", "Last-Event-ID": seen[0][2]}
        with streaming(url, None, get, "GET") as (_, event):
            replayed = []
            while (each := event()) is not None:
                replayed.append(each)
    messages = [json.loads(each["data"]) for each in replayed if each["data"]]
    assert [each.get("id", each.get("params", {}).get("progress")) for each in messages] == [3, 1]
    assert [each["id"] for each in replayed if each["data"]] == seen[0][3:]


def test_calls_that_end_before_their_streams_are_read_lose_nothing(client):
    session = opened(client)
    headers = {"Mcp-Session-Id": session, "MCP-Protocol-Version": "2025-11-25"}
    # Of streams that were read to their end a few are kept; none of these is one yet.
    responses = [post(client, called("three", id), headers) for id in range(12)]
    replies = [events(response.data.splitlines(keepends=True)) for response in responses]
    assert [[each.get("id") for each in found] for found in replies] == [[None] * 3 + [id] for id in range(12)]


@pytest.mark.parametrize("id", ["nonsense", "99-1", "1", "-", "1-x", "٣-1", "0-" + "9" * 40])
def test_an_event_id_of_no_stream_is_refused(client, id):
    headers = {
        "Mcp-Session-Id": opened(client),
        "Accept": "text/event-stream",
        "Last-Event-ID": id.encode().decode("latin-1"),
    }
    assert client.get("/mcp", headers=headers).status_code == 400


def test_a_call_may_close_its_stream_and_be_polled_for(server, steps):
    with session(server) as (url, headers):
        with streaming(url, called("polled"), headers) as (_, event):
            events = []
            while (each := event()) is not None:
                events.append(each)
        assert events[-1].get("retry") == "40"
        steps.go.set()
        last = [each["id"] for each in events if "id" in each][-1]
        get = {**headers, "Accept": "text/event-stream", "Last-Event-ID": last}
        with streaming(url, None, get, "GET") as (_, event):
            messages = []
            while (each := event()) is not None:
                messages += [json.loads(each["data"])] if each.get("data") else []
    assert messages[0]["params"]["progress"] == 2 and messages[1]["result"]["content"][0]["text"] == "polled"


def test_a_legacy_client_that_disconnects_has_not_cancelled_and_may_come_back(server, steps):
    with session(server) as (url, headers):
        with streaming(url, called("held"), headers) as (_, event):
            event()
            first = event()
        assert not steps.ended.wait(0.3)
        steps.go.set()
        assert steps.ended.wait(10) and steps.cancelled is False
        get = {**headers, "Accept": "text/event-stream", "Last-Event-ID": first["id"]}
        with streaming(url, None, get, "GET") as (_, event):
            messages = []
            while (each := event()) is not None:
                messages += [json.loads(each["data"])] if each.get("data") else []
    assert messages[-1]["result"]["content"][0]["text"] == "held"


def test_a_session_and_its_streams_are_reached_through_another_application_of_the_server(server, steps):
    with session(server) as (url, headers), serving(HttpApp(server.engine)) as other:
        get = {**headers, "Accept": "text/event-stream"}
        with streaming(url, called("held"), headers) as (_, event):
            event()
            first = event()
        steps.go.set()
        with streaming(other + "/mcp", None, {**get, "Last-Event-ID": first["id"]}, "GET") as (_, event):
            assert any('"text":"held"' in each["data"] for each in iter(event, None))
        with streaming(other + "/mcp", None, get, "GET") as (_, first), streaming(url, None, get, "GET") as (_, second):
            assert first()["data"] == "" and first() is None
            server.changed("tools")
            assert second()["data"] == "" and "list_changed" in second()["data"]


def test_the_get_stream_carries_notifications_and_no_responses_and_there_is_one(server):
    with session(server) as (url, headers):
        get = {**headers, "Accept": "text/event-stream"}
        with streaming(url, None, get, "GET") as (response, event):
            assert response.status == 200 and response.headers["Content-Type"] == "text/event-stream"
            assert event()["data"] == ""
            with exchange(url, {"jsonrpc": "2.0", "id": 5, "method": "ping"}, headers) as answer:
                assert json.loads(answer.read()) == {"jsonrpc": "2.0", "id": 5, "result": {}}
            server.changed("tools")
            heard = event()
            assert json.loads(heard["data"]) == {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        # What comes while nobody listens is kept for the one who comes back.
        server.changed("resources")
        with streaming(url, None, {**get, "Last-Event-ID": heard["id"]}, "GET") as (_, event):
            primed, missed = event(), event()
            assert primed["data"] == ""
            assert json.loads(missed["data"])["method"] == "notifications/resources/list_changed"


def test_what_belongs_to_a_call_goes_on_its_stream_alone(server):
    with session(server) as (url, headers):
        get = {**headers, "Accept": "text/event-stream"}
        with streaming(url, None, get, "GET") as (_, standing):
            standing()
            with streaming(url, called("three"), headers) as (_, event):
                own = [event() for _ in range(5)]
            server.changed("tools")
            assert "list_changed" in standing()["data"]
    assert sum("progress" in each["data"] for each in own) == 3


def test_a_question_is_asked_on_the_calls_stream_and_answered_by_a_post(server):
    with session(server, elicitation={}) as (url, headers), streaming(url, called("ask"), headers) as (_, event):
        event()
        asked = json.loads(event()["data"])
        assert asked["method"] == "elicitation/create"
        answer = {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {"name": "Ann"}}}
        with exchange(url, answer, headers) as response:
            assert response.status == 202 and response.read() == b""
        assert json.loads(event()["data"])["result"]["content"][0]["text"] == "Ann"


def test_the_same_id_in_two_sessions_is_two_calls(server, steps):
    with session(server) as (url, one), session(server) as (_, two), streaming(url, called("held"), one) as (_, event):
        event()
        event()
        cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
        with exchange(url, cancel, two) as response:
            assert response.status == 202
        assert not steps.ended.is_set()
        with exchange(url, cancel, one) as response:
            assert response.status == 202
        assert steps.ended.wait(10) and steps.cancelled is True
        assert event() is None
