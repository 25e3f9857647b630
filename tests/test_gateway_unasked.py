"""What servers and legacy clients say outside any call, through the gateway."""

from __future__ import annotations

import sys
import threading

import pytest

from minimcp import Client
from tests.gateway_processes import ROOT

# A legacy server that asks for the roots as soon as it may, as those for files do, and whenever they change.
CURIOUS = r"""
import json, sys
def say(message): print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)
asked = {}
for line in sys.stdin:
    message = json.loads(line)
    method, id = message.get("method"), message.get("id")
    if method == "initialize":
        say({"id": id, "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}, "logging": {}},
             "serverInfo": {"name": "curious", "version": "1"}, }})
    elif method in ("notifications/initialized", "notifications/roots/list_changed"):
        say({"id": "roots", "method": "roots/list"})
    elif id == "roots":
        asked = message
        say({"method": "notifications/message", "params": {"level": "warning", "data": "roots are known"}})
    elif method == "tools/list":
        say({"id": id, "result": {"tools": [{"name": "roots", "inputSchema": {"type": "object"}}]}})
    elif method == "tools/call":
        text = json.dumps(asked.get("result", asked.get("error")))
        say({"id": id, "result": {"content": [{"type": "text", "text": text}]}})
    elif id is not None:
        say({"id": id, "error": {"code": -32601, "message": "no"}})
"""


@pytest.fixture
def command(tmp_path):
    """The command of a gateway over stdio with that server behind it."""
    import json

    (tmp_path / "curious.py").write_text(CURIOUS)
    entry = {"command": sys.executable, "args": [str(tmp_path / "curious.py")], "prefix": "", "probe": 0}
    (tmp_path / "gateway.json").write_text(json.dumps({"mcpServers": {"curious": entry}}))
    return [sys.executable, "-m", "minimcp", "gateway", str(tmp_path / "gateway.json"), "--stdio"]


def test_a_question_outside_a_call_reaches_the_only_client_and_its_changed_roots_the_server(command):
    known, logged = threading.Semaphore(0), []

    def on_log(params):
        logged.append(params)
        known.release()

    env = {"PYTHONPATH": str(ROOT)}
    with Client(command, mode="legacy", roots=["/tmp/a"], on_log=on_log, env=env) as client:
        assert [tool["name"] for tool in client.list_tools()] == ["roots"]
        assert known.acquire(timeout=20)
        assert "file:///tmp/a" in client.call_tool("roots").text
        client.set_roots(["/tmp/b"])
        assert known.acquire(timeout=20)
        assert "file:///tmp/b" in client.call_tool("roots").text
    assert logged[0] == {"level": "warning", "data": "roots are known"}


def test_a_client_without_roots_is_not_asked(command):
    answered = threading.Event()
    options = {"on_log": lambda params: answered.set(), "env": {"PYTHONPATH": str(ROOT)}}
    with Client(command, mode="legacy", **options) as client:
        assert answered.wait(20)
        assert '"code": -32603' in client.call_tool("roots").text
