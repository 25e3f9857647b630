"""The Streamable HTTP link of the client, against servers that say what a test wants and against our own."""

from __future__ import annotations

import json
import pickle
import threading

import pytest

from minimcp import Context, Server
from minimcp.client.errors import HTTPStatus
from minimcp.client.transports.http import HttpTransport
from minimcp.engines.errors import ConnectionLost, ProtocolError, Timeout
from minimcp.engines.http_client import connections
from tests.embedded import embedded
from tests.helpers import http_headers, modern
from tests.scripted import NOTE, PING, Linked, received, result, scripted

# Replies


def test_a_reply_may_be_json_and_its_status_is_known():
    with Linked(lambda request, peer: peer.json(result(ok=True))) as linked:
        exchange = linked.transport.start(PING, {}, 5)
        assert exchange.status is None
        assert exchange.receive(20) == {"jsonrpc": "2.0", "id": 1, "result": {"ok": True}}
        assert exchange.status == 200
        assert exchange.identity == ""
        with pytest.raises(ConnectionLost):
            exchange.receive(20)


def test_a_reply_may_be_a_stream_with_messages_before_the_response():
    question = {"jsonrpc": "2.0", "id": 1, "method": "roots/list"}

    def answer(request, peer):
        peer.stream().chunk(b": hello\n\n").event(NOTE).event(question, "event: message", "id: 7")
        peer.chunk(b":\n\n").event(result(ok=True)).end()

    with Linked(answer) as linked:
        assert linked.call() == [NOTE, question, result(ok=True)]


def test_what_a_request_is_sent_with():
    with Linked(
        lambda request, peer: peer.json(result()), headers={"X-Team": "blue", "accept": "text/plain"}
    ) as linked:
        linked.call(headers={"Mcp-Method": "ping"})
    (request,) = linked.server.requests
    assert (request.method, request.path, request.message) == ("POST", "/mcp", PING)
    assert request.headers["accept"] == "application/json, text/event-stream"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["x-team"] == "blue"
    assert request.headers["mcp-method"] == "ping"
    assert request.headers["host"] == f"127.0.0.1:{linked.server.port}"
    assert not {"cookie", "authorization", "mcp-session-id", "mcp-protocol-version"} & set(request.headers)


def test_one_connection_serves_many_calls_of_both_kinds():
    def answer(request, peer):
        if request.message["id"] % 2:
            peer.json(result(request.message["id"]))
        else:
            peer.stream().event(result(request.message["id"]))
            peer.end()

    with Linked(answer) as linked:
        for number in range(10):
            assert linked.call({**PING, "id": number}) == [result(number)]
        assert {request.connection for request in linked.server.requests} == {1}


def test_a_body_may_end_with_its_connection_or_be_chunked():
    body = json.dumps(result(text="ä" * 1000)).encode()

    def answer(request, peer):
        if request.message["id"] == 1:
            peer.head(200, Content_Type="application/json; charset=utf-8").send(body).hang_up()
        else:
            peer.head(200, Content_Type="application/json", Transfer_Encoding="chunked")
            for at in range(0, len(body), 100):
                peer.chunk(body[at : at + 100])
            peer.send(b"0\r\nTrailer: x\r\n\r\n")

    with Linked(answer) as linked:
        assert linked.call()[-1]["result"]["text"] == "ä" * 1000
        # The id of the body is the one of the first request.
        with pytest.raises(ProtocolError):
            linked.call({**PING, "id": 2})


def test_interim_responses_are_passed_over():
    def answer(request, peer):
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n").json(result())

    with Linked(answer) as linked:
        assert linked.call() == [result()]


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_an_event_may_come_in_pieces(cut):
    stream = b": c\r\nid: 1\r\ndata: " + json.dumps(NOTE).encode() + b"\r\n\r\ndata: " + json.dumps(result()).encode()
    stream += b"\n\n"
    pieces = [stream[at : at + cut] for at in range(0, len(stream), cut)]

    def answer(request, peer):
        peer.stream()
        for piece in pieces:
            peer.chunk(piece)
        peer.end()

    with Linked(answer) as linked:
        assert linked.call() == [NOTE, result()]


@pytest.mark.parametrize("write", [str.upper, str.lower, str.swapcase])
def test_names_of_headers_are_compared_without_regard_to_case(write):
    def answer(request, peer):
        body = json.dumps(result()).encode()
        head = f"{write('Content-Type')}: application/json\r\n{write('Content-Length')}: {len(body)}\r\n\r\n"
        peer.send(b"HTTP/1.1 200 OK\r\n" + head.encode() + body)

    with Linked(answer) as linked:
        assert linked.call() == [result()]
        assert linked.call() == [result()]


def test_an_event_may_have_several_data_lines_and_end_in_carriage_returns():
    def answer(request, peer):
        text = json.dumps(result(), indent=1).replace("\n", "\rdata:")
        peer.stream().chunk(f"data:{text}\r".encode()).chunk(b"\r")

    with Linked(answer) as linked:
        assert linked.call() == [result()]


def test_a_complete_event_does_not_wait_for_the_rest_of_its_chunk():
    over = threading.Event()

    def answer(request, peer):
        data = b"data: " + json.dumps(result()).encode() + b"\n\n"
        peer.stream().send(b"1000\r\n" + data)
        over.wait(10)

    with Linked(answer) as linked:
        assert linked.call() == [result()]
        over.set()


def test_an_event_of_several_mebibytes_arrives_whole():
    with Linked(lambda request, peer: peer.stream().event(result(text="x" * 5_000_000)).end()) as linked:
        assert len(linked.call()[-1]["result"]["text"]) == 5_000_000


@pytest.mark.parametrize("id", [2, "2", "01", "1.0", 1.0, True, None])
def test_a_response_that_is_not_ours_completes_nothing(id):
    with Linked(lambda request, peer: peer.stream().event(result(id)).event(result(mine=True)).end()) as linked:
        assert linked.call() == [result(mine=True)]
    with Linked(lambda request, peer: peer.json(result(id))) as linked, pytest.raises(ProtocolError):
        linked.call()


@pytest.mark.parametrize(
    "answer",
    [
        {"id": "1", "result": {"mine": True}},
        {"id": 1, "result": {"mine": True}, "error": None},
        {"id": "1", "result": {"mine": True}, "error": None, "method": None, "params": None},
    ],
)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_the_text_of_an_id_null_members_and_a_bom_are_taken(answer, bom):
    body, kind = bom + json.dumps({"jsonrpc": "2.0", **answer}).encode(), {"Content_Type": "application/json"}
    with Linked(lambda request, peer: peer.body(body, **kind)) as linked:
        assert linked.call()[-1]["result"] == {"mine": True}
    event = bom + b"data: " + body[len(bom) :] + b"\n\n"
    with Linked(lambda request, peer: peer.stream().chunk(event).end()) as linked:
        assert linked.call()[-1]["result"] == {"mine": True}


def test_null_members_of_other_messages_are_taken():
    note = {"jsonrpc": "2.0", "id": None, "method": "notifications/x", "params": None, "result": None, "error": None}
    problem = {"jsonrpc": "2.0", "id": 1, "result": None, "error": {"code": 1, "message": "no"}}
    with Linked(lambda request, peer: peer.stream().event(note).event(problem).end()) as linked:
        assert [set(message) for message in linked.call()] == [
            {"jsonrpc", "method"},
            {"jsonrpc", "id", "error"},
        ]


def test_a_stream_that_ends_after_what_was_no_message_says_so():
    broken = '{"jsonrpc":"2.0","id":1,"result":{"took":NaN}}'
    with Linked(lambda request, peer: peer.stream().event(broken).end()) as linked:
        with pytest.raises(
            ConnectionLost, match="ended before the response; an event .* was dropped: .*NaN is not JSON"
        ):
            linked.call()


@pytest.mark.parametrize(
    "garbage",
    [
        "{",
        "[]",
        "17",
        '"text"',
        '{"jsonrpc":"2.0","id":1}',
        '{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":""}}',
        '{"jsonrpc":"1.0","id":1,"result":{}}',
        '{"id":1,"result":NaN}',
        '{"jsonrpc":"2.0","id":1,"result":{},"result":{}}',
    ],
)
def test_an_event_that_is_no_message_is_dropped_and_a_body_that_is_none_is_an_error(garbage):
    with Linked(lambda request, peer: peer.stream().event(garbage).event(result()).end()) as linked:
        assert linked.call() == [result()]
    body = garbage.encode()
    answer = {"Content_Type": "application/json"}
    with Linked(lambda request, peer: peer.body(body, **answer)) as linked, pytest.raises(ProtocolError):
        linked.call()


def test_events_with_another_name_are_ignored():
    def answer(request, peer):
        peer.stream().event(result(wrong=True), "event: ping").event(result(), "event: message").end()

    with Linked(answer) as linked:
        assert linked.call() == [result()]


def test_batches_in_replies_are_taken_apart():
    with Linked(lambda request, peer: peer.json([NOTE, result()])) as linked:
        assert linked.call() == [NOTE, result()]
    with Linked(lambda request, peer: peer.stream().event([NOTE, NOTE]).event([result(5), result()])) as linked:
        assert linked.call() == [NOTE, NOTE, result()]


# What is no answer


@pytest.mark.parametrize("id", [{"id": 1}, {"id": None}, {}])
def test_an_error_with_an_http_error_status_is_the_response(id):
    error = {"jsonrpc": "2.0", **id, "error": {"code": -32020, "message": "Header mismatch"}}
    with Linked(lambda request, peer: peer.json(error, 400)) as linked:
        exchange = linked.transport.start(PING, {}, 5)
        assert exchange.receive(20) == error
        assert exchange.status == 400


@pytest.mark.parametrize(
    ("status", "body", "retry"),
    [
        (400, '{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"no"}}', "never"),
        (401, '{"jsonrpc":"2.0","error":{"code":-32600,"message":"no"}}', "never"),
        (405, '{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no"}}', "never"),
        (404, '{"detail":"Not Found"}', "never"),
        (429, "", "always"),
        (503, '{"jsonrpc":"2.0","id":1,"result":{}}', "always"),
        (500, "no JSON", "never"),
    ],
)
def test_another_status_is_an_error_with_the_body(status, body, retry):
    with Linked(lambda request, peer: peer.body(body.encode(), status, Content_Type="application/json")) as linked:
        with pytest.raises(HTTPStatus) as caught:
            linked.call()
        assert (caught.value.status, caught.value.body, caught.value.retry) == (status, body, retry)
        assert pickle.loads(pickle.dumps(caught.value)).status == status
        assert linked.server.url in str(caught.value)
        # The connection is as good as before.
        with pytest.raises(HTTPStatus):
            linked.call()
        assert {request.connection for request in linked.server.requests} == {1}


@pytest.mark.parametrize("kind", ["text/html", "", "application/jsonl"])
def test_another_content_type_is_an_error(kind):
    answer, caught = (lambda request, peer: peer.body(b"<html>", Content_Type=kind)), pytest.raises(ProtocolError)
    with Linked(answer) as linked, caught as error:
        linked.call()
    assert "neither JSON nor events" in str(error.value)


def test_a_request_that_is_only_accepted_is_an_error():
    with Linked(lambda request, peer: peer.body(status=202)) as linked, pytest.raises(ProtocolError):
        linked.call()


def test_a_notification_is_accepted_or_refused():
    statuses = [202, 200, 204, 400]

    def answer(request, peer):
        status = statuses[len(linked.server.requests) - 1]
        peer.head(204) if status == 204 else peer.body(b"{}", status)

    with Linked(answer) as linked:
        for _ in range(3):
            linked.transport.send(NOTE, {}, 5)
        with pytest.raises(HTTPStatus) as caught:
            linked.transport.send(NOTE, {}, 5)
        assert caught.value.status == 400
        assert {request.connection for request in linked.server.requests} == {1}


def test_an_accepted_notification_whose_body_never_ends_is_not_waited_for():
    over = threading.Event()

    def answer(request, peer):
        peer.head(202)
        over.wait(10)

    with Linked(answer) as linked:
        linked.transport.send(NOTE, {}, 20)
        linked.transport.send(NOTE, {}, 20)
        over.set()


# Time, and who may end a request


def test_a_timeout_leaves_the_exchange_usable():
    go = [threading.Event() for _ in range(3)]

    def answer(request, peer):
        go[0].wait(10)
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Enc")
        go[1].wait(10)
        data = b"data: " + json.dumps(result()).encode() + b"\n\n"
        peer.send(b"oding: chunked\r\n\r\n" + b"%x" % len(data))
        go[2].wait(10)
        peer.send(b"\r\n" + data + b"\r\n0\r\n\r\n")

    with Linked(answer) as linked:
        exchange = linked.transport.start(PING, {}, 5)
        for event in go:
            with pytest.raises(Timeout):
                exchange.receive(0.05)
            with pytest.raises(Timeout):
                exchange.receive(0)
            event.set()
        assert exchange.receive(20) == result()


def test_a_json_body_goes_on_after_a_timeout():
    go = threading.Event()
    body = json.dumps(result()).encode()

    def answer(request, peer):
        peer.head(200, Content_Type="application/json", Content_Length=str(len(body))).send(body[:10])
        go.wait(10)
        peer.send(body[10:])

    with Linked(answer) as linked:
        exchange = linked.transport.start(PING, {}, 5)
        with pytest.raises(Timeout):
            exchange.receive(0.05)
        go.set()
        assert exchange.receive(20) == result()


@pytest.mark.parametrize("begin", ["nothing", "head", "event", "half"])
@pytest.mark.parametrize("how", ["abort", "close", "close the link"])
def test_a_reader_is_woken_and_the_connection_closed(begin, how):
    left, reading = threading.Event(), threading.Event()

    def answer(request, peer):
        if request.method == "DELETE":
            peer.body()
        if begin != "nothing":
            peer.stream()
        if begin == "event":
            peer.event(NOTE)
        if begin == "half":
            peer.send(b"10\r\ndata: {")
        reading.set()
        if peer.left():
            left.set()

    with Linked(answer) as linked:
        exchange = linked.transport.start({**PING, "id": 2}, {}, 5)
        found = []

        def read():
            try:
                while True:
                    found.append(exchange.receive(20))
            except Exception as error:
                found.append(error)

        reader = threading.Thread(target=read)
        reader.start()
        assert reading.wait(10)
        if how == "abort":
            exchange.abort(Timeout("enough"))
        elif how == "close":
            exchange.close()
        else:
            linked.transport.close()
        reader.join(10)
        assert not reader.is_alive()
        assert isinstance(found[-1], Timeout if how == "abort" else ConnectionLost)
        assert left.wait(10)
        with pytest.raises(type(found[-1])):
            exchange.receive(1)


def test_closing_before_the_answer_closes_the_stream_and_reads_no_more():
    left = threading.Event()

    def answer(request, peer):
        peer.stream().event(NOTE)
        if peer.left():
            left.set()

    with Linked(answer, "2026-07-28") as linked:
        exchange = linked.transport.start(PING, {}, 5)
        assert exchange.receive(20) == NOTE
        exchange.close()
        assert left.wait(10)


def test_what_closing_means_depends_on_the_revision():
    link = HttpTransport("http://127.0.0.1:9/mcp")
    assert link.closing_cancels
    link.settle("2025-11-25")
    assert not link.closing_cancels
    link.settle("2026-07-28")
    assert link.closing_cancels


# Connections that break


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"])
def test_a_connection_that_ends_in_the_head(sent):
    with Linked(lambda request, peer: peer.send(sent).hang_up()) as linked, pytest.raises(ConnectionLost) as caught:
        linked.call()
    assert caught.value.retry == "idempotent"


def test_a_connection_that_ends_in_the_body():
    def answer(request, peer):
        if request.message["id"] == 1:
            peer.head(200, Content_Type="application/json", Content_Length="50").send(b"{").hang_up()
        elif request.message["id"] == 2:
            peer.stream().event(NOTE).hang_up()
        else:
            peer.stream().event(NOTE, "id: 5").end()

    with Linked(answer, "2026-07-28") as linked:
        for id in (1, 2, 3):
            # A modern stream is not resumed, whatever ids it has.
            with pytest.raises(ConnectionLost) as caught:
                linked.call({**PING, "id": id}, headers={"MCP-Protocol-Version": "2026-07-28"})
            assert caught.value.retry == "idempotent"
    assert [request.method for request in linked.server.requests] == ["POST"] * 3


def test_a_server_that_is_not_there():
    with scripted(lambda request, peer: None) as server:
        url = server.url
    link = HttpTransport(url)
    link.open(5)
    with pytest.raises(ConnectionLost) as caught:
        link.start(PING, {}, 5)
    assert caught.value.retry == "always"
    link.close()
    with pytest.raises(ConnectionLost):
        link.start(PING, {}, 5)


def test_an_idle_connection_that_was_closed_is_not_used():
    def answer(request, peer):
        peer.json(result(request.message["id"]))
        if request.connection < 3:
            peer.hang_up()
            closed[request.connection].set()

    closed = {1: threading.Event(), 2: threading.Event()}
    with Linked(answer) as linked:
        for number in (1, 2, 3):
            assert linked.call({**PING, "id": number}) == [result(number)]
            if number in closed:
                assert closed[number].wait(10)
        assert [request.connection for request in linked.server.requests] == [1, 2, 3]


def test_a_kept_connection_that_breaks_while_it_is_sent_to_is_replaced(monkeypatch):
    def answer(request, peer):
        peer.json(result(request.message["id"]))
        if request.connection == 1:
            peer.reset()
            reset.set()

    reset = threading.Event()
    # It breaks after it was looked at.
    monkeypatch.setattr(connections, "_readable", lambda sock: False)
    with Linked(answer) as linked:
        assert linked.call() == [result()]
        assert reset.wait(10)
        assert linked.call({**PING, "id": 2}) == [result(2)]
        assert [request.connection for request in linked.server.requests] == [1, 2]


def test_a_link_that_was_closed_can_be_opened_again():
    with Linked(lambda request, peer: peer.json(result())) as linked:
        assert linked.call() == [result()]
        linked.transport.close()
        linked.transport.close()
        with pytest.raises(ConnectionLost):
            linked.call()
        linked.transport.open(5)
        assert linked.call() == [result()]


def test_messages_are_recorded():
    records = []
    with Linked(lambda request, peer: peer.stream().event(NOTE).event(result()).end()) as linked:
        linked.transport.record = lambda *arguments, **more: records.append((arguments, more))
        linked.call(headers={"Mcp-Method": "ping"})
    (sent, how), (first, where), (second, _) = records
    assert sent == ("sent", PING)
    assert how["method"] == "POST"
    assert how["headers"]["Mcp-Method"] == "ping"
    assert first == ("received", NOTE)
    assert second == ("received", result())
    assert where["status"] == 200
    assert where["headers"]["content-type"] == "text/event-stream"


def test_our_own_server_answers():
    server = Server("mine", "1")

    @server.tool
    def count(to: int, ctx: Context) -> str:
        for number in range(to):
            ctx.progress(number + 1, to)
        return "counted"

    with embedded(server.wsgi) as running:
        link = HttpTransport(f"http://127.0.0.1:{running.port}/mcp")
        link.open(5)
        message = modern("tools/call", 4, meta={"progressToken": 4}, name="count", arguments={"to": 3})
        found = received(link.start(message, http_headers(message), 10))
        assert [each["params"]["progress"] for each in found[:-1]] == [1, 2, 3]
        assert found[-1]["result"]["content"] == [{"type": "text", "text": "counted"}]
        link.close()
