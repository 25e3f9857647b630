"""T117 to T125: what a client may do to the state of a question, and to its answers.

T126 and T127 are about clients; of T126 the server's half is here: it does not ask for ever.
"""

from __future__ import annotations

import base64
import json
from types import SimpleNamespace
from typing import Any

import pytest

from minimcp import Server
from minimcp.server import seal
from tests.helpers import modern
from tests.hostile.support import SECRET, Gate, Http, Reply, attacked

FORMS = {"elicitation": {}}
ACCEPTED = {"action": "accept", "content": {"nights": 2}}


def ask(http: Http, capabilities: Any = FORMS, city: str = "Oslo", **more: Any) -> Reply:
    """Call the tool that asks, with what a retry adds to the params; the header X-User names the caller."""
    user = more.pop("user", None)
    message = modern("tools/call", 1, capabilities, name="book", arguments={"city": city}, **more)
    return http.call(message, **({"X_User": user} if user else {}))


def state_of(reply: Reply) -> str:
    result = reply.message["result"]
    assert result["resultType"] == "input_required"
    state = result["requestState"]
    assert isinstance(state, str)
    return state


def answers(answer: Any = ACCEPTED) -> dict[str, Any]:
    return {"q1": answer}


def _swap(state: str, place: int) -> str:
    return state[:place] + ("A" if state[place] != "A" else "B") + state[place + 1 :]


def _forged(state: str) -> str:
    """The payload with another round, under the honest signature."""
    text, _, signature = state.partition(".")
    payload = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    payload["round"] = 0
    changed = base64.urlsafe_b64encode(json.dumps(payload).encode()).decode().rstrip("=")
    return f"{changed}.{signature}"


TAMPERED = {
    "first bit": lambda state: _swap(state, 0),
    "middle bit": lambda state: _swap(state, len(state) // 2),
    "signature": lambda state: _swap(state, state.index(".") + 3),
    "reversed": lambda state: state[::-1],
    "doubled": lambda state: state + state,
    "truncated": lambda state: state[:-5],
    "no signature": lambda state: state.partition(".")[0],
    "empty signature": lambda state: state.partition(".")[0] + ".",
    "plaintext": lambda state: json.dumps({"round": 0}),
    "other payload": _forged,
    "padded": lambda state: state + "=",
    "space": lambda state: " " + state,
    "newline": lambda state: state + "\n",
    "empty": lambda state: "",
    "dots": lambda state: "...",
    "non-ascii": lambda state: state + "\u00e9",
    "nul": lambda state: state + "\0",
}


@pytest.mark.parametrize("how", TAMPERED, ids=lambda how: f"T117-{how}")
def test_a_state_that_was_changed_is_refused_and_the_honest_one_still_works(http: Http, gate: Gate, how: str) -> None:
    state = state_of(ask(http))
    gate.ran.clear()
    reply = ask(http, requestState=TAMPERED[how](state), inputResponses=answers())
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32602, 1)
    assert gate.ran == []
    honest = ask(http, requestState=state, inputResponses=answers())
    assert honest.message["result"]["content"][0]["text"] == "2 nights in Oslo"
    assert gate.ran == ["booked 2"]


@pytest.mark.parametrize(
    "state", [5, {}, [], True, None, 1.5, "x" * 1_000_000], ids=lambda state: f"T118-{str(state)[:8]}"
)
def test_a_state_of_the_wrong_type_or_size_is_refused(http: Http, gate: Gate, state: Any) -> None:
    gate.ran.clear()
    reply = ask(http, requestState=state, inputResponses=answers())
    assert (reply.status, reply.code) == (400, -32602)
    assert len(reply.body) < 16_384
    assert gate.ran == []


def test_a_state_for_other_arguments_or_another_tool_is_refused_T119(http: Http, gate: Gate) -> None:
    state = state_of(ask(http))
    gate.ran.clear()
    reply = ask(http, city="Bergen", requestState=state, inputResponses=answers())
    assert (reply.status, reply.code) == (400, -32602)
    message = modern("tools/call", 1, FORMS, name="pester", arguments={}, requestState=state)
    reply = http.call(message)
    assert (reply.status, reply.code) == (400, -32602)
    assert gate.ran == []


def test_a_state_of_another_principal_is_refused_T120(host: Any, gate: Gate) -> None:
    http = host(attacked(gate, auth=[lambda request: request.header("X-User"), "public"]))
    state = state_of(ask(http, user="ann"))
    gate.ran.clear()
    for user in ("bob", None):
        reply = ask(http, user=user, requestState=state, inputResponses=answers())
        assert (reply.status, reply.code) == (400, -32602)
    assert gate.ran == []
    honest = ask(http, user="ann", requestState=state, inputResponses=answers())
    assert honest.message["result"]["content"][0]["text"] == "2 nights in Oslo"


def test_an_old_state_is_refused_T121(http: Http, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    state = state_of(ask(http))
    gate.ran.clear()
    monkeypatch.setattr(seal, "time", SimpleNamespace(time=lambda: time.time() + 601))
    reply = ask(http, requestState=state, inputResponses=answers())
    assert (reply.status, reply.code) == (400, -32602)
    assert gate.ran == []
    monkeypatch.setattr(seal, "time", SimpleNamespace(time=lambda: time.time() + 500))
    assert ask(http, requestState=state, inputResponses=answers()).status == 200


@pytest.mark.parametrize(
    "responses, outcome",
    [
        ({"q1": {"action": "accept", "content": {"nights": "two"}}}, -32602),
        ({"q1": {"action": "accept", "content": {}}}, -32602),
        ({"q1": {"action": "accept"}}, -32602),
        ({"q1": {"action": "accept", "content": [2]}}, -32602),
        ({"q1": {"action": "agree", "content": {"nights": 2}}}, -32602),
        ({"q1": {"content": {"nights": 2}}}, -32602),
        ({"q1": {"action": ["accept"], "content": {"nights": 2}}}, -32602),
        ({"q1": "accept"}, -32602),
        ({"q1": None}, -32602),
        ({"q1": [ACCEPTED]}, -32602),
        ({"q1": {"jsonrpc": "2.0", "id": 1, "result": ACCEPTED}}, -32602),
        ({"q1": {"action": "decline"}}, "not booked"),
        ({"q1": {"action": "cancel"}}, "not booked"),
        ({"q1": {"action": "decline", "content": {"nights": 2}}}, "not booked"),
        ({"q2": ACCEPTED}, "asked again"),
        ({}, "asked again"),
        ([], -32602),
        ("accept", -32602),
        (None, -32602),
        (5, -32602),
    ],
    ids=lambda value: "T122-" + json.dumps(value)[:60],
)
def test_a_tool_runs_on_nothing_but_an_accepted_and_valid_answer(
    http: Http, gate: Gate, responses: Any, outcome: Any
) -> None:
    state = state_of(ask(http))
    gate.ran.clear()
    reply = ask(http, requestState=state, inputResponses=responses)
    if isinstance(outcome, int):
        assert (reply.status, reply.code) == (400, outcome)
    elif outcome == "asked again":
        assert reply.message["result"]["inputRequests"].keys() == {"q1"}
    else:
        assert reply.message["result"]["content"][0]["text"] == outcome
    assert gate.ran == []


def test_an_answer_without_the_state_that_asked_is_asked_for_again_T122(http: Http, gate: Gate) -> None:
    gate.ran.clear()
    reply = ask(http, inputResponses=answers())
    assert reply.message["result"]["inputRequests"]["q1"]["method"] == "elicitation/create"
    assert gate.ran == []


def test_unknown_keys_beside_the_answer_are_ignored_T122(http: Http) -> None:
    state = state_of(ask(http))
    reply = ask(http, requestState=state, inputResponses={**answers(), "q9": {"x": 1}, "": None})
    assert reply.message["result"]["content"][0]["text"] == "2 nights in Oslo"


def test_a_state_of_another_process_is_refused_like_a_forged_one_unless_they_share_a_key_T123(
    host: Any, gate: Gate
) -> None:
    first, second = host(_asking(None)), host(_asking(None))
    state = state_of(ask(first))
    foreign = ask(second, requestState=state, inputResponses=answers())
    forged = ask(first, requestState=_swap(state, 3), inputResponses=answers())
    assert (foreign.status, foreign.code) == (400, -32602)
    assert foreign.body == forged.body
    third, fourth = host(_asking(SECRET)), host(_asking(["a newer secret, 0123456789", SECRET]))
    reply = ask(fourth, requestState=state_of(ask(third)), inputResponses=answers())
    assert reply.message["result"]["content"][0]["text"] == "2 nights in Oslo"


@pytest.mark.parametrize(
    "capabilities", [{}, {"sampling": {}}, {"elicitation": {"url": {}}}], ids=lambda c: f"T124-{c}"
)
def test_a_client_that_cannot_be_asked_is_told_what_is_missing(http: Http, gate: Gate, capabilities: Any) -> None:
    gate.ran.clear()
    reply = ask(http, capabilities)
    assert (reply.status, reply.code, reply.message["id"]) == (400, -32021, 1)
    assert reply.message["error"]["data"]["requiredCapabilities"] == {"elicitation": {"form": {}}}
    assert b"inputRequests" not in reply.body
    assert gate.ran == []


def test_a_retry_that_no_longer_declares_the_capability_is_refused_T124(http: Http, gate: Gate) -> None:
    state = state_of(ask(http))
    gate.ran.clear()
    reply = ask(http, {}, requestState=state, inputResponses=answers())
    assert (reply.status, reply.code) == (400, -32021)
    assert gate.ran == []


@pytest.mark.parametrize(
    "more",
    [
        {"requestState": "x"},
        {"requestState": 5},
        {"requestState": None},
        {"inputResponses": {"q1": ACCEPTED}},
        {"inputResponses": []},
        {"inputResponses": None},
        {"requestState": {}, "inputResponses": 7},
    ],
    ids=lambda more: "T125-" + json.dumps(more)[:40],
)
@pytest.mark.parametrize("name", ["add", "whoami"])
def test_state_and_answers_for_a_tool_that_never_asks_are_ignored_or_refused(http: Http, name: str, more: Any) -> None:
    arguments = {"a": 1, "b": 2} if name == "add" else {}
    reply = http.call(modern("tools/call", 1, name=name, arguments=arguments, **more))
    if reply.status != 200:
        assert (reply.status, reply.code) == (400, -32602)


def test_state_for_a_method_that_never_asks_is_ignored_T125(http: Http) -> None:
    reply = http.call(modern("tools/list", 1, requestState="x", inputResponses=[]))
    assert reply.status == 200


def test_a_tool_that_asks_for_ever_is_stopped_after_ten_rounds_T126(http: Http) -> None:
    more: dict[str, Any] = {}
    for round in range(1, 12):
        reply = http.call(modern("tools/call", round, FORMS, name="pester", arguments={}, **more))
        if "error" in reply.message:
            break
        result = reply.message["result"]
        (key,) = result["inputRequests"]
        answer = {"action": "accept", "content": {"answer": "x"}}
        more = {"requestState": result["requestState"], "inputResponses": {key: answer}}
    assert round == 11
    assert reply.code == -32603


@pytest.mark.parametrize("size, fits", [(1_000_000, True), (2_000_000, False)], ids=["T118-fits", "T118-too-large"])
def test_a_state_that_would_not_be_taken_back_is_not_given_out(http: Http, size: int, fits: bool) -> None:
    """The state repeats the answers so far, so large answers make a large state."""
    state = state_of(http.call(modern("tools/call", 1, FORMS, name="pester", arguments={})))
    large = {"q1": {"action": "accept", "content": {"answer": "x" * size}}}
    message = modern("tools/call", 2, FORMS, name="pester", arguments={}, requestState=state, inputResponses=large)
    reply = http.call(message)
    if not fits:
        assert (reply.status, reply.code) == (400, -32602)
        assert len(reply.body) < 1000
        return
    small = {"q2": {"action": "accept", "content": {"answer": "y"}}}
    more = {"requestState": state_of(reply), "inputResponses": small}
    reply = http.call(modern("tools/call", 3, FORMS, name="pester", arguments={}, **more))
    assert reply.message["result"]["inputRequests"].keys() == {"q3"}


def _asking(secret: Any) -> Server:
    return attacked(Gate(), secret=secret)
