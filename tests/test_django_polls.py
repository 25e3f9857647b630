"""The example `examples/django_polls`, as it is shown, under gunicorn with four workers."""

from __future__ import annotations

import gzip
import json
import os
import pathlib
import secrets
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.helpers import Process, exchange, http_headers, modern, post, stopped

pytest.importorskip("django", reason="django is not installed")
pytest.importorskip("gunicorn", reason="gunicorn is not installed")

ROOT = pathlib.Path(__file__).parent.parent
FORMS = {"elicitation": {}}
YES = {"action": "accept", "content": {"sure": True}}


class Polls:
    """The running site; its access log tells which worker served which call."""

    def __init__(self, url: str, tokens: dict[str, str], process: Process, env: dict[str, str]) -> None:
        self.url, self.tokens, self.process, self._env = url, tokens, process, env

    def manage(self, *arguments: str) -> str:
        return _manage(self._env, *arguments)

    def call(self, who: str, name: str, arguments: Any = None, label: str = "", **more: Any) -> tuple[int, Any]:
        message = modern("tools/call", capabilities=FORMS, name=name, arguments=arguments or {}, **more)
        headers = {"Authorization": f"Bearer {self.tokens[who]}"} if who else {}
        return post(self.url, message, Test_Label=label, **headers)

    def ask(self, who: str, label: str = "") -> Any:
        status, reply = self.call(who, "vote", {"question": 1, "choice": "tea"}, label)
        assert (status, reply["result"]["resultType"]) == (200, "input_required")
        return reply["result"]

    def answer(self, who: str, asked: Any, answer: Any = YES, label: str = "") -> tuple[int, Any]:
        arguments, responses = {"question": 1, "choice": "tea"}, dict.fromkeys(asked["inputRequests"], answer)
        return self.call(who, "vote", arguments, label, requestState=asked["requestState"], inputResponses=responses)

    def worker_of(self, label: str) -> int:
        return int(self.process.wait_for(rf"^worker <?(\d+)>? {label}$").group(1))


def _manage(env: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "django", *arguments]
    return subprocess.run(
        command, cwd=ROOT / "examples", env=env, timeout=60, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture(scope="module")
def env(tmp_path_factory: Any) -> dict[str, str]:
    home = tmp_path_factory.mktemp("polls")
    return {
        **os.environ,
        "HOME": str(home),  # where gunicorn 27 puts a socket of its own
        "PYTHONPATH": str(ROOT),
        "DJANGO_SETTINGS_MODULE": "django_polls.settings",
        "POLLS_DATABASE": str(home / "polls.sqlite3"),
        "MINIMCP_SECRET": secrets.token_hex(),
    }


@pytest.fixture(scope="module")
def polls(env: dict[str, str]) -> Iterator[Polls]:
    _manage(env, "migrate", "--verbosity", "0")
    tokens = dict(line.split(": ", 1) for line in _manage(env, "seed").splitlines())
    command = [sys.executable, "-m", "gunicorn", "--workers", "4", "--bind", "127.0.0.1:0", "django_polls.wsgi"]
    command += [
        "--graceful-timeout",
        "2",
        "--access-logfile",
        "-",
        "--access-logformat",
        "worker %(p)s %({test-label}i)s",
    ]
    with Process(command, cwd=str(ROOT / "examples"), **env) as process:
        url = process.wait_for(r"Listening at: (http://[\d.:]+)").group(1)
        yield Polls(url + "/mcp", tokens, process, env)


@pytest.fixture(autouse=True)
def no_votes(polls: Polls) -> None:
    polls.manage("shell", "-c", "from django_polls.models import Vote; Vote.objects.all().delete()")


def test_anybody_may_read_the_polls(polls: Polls) -> None:
    status, reply = polls.call("", "polls")
    assert status == 200
    assert reply["result"]["structuredContent"] == [
        {"question": 1, "text": "Tea or coffee?", "votes": {"Tea": 0, "Coffee": 0}}
    ]


def test_a_compressing_middleware_leaves_a_json_reply_valid(polls: Polls) -> None:
    message = modern("tools/list")
    with exchange(polls.url, message, http_headers(message, Accept_Encoding="gzip")) as response:
        body = response.read()
        assert response.headers["Content-Encoding"] == "gzip"
    assert [tool["name"] for tool in json.loads(gzip.decompress(body))["result"]["tools"]] == ["polls"]


def test_the_vote_tool_exists_for_users_only(polls: Polls) -> None:
    reply = post(polls.url, modern("tools/list"), Authorization=f"Bearer {polls.tokens['ann']}")[1]
    assert [tool["name"] for tool in reply["result"]["tools"]] == ["polls", "vote"]
    status, reply = polls.call("", "vote", {"question": 1, "choice": "tea"})
    assert (status, reply["error"]["code"]) == (400, -32602)


def test_a_vote_counts_once_it_is_confirmed(polls: Polls) -> None:
    asked = polls.ask("ann")
    (question,) = asked["inputRequests"].values()
    assert question["params"]["message"] == 'Vote "Tea" on "Tea or coffee?"?'
    declined = polls.answer("ann", asked, {"action": "decline"})[1]
    assert declined["result"]["structuredContent"] == {"voted": False}
    voted = polls.answer("ann", asked)[1]
    assert voted["result"]["structuredContent"] == {"voted": True, "user": "ann", "choice": "Tea"}
    assert polls.call("", "polls")[1]["result"]["structuredContent"][0]["votes"] == {"Tea": 1, "Coffee": 0}
    again = polls.answer("ann", asked)[1]["result"]
    assert (again["isError"], again["content"][0]["text"]) == (True, "ann has voted on this question already")


def test_a_confirmation_of_another_user_is_refused(polls: Polls) -> None:
    status, reply = polls.answer("bob", polls.ask("ann"))
    assert (status, reply["error"]["code"]) == (400, -32602)
    assert polls.call("", "polls")[1]["result"]["structuredContent"][0]["votes"] == {"Tea": 0, "Coffee": 0}


def test_the_retry_lands_on_another_worker_and_is_understood(polls: Polls) -> None:
    asked = polls.ask("ann", label="ask")
    asker = polls.worker_of("ask")
    with stopped(asker):
        status, reply = polls.answer("ann", asked, label="retry")
    assert (status, reply["result"]["structuredContent"]["voted"]) == (200, True)
    assert polls.worker_of("retry") != asker


def test_of_many_votes_at_once_one_counts(polls: Polls) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda _: polls.ask("ann"), range(8)))
        replies = list(pool.map(lambda each: polls.answer("ann", each), asked))
    assert {status for status, _ in replies} == {200}
    texts = [reply["result"]["content"][0]["text"] for _, reply in replies]
    assert texts.count("ann has voted on this question already") == 7
    assert polls.call("", "polls")[1]["result"]["structuredContent"][0]["votes"] == {"Tea": 1, "Coffee": 0}
