"""What the failure of a relayed request means, case by case."""

from __future__ import annotations

import pickle

import pytest

from minimcp import Client
from minimcp.client import errors
from minimcp.client.transports.transport import SessionExpired
from minimcp.engines.errors import AuthorizationError, ConnectionLost, ProtocolError, Timeout
from minimcp.gateway.failures import UpstreamUnavailable, fate, is_failure, may_have_run, may_repeat, try_later, verdict
from minimcp.protocol.errors import InternalError, Unauthorized
from tests.scripted import scripted

BUSY = UpstreamUnavailable("sum", "does not answer", 2.0)


def remote(code, status=None):
    error = errors.RemoteError(code, "said so")
    error.status = status
    return error


def status(code, retry=None):
    return errors.HTTPStatus(code, retry=retry)


# The error; what it shows of the replica; whether the server may have run the request; whether a plain tools/call, and
# whether what only reads, may be sent again.
NOT_SENT, EXPIRED = ConnectionLost("refused", "always"), SessionExpired("gone")
CASES = [
    (NOT_SENT, False, False, True, True),
    (EXPIRED, False, False, True, True),
    (ConnectionLost("hung up"), False, True, False, True),
    (Timeout("no connection", "always"), False, False, True, True),
    (Timeout("no answer"), False, True, False, True),
    (ProtocolError("nonsense"), False, True, False, True),
    (status(500), False, True, False, True),
    (status(502), False, True, False, True),
    # Proxies say so as well when the server behind them hung up in the middle of a call.
    (status(503), False, True, False, True),
    (status(504), False, True, False, True),
    (status(503, "idempotent"), False, True, False, True),
    (status(429), False, False, True, True),
    (status(302), False, False, False, True),
    (status(404), False, False, False, True),
    # A caller can bring these about.
    (status(400), True, False, False, False),
    (status(403), True, False, False, False),
    (status(413), True, False, False, False),
    (AuthorizationError("refused"), False, False, False, False),
    (remote(-32603), True, True, False, False),
    (remote(-32603, 200), True, True, False, False),
    (remote(-32603, 500), False, True, False, True),
    (remote(-32602, 500), True, False, False, False),
    (remote(-32601), True, False, False, False),
    (remote(-32000), True, True, False, False),
    (errors.CallCancelled("gone"), None, True, False, False),
    (errors.NotApproved("no"), None, False, False, False),
    (errors.UsedAfterFork("child"), None, False, True, True),
    (BUSY, None, False, True, True),
    (KeyError("a mistake here"), None, True, False, False),
    (KeyboardInterrupt(), None, True, False, False),
    (Unauthorized("of the caller"), None, True, False, False),
]
NAMES = [f"{type(case[0]).__name__}-{case[0]}"[:40] for case in CASES]


@pytest.mark.parametrize(("error", "shows", "ran", "call", "read"), CASES, ids=NAMES)
def test_what_an_error_means(error, shows, ran, call, read):
    assert verdict(error) is shows
    assert is_failure(error) is (shows is False)
    assert may_have_run(error) is ran
    assert fate(error) == ("the server may have executed the request" if ran else "the request was not executed")
    assert may_repeat(error, "tools/call", {"name": "t"}, True) is call
    assert may_repeat(error, "tools/list") is read


def test_success_shows_that_a_replica_works():
    assert verdict(None) is True


def test_credentials_of_a_caller_say_nothing_about_the_replica():
    error = AuthorizationError("no token for ada")
    assert (is_failure(error, True), verdict(error, True)) == (False, None)


READS = ["tools/list", "resources/list", "resources/templates/list", "resources/read", "prompts/list", "prompts/get"]
WRITES = ["tools/call", "tasks/update", "tasks/cancel", "logging/setLevel", "resources/subscribe", "initialize", "x/y"]


@pytest.mark.parametrize("method", [*READS, "completion/complete", "server/discover"])
def test_what_only_reads_is_repeated(method):
    assert may_repeat(ConnectionLost("hung up"), method)


@pytest.mark.parametrize("method", WRITES)
def test_nothing_else_is_once_it_may_have_run(method):
    assert not may_repeat(ConnectionLost("hung up"), method)
    assert may_repeat(NOT_SENT, method)


@pytest.mark.parametrize(
    ("annotations", "trusted", "expected"),
    [
        ({"readOnlyHint": True}, True, True),
        ({"idempotentHint": True}, True, True),
        ({"idempotentHint": True, "readOnlyHint": False, "destructiveHint": True}, True, True),
        ({"readOnlyHint": True, "idempotentHint": True}, False, False),
        ({"readOnlyHint": False}, True, False),
        ({"readOnlyHint": "true"}, True, False),
        ({"readOnlyHint": 1}, True, False),
        ({}, True, False),
        (None, True, False),
        ([True], True, False),
    ],
)
def test_a_tool_is_repeated_only_when_a_trusted_server_promises_that_it_does_no_harm(annotations, trusted, expected):
    definition = {"name": "t", "annotations": annotations}
    assert may_repeat(ConnectionLost("hung up"), "tools/call", definition, trusted) is expected
    assert may_repeat(status(502), "tools/call", definition, trusted) is expected
    assert not may_repeat(errors.CallCancelled("gone"), "tools/call", definition, trusted)


def test_a_tool_that_is_not_known_is_not_repeated():
    assert not may_repeat(Timeout("no answer"), "tools/call", None, True)


def test_what_cannot_be_reached_is_said_with_the_time_to_come_back():
    assert str(BUSY) == "The server 'sum' does not answer; try again in 2 s"
    copy = pickle.loads(pickle.dumps(BUSY))
    assert (str(copy), copy.server, copy.retry_after_s, copy.retry) == (str(BUSY), "sum", 2.0, "always")
    answer = UpstreamUnavailable("sum", "does not answer", 0.3).answer("2026-07-28")
    assert isinstance(answer, InternalError)
    assert (answer.code, answer.message) == (-32603, "The server 'sum' does not answer; try again in 1 s")
    assert answer.data == {"retryAfterMs": 300, "server": "sum", "mayHaveRun": False}
    assert answer.http == (503, [("Retry-After", "1")])


@pytest.mark.parametrize(
    ("version", "http"),
    [
        ("2026-07-28", (429, [("Retry-After", "13")])),
        ("", (429, [("Retry-After", "13")])),
        ("2025-11-25", None),
        ("2024-11-05", None),
    ],
)
def test_legacy_clients_get_the_error_with_status_200(version, http):
    error = try_later("Not now", 12.0005, 429, version, limit="5/minute")
    assert error.data == {"retryAfterMs": 12001, "limit": "5/minute"}
    assert error.http == http


@pytest.mark.parametrize(
    ("code", "status", "failed"), [(-32603, 500, True), (-32603, 200, False), (-32602, 400, False)]
)
def test_a_json_rpc_error_counts_when_it_comes_with_the_status_of_a_failing_server(code, status, failed):
    def answer(request, peer):
        message = request.message
        if message["method"] == "server/discover":
            said = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "resultType": "complete"}
            said = {**said, "ttlMs": 0, "cacheScope": "private"}
            peer.json({"jsonrpc": "2.0", "id": message["id"], "result": said})
        else:
            error = {"code": code, "message": "broken"}
            peer.json({"jsonrpc": "2.0", "id": message["id"], "error": error}, status)

    with scripted(answer) as server, Client(server.url, mode="2026-07-28") as client:
        with pytest.raises(errors.RemoteError) as caught:
            client.exchange("tools/call", {"name": "t"})
    assert (caught.value.code, caught.value.status) == (code, status)
    assert is_failure(caught.value) is failed
    assert pickle.loads(pickle.dumps(caught.value)).status == status
