"""The audit log: one JSON line for each request, with its caller, the decision, and how it ended."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from typing import Any, Protocol, Union

from ..engines.trace import Redaction, Trace, timestamp, writer
from ..protocol.errors import McpError
from ..protocol.principal import Principal
from ..protocol.redaction import NAMES
from .policy import RuledRequest


class AuditedRequest(Protocol):
    """The part of `around_request`'s outcome that is written down."""

    method: Union[str, None]
    name: Union[str, None]
    principal: Union[Principal, None]
    reply: Union[dict[str, Any], None]
    http: Union[tuple[int, list[tuple[str, str]]], None]
    duration_s: float
    ctx: Union[RuledRequest, None]


class Audit:
    """Writes down every request, refused ones too: `Server(around_request=Audit("audit.jsonl"))`.

    Each line has `time`, `principal`, `issuer`, `via`, `method`, `name`, `decision` ("allowed", "denied" or
    "unauthenticated"), `outcome` ("ok", "tool error", "error CODE" or "cancelled") and `ms`.

    :param to: the path of a file, which only its owner can read and lines are appended to, a file object, or a function
        that takes each line as a dict, such as a `Chain`, in which a line that is changed or removed later shows.
    :param arguments: also write the arguments, without what looks like a secret.
    """

    def __init__(self, to: Trace, arguments: bool = False) -> None:
        self._write = writer(to)
        self._redaction = Redaction(NAMES) if arguments else None

    def __call__(self, request: AuditedRequest) -> AbstractContextManager[Any]:
        """Stand around one request."""
        return _Audited(self, request)

    def _line(self, request: AuditedRequest) -> dict[str, Any]:
        principal = request.principal
        line: dict[str, Any] = {
            "time": timestamp(time.time()) + "+00:00",
            "principal": None if principal is None else principal.id,
            "issuer": None if principal is None else principal.issuer,
            "via": None if principal is None else principal.via,
            "method": request.method,
            "name": request.name,
            "decision": _decision(request),
            "outcome": _outcome(request.reply),
            "ms": round(request.duration_s * 1000, 3),
        }
        if self._redaction is not None and request.ctx is not None:
            line["arguments"] = self._redaction.value(request.ctx.params.get("arguments"))
        return line


class _Audited:
    __slots__ = ("_audit", "_request")

    def __init__(self, audit: Audit, request: AuditedRequest) -> None:
        self._audit = audit
        self._request = request

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, problem: BaseException | None, trace: Any) -> None:
        if problem is None or isinstance(problem, McpError):
            line = self._audit._line(self._request)
            if problem is not None:
                # Another hook has refused it.
                line["outcome"] = f"error {problem.code}"
            self._audit._write(line)


def _decision(request: AuditedRequest) -> str:
    status = 0 if request.http is None else request.http[0]
    if status == 401:
        return "unauthenticated"
    denied = request.ctx is not None and getattr(request.ctx, "_denied", False)
    return "denied" if denied or status == 403 else "allowed"


def _outcome(reply: dict[str, Any] | None) -> str:
    if reply is None:
        return "cancelled"
    if "error" in reply:
        return f"error {reply['error'].get('code')}"
    result = reply.get("result")
    return "tool error" if isinstance(result, dict) and result.get("isError") is True else "ok"
