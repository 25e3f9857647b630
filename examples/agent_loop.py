"""An agent: a language model that answers a question with the tools of an MCP server. No framework, only `requests`.

    export LLM_URL=http://127.0.0.1:11434/v1/chat/completions LLM_MODEL=qwen3   # and LLM_KEY, where one is needed
    python agent_loop.py "python hello.py" "Which day of the week is 28 July 2026?"

The model is any with an endpoint of the OpenAI kind; the server a command, a URL or what else a Client takes. You are
asked before a tool is called. With --trust, tools that say they only read are called unasked.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from typing import Any

import requests

from minimcp import Client, ClientError, consent

MAX_ROUNDS = 10


def main() -> None:
    """Run the command that the docstring of this file shows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("question")
    parser.add_argument("--trust", action="store_true")
    given = parser.parse_args()
    if "LLM_URL" not in os.environ:
        parser.error("set LLM_URL to the address of a model, such as http://127.0.0.1:11434/v1/chat/completions")
    approve = consent.terminal(read_only=True)
    with Client(given.target, approve=approve, trusted=given.trust) as client:
        print(answer(client, given.question))


def answer(client: Client, question: str) -> str:
    """The loop: the model either calls tools, and is told what they said, or answers."""
    # A model's endpoint allows fewer characters in a name than MCP does.
    tools = {re.sub(r"[^A-Za-z0-9_-]", "_", tool["name"])[:64]: tool for tool in client.list_tools()}
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    if client.instructions:
        messages.insert(0, {"role": "system", "content": client.instructions})
    for _ in range(MAX_ROUNDS):
        message = ask_model(messages, tools)
        messages.append(message)
        if not message.get("tool_calls"):
            return str(message["content"])
        for call in message["tool_calls"]:
            said = run_tool(client, tools, call["function"])
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": said})
    raise SystemExit(f"The model had no answer after {MAX_ROUNDS} rounds.")


def ask_model(messages: list[dict[str, Any]], tools: dict[str, Any]) -> dict[str, Any]:
    """Send the whole conversation, since the model remembers nothing, and return what it says next."""
    functions = [
        {"name": name, "description": tool.get("description", ""), "parameters": tool["inputSchema"]}
        for name, tool in tools.items()
    ]
    body = {"model": os.environ.get("LLM_MODEL", ""), "messages": messages}
    if functions:
        body["tools"] = [{"type": "function", "function": function} for function in functions]
    headers = {"Authorization": f"Bearer {os.environ.get('LLM_KEY', '')}"}
    response = requests.post(os.environ["LLM_URL"], json=body, headers=headers, timeout=300)
    response.raise_for_status()
    return dict(response.json()["choices"][0]["message"])


def run_tool(client: Client, tools: dict[str, Any], function: dict[str, Any]) -> str:
    """Call a tool and return what the model is to read. Whatever goes wrong it reads too: it may know better then."""
    tool = tools.get(function["name"])
    if tool is None:
        return f"Error: there is no tool {function['name']!r}"
    try:
        arguments = json.loads(function["arguments"] or "{}") or {}
        result = client.call_tool(tool["name"], arguments, progress=show)
    except (
        ValueError,
        TypeError,
        ClientError,
    ) as error:  # no JSON object; not approved, timed out, refused by the server, ...
        return f"Error: {error}"
    return f"Error: {result.text}" if result.is_error else result.text or json.dumps(result)


def show(progress: dict[str, Any]) -> None:
    """Tell the person that a tool is at work."""
    print(f"  {progress.get('message', '')} {progress['progress']}/{progress.get('total', '?')}", file=sys.stderr)


if __name__ == "__main__":
    main()
