"""The commands `list`, `call`, `read` and `prompt`: each opens one connection and sends one request."""

from __future__ import annotations

import base64
import difflib
import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from ..client import targets
from ..client.client import Client
from ..client.consent import printable
from ..client.results import Result
from ..client.sandbox import Sandbox
from ..client.transports.command import shown
from ..client.transports.process import SAID
from ..client.transports.server_lines import ServerLines
from ..engines.addresses import without_secrets
from ..engines.errors import AuthorizationError, ClientError, ProtocolError
from . import arguments, questions, show

log = logging.getLogger("minimcp")

Message = dict[str, Any]

_MOST_SHOWN = 4000


def run_command(options: Any) -> int:
    """Run a command and return its exit code; an error is one line on standard error."""
    with logged():
        return _run(options)


@contextmanager
def logged(level: Optional[str] = None) -> Iterator[None]:
    """Show the lines of the log on standard error, from a level on."""
    handler, before = logging.StreamHandler(), log.level
    handler.setFormatter(_Printable())
    log.addHandler(handler)
    if level is not None:
        log.setLevel(level)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


class _Printable(logging.Formatter):
    """Lines of the log that a server cannot play tricks on a terminal with."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


class _Failed(Exception):
    """The end of a command by a failure that is shown after everything the server says."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


def _run(options: Any) -> int:
    commands = {"list": _list, "describe": _describe, "call": _call, "read": _read, "prompt": _prompt}
    command = commands[options.command]
    try:
        if options.command == "list" and options.server is None and str(options.target).lower().endswith(".json"):
            names = list(targets.entries(options.target)) if os.path.isfile(options.target) else []
            if len(names) > 1:
                return _list_all(options, names)
        bar = show.Bar(sys.stderr)
        with _client(options, bar) as client:
            try:
                code = command(client, options, bar)
                if options.unanswered:
                    raise _Failed(options.unanswered[0], 1)
                return code
            except KeyboardInterrupt:
                if client.target.is_process:
                    bar.clear()
                    print("\nminimcp: waiting for the server to end", end="", file=sys.stderr, flush=True)
                raise
            finally:
                bar.clear()
    except _Failed as problem:
        return _complain(str(problem), problem.code)
    except AuthorizationError as problem:
        return _complain(f"{problem}; here: --login, or --header 'Authorization: Bearer TOKEN'", 1)
    except ClientError as problem:
        return _complain(str(problem), 1)
    except ValueError as problem:
        return _complain(_OPTION.sub(lambda found: _OPTIONS[found[1]], str(problem)), 2)
    except BrokenPipeError:
        raise
    except OSError as problem:
        return _complain(str(problem), 1)


# The options of a client as they are written here.
_OPTIONS = {"server": "--server", "headers": "--header", "env": "--env", "auth": "--login", "timeout": "--timeout"}
_OPTION = re.compile(rf"\b({'|'.join(_OPTIONS)})=")


def _list_all(options: Any, names: list[str]) -> int:
    """List each server of a file; one that fails does not hide the others."""
    codes = []
    for number, name in enumerate(names):
        show.out(("\n" if number else "") + f"== {printable(name, 100)}\n")
        sys.stdout.flush()
        options.server = name
        codes.append(_run(options))
    return max(codes)


def _complain(text: str, code: int) -> int:
    """Show what went wrong, line by line; of a very long text the middle is left out."""
    # The end of a server's standard error has been shown as it came.
    text = text.partition(SAID)[0]
    if len(text) > _MOST_SHOWN:
        text = f"{text[:1000]}\n[... {len(text) - _MOST_SHOWN} characters left out ...]\n{text[1000 - _MOST_SHOWN :]}"
    print("minimcp: " + "\n".join(map(printable, text.split("\n"))), file=sys.stderr)
    return code


def _client(options: Any, bar: show.Bar) -> Client:
    target, where = target_of(options.target)
    person = questions.make(where)
    answers = dict(pair(word, "=", "--answer KEY=VALUE") for word in getattr(options, "answer", ()))
    options.unanswered = []

    def elicit(question: Any) -> Any:
        answer = questions.from_words(question, answers)
        if isinstance(answer, dict):
            return answer
        if person is None:
            options.unanswered.append(answer)
            return "cancel"
        with bar.hidden():
            return person(question)

    def on_log(params: Message) -> None:
        bar.clear()
        print(f"{printable(str(params.get('level')), 20)}: {printable(str(params.get('data')), 2000)}", file=sys.stderr)

    env = dict(pair(word, "=", "--env NAME=VALUE") for word in options.env)
    return Client(
        target,
        server=options.server,
        mode=options.mode,
        auth=login(options.login) if options.login else None,
        headers=dict(pair(word, ":", "--header 'NAME: VALUE'") for word in options.header) or None,
        env=env or None,
        sandbox=Sandbox.parse(options.sandbox) if options.sandbox is not None else None,
        stderr=ServerLines(bar.clear) if targets.read(target, options.server, {}).is_process else None,
        elicit=elicit,
        on_log=on_log if options.verbose else None,
        log_level="info" if options.verbose else None,
        timeout=options.timeout,
        max_timeout=max(600.0, options.timeout),
        trace=True if options.trace == "-" else options.trace,
    )


def login(file: str) -> Any:
    """Make an authorization that signs in with a browser; its tokens are kept in a file unless it is "-"."""
    import webbrowser

    from ..engines.oauth.oauth import OAuth
    from ..engines.oauth.tokens import FileStore

    def visit(url: str) -> bool:
        print(f"To sign in, visit {printable(url, 10_000)}", file=sys.stderr)
        webbrowser.open(url)
        return True  # Without a browser the user has the address.

    return OAuth("minimcp", open_browser=visit, store=None if file == "-" else FileStore(file))


def target_of(given: Any) -> tuple[Any, str]:
    """Return the target for the client, and its name for messages."""
    if isinstance(given, list):
        if not given:
            raise ValueError("a command must follow --")
        return given, shown(given)
    return given, without_secrets(given) if "://" in given else given


def pair(word: str, mark: str, form: str) -> tuple[str, str]:
    name, found, value = word.partition(mark)
    if not found or not name.strip():
        raise ValueError(f"write {form}")  # without the word, which may be a secret
    return name.strip(), value.strip() if mark == ":" else value


def _list(client: Client, options: Any, bar: show.Bar) -> int:
    lists = {
        "tools": client.list_tools(),
        "resources": client.list_resources(),
        "resourceTemplates": client.list_resource_templates(),
        "prompts": client.list_prompts(),
    }
    if options.json:
        about = {"protocolVersion": client.protocol_version, "serverInfo": client.server_info}
        show.as_json({**about, "capabilities": client.capabilities, "instructions": client.instructions, **lists})
    else:
        show.offer(client.server_info, client.protocol_version, client.instructions, lists)
    return 0


def _describe(client: Client, options: Any, bar: show.Bar) -> int:
    tool = _tool(client, options.tool)
    if options.json:
        show.as_json(tool)
    else:
        show.tool(tool, options.target if isinstance(options.target, str) else shown(options.target))
    return 0


def _tool(client: Client, name: Optional[str]) -> Any:
    """Return the definition of a tool.

    :raises ValueError: naming those that there are.
    """
    tools = {tool["name"]: tool for tool in client.list_tools()}
    if name is None:
        raise ValueError(f"say which tool: {', '.join(tools) or 'the server has none'}")
    if name not in tools:
        raise ValueError(_missing("tool", name, list(tools)))
    return tools[name]


def _call(client: Client, options: Any, bar: show.Bar) -> int:
    given: Message = {}
    words = [word for word in options.words if word != "-"]
    for text in (options.arguments, sys.stdin.read() if "-" in options.words else None):
        if text is not None:
            given.update(_object(text))
    given.update(arguments.arguments(words, _tool(client, options.tool)["inputSchema"]))
    progress = bar if sys.stderr is not None and sys.stderr.isatty() else None
    result = client.call_tool(options.tool, given, progress=progress)
    bar.clear()
    text = show.content(result.get("content"), result.data)
    if options.output and not result.is_error:
        data = result.bytes
        if data is None:
            raise ProtocolError("The result has no image, sound or other bytes")
        with open(options.output, "wb") as file:
            file.write(data)
        text = "\n".join(line for line in text.split("\n") if "; -o FILE writes them]" not in line)
    if options.json:
        show.as_json(result)
    elif not result.is_error and text:
        show.out(show.safe(text) + "\n")
    if result.is_error:
        begins = f"the tool {options.tool} failed"
        said = text if text.lower().startswith(begins.lower()) else f"{begins}: {text or 'it does not say why'}"
        raise _Failed(said, 3)
    return 0


def _object(text: str) -> Message:
    value = arguments.parse(text, "the object of arguments")
    if not isinstance(value, dict):
        raise ValueError("the arguments must be a JSON object")
    return value


def _missing(kind: str, name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 3) or names[:20]
    hint = f"; there is {', '.join(near)}" if near else ""
    return f"the server lists no {kind} {name!r}{hint}"


def _read(client: Client, options: Any, bar: show.Bar) -> int:
    result = client.read_resource(options.uri)
    if options.json:
        show.as_json(result)
        return 0
    contents = result.get("contents")
    for item in contents if isinstance(contents, list) else ():
        if not isinstance(item, dict):
            continue
        if isinstance(item.get("text"), str):
            show.out(show.safe(item["text"]))
            if sys.stdout.isatty() and not item["text"].endswith("\n"):
                show.out("\n")
        elif isinstance(item.get("blob"), str):
            try:
                data = base64.b64decode(item["blob"], validate=True)
            except ValueError:
                raise ProtocolError("The server sent binary data that is not Base64") from None
            _write(data)
    return 0


def _write(data: bytes) -> None:
    if sys.stdout.isatty():
        raise ValueError(f"the resource is binary ({len(data)} bytes); redirect it to a file: > FILE")
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _prompt(client: Client, options: Any, bar: show.Bar) -> int:
    given: dict[str, str] = {}
    for word in options.words:
        name, _, text = arguments.split(word)
        given[name] = text
    result: Result = client.get_prompt(options.name, given)
    if options.json:
        show.as_json(result)
        return 0
    messages: Optional[Any] = result.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict):
            text = show.safe(f"{message.get('role')}: {show.content(message.get('content'))}")
            show.out(text + "\n")
    return 0
