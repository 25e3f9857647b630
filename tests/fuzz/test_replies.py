"""Every method of a client against arbitrary replies: its own family of errors, and in bounded time."""

from __future__ import annotations

import json
import os
import time

import pytest

import minimcp
from minimcp import Client
from minimcp.client import negotiation
from minimcp.client.targets import Target
from minimcp.client.transports.messages import in_event, is_message, may_answer, parse, tidy
from minimcp.client.transports.transport import Exchange, Transport
from minimcp.engines.errors import ProtocolError, Timeout
from tests.played import DISCOVERED, INITIALIZED, Scripted

hypothesis = pytest.importorskip("hypothesis")
st = hypothesis.strategies

EXAMPLES = int(os.environ.get("MINIMCP_FUZZ_EXAMPLES", "150"))
bounded = hypothesis.settings(
    max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)
MOST_S = 5.0

WORDS = """tools resources resourceTemplates prompts content contents messages completion values type text data blob uri
uriTemplate name description inputSchema outputSchema properties required pattern $ref x-mcp-header annotations
nextCursor resultType inputRequests requestState method params ttlMs cacheScope taskId status pollIntervalMs
result error structuredContent isError role resource mimeType supportedVersions capabilities protocolVersion serverInfo
listChanged subscribe logging completions elicitations code message
supported _meta jsonrpc id"""
TEXTS = """complete input_required task working completed failed text image object string 2026-07-28 2025-11-25
2025-06-18 2024-11-05 public elicitation/create sampling/createMessage roots/list form (a+)+$ #/$defs/x =="""
NAMES, VALUES = WORDS.split(), TEXTS.split()
METHODS = {
    "list_tools": lambda client: client.list_tools(fresh=True),
    "list_resources": lambda client: client.list_resources(fresh=True),
    "list_resource_templates": lambda client: client.list_resource_templates(),
    "list_prompts": lambda client: client.list_prompts(),
    "read_resource": lambda client: looked_at(client.read_resource("a://1", fresh=True)),
    "get_prompt": lambda client: looked_at(client.get_prompt("p", number=1)),
    "complete": lambda client: client.complete("a", "v", prompt="p"),
    "call_tool": lambda client: looked_at(client.call_tool("t", {"x": 1}, progress=lambda each: None)),
    "start_tool": lambda client: looked_at(client.start_tool("t", x=1).result()),
    "request": lambda client: looked_at(client.request("x/y", {"a": 1})),
    "exchange": lambda client: client.exchange("tools/list"),
    "listen": lambda client: listened(client, tools=True, uris=["a://1"]),
    "subscribe": lambda client: client.subscribe("a://1"),
    "unsubscribe": lambda client: client.unsubscribe("a://1"),
    "ping": lambda client: client.ping(),
    "set_log_level": lambda client: client.set_log_level("info"),
    "set_roots": lambda client: client.set_roots([]),
}

names, texts = st.sampled_from(NAMES), st.one_of(st.sampled_from([*VALUES, "\ud800", "\0"]), st.text(max_size=4))
numbers = st.one_of(st.integers(-2, 3), st.sampled_from([-32602, -32022, -32042, 2**70]), st.floats(allow_nan=False))
leaves = st.one_of(st.none(), st.booleans(), numbers, texts)
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=5), max_leaves=12
)


def shaped(**members):
    """Results that are nearly right: of the right members, each with something right or anything."""
    return st.fixed_dictionaries({}, optional={name: st.one_of(value, values) for name, value in members.items()})


tools = shaped(name=st.just("t"), inputSchema=values, outputSchema=values, annotations=values)
questions = st.dictionaries(
    texts,
    shaped(
        method=st.sampled_from(["elicitation/create", "sampling/createMessage", "roots/list"]),
        params=shaped(message=texts, requestedSchema=values, messages=values, maxTokens=numbers, mode=texts, url=texts),
    ),
    max_size=2,
)
blocks = st.lists(shaped(type=st.sampled_from(["text", "image", "resource"]), text=texts, data=texts, resource=values))
results = st.one_of(
    shaped(tools=st.lists(tools, max_size=2), nextCursor=texts, ttlMs=numbers, cacheScope=texts),
    shaped(content=blocks, structuredContent=values, isError=st.booleans()),
    shaped(contents=st.lists(shaped(uri=texts, text=texts, blob=texts, mimeType=texts), max_size=2)),
    shaped(messages=st.lists(shaped(role=texts, content=values), max_size=2)),
    shaped(completion=shaped(values=st.lists(texts, max_size=2), total=numbers, hasMore=st.booleans())),
    shaped(resultType=st.just("input_required"), inputRequests=questions, requestState=texts),
    shaped(resultType=st.just("task"), taskId=texts, status=texts, pollIntervalMs=numbers, result=values, error=values),
)
answers = st.one_of(
    st.builds(lambda value: {"result": value}, values | results),
    st.builds(lambda value: {"error": value}, values),
    st.builds(lambda code, data: {"error": {"code": code, "message": "no", "data": data}}, numbers, values),
)
notes = st.builds(
    lambda method, params: {"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params})},
    st.sampled_from(["progress", "message", "tools/list_changed", "resources/updated", "cancelled", "x"]).map(
        "notifications/{}".format
    ),
    st.none() | st.dictionaries(names, values, max_size=3),
)


def looked_at(result):
    """What a user reads from a result."""
    assert isinstance(result.text, str)
    try:
        return result.data, result.bytes
    except ValueError:
        return None  # It is not Base64.


def listened(client, **wanted):
    with client.listen(**wanted) as changes:
        return changes.receive(0.01)


class Toy(Transport):
    """A transport that plays one reply after another, and then the last one for ever.

    :param replies: each a list of notifications and the members of a response, None for silence.
    """

    kind = "memory"

    def __init__(self, replies):
        super().__init__()
        self.replies = list(replies)

    def start(self, message, headers, timeout_s):
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return Played(message["id"], reply)

    def send(self, message, headers, timeout_s):
        json.dumps(message)


class Played(Exchange):
    def __init__(self, id, reply):
        before, answer = reply
        self.messages = list(before)
        if answer is not None:
            self.messages.append({"jsonrpc": "2.0", "id": id, **answer})

    def receive(self, timeout_s):
        if not self.messages:
            raise Timeout("nothing more")
        return self.messages.pop(0)

    def abort(self, error):
        self.messages.clear()

    def close(self):
        pass


def played(replies, **options):
    """A client of such a transport."""
    client = Client(
        Scripted(),
        timeout=0.2,
        max_timeout=0.4,
        elicit=lambda question: {"a": 1},
        sample=lambda params: "text",
        roots=["/srv"],
        on_log=lambda params: None,
        on_notification=lambda message: None,
        tasks=True,
        **options,
    )
    client.settings = client.settings._replace(target=Target([lambda: Toy(replies)], "toy", "toy"))
    return client


replies = st.tuples(st.lists(notes, max_size=3), st.none() | answers)
GREETINGS = {
    "2026-07-28": DISCOVERED,
    "2025-11-25": {**INITIALIZED, "capabilities": {**DISCOVERED["capabilities"], "logging": {}}},
    "2024-11-05": {**INITIALIZED, "protocolVersion": "2024-11-05"},
}


@bounded
@hypothesis.given(
    st.sampled_from(sorted(METHODS)), st.sampled_from(sorted(GREETINGS)), st.lists(replies, min_size=1, max_size=4)
)
def test_arbitrary_replies_to_every_method(method, mode, play):
    client = played([([], {"result": GREETINGS[mode]}), *play], mode=mode)
    began = time.monotonic()
    try:
        METHODS[method](client)
    except minimcp.ClientError:
        pass
    finally:
        client.close()
    assert time.monotonic() - began < MOST_S


@bounded
@hypothesis.given(st.lists(replies, min_size=1, max_size=4), st.sampled_from(["auto", "modern", "legacy"]))
def test_arbitrary_replies_to_the_probe_and_to_initialize(play, mode):
    client = played(play, mode=mode, log_level="info")
    began = time.monotonic()
    try:
        with client:
            assert isinstance(client.capabilities, dict) and isinstance(client.server_info, dict)
            assert client.protocol_version in negotiation.MODES
    except minimcp.ClientError as problem:
        assert str(problem)
    assert time.monotonic() - began < MOST_S
    assert not negotiation._legacy


@bounded
@hypothesis.given(
    st.one_of(st.binary(max_size=60), values.map(lambda value: json.dumps(value).encode())), st.integers(0, 3)
)
def test_arbitrary_bytes_become_messages_or_an_error_of_the_protocol(raw, id):
    assert may_answer(raw, id) in (True, False)
    for message in in_event("message", raw.decode("utf-8", "replace")):
        assert tidy(message) == message and is_message(message)
    try:
        found = parse(raw)
    except ProtocolError:
        return
    assert is_message(tidy(found)) in (True, False) and tidy(tidy(found)) == tidy(found)
