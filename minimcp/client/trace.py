"""The trace: a record of every message, for people who want to see what goes over the wire.

`Client(target, trace=...)` takes True (one JSON object a line on standard error), a path (lines are appended; a new
file is for its owner alone), a file object, or a function that gets each record as a dict, on the thread that sent or
received. A record has

    time        ISO 8601, UTC, with milliseconds: "2026-07-28T09:30:00.125Z"
    direction   "sent" or "received"
    transport   "stdio", "http", "sse", "memory" or "wsgi"
    message     the JSON-RPC message; null for an HTTP reply that has none
    http        over HTTP: "method" of a request, "status" of a response, "headers" as an object
    answers     for a response, the request it answers: {"id": ..., "method": ...}
    ms          for a response, the milliseconds since that request

and leaves out what there is nothing to say about. Secrets are replaced by "[redacted]":

- headers: Authorization, Proxy-Authorization, Cookie, Set-Cookie, DPoP, Mcp-Session-Id, and those the next rule names;
- members of a message whose name, without regard to case, "-" and "_", ends in one of `SECRET_NAMES`, whatever is in
  them, save `progressToken`; in the schema of a tool or a form only what may be a value;
- in any text, query parameters and members of JSON with such a name, and what follows "Bearer" or "DPoP".

Other text is recorded as it is, what tools return included: a trace is still to be kept like a log of private data.

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
from datetime import datetime, timezone
from typing import Any, Optional

log = logging.getLogger("minimcp")

Message = dict[str, Any]
Write = Callable[[Message], Any]

SECRET_NAMES = (
    *("token", "password", "passwd", "passphrase", "secret", "apikey", "accesskey", "privatekey"),
    *("authorization", "credential", "credentials", "assertion", "codeverifier"),
)
SECRET_HEADERS = {"authorization", "proxy-authorization", "cookie", "set-cookie", "dpop", "mcp-session-id"}
REDACTED = "[redacted]"

_SCHEMAS = {"inputSchema", "outputSchema", "requestedSchema"}
_VALUES = {"default", "const", "enum", "examples", "example"}
_NAMES = "|".join(SECRET_NAMES).replace("key", "[-_]?key").replace("codev", "code[-_]?v")
_IN_TEXT = (
    re.compile(rf"([?&#;][\w.-]{{0,99}}(?:{_NAMES})=)[^&#;\s\"'<>]+", re.IGNORECASE),
    re.compile(rf'("[\w-]{{0,99}}(?:{_NAMES})"\s{{0,9}}:\s{{0,9}}")(?:[^"\\]|\\.)+', re.IGNORECASE),
    re.compile(r"\b((?:Bearer|DPoP)\s{1,9})[\w.~+/=-]{16,}", re.IGNORECASE),
)
_MOST_OPEN = 1000
_MOST_COMPLAINTS = 3

_writing = threading.Lock()  # one for all recorders, since several may write to one file


def _renew() -> None:
    global _writing
    _writing = threading.Lock()


if hasattr(os, "register_at_fork"):
    # A thread that does not exist in the child may hold it.
    os.register_at_fork(after_in_child=_renew)


def recorder(trace: Any) -> Recorder:
    """Make what transports give their messages to.

    :param trace: True, a path, a file object or a callable.
    :raises OSError: when the path cannot be written to.
    :raises TypeError: when it is none of these.
    """
    return Recorder(_writer(trace))


class Recorder:
    """Makes records of messages and writes them. It may be called by any thread, and never raises.

    :param write: takes each record.
    """

    def __init__(self, write: Write) -> None:
        self._write = write
        self._complaints = 0
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()  # guards _open
        # The requests without a response, by who sent them and their id; the oldest is forgotten first.
        self._open: OrderedDict[Any, tuple[str, float]] = OrderedDict()

    def bind(self, transport: str) -> Callable[..., None]:
        """The function to give to a transport of this kind."""
        return functools.partial(self, transport)

    def __call__(
        self,
        transport: str,
        direction: str,
        message: Any,
        method: Optional[str] = None,
        status: Optional[int] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> None:
        """Record a message.

        :param direction: "sent" or "received".
        :param method: of the HTTP request; `status` of the HTTP response.
        """
        try:
            record: Message = {"time": _now(), "direction": direction, "transport": transport}
            http = {"method": method, "status": status, "headers": headers and _clean_headers(headers)}
            http = {key: value for key, value in http.items() if value is not None}
            if http:
                record["http"] = http
            record["message"] = _clean(message)
            if isinstance(message, dict):
                record.update(self._match(direction, message))
            self._write(record)
        except Exception as problem:
            # Whoever sends or receives must not fail for it.
            self._complaints += 1
            if self._complaints <= _MOST_COMPLAINTS:
                log.warning("a message could not be recorded: %r", problem)

    def _match(self, direction: str, message: Message) -> Message:
        """What is known about the request that a response answers."""
        if "id" not in message:
            return {}
        if self._pid != os.getpid():
            self._reset()  # a thread of the parent may hold the lock
        now = time.monotonic()
        id = message["id"]
        with self._lock:
            if "method" in message:
                self._open[_key(direction, id)] = (str(message["method"]), now)
                if len(self._open) > _MOST_OPEN:
                    self._open.popitem(last=False)
                return {}
            found = self._open.pop(_key("received" if direction == "sent" else "sent", id), None)
        if found is None:
            return {}
        method, began = found
        return {"answers": {"id": id, "method": method}, "ms": round((now - began) * 1000, 3)}


def _key(direction: str, id: Any) -> Any:
    # 1 and true and "1" are three ids.
    return direction, type(id), id if isinstance(id, (str, int, float)) else repr(id)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _writer(trace: Any) -> Write:
    if trace is True:
        return lambda record: _write_line(sys.stderr, record)
    if isinstance(trace, (str, os.PathLike)):
        path = os.path.abspath(os.fspath(trace))
        _append(path, b"")
        return lambda record: _append(path, _line(record).encode("ascii"))
    if hasattr(trace, "write"):
        return lambda record: _write_line(trace, record)
    if callable(trace):
        return trace  # type: ignore[no-any-return]
    raise TypeError(f"trace must be True, a path, a file or a callable, not {type(trace).__name__}")


def _line(record: Message) -> str:
    # In ASCII, so that nothing a server sends can play tricks on a terminal.
    return json.dumps(record, default=repr) + "\n"


def _append(path: str, line: bytes) -> None:
    # Opened for each line, so that nothing stays open, and forked processes can share the file.
    with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab", buffering=0) as file:
        file.write(line)


def _write_line(file: Any, record: Message) -> None:
    if file is None:  # a process without a standard error
        return
    line = _line(record)
    with _writing:
        file.write(line.encode("ascii") if isinstance(file, (io.RawIOBase, io.BufferedIOBase)) else line)
        if hasattr(file, "flush"):
            file.flush()


def _is_secret(name: Any) -> bool:
    plain = str(name).lower().replace("-", "").replace("_", "")
    return plain.endswith(SECRET_NAMES) and plain != "progresstoken"


def _clean_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name: REDACTED if name.lower() in SECRET_HEADERS or _is_secret(name) else _clean_text(str(value))
        for name, value in headers.items()
    }


def _clean(value: Any, schema: bool = False) -> Any:
    """A copy of a message without its secrets.

    :param schema: whether it is part of a JSON Schema, whose names only speak of values.
    """
    if isinstance(value, str):
        return _clean_text(value)
    if isinstance(value, dict):
        return {key: _clean_member(key, item, schema) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(item, schema) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # which JSON has no word for
    return value


def _clean_member(key: Any, item: Any, schema: bool) -> Any:
    if not _is_secret(key):
        return _clean(item, schema or (key in _SCHEMAS and isinstance(item, dict)))
    if schema and isinstance(item, dict):
        return {word: REDACTED if word in _VALUES else _clean(part, True) for word, part in item.items()}
    return REDACTED if item is not None else None


def _clean_text(text: str) -> str:
    for pattern in _IN_TEXT:
        text = pattern.sub(rf"\1{REDACTED}", text)
    return text
