"""The work of the commands that use a server, over a connection that is open: list, describe, call, read and prompt."""

from __future__ import annotations

import base64
import difflib
import os
import sys
from collections.abc import Callable
from typing import Any, Optional

from ..client.client import Client
from ..client.results import Result
from ..client.transports.command import shown
from ..engines.errors import ProtocolError
from . import arguments, details, show

Message = dict[str, Any]
Action = Callable[[Client, Any, show.Bar, Optional[Message]], None]

_MOST_NAMED = 20


class Failed(Exception):
    """The end of a command by a failure that is shown after everything the server says."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


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
        raise ValueError(_missing("tool, prompt or resource", options.name, names))
    target = options.target if isinstance(options.target, str) else shown(options.target)
    for number, (kind, item) in enumerate(items):
        if options.json:
            show.as_json(item)
        else:
            show.out("\n" if number else "")
            details.DETAILS[kind](item, target)


def _key(kind: str, item: Any) -> str:
    key = {"resources": "uri", "resourceTemplates": "uriTemplate"}.get(kind, "name")
    return str(item.get(key)) if isinstance(item, dict) else ""


def _missing(kind: str, name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 3) or names[:_MOST_NAMED]
    return f"the server lists no {kind} {name!r}; there is {', '.join(near) or 'none'}"


def _call(client: Client, options: Any, bar: show.Bar, found: Optional[Message]) -> None:
    tools = {tool["name"]: tool for tool in client.list_tools()}
    if options.tool is None:
        raise ValueError(f"say which tool: {', '.join(tools) or 'the server has none'}")
    if options.tool not in tools:
        raise ValueError(_missing("tool", options.tool, list(tools)))
    given: Message = {}
    words = [word for word in options.words if word != "-"]
    for text in (options.arguments, sys.stdin.read() if "-" in options.words else None):
        if text is not None:
            given.update(_object(text))
    given.update(arguments.arguments(words, tools[options.tool]["inputSchema"]))
    progress = bar if sys.stderr is not None and sys.stderr.isatty() else None
    result = client.call_tool(options.tool, given, progress=progress)
    bar.clear()
    text = show.content(result.get("content"), result.data)
    if options.output and not result.is_error:
        _save(result, options.output)
        text = "\n".join(line for line in text.split("\n") if not line.endswith(show.SAVES))
    if options.json:
        show.as_json(result)
    elif not result.is_error and text:
        show.out(show.safe(text) + "\n")
    if result.is_error:
        begins = f"the tool {options.tool} failed"
        said = text if text.lower().startswith(begins.lower()) else f"{begins}: {text or 'it does not say why'}"
        raise Failed(said, 3)


def _object(text: str) -> Message:
    value = arguments.parse(text, "the object of arguments")
    if not isinstance(value, dict):
        raise ValueError("the arguments must be a JSON object")
    return value


def _save(result: Result, path: str) -> None:
    """Write each binary part of a result to a file of its own; the first one has the given name."""
    parts = _binary(result)
    if not parts:
        raise ProtocolError("The result has no image, sound or other bytes")
    stem, suffix = os.path.splitext(path)
    paths = [path, *(f"{stem}-{number}{suffix}" for number in range(2, len(parts) + 1))]
    for each, data in zip(paths, parts):
        with open(each, "wb") as file:
            file.write(data)
    if len(paths) > 1:
        print(f"minimcp: {len(paths)} files: {', '.join(paths)}", file=sys.stderr)


def _binary(result: Result) -> list[bytes]:
    found = []
    for block in result._blocks():
        raw = block.get("blob", block.get("data"))
        if isinstance(raw, str):
            try:
                found.append(base64.b64decode(raw, validate=True))
            except ValueError:
                raise ProtocolError("The server sent binary data that is not Base64") from None
    return found


def _read(client: Client, options: Any, bar: show.Bar, found: Optional[Message]) -> None:
    if options.uri is None:
        lists = client.list_all()
        names = [_key(kind, item) for kind in ("resources", "resourceTemplates") for item in lists[kind]]
        raise ValueError(f"say which resource: {', '.join(names) or 'the server lists none'}")
    result = client.read_resource(options.uri)
    if options.output:
        _save(result, options.output)
        return
    if options.json:
        show.as_json(result)
        return
    binary = b"".join(_binary(result))
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
    "call": _call,
    "read": _read,
    "prompt": _prompt,
}
