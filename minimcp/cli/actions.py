"""The work of the commands that use a server, over an open connection; `tool_calls` has that of call and task."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from typing import Any, Optional

from ..client.client import Client
from ..client.results import Result
from . import arguments, details, show, tool_calls

Message = dict[str, Any]
Action = Callable[[Client, Any, show.Bar, Optional[Message]], None]


def _list(client: Client, options: Any, bar: show.Bar, found: Optional[Message]) -> None:
    lists = client.list_all()
    if not options.json:
        show.offer(client.server_info, client.protocol_version, client.instructions, lists)
        return
    about: Message = {"protocolVersion": client.protocol_version, "serverInfo": client.server_info}
    about.update(capabilities=client.capabilities, instructions=client.instructions, **lists)
    if found is None:
        show.as_json(about)
    else:
        found.update(about)


def _describe(client: Client, options: Any, bar: show.Bar, found: Optional[Message]) -> None:
    """Show what has a name, of whatever kind."""
    lists = client.list_all()
    named = [(kind, _key(kind, item), item) for kind, items in lists.items() for item in items]
    names = list(dict.fromkeys(name for _, name, _ in named))
    if options.name is None:
        raise ValueError(f"say of what: {', '.join(names) or 'the server has nothing'}")
    items = [(kind, item) for kind, name, item in named if name == options.name]
    if not items:
        raise ValueError(show.missing("tool, prompt or resource", options.name, names))
    target = show.target(options.target)
    for number, (kind, item) in enumerate(items):
        if options.json:
            show.as_json(item)
        else:
            show.out("\n" if number else "")
            details.DETAILS[kind](item, target)


def _key(kind: str, item: Any) -> str:
    key = {"resources": "uri", "resourceTemplates": "uriTemplate"}.get(kind, "name")
    return str(item.get(key)) if isinstance(item, dict) else ""


def _read(client: Client, options: Any, bar: show.Bar, found: Optional[Message]) -> None:
    if options.uri is None:
        lists = client.list_all()
        names = [_key(kind, item) for kind in ("resources", "resourceTemplates") for item in lists[kind]]
        raise ValueError(f"say which resource: {', '.join(names) or 'the server lists none'}")
    result = client.read_resource(options.uri)
    if options.output:
        tool_calls.save(result, options.output)
        return
    if options.json:
        show.as_json(result)
        return
    binary = b"".join(tool_calls.binary(result))
    if binary and sys.stdout.isatty():
        raise ValueError(f"the resource is binary ({len(binary)} bytes); write it to a file: -o FILE")
    contents = result.get("contents")
    for item in contents if isinstance(contents, list) else ():
        if not isinstance(item, dict):
            continue
        if isinstance(item.get("text"), str):
            show.out(show.safe(item["text"]))
            if sys.stdout.isatty() and not item["text"].endswith("\n"):
                show.out("\n")
        elif isinstance(item.get("blob"), str):
            sys.stdout.flush()
            sys.stdout.buffer.write(base64.b64decode(item["blob"]))
            sys.stdout.buffer.flush()


def _prompt(client: Client, options: Any, bar: show.Bar, found: Optional[Message]) -> None:
    if options.name is None:
        names = [str(item.get("name")) for item in client.list_prompts()]
        raise ValueError(f"say which prompt: {', '.join(names) or 'the server has none'}")
    given: dict[str, str] = {}
    for word in options.words:
        name, _, text = arguments.split(word)
        given[name] = text
    result: Result = client.get_prompt(options.name, given)
    if options.json:
        show.as_json(result)
        return
    messages: Optional[Any] = result.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            text = show.safe(f"{message.get('role')}: {show.content(message.get('content'))}")
            show.out(text + "\n")


ACTIONS: dict[str, Action] = {
    "list": _list,
    "describe": _describe,
    "call": tool_calls.call,
    "task": tool_calls.task,
    "read": _read,
    "prompt": _prompt,
}
