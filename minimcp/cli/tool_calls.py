"""The commands `call` and `task`: calls of tools, the tasks that servers make of them, and what becomes of results."""

from __future__ import annotations

import base64
import os
import sys
from contextlib import suppress
from typing import Any, Optional

from ..client.client import Client
from ..client.results import Result
from ..client.transports.command import join_words
from ..engines.errors import ClientError, ProtocolError, printable
from ..protocol import spec
from . import arguments, show

Message = dict[str, Any]


class Failed(Exception):
    """The end of a command by a failure that is shown after everything the server says."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def call(client: Client, options: Any, bar: show.Bar, found: Optional[Message]) -> None:
    """Call a tool and show its result; a task is followed to its end, and cancelled by Ctrl-C."""
    tools = {tool["name"]: tool for tool in client.list_tools()}
    if options.tool is None:
        raise ValueError(f"say which tool: {', '.join(tools) or 'the server has none'}")
    if options.tool not in tools:
        raise ValueError(show.missing("tool", options.tool, list(tools)))
    given: Message = {}
    words = [word for word in options.words if word != "-"]
    for text in (options.arguments, sys.stdin.read() if "-" in options.words else None):
        if text is not None:
            given.update(_object(text))
    given.update(arguments.arguments(words, tools[options.tool]["inputSchema"]))
    if options.detach:
        result = _detach(client, options, given)
        if result is None:
            return
    else:
        result = client.call_tool(options.tool, given, progress=_shown(bar))
    _show(result, f"the tool {options.tool} failed", options, bar)


def _shown(bar: show.Bar) -> Optional[show.Bar]:
    return bar if sys.stderr is not None and sys.stderr.isatty() else None


def _detach(client: Client, options: Any, given: Message) -> Optional[Result]:
    """Start a call and write the id of its task, or return the result of a call that became none."""
    with client.start_tool(options.tool, given) as running:
        try:
            id = running.detach()
        except ClientError:
            result: Result = running.result()
            return result
    show.out(f"{id}\n")
    server = ["--server", options.server] if options.server is not None else []
    back = join_words(["minimcp", "task", show.target(options.target), id, *server])
    print(f"minimcp: the task goes on; to come back to it: {printable(back, 1000)}", file=sys.stderr)
    return None


def task(client: Client, options: Any, bar: show.Bar, found: Optional[Message]) -> None:
    """Come back to a task: follow it to its result, or show how it stands, or cancel it."""
    if not client.peer.extension(spec.TASKS):
        raise ProtocolError(f"{client.peer.name} does not offer tasks")
    if options.cancel or options.status:
        if options.cancel:
            client.request("tasks/cancel", {"taskId": options.id})
        state = client.request("tasks/get", {"taskId": options.id})
        if options.json:
            show.as_json(state)
        else:
            said = state.get("statusMessage")
            show.line(show.short(state.get("status")) + (f": {printable(said, 500)}" if isinstance(said, str) else ""))
        return
    running = client.task(options.id)
    listening = _shown(bar)
    try:
        for progress in running:
            if listening is not None:
                listening(progress)
        result = running.result()
    except KeyboardInterrupt:
        bar.clear()
        with suppress(ClientError):  # It has just ended, or has not begun.
            running.detach(0.0)
        print("\nminimcp: the task goes on; --cancel ends it", end="", file=sys.stderr, flush=True)
        raise
    _show(result, "the task failed", options, bar)


def _show(result: Result, begins: str, options: Any, bar: show.Bar) -> None:
    """Show the result of a tool.

    :param begins: of the message for one that failed.
    :raises Failed: when it failed, or a question was not answered.
    """
    bar.clear()
    if options.unanswered:
        raise Failed(options.unanswered[0], 1)
    text = show.content(result.get("content"), result.data)
    if options.output and not result.is_error:
        save(result, options.output)
        text = "\n".join(line for line in text.split("\n") if not line.endswith(show.SAVES))
    if options.json:
        show.as_json(result)
    elif not result.is_error and text:
        show.out(show.safe(text) + "\n")
    if result.is_error:
        said = text if text.lower().startswith(begins.lower()) else f"{begins}: {text or 'it does not say why'}"
        raise Failed(said, 3)


def _object(text: str) -> Message:
    value = arguments.parse(text, "the object of arguments")
    if not isinstance(value, dict):
        raise ValueError("the arguments must be a JSON object")
    return value


def save(result: Result, path: str) -> None:
    """Write each binary part of a result to a file of its own; the first one has the given name."""
    parts = binary(result)
    if not parts:
        raise ProtocolError("The result has no image, sound or other bytes")
    stem, suffix = os.path.splitext(path)
    paths = [path, *(f"{stem}-{number}{suffix}" for number in range(2, len(parts) + 1))]
    for each, data in zip(paths, parts):
        with open(each, "wb") as file:
            file.write(data)
    if len(paths) > 1:
        print(f"minimcp: {len(paths)} files: {', '.join(paths)}", file=sys.stderr)


def binary(result: Result) -> list[bytes]:
    """Return the binary parts of a result.

    :raises ProtocolError: for one that is not Base64.
    """
    found = []
    for block in result._blocks():
        raw = block.get("blob", block.get("data"))
        if isinstance(raw, str):
            try:
                found.append(base64.b64decode(raw, validate=True))
            except ValueError:
                raise ProtocolError("The server sent binary data that is not Base64") from None
    return found
