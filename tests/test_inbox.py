"""Requests and notifications that a server sends of its own accord: how many, how large, on how many threads."""

from __future__ import annotations

import json
import threading
import time

import pytest

import minimcp
from minimcp import Client
from minimcp.client import inbox as module
from minimcp.client.inbox import Inbox
from minimcp.client.transports import waiting
from minimcp.client.transports.waiting import Mailbox
from minimcp.engines.bounds import weight
from minimcp.engines.errors import ConnectionLost
from tests.embedded import wait_until
from tests.played import INITIALIZED
from tests.scripted import scripted


class Kept:
    """An inbox whose callbacks wait for `go`, and what they were given; `briefing` and `noticing`: one has begun."""

    def __init__(self):
        self.go, self.briefing, self.noticing = threading.Event(), threading.Event(), threading.Event()
        self.answered, self.brief, self.noticed = [], [], []
        self.inbox = Inbox(self._answer, self._brief, self._notice)

    def _answer(self, message, call):
        assert self.go.wait(60)
        self.answered.append(message["id"])

    def _brief(self, message, problem):
        self.briefing.set()
        assert self.go.wait(60)
        self.brief.append((message["id"], problem and problem.code))
        raise ConnectionLost("the server is gone")

    def _notice(self, message):
        self.noticing.set()
        assert self.go.wait(60)
        self.noticed.append(message["n"])

    def over(self):
        self.go.set()
        wait_until(lambda: not any(thread.name == "minimcp-inbox" for thread in threading.enumerate()))


def question(id, text=""):
    return {"id": id, "method": "elicitation/create", "params": {"message": text}}


def threads():
    return sum(thread.name == "minimcp-inbox" for thread in threading.enumerate())


def test_a_flood_of_questions_takes_few_threads_and_most_get_no_answer(caplog):
    kept = Kept()
    for id in range(5000):
        kept.inbox.put(question(id))
        # The first that was refused is being sent, the others wait behind it.
        assert id != module.MOST_QUESTIONS or kept.briefing.wait(60)
    assert threads() == module.MOST_QUESTIONS + 1
    kept.over()
    assert sorted(kept.answered) == list(range(16))
    assert [id for id, _ in kept.brief] == list(range(16, 16 + 65))
    assert {code for _, code in kept.brief} == {-32603}
    assert not caplog.records and not kept.inbox.busy and kept.inbox.answered == 16


def test_a_ping_takes_no_place_of_a_question_and_is_no_sign_that_a_person_is_asked():
    kept = Kept()
    for id in range(5000):
        kept.inbox.put({"id": id, "method": "ping"})
    assert threads() == 1 and not kept.inbox.busy
    kept.over()
    assert {code for _, code in kept.brief} == {None} and len(kept.brief) in (64, 65)
    assert kept.inbox.answered == 0
    kept.inbox.put({"id": "x", "method": "ping"})
    wait_until(lambda: kept.brief[-1][0] == "x")
    kept.over()


def test_notices_and_questions_are_weighed(monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 100_000)
    kept = Kept()
    for number in range(50):
        kept.inbox.put({"method": "notifications/message", "n": number, "text": "x" * 9_000})
        assert kept.noticing.wait(60)
    for id in range(5):
        kept.inbox.put(question(id, "x" * 30_000))
    assert threads() == 1 + 3 + 1
    kept.over()
    # The first is being handled; of the rest the newest are kept.
    assert kept.noticed == [0, *range(40, 50)]
    assert sorted(kept.answered) == [0, 1, 2] and [id for id, _ in kept.brief] == [3, 4]
    # One that is alone is taken, however large.
    kept.inbox.put({"method": "notifications/message", "n": "large", "text": "x" * 200_000})
    kept.inbox.put(question("large", "x" * 200_000))
    kept.over()
    assert kept.noticed[-1] == kept.answered[-1] == "large"


def test_what_waits_for_a_reader_is_weighed(monkeypatch):
    monkeypatch.setattr(waiting, "MOST_WAITING_BYTES", 100_000)
    mailbox = Mailbox()
    for number in range(50):
        mailbox.offer({"n": number, "text": "x" * 9_000})
    assert len(mailbox) == 10
    assert [mailbox.get(0)["n"] for _ in range(10)] == list(range(10))
    mailbox.offer({"n": "large", "text": "x" * 200_000})
    mailbox.offer({"n": "small"})
    assert len(mailbox) == 1
    mailbox.put("the end")
    assert mailbox.get(0)["n"] == "large" and mailbox.get(0) == "the end"
    for number in range(2000):
        mailbox.offer({"n": number})
    assert len(mailbox) == 1000 or weight({"n": 1}, 100) * len(mailbox) <= 100_000


@pytest.mark.parametrize("value", [0, 10**400, 1.5, None, True, "é" * 100, [[]] * 10, {"a": {"b": [1, "x"]}}])
def test_a_weight_is_near_that_of_the_text(value):
    assert len(json.dumps(value)) / 4 <= weight(value, 10**9) <= 64 + 66 * len(json.dumps(value))


def test_weighing_ends_where_it_is_too_much():
    endless = []
    endless.append(endless)
    assert weight(endless, 10_000) > 10_000


class NoThread(threading.Thread):
    """A system that has no thread to give while `failing` is set."""

    failing = True

    def start(self):
        if NoThread.failing:
            raise RuntimeError("can't start new thread")
        super().start()


def test_one_failed_start_of_a_thread_leaves_nothing_behind(monkeypatch):
    monkeypatch.setattr(module.threading, "Thread", NoThread)
    monkeypatch.setattr(NoThread, "failing", True)
    kept = Kept()
    kept.go.set()
    kept.inbox.put({"method": "notifications/message", "n": 1})
    kept.inbox.put(question(1))
    kept.inbox.put({"id": 2, "method": "ping"})
    assert not kept.inbox.busy
    NoThread.failing = False
    kept.inbox.put({"method": "notifications/message", "n": 2})
    kept.inbox.put(question(3))
    kept.inbox.put({"id": 4, "method": "ping"})
    kept.over()
    assert kept.noticed == [1, 2] and kept.answered == [3]
    assert kept.brief == [(1, -32603), (2, None), (4, None)]


@pytest.mark.parametrize("method", ["ping", "sampling/createMessage"])
def test_a_flood_over_legacy_http_ends_with_the_time_of_the_call(method):
    most = [0]
    flood = "".join(
        "data: " + json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": {}}) + "\n\n"
        for number in range(12_000)
    ).encode()
    over = threading.Event()

    def answer(request, peer):
        if request.method != "POST":
            peer.body(b"", 405)
            return
        message = request.message
        if message.get("method") == "initialize":
            peer.json({"jsonrpc": "2.0", "id": message["id"], "result": INITIALIZED}, Mcp_Session_Id="s")
        elif message.get("method") == "tools/call":
            peer.stream()
            for at in range(0, len(flood), 60_000):
                peer.chunk(flood[at : at + 60_000])
                most[0] = max(most[0], threads())
            over.wait(20)
        else:
            peer.body(b"", 202)

    with scripted(answer) as server:
        with Client(server.url, mode="2025-11-25", sample=lambda params: "x") as client:
            began = time.monotonic()
            with pytest.raises(minimcp.Timeout):
                client.call_tool("flood", {}, timeout=1, max_timeout=2)
            took = time.monotonic() - began
            over.set()
    assert took < 15 and most[0] <= 18
    wait_until(lambda: threads() == 0)
