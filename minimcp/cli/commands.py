"""The commands that use a server: each opens a connection for what `actions` does, and tells what went wrong."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Optional

from ..client import targets
from ..client.client import Client
from ..client.errors import GIVE
from ..client.sandbox import Sandbox
from ..client.transports.command import shown
from ..client.transports.process import SAID
from ..client.transports.server_lines import ServerLines
from ..engines.addresses import without_secrets
from ..engines.errors import AuthorizationError, ClientError, printable
from . import actions, questions, show, tool_calls

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


def _run(options: Any) -> int:
    if options.command == "list" and options.server is None and str(options.target).lower().endswith(".json"):
        try:
            names = list(targets.entries(options.target)) if os.path.isfile(options.target) else []
        except ValueError as problem:
            return _complain(str(problem), 2)
        if len(names) > 1:
            return _list_all(options, names)
    failed = _attempt(options, None)
    return 0 if failed is None else _complain(*failed)


def _attempt(options: Any, found: Optional[Message]) -> Optional[tuple[str, int]]:
    """Run a command, and return what went wrong and the exit code, None when nothing did.

    :param found: takes what would be written as JSON.
    """
    try:
        bar = show.Bar(sys.stderr)
        with _client(options, bar) as client:
            try:
                actions.ACTIONS[options.command](client, options, bar, found)
                return (options.unanswered[0], 1) if options.unanswered else None
            except KeyboardInterrupt:
                if client.target.is_process:
                    bar.clear()
                    print("\nminimcp: waiting for the server to end", end="", file=sys.stderr, flush=True)
                raise
            finally:
                bar.clear()
    except tool_calls.Failed as problem:
        return str(problem), problem.code
    except AuthorizationError as problem:
        told = str(problem)
        return told.replace(GIVE, _GIVE) if GIVE in told else f"{told}; here: {_CREDENTIALS}", 1
    except ClientError as problem:
        return _as_typed(str(problem)), 1
    except ValueError as problem:
        return _as_typed(str(problem)), 2
    except BrokenPipeError:
        raise
    except OSError as problem:
        where = f": {problem.filename}" if problem.filename is not None else ""
        return f"{problem.strerror}{where}" if problem.strerror else str(problem), 1


_CREDENTIALS = "--login, or --header 'Authorization: Bearer TOKEN'"
_GIVE = f"give {_CREDENTIALS}"
# What the client writes in Python, and how the same is done here.
_OPTIONS = {"server": "--server", "headers": "--header", "env": "--env", "auth": "--login", "timeout": "--timeout"}
_OPTIONS["sandbox"] = "--sandbox"
_AS_TYPED = [
    (re.compile(r"env=\{'(\w+)': \.\.\.\}"), r"--env \1=VALUE"),
    (re.compile(r"Client\('([^']*)'\) serves it without"), r"`minimcp list \1` serves it without"),
    (re.compile(r"it asks the client: give Client\(\.\.\., sample=\.\.\.\)"), "it asks for a model, and none is here"),
    (
        re.compile(r"it asks the client: give Client\(\.\.\., roots=\.\.\.\)"),
        "it asks for folders, and none are given here",
    ),
    (
        re.compile(r"; client\.task\('([^']*)'\) comes back to the task"),
        r"; `minimcp task TARGET \1` comes back to the task",
    ),
    *((re.compile(rf"\b{name}="), option) for name, option in _OPTIONS.items()),
]


def _as_typed(text: str) -> str:
    for pattern, better in _AS_TYPED:
        text = pattern.sub(better, text)
    return text


def _list_all(options: Any, names: list[str]) -> int:
    """List each server of a file; one that fails does not hide the others."""
    codes = [0]
    found: Message = {}
    for number, name in enumerate(names):
        options.server = name
        if not options.json:
            show.out(("\n" if number else "") + f"== {printable(name, 100)}\n")
            sys.stdout.flush()
        listed: Message = {}
        failed = _attempt(options, listed if options.json else None)
        if failed is not None:
            codes.append(_complain(f"{printable(name, 100)}: {failed[0]}" if options.json else failed[0], failed[1]))
            listed = {"error": failed[0]}
        found[name] = listed
    if options.json:
        show.as_json(found)
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
    given = getattr(options, "answer", ())
    action = next((word for word in given if word in questions.ACTIONS), "")
    form = "--answer KEY=VALUE, --answer accept or --answer decline"
    answers = dict(pair(word, "=", form) for word in given if word not in questions.ACTIONS)
    options.unanswered = []

    def elicit(question: Any) -> Any:
        answer = questions.from_words(question, answers, action)
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
    with_tasks = options.command in ("call", "task")
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
        # Whoever sees a call make progress ends it by Ctrl-C.
        max_timeout=None if with_tasks else max(600.0, options.timeout),
        tasks=with_tasks,
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
