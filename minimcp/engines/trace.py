"""A trace of JSON-RPC messages: records of what is sent and received, without secrets, for people to read.

`recorder(trace)` takes True (one JSON object a line on standard error), a path (lines are appended; a new file is for
its owner alone), a file object, a function that gets each record as a dict, on the thread that sent or received, or
"pretty" (one short line for each message on standard error). A record has

    time        ISO 8601, UTC, with milliseconds: "2026-07-28T09:30:00.125Z"
    direction   "sent" or "received"
    transport   "stdio", "http", "sse", "memory" or "wsgi"
    message     the JSON-RPC message; null for an HTTP request or reply that has none
    http        over HTTP: "method" of a request, "status" of a response, "headers" as an object
    answers     for a response, the request it answers: {"id": ..., "method": ...}
    ms          for a response, the milliseconds since that request

and leaves out members without a value. Secrets are replaced by "[redacted]":

- headers: Authorization, Proxy-Authorization, Cookie, Set-Cookie, DPoP, and those the next rule or `Names` names;
- members of a message whose name, without regard to case, "-" and "_", ends in one of `SECRET_NAMES`, with all they
  hold; in a JSON Schema only the values it names;
- in any text, query parameters and members of JSON with such a name, and what follows "Bearer" or "DPoP".

Other text is recorded as it is, what tools return included: keep a trace like a log of private data.

Spec: FEAT-038
"""

from __future__ import annotations

import functools
import io
import json
import logging
import math
import os
import re
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Optional, TextIO, Union

from .fork import PerProcess
from .open_files import OpenFile

log = logging.getLogger("minimcp")

Message = dict[str, Any]
Write = Callable[[Message], object]
# True for standard error, "pretty" for short lines there, a path, a text file, or a function that takes each record.
Trace = Union[bool, str, "os.PathLike[str]", TextIO, Write]

SECRET_NAMES = (
    *("token", "password", "passwd", "passphrase", "secret", "apikey", "accesskey", "privatekey"),
    *("authorization", "credential", "credentials", "assertion", "codeverifier"),
)
SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie", "dpop"})
REDACTED = "[redacted]"

_VALUES = {"default", "const", "enum", "examples", "example"}
_NAMES = "|".join(SECRET_NAMES).replace("key", "[-_]?key").replace("codev", "code[-_]?v")
_IN_TEXT = (
    re.compile(rf"([?&#;][\w.-]{{0,99}}(?:{_NAMES})=)[^&#;\s\"'<>]+", re.IGNORECASE),
    re.compile(rf'("[\w-]{{0,99}}(?:{_NAMES})"\s{{0,9}}:\s{{0,9}}")(?:[^"\\]|\\.)+', re.IGNORECASE),
    re.compile(r"\b((?:Bearer|DPoP)\s{1,9})[\w.~+/=-]{16,}", re.IGNORECASE),
)
_SHORT = 160
_MOST_OPEN = 1000
_MOST_COMPLAINTS = 3
_encode = json.JSONEncoder(default=repr).encode

# The latest second, which most calls have, and its text.
_second = (-1, "")
# One lock for all recorders, since several may write to one file.
_writing = PerProcess(threading.Lock)


class Names(NamedTuple):
    """The names of one protocol that the rules of redaction cannot know."""

    headers: frozenset[str] = frozenset()  # further secret headers, in lower case
    public: frozenset[str] = frozenset()  # what ends like a secret and is none, as `SECRET_NAMES` are written
    schemas: frozenset[str] = frozenset()  # members that hold a JSON Schema


def recorder(trace: Trace, names: Names) -> Recorder:
    """Make the recorder that transports give their messages to.

    :param trace: True, a path, a file object or a callable.
    :raises OSError: when the path cannot be written to.
    :raises TypeError: when it is none of these.
    """
    return Recorder(writer(trace), names)


class _Unanswered:
    """The requests without a response, by scope, sender and id; the oldest is forgotten first."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # guards open
        self.open: OrderedDict[Any, tuple[str, float]] = OrderedDict()


class Recorder:
    """Makes records of messages and writes them. Any thread may call it, and it never raises.

    :param write: takes each record.
    """

    def __init__(self, write: Write, names: Names) -> None:
        self._write = write
        self._redaction = Redaction(names)
        self._complaints = 0
        self._unanswered = PerProcess(_Unanswered)

    def bind(self, transport: str, scope: Any = None) -> Callable[..., None]:
        """Return the function to give to a transport of this kind.

        :param scope: keeps apart peers that may use the same request ids.
        """
        return functools.partial(self, transport, scope=scope)

    def __call__(
        self,
        transport: str,
        direction: str,
        message: Any,
        method: Optional[str] = None,
        status: Optional[int] = None,
        headers: Optional[Mapping[str, str]] = None,
        scope: Any = None,
    ) -> None:
        """Record a message.

        :param direction: "sent" or "received".
        :param method: of the HTTP request; `status` of the HTTP response.
        """
        try:
            record: Message = {"time": timestamp(time.time()) + "Z", "direction": direction, "transport": transport}
            http = {"method": method, "status": status, "headers": headers and self._redaction.headers(headers)}
            http = {key: value for key, value in http.items() if value is not None}
            if http:
                record["http"] = http
            record["message"] = self._redaction.value(message)
            if isinstance(message, dict):
                record.update(self._match(scope, direction, message))
            self._write(record)
        except Exception as problem:
            # Sending and receiving must not fail for it.
            self._complaints += 1
            if self._complaints <= _MOST_COMPLAINTS:
                log.warning("a message could not be recorded: %r", problem)

    def _match(self, scope: Any, direction: str, message: Message) -> Message:
        """Return `answers` and `ms` of a response, if its request was recorded."""
        if "id" not in message:
            return {}
        now = time.monotonic()
        id = message["id"]
        unanswered = self._unanswered()
        with unanswered.lock:
            if "method" in message:
                unanswered.open[_key(scope, direction, id)] = (str(message["method"]), now)
                if len(unanswered.open) > _MOST_OPEN:
                    unanswered.open.popitem(last=False)
                return {}
            found = unanswered.open.pop(_key(scope, "received" if direction == "sent" else "sent", id), None)
        if found is None:
            return {}
        method, began = found
        return {"answers": {"id": id, "method": method}, "ms": round((now - began) * 1000, 3)}


def _key(scope: Any, direction: str, id: Any) -> Any:
    # 1 and true and "1" are three ids.
    return scope, direction, type(id), id if isinstance(id, (str, int, float)) else repr(id)


def timestamp(seconds: float) -> str:
    """Return a time since 1970 in ISO 8601, UTC, with milliseconds, without the zone."""
    global _second
    whole = int(seconds)
    kept = _second
    if kept[0] != whole:
        kept = _second = whole, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{kept[1]}.{int((seconds - whole) * 1000):03d}"


def writer(trace: Trace) -> Write:
    """Return the function that writes a record to a target; see `recorder`."""
    if trace is True:
        return lambda record: _write_line(sys.stderr, record)
    if trace == "pretty":
        return lambda record: _write_line(sys.stderr, record, _short_line)
    if isinstance(trace, (str, os.PathLike)):
        path = os.path.abspath(os.fspath(trace))
        OpenFile(path)()
        file = OpenFile(path)
        return lambda record: os.write(file(), _line(record).encode("ascii"))
    if hasattr(trace, "write"):
        return lambda record: _write_line(trace, record)
    if callable(trace):
        return trace
    raise TypeError(f"trace must be True, a path, a file or a callable, not {type(trace).__name__}")


def _line(record: Message) -> str:
    # In ASCII, so that nothing a server sends can play tricks on a terminal.
    return _encode(record) + "\n"


def _short_line(record: Message) -> str:
    """Return the short form of a record: its time, who speaks, the method, and the beginning of the rest."""
    message, http = record.get("message"), record.get("http", {})
    words = [record["time"][11:-1], "->" if record["direction"] == "sent" else "<-"]
    rest: Any = None
    if not isinstance(message, dict):
        words.append(http.get("method") or f"HTTP {http.get('status')}")
    else:
        request = record.get("answers", message)
        words += [f"#{_encode(request['id'])}"] if "id" in request else []
        # As JSON, so that nothing in it can play tricks on a terminal.
        words += [_encode(str(request["method"]))[1:-1]] if "method" in request else []
        words += [f"{record['ms']:.0f} ms"] if "ms" in record else []
        rest = message.get("params", message.get("result", message.get("error")))
    if isinstance(rest, dict):
        rest = {key: value for key, value in rest.items() if key not in ("_meta", "resultType")} or None
    text = " ".join(words) + ("" if rest is None else f" {_encode(rest)}")
    return (text if len(text) <= _SHORT else f"{text[: _SHORT - 3]}...") + "\n"


def _write_line(file: Any, record: Message, form: Callable[[Message], str] = _line) -> None:
    if file is None:  # a process without a standard error
        return
    line = form(record)
    with _writing():
        file.write(line.encode("ascii") if isinstance(file, (io.RawIOBase, io.BufferedIOBase)) else line)
        if hasattr(file, "flush"):
            file.flush()


class Redaction:
    """Copies values without the secrets in them."""

    def __init__(self, names: Names) -> None:
        self._headers = SECRET_HEADERS | names.headers
        self._public = names.public
        self._schemas = names.schemas

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Copy the headers of a request or response."""
        return {
            name: REDACTED if name.lower() in self._headers or self._is_secret(name) else _clean_text(str(value))
            for name, value in headers.items()
        }

    def value(self, value: Any, schema: bool = False) -> Any:
        """Copy a message or a part of one.

        :param schema: whether it is part of a JSON Schema, where a secret name does not stand for a value.
        """
        if isinstance(value, str):
            return _clean_text(value)
        if isinstance(value, dict):
            return {key: self._member(key, item, schema) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item, schema) for item in value]
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)  # JSON has no word for it.
        return value

    def _member(self, key: Any, item: Any, schema: bool) -> Any:
        if not self._is_secret(key):
            return self.value(item, schema or (key in self._schemas and isinstance(item, dict)))
        if schema and isinstance(item, dict):
            return {word: REDACTED if word in _VALUES else self.value(part, True) for word, part in item.items()}
        return REDACTED if item is not None else None

    def _is_secret(self, name: Any) -> bool:
        plain = str(name).lower().replace("-", "").replace("_", "")
        return plain.endswith(SECRET_NAMES) and plain not in self._public


def _clean_text(text: str) -> str:
    for pattern in _IN_TEXT:
        text = pattern.sub(rf"\1{REDACTED}", text)
    return text
