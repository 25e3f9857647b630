"""Extensions: negotiated by each request, with methods, capabilities and result types of their own."""

from __future__ import annotations

import itertools
import threading

import pytest

from minimcp import Context, Server
from minimcp.protocol import spec, wire
from tests.asked import ALL, accept
from tests.helpers import Legacy, modern, post, problem, result, serving

ID = "com.example/parcels"


class Parcels:
    """An extension as an application would write it: no file of the library knows of it."""

    identifier = ID
    settings = {"max": 5}
    result_types = ("parcel",)

    def __init__(self):
        self.methods = {"parcels/track": spec.Method(self.track, name_param="number")}
        self.server = None

    def setup(self, server):
        self.server = server

    def track(self, ctx: Context, params: dict) -> dict:
        return {"where": f"parcel {params['number']} is near", "client": ctx.extension(ID)}


@pytest.fixture
def server():
    server = Server("s")
    server.use(Parcels())

    @server.tool
    def send(ctx: Context) -> dict:
        if ctx.extension(ID) is None:
            return {"content": [{"type": "text", "text": "sent"}]}
        return {"resultType": "parcel", "number": 7}

    return server


BOTH = {"extensions": {ID: {"colour": "red"}}}


def test_an_extension_is_set_up_with_its_server():
    parcels, server = Parcels(), Server("s")
    server.use(parcels)
    assert parcels.server is server


def test_an_extension_is_advertised_to_both_eras(server):
    assert result(server, "server/discover")["capabilities"]["extensions"] == {ID: {"max": 5}}
    assert Legacy(server).hello["capabilities"]["extensions"] == {ID: {"max": 5}}


def test_its_methods_are_served_and_know_the_clients_settings(server):
    found = result(server, "parcels/track", number="7", capabilities=BOTH)
    assert found["where"] == "parcel 7 is near" and found["client"] == {"colour": "red"}
    assert found["resultType"] == "complete"
    assert result(server, "parcels/track", number="7")["client"] is None


def test_its_methods_do_not_exist_in_the_older_era(server):
    assert Legacy(server).problem("parcels/track", number="7")["code"] == -32601


def test_its_result_types_go_only_to_those_who_declared_it(server):
    found = result(server, "tools/call", name="send", capabilities=BOTH)
    assert found["resultType"] == "parcel" and found["number"] == 7
    plain = result(server, "tools/call", name="send")
    assert plain["resultType"] == "complete" and plain["content"][0]["text"] == "sent"
    other = result(server, "tools/call", name="send", capabilities={"extensions": {"com.example/other": {}}})
    assert other["resultType"] == "complete"
    assert result(server, "tools/call", name="send", capabilities={"extensions": []})["resultType"] == "complete"


def test_its_result_types_are_of_the_newest_revision_alone(server):
    for version in ("2024-11-05", "2025-11-25"):
        found = Legacy(server, version, **BOTH).result("tools/call", name="send")
        assert "resultType" not in found and found["content"] == [{"type": "text", "text": "sent"}]


def test_its_result_types_go_by_the_request_whatever_was_declared_before(server):
    """Spec: EXT-016"""
    session = server.engine.open_session()
    for capabilities, kind in ((BOTH, "parcel"), ({}, "complete"), (BOTH, "parcel"), ({"tasks": {}}, "complete")):
        call = modern("tools/call", name="send", capabilities=capabilities)
        assert server.handle(call, session=session)["result"]["resultType"] == kind


def test_a_name_that_differs_from_its_header_is_refused_with_status_400(server):
    """Spec: EXT-052"""
    message = modern("parcels/track", number="7")
    with serving(server.wsgi) as url:
        status, reply = post(url + "/mcp", message, Mcp_Name="8")
        assert status == 400 and reply["error"]["code"] == -32020
        assert post(url + "/mcp", message)[1]["error"]["code"] == -32020
        assert post(url + "/mcp", message, Mcp_Name="7")[0] == 200


TASK_METHODS = ("tasks/get", "tasks/update", "tasks/cancel", "tasks/result", "tasks/list")
OF_2025_11_25 = {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}


@pytest.mark.parametrize("method", TASK_METHODS)
def test_a_server_without_tasks_does_not_know_their_methods(method):
    """Spec: EXT-061"""
    server = Server("s")
    message = modern(method, taskId="t", capabilities={"tasks": OF_2025_11_25})
    with serving(server.wsgi) as url:
        status, reply = post(url + "/mcp", message, Mcp_Name="t")
    assert status == 404 and reply["error"]["code"] == -32601
    assert Legacy(server, tasks=OF_2025_11_25).problem(method, taskId="t")["code"] == -32601


@pytest.mark.parametrize("task", [{"ttl": 60000}, {}, None, 5])
def test_a_wish_for_a_task_is_ignored(task):
    """Spec: EXT-062, EXT-073"""
    server = Server("s")
    server.tool(lambda: "x", "t")
    done = result(server, "tools/call", name="t", task=task, capabilities={"tasks": OF_2025_11_25})
    assert done["resultType"] == "complete" and done["content"] == [{"type": "text", "text": "x"}]
    for version in ("2024-11-05", "2025-11-25"):
        client = Legacy(server, version, tasks=OF_2025_11_25)
        done = client.result("tools/call", name="t", task=task)
        assert done == {"content": [{"type": "text", "text": "x"}]} and client.sent == []


def test_no_tasks_are_advertised_and_those_of_2025_11_25_declare_no_extension():
    """Spec: EXT-063, EXT-064"""
    server = Server("s")

    @server.tool
    def tool(ctx: Context) -> dict:
        return {"tasks": ctx.extension(spec.TASKS), "capabilities": sorted(ctx.capabilities)}

    old = {"tasks": OF_2025_11_25}
    assert "tasks" not in result(server, "server/discover", capabilities=old)["capabilities"]
    assert "tasks" not in Legacy(server, **old).hello["capabilities"]
    found = result(server, "tools/call", name="tool", capabilities=old)
    assert found["structuredContent"] == {"tasks": None, "capabilities": ["tasks"]}


def test_its_names_are_mirrored_in_a_header(server):
    sent = {"mcp-protocol-version": "2026-07-28", "mcp-method": "parcels/track", "mcp-name": "8"}
    message = modern("parcels/track", number="7")
    reply = server.engine.call(message, get_header=lambda name: sent.get(name.lower())).run()
    assert reply["error"]["code"] == -32020
    sent["mcp-name"] = "7"
    assert "result" in server.engine.call(message, get_header=lambda name: sent.get(name.lower())).run()


def test_an_extension_may_be_as_little_as_a_name():
    class Bare:
        identifier = "com.example/bare"

    server = Server("s")
    server.use(Bare())
    assert result(server, "server/discover")["capabilities"] == {"extensions": {"com.example/bare": {}}}


class Courier:
    """An extension in forty lines that streams, asks, is cached and takes a notification, in both eras."""

    identifier = "com.example/courier"
    eras = ("modern", "legacy")

    def __init__(self):
        self.methods = {
            "courier/follow": spec.Method(self.follow, streams=True),
            "courier/book": spec.Method(self.book, may_ask=True),
            "courier/prices": spec.Method(self.prices, cacheable=True),
            "courier/hours": self.hours,
        }
        self.notifications = {"notifications/courier/moved": self.moved}
        self.places = []

    def follow(self, ctx, params):
        for place in self.places:
            yield wire.notification("notifications/courier/at", {"place": place})
        yield None
        ctx.check()
        return {"count": len(self.places)}

    def book(self, ctx, params):
        day = ctx.elicit("Which day?", {"day": int})
        return {"day": day["day"], "key": ctx.idempotency_key}

    def prices(self, ctx, params):
        ctx.progress(1)
        return {"prices": [5, 7]}

    def hours(self, ctx, params):
        return {"hours": "9 to 5"}

    def moved(self, engine, session, params):
        assert engine.identity["name"] == "s"
        self.places.append(params["place"])


@pytest.fixture
def courier():
    server = Server("s", ttl_ms=500)
    server.use(Courier())
    return server


def test_its_method_may_stream(courier):
    moved = modern("notifications/courier/moved", place="Oslo")
    del moved["id"]
    assert courier.handle(moved) is None
    sent = []
    reply = courier.handle(modern("courier/follow"), sent.append)
    at_oslo = {"jsonrpc": "2.0", "method": "notifications/courier/at", "params": {"place": "Oslo"}}
    assert sent == [at_oslo] and reply["result"]["count"] == 1
    call = courier.engine.call(modern("courier/follow"))
    assert call.streams and call.interactive
    assert [message and message.get("method", "the reply") for message in call.messages()] == [
        "notifications/courier/at",
        None,
        "the reply",
    ]


def test_its_method_may_ask(courier):
    asked = result(courier, "courier/book", capabilities=ALL)
    assert asked["resultType"] == "input_required" and "q1" in asked["inputRequests"]
    retry = {"requestState": asked["requestState"], "inputResponses": {"q1": accept(day=3)}}
    booked = result(courier, "courier/book", capabilities=ALL, **retry)
    assert booked["day"] == 3 and len(booked["key"]) == 24
    assert problem(courier, "courier/book", capabilities=ALL, requestState="forged")["code"] == -32602


def test_its_result_may_be_cached_and_its_handler_emits(courier):
    sent = []
    found = courier.handle(modern("courier/prices", meta={"progressToken": 1}), sent.append)["result"]
    assert found["prices"] == [5, 7] and found["ttlMs"] == 500 and found["cacheScope"] == "private"
    assert sent[0]["method"] == "notifications/progress"
    assert "ttlMs" not in result(courier, "courier/hours")
    assert courier.engine.call(modern("courier/hours")).interactive


class Ticker:
    """An extension whose stream is silent at first and never ends by itself, and whose notification fails."""

    identifier = "com.example/ticker"

    def __init__(self):
        self.methods = {"ticker/follow": spec.Method(self.follow, streams=True)}
        self.notifications = {"notifications/ticker/wind": self.wind}
        self.ended = threading.Event()

    def follow(self, ctx, params):
        try:
            yield None
            for second in itertools.count():
                yield wire.notification("notifications/ticker/at", {"second": second})
        finally:
            self.ended.set()

    def wind(self, engine, session, params):
        raise KeyError("spring")


def test_its_stream_may_be_silent_at_first_and_ends_at_its_age():
    server, ticker = Server("s", limits={"stream_s": 0.2}), Ticker()
    server.use(ticker)
    with serving(server.wsgi) as url:
        status, last = post(url + "/mcp", modern("ticker/follow"))
    assert status == 200 and last["error"]["code"] == -32603 and ticker.ended.wait(10)


def test_a_stream_for_which_there_is_no_room_is_not_run():
    server, ticker = Server("s", limits={"foreign_streams": 0}), Ticker()
    server.use(ticker)
    with serving(server.wsgi) as url:
        status, reply = post(url + "/mcp", modern("ticker/follow"))
    assert status == 503 and reply["error"]["code"] == -32603
    call = server.engine.call(modern("ticker/follow"))
    call.deadline = 0.0
    assert call.run()["error"]["code"] == -32603


def test_a_notification_says_who_sent_it():
    class Heard:
        identifier = "com.example/heard"

        def __init__(self):
            self.notifications = {"notifications/heard": self.hear}
            self.senders = []

        def hear(self, engine, session, params):
            self.senders.append(session.principal and session.principal.id)

    server, heard = Server("s", auth=[lambda request: request.header("X-User"), "public"]), Heard()
    server.use(heard)
    notice = modern("notifications/heard")
    del notice["id"]
    with serving(server.wsgi) as url:
        assert post(url + "/mcp", notice, X_User="ann") == post(url + "/mcp", notice) == (202, None)
    server.handle(notice, principal="bob")
    assert heard.senders == ["ann", None, "bob"]


def test_the_failure_of_a_notification_is_logged_and_not_answered(caplog):
    server = Server("s")
    server.use(Ticker())
    wound = modern("notifications/ticker/wind")
    del wound["id"]
    assert server.handle(wound) is None
    with serving(server.wsgi) as url:
        assert post(url + "/mcp", wound) == (202, None)
    assert caplog.text.count("KeyError: 'spring'") == 2


def test_an_extension_may_be_in_the_older_era_too(courier):
    session = Legacy(courier)
    session.notify("notifications/courier/moved", place="Rome")
    assert session.result("courier/follow") == {"count": 1}
    assert session.sent[-1]["params"] == {"place": "Rome"}
    assert session.result("courier/prices") == {"prices": [5, 7]}
    refused = Legacy(courier).problem("courier/elsewhere")
    assert refused["code"] == -32601


def test_an_extension_may_take_the_place_of_a_method():
    class Censor:
        identifier = "com.example/censor"

        def __init__(self):
            self.methods = {"tools/list": self.tools}

        def tools(self, ctx, params):
            return {"tools": []}

    server = Server("s")
    server.tool(lambda: "x", "t")
    server.use(Censor())
    assert result(server, "tools/list")["tools"] == []
    assert len(Legacy(server).result("tools/list")["tools"]) == 1
    other = Server("s")
    other.tool(lambda: "x", "t")
    assert len(result(other, "tools/list")["tools"]) == 1
