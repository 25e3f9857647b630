"""The example `examples/agent_loop.py`, run as the file it is, with a model that says what the test wants."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

from tests.fake_llm import FakeLLM, calls
from tests.helpers import serving
from tests.transports import ROOT


def run(model: FakeLLM, server: str, *options: str, stdin: Any = subprocess.DEVNULL) -> Any:
    """Run the agent with an example as its server."""
    # Run as a module, so that it finds minimcp in this folder: a server gets no PYTHONPATH of ours.
    target = f"{sys.executable} -m minimcp run examples/{server}"
    command = [sys.executable, "examples/agent_loop.py", target, "What day was it?", *options]
    with serving(model) as url:
        env = {**os.environ, "PYTHONPATH": str(ROOT), "LLM_URL": url + "/v1/chat/completions", "LLM_KEY": "key-1"}
        return subprocess.run(command, cwd=ROOT, env=env, stdin=stdin, capture_output=True, text=True, timeout=60)


def test_a_model_calls_tools_and_answers() -> None:
    model = FakeLLM(
        calls(("weekday", {"day": "2026-07-28"}), ("count", {"text": "a b"})),
        calls(("now", {"zone": "Middle/Earth"})),
        "It was a Tuesday.",
    )
    done = run(model, "hello.py", "--trust")
    assert (done.returncode, done.stdout) == (0, "It was a Tuesday.\n"), done.stderr
    assert model.headers["Authorization"] == "Bearer key-1"
    first = model.heard[0]
    assert first["messages"] == [
        {"role": "system", "content": "Ask here before you say anything about dates or lengths."},
        {"role": "user", "content": "What day was it?"},
    ]
    assert [tool["function"]["name"] for tool in first["tools"]] == ["now", "days_between", "weekday", "count"]
    assert first["tools"][2]["function"]["parameters"]["properties"]["day"]["description"].startswith("The date")
    day, counted, now = model.told()
    assert day == "Tuesday" and counted == '{"characters":3,"words":2,"lines":1}'
    # The model reads that a tool failed, and why.
    assert now == "Error: There is no time zone 'Middle/Earth'; write one like Europe/Oslo."


def test_what_a_model_gets_wrong_it_is_told() -> None:
    wrong = (
        ("weekend", {}),
        ("weekday", "{not JSON"),
        ("weekday", '{"day": 3}'),
        ("weekday", "null"),
        ("weekday", "[1]"),
    )
    model = FakeLLM(calls(*wrong), "Sorry.")
    assert run(model, "hello.py", "--trust").stdout == "Sorry.\n"
    unknown, no_json, no_date, *others = model.told()
    assert len(others) == 2 and all(other.startswith("Error: ") for other in others), others
    assert unknown == "Error: there is no tool 'weekend'"
    assert no_json.startswith("Error: Expecting") and no_date.startswith("Error: ") and "day" in no_date


def test_without_anyone_to_ask_no_tool_is_called() -> None:
    model = FakeLLM(calls(("weekday", {"day": "2026-07-28"})), "I was not allowed to look.")
    assert run(model, "hello.py").stdout == "I was not allowed to look.\n"
    assert model.told() == ["Error: The tool 'weekday' needs approval, but there is no terminal to ask on"]


@pytest.mark.parametrize("typed, told", [("y", "[2,3,5,7,11,13,17,19]"), ("n", "Error: ")])
def test_a_person_is_asked_and_sees_the_progress(typed: str, told: str) -> None:
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    keyboard, terminal = pty.openpty()
    try:
        os.write(keyboard, typed.encode() + b"\n")
        model = FakeLLM(calls(("find_primes", {"below": 20})), "Done.")
        done = run(model, "progress.py", stdin=terminal)
    finally:
        os.close(keyboard)
        os.close(terminal)
    assert done.stdout == "Done.\n", done.stderr
    assert "The tool find_primes of " in done.stderr and "below = 20" in done.stderr
    assert model.told()[0].startswith(told)
    assert ("  looked at 2 2/20\n  looked at 4 4/20\n" in done.stderr) == (typed == "y")


def test_rounds_are_bounded() -> None:
    model = FakeLLM(calls(("weekday", {"day": "2026-07-28"})))
    done = run(model, "hello.py", "--trust")
    assert (done.returncode, done.stderr) == (1, "The model had no answer after 10 rounds.\n")
    assert len(model.heard) == 10
