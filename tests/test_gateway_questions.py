"""Questions through the gateway: in the middle of a call, as a result, and everything that can go wrong between."""

from __future__ import annotations

import contextlib
import threading

import pytest

from minimcp import AuthorizationError, Client, Context, Gateway, Principal, RemoteError, Server
from minimcp.server.asking import elicitation, roots
from tests.embedded import embedded
from tests.gateways import client_of, gateway_of, served
from tests.helpers import modern

EVERYTHING = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
BOTH = pytest.mark.parametrize("mode", ["modern", "legacy"])
UPSTREAMS = pytest.mark.parametrize("upstream", ["modern", "legacy"])


class Asking:
    """A server that asks, and what its handlers saw."""

    def __init__(self) -> None:
        self.server = server = Server("asking")
        self.ended = threading.Event()
        self.runs = 0

        @server.tool
        def book(city: str, ctx: Context) -> str:
            self.runs += 1
            try:
                nights = ctx.elicit(f"How many nights in {city}?", {"nights": int}, key="nights")
                if not nights:
                    return f"nothing: {nights.action}"
                ctx.progress(1, 2, "asked once")
                ctx.log("info", "asked once")
                dinner = ctx.elicit("Dinner?", {"dinner": bool}, key="dinner")
                return f"{nights['nights']} nights in {city}, dinner {dinner['dinner']}"
            finally:
                self.ended.set()

        @server.tool
        def summarize(ctx: Context) -> str:
            return ctx.sample("Say it in one word.").text

        @server.tool
        def where(ctx: Context) -> list:
            return [root["uri"] for root in ctx.list_roots()]

        @server.tool
        def both(ctx: Context) -> str:
            found = ctx.ask(name=elicitation("Name?", {"name": str}), roots=roots())
            return f"{found['name']['name']} {len(found['roots'])}"


def answer(question):
    return {"nights": 3} if "nights" in question["message"] else {"dinner": True, "name": "Ada"}


@BOTH
@UPSTREAMS
def test_questions_of_every_kind_reach_the_client_and_the_answers_the_server(mode, upstream):
    asking = Asking()
    told, logged = [], []
    options = {"elicit": answer, "sample": lambda params: "word", "roots": ["/tmp"], "on_log": logged.append}
    with gateway_of(asking.server, entries={"asking": {"mode": upstream}}) as gateway:
        with client_of(gateway, mode, log_level="info", **options) as client:
            result = client.call_tool("asking_book", {"city": "Rome"}, progress=told.append)
            assert result.text == "3 nights in Rome, dinner True"
            assert [each["message"] for each in told if "message" in each][:1] == ["asked once"]
            assert [each["data"] for each in logged][:1] == ["asked once"]
            assert client.call_tool("asking_summarize").text == "word"
            assert "file:///tmp" in client.call_tool("asking_where").text
            assert client.call_tool("asking_both").text == "Ada 1"
            assert len(gateway.parked) == 0
    if upstream == "legacy":
        assert asking.runs == 1


@BOTH
@UPSTREAMS
def test_a_refusal_is_told_to_the_server(mode, upstream):
    asking = Asking()
    with gateway_of(asking.server, entries={"asking": {"mode": upstream}}) as gateway:
        with client_of(gateway, mode, elicit=lambda question: None) as client:
            assert client.call_tool("asking_book", city="Rome").text == "nothing: decline"


@BOTH
@UPSTREAMS
def test_a_client_that_cannot_be_asked_is_told_so(mode, upstream):
    asking = Asking()
    with gateway_of(asking.server, entries={"asking": {"mode": upstream}}) as gateway:
        with client_of(gateway, mode) as client:
            if upstream == "modern":
                with pytest.raises(RemoteError, match="did not declare a capability") as caught:
                    client.call_tool("asking_book", city="Rome")
                assert caught.value.code == (-32021 if mode == "modern" else -32603)
            else:
                result = client.call_tool("asking_book", city="Rome")
                assert result.is_error
                assert "elicitation/create" in result.text


def raw(gateway, id=1, principal=None, name="asking_book", arguments=None, **params):
    message = modern("tools/call", id, EVERYTHING, name=name, arguments=arguments or {"city": "Rome"}, **params)
    return gateway.handle(message, principal=principal)


@pytest.fixture(params=["modern", "legacy"])
def asked(request):
    """A gateway with a call that has asked its first question: the gateway, the server, and the result."""
    asking = Asking()
    with gateway_of(asking.server, entries={"asking": {"mode": request.param}}) as gateway:
        gateway.settle()
        first = raw(gateway, principal="ada")["result"]
        assert first["resultType"] == "input_required"
        yield gateway, asking, first


def answers_of(first, value):
    ((key, _),) = first["inputRequests"].items()
    return {"inputResponses": {key: value}, "requestState": first["requestState"]}


ACCEPT = {"action": "accept", "content": {"nights": 2}}


def test_the_question_has_the_form_of_the_clients_revision(asked):
    _, _, first = asked
    ((_, question),) = first["inputRequests"].items()
    assert question["method"] == "elicitation/create"
    assert question["params"]["message"] == "How many nights in Rome?"
    assert question["params"]["requestedSchema"]["properties"] == {"nights": {"type": "integer"}}


def test_a_retry_goes_on_and_may_be_asked_again(asked):
    gateway, _, first = asked
    second = raw(gateway, 2, "ada", **answers_of(first, ACCEPT))["result"]
    assert second["resultType"] == "input_required"
    dinner = {"action": "accept", "content": {"dinner": False}}
    last = raw(gateway, 3, "ada", **answers_of(second, dinner))["result"]
    assert last["content"] == [{"type": "text", "text": "2 nights in Rome, dinner False"}]
    assert len(gateway.parked) == 0


REFUSED = "The request state is not valid for this request; start again without it"


@pytest.mark.parametrize("who", ["eve", None, Principal("ada", "https://other.example")])
def test_another_principal_gets_nothing_of_a_call_that_waits(asked, who):
    gateway, _, first = asked
    problem = raw(gateway, 2, who, **answers_of(first, ACCEPT))["error"]
    assert (problem["code"], problem["message"]) == (-32602, REFUSED)
    assert raw(gateway, 3, "ada", **answers_of(first, ACCEPT))["result"]["resultType"] == "input_required"


@pytest.mark.parametrize("change", [{"arguments": {"city": "Oslo"}}, {"name": "asking_both"}])
def test_a_state_is_for_its_own_request_alone(asked, change):
    gateway, _, first = asked
    problem = raw(gateway, 2, "ada", **{**answers_of(first, ACCEPT), **change})["error"]
    assert (problem["code"], problem["message"]) == (-32602, REFUSED)


@pytest.mark.parametrize("state", ["", "x", "e30.x", None, 7, {}])
def test_a_state_that_is_none_is_refused(asked, state):
    gateway, _, first = asked
    problem = raw(gateway, 2, "ada", **{**answers_of(first, ACCEPT), "requestState": state})["error"]
    assert (problem["code"], problem["message"]) == (-32602, REFUSED)


def test_answers_of_the_wrong_shape_do_no_harm(asked):
    gateway, _, first = asked
    for wrong in ([], "x", {"q1": 7}, None):
        reply = raw(gateway, 2, "ada", requestState=first["requestState"], inputResponses=wrong)
        assert reply["error"]["code"] == -32602
    assert raw(gateway, 3, "ada", **answers_of(first, ACCEPT))["result"]["resultType"] == "input_required"


@pytest.fixture
def parked():
    asking = Asking()
    with gateway_of(asking.server, entries={"asking": {"mode": "legacy"}}) as gateway:
        gateway.settle()
        yield gateway, asking


def test_an_answer_is_taken_once(parked):
    gateway, _ = parked
    first = raw(gateway)["result"]
    answered = answers_of(first, ACCEPT)
    assert raw(gateway, 2, **answered)["result"]["resultType"] == "input_required"
    problem = raw(gateway, 3, **answered)["error"]
    assert problem["code"] == -32602
    assert "no longer waits" in problem["message"]


def test_a_call_that_nobody_comes_back_to_is_given_up(parked):
    gateway, asking = parked
    gateway.parked.seconds = 0.0
    first = raw(gateway)["result"]
    assert len(gateway.parked) == 1
    gateway.parked.tidy()
    assert len(gateway.parked) == 0
    assert asking.ended.wait(10)
    problem = raw(gateway, 2, **answers_of(first, ACCEPT))["error"]
    assert problem["code"] == -32602


def test_one_caller_may_leave_so_many_calls_waiting_and_no_more(parked):
    gateway, _ = parked
    found = [raw(gateway, number, "ada") for number in range(1, 17)]
    assert all(each["result"]["resultType"] == "input_required" for each in found)
    more = [raw(gateway, number, "ada") for number in range(100, 120)]
    assert not all(each["result"]["resultType"] == "input_required" for each in more)
    assert raw(gateway, 200, "eve")["result"]["resultType"] == "input_required"
    assert len(gateway.parked) <= 33


def test_closing_the_gateway_ends_the_calls_that_wait(parked):
    gateway, asking = parked
    raw(gateway)
    gateway.close()
    assert asking.ended.wait(10)
    assert len(gateway.parked) == 0


KEYS = {"ada": {"key": "a-key-of-at-least-16-characters"}, "eve": {"key": "another-key-of-16-characters"}}


@pytest.fixture
def two_gateways():
    """A server behind two gateways with one secret: the server, the gateways and their URLs."""
    asking = Asking()
    gateways, urls = [], []
    with contextlib.ExitStack() as stack:
        server_url = stack.enter_context(served(asking.server))
        for _ in range(2):
            holder = []
            listening = stack.enter_context(embedded(lambda environ, start, to=holder: to[0](environ, start)))
            urls.append(f"http://127.0.0.1:{listening.port}/mcp")
            options = {"secret": "a secret of two gateways", "peerUrl": urls[-1], "auth": {"keys": KEYS}}
            entry = {"url": server_url, "mode": "legacy", "probe": 0}
            gateways.append(stack.enter_context(Gateway({"mcpServers": {"asking": entry}, "gateway": options})))
            holder.append(gateways[-1].wsgi)
        yield asking, gateways, urls


def test_a_retry_that_reaches_another_gateway_is_passed_on(two_gateways):
    asking, gateways, urls = two_gateways
    call = {"name": "asking_book", "arguments": {"city": "Rome"}}
    options = {"mode": "modern", "capabilities": EVERYTHING}
    one, other = (Client(url, auth=KEYS["ada"]["key"], **options) for url in urls)
    eve = Client(urls[1], auth=KEYS["eve"]["key"], **options)
    with one, other, eve:
        first = one.exchange("tools/call", call)
        assert first["resultType"] == "input_required"
        retry = {**call, **answers_of(first, ACCEPT)}
        with pytest.raises(RemoteError) as caught:
            eve.exchange("tools/call", retry)
        assert caught.value.message == REFUSED
        second = other.exchange("tools/call", retry)
        assert second["resultType"] == "input_required"
        dinner = answers_of(second, {"action": "accept", "content": {"dinner": True}})
        last = other.exchange("tools/call", {**call, **dinner})
        assert last["content"][0]["text"] == "2 nights in Rome, dinner True"
        assert asking.runs == 1


def test_the_token_of_one_gateway_at_another_is_good_there_alone(two_gateways):
    _, gateways, urls = two_gateways
    token = gateways[0]._peers._token(urls[1], Principal("ada"))
    with Client(urls[1], auth=token, mode="modern") as client:
        assert client.list_tools()
    with pytest.raises(AuthorizationError):
        Client(urls[0], auth=token, mode="modern").open()


def test_peers_need_a_secret():
    with pytest.raises(ValueError, match="peerUrl needs a secret"):
        Gateway({"mcpServers": {}, "gateway": {"peerUrl": "http://127.0.0.1:1/mcp"}})
