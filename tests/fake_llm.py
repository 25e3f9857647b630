"""A language model for tests: a chat completions endpoint that says what the test wants, and keeps what it heard."""

from __future__ import annotations

import json
from typing import Any

from werkzeug.wrappers import Request, Response


def calls(*wanted: tuple[str, Any]) -> dict[str, Any]:
    """What a model says to have tools called: names with arguments as a dict, or as text that may be no JSON."""
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": f"call_{number}",
                "type": "function",
                "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)},
            }
            for number, (name, given) in enumerate(wanted, 1)
        ],
    }


class FakeLLM:
    """A WSGI application.

    :param turns: what to say, one for each request and the last one for ever: text, or the message that `calls` makes.
    :ivar heard: the bodies of all requests; `headers` those of the last.
    """

    def __init__(self, *turns: Any) -> None:
        self._turns = turns
        self.heard: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}

    def told(self) -> list[str]:
        """What the tools said, as the model heard it last."""
        return [message["content"] for message in self.heard[-1]["messages"] if message["role"] == "tool"]

    def __call__(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        self.headers = dict(request.headers)
        body = request.get_json()
        problem = _problem(body)
        if problem:
            return Response(json.dumps({"error": {"message": problem}}), 400)(environ, start_response)
        self.heard.append(body)
        turn = self._turns[min(len(self.heard), len(self._turns)) - 1]
        message = {"role": "assistant", "content": turn} if isinstance(turn, str) else turn
        reason = "tool_calls" if message.get("tool_calls") else "stop"
        reply = {"object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": reason}]}
        return Response(json.dumps(reply), content_type="application/json")(environ, start_response)


def _problem(body: Any) -> str:
    """What a strict endpoint would refuse: each call of a tool wants its answer before anything else is said."""
    open_calls: list[str] = []
    for message in body["messages"]:
        if message["role"] == "tool":
            if not isinstance(message["content"], str) or message["tool_call_id"] not in open_calls:
                return "a tool message that answers nothing"
            open_calls.remove(message["tool_call_id"])
        elif open_calls:
            return f"no tool message for {open_calls}"
        open_calls += [call["id"] for call in message.get("tool_calls") or []]
    if body.get("tools") == []:
        return "an empty list of tools"
    return f"no tool message for {open_calls}" if open_calls else ""
