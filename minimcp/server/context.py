"""What a handler may know and do during one call."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..engines.errors import InvalidArguments
from ..engines.schema import hints
from ..protocol import forms, spec, wire
from ..protocol.errors import Cancelled, ToolError
from . import asking

if TYPE_CHECKING:
    from ..protocol import types
    from .catalog import Entry

log = logging.getLogger("minimcp")

_RANK = {level: rank for rank, level in enumerate(spec.LOG_LEVELS)}


class Context:
    """One call: who sent it, what they can do, and the way back to them.

    Everything about the caller is here and nowhere else; for a legacy session it is filled from the session.

    :ivar method: the method of the request, such as "tools/call".
    :ivar params: its params, as they were sent.
    :ivar meta: the `_meta` of the request; trace context (`traceparent`, `tracestate`, `baggage`) is passed in here.
    :ivar version: the protocol revision in force.
    :ivar capabilities: what the client declared.
    :ivar client_info: who the client says it is; unverified, never decide anything by it. Spec: BASE-047
    :ivar principal: the authenticated user, or None.
    :ivar private: set it where a result depends on the caller: shared caches do not keep it for others. Spec: FEAT-226
    :ivar request: the WSGI environ of an HTTP request, else None.
    :ivar session: the legacy session or stdio connection, else None.
    :ivar cancelled: a `threading.Event`, set when the client cancels or goes away.
    """

    __slots__ = (
        "_asked",
        "_last_progress",
        "_on_cancel",
        "_thread",
        "asker",
        "cancelled",
        "capabilities",
        "client_info",
        "close_stream",
        "deadline",
        "entry",
        "era",
        "error",
        "finished",
        "log_level",
        "meta",
        "method",
        "params",
        "principal",
        "private",
        "request",
        "request_id",
        "send",
        "server",
        "session",
        "version",
    )

    def __init__(self, server: Any, message: dict[str, Any], session: Any, principal: Any, request: Any) -> None:
        self.server = server
        self.session = session
        self.principal = principal
        self.private = False
        self.request = request
        self.request_id = message.get("id")
        self.method: str = message["method"]
        self.params: dict[str, Any] = message.get("params", {})
        meta = self.params.get("_meta")
        self.meta: dict[str, Any] = meta if isinstance(meta, dict) else {}
        self.era: Any = None
        self.version = ""
        self.capabilities: dict[str, Any] = {}
        self.client_info: dict[str, Any] = {}
        self.log_level: str | None = None
        self.entry: Entry | None = None
        self.asker: Any = None
        # Set by the door, for calls that may emit something before their answer.
        self.send: Callable[[dict[str, Any]], None] | None = None
        self.close_stream: Callable[..., None] = _no_stream
        # When a long-lived stream has to end, on the monotonic clock; None for never.
        self.deadline: float | None = None
        # What a tool raised, though its failure is a result.
        self.error: Exception | None = None
        self.finished = False
        self.cancelled: threading.Event = _NEVER
        self._on_cancel: list[Callable[[], None]] = []
        self._last_progress: float | None = None
        self._asked = 0
        self._thread: int | None = None

    def begin(self, send: Callable[[dict[str, Any]], None] | None) -> None:
        """Give the context its way out, on the thread that runs the handler."""
        self.send = send
        self._thread = threading.get_ident()

    def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Report progress, if the client asked for it; a value that does not rise is dropped.

        Spec: BASE-142 to BASE-153

        :raises Cancelled: when the call was cancelled.
        """
        self.check()
        token = self.meta.get("progressToken")
        if not wire.is_id(token) or (self._last_progress is not None and progress <= self._last_progress):
            return
        self._last_progress = progress
        params: dict[str, Any] = {"progressToken": token, "progress": progress}
        if total is not None:
            params["total"] = total
        if message is not None:
            params["message"] = message
        self.emit("notifications/progress", params)

    def log(self, level: str, data: Any, logger: str | None = None) -> None:
        """Send a log message, if the client wants this level. Spec: FEAT-101 to FEAT-112

        :param level: one of debug, info, notice, warning, error, critical, alert, emergency.
        :param data: any JSON value, or what a tool could return as one; never secrets or personal data.
        :raises Cancelled: when the call was cancelled.
        """
        if level not in _RANK:
            raise ValueError(f"{level!r} is not a log level; use one of {', '.join(_RANK)}")
        self.check()
        if self.log_level is None or _RANK[level] < _RANK[self.log_level]:
            return
        params = {"level": level, "data": hints.to_json(data)}
        if logger is not None:
            params["logger"] = logger
        self.emit("notifications/message", params)

    def emit(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification that belongs to this call, while the call runs."""
        if self.send is not None and not self.finished and not self.cancelled.is_set():
            self.send(wire.notification(method, params))

    def elicit(self, message: str, fields: Any, key: str | None = None) -> asking.Answer:
        """Ask the person at the client to fill in a form.

        :param fields: `{"nights": int, "breakfast": (bool, False)}`, a dataclass or TypedDict class, or a ready schema.
        :param key: the question's name in `inputRequests`; by default q1, q2, ... in order of asking.
        :returns: the fields as a dict, converted to the annotated types; falsy when the person declined or cancelled.
        :raises ToolError: when an answer cannot be converted, such as the 30th of February.
        """
        form, convert = forms.form(fields)
        answer: asking.Answer = self._one(key, asking.elicitation(message, form))
        if not answer:
            return answer
        try:
            return asking.Answer(convert(answer), answer.action)
        except InvalidArguments as error:
            raise ToolError(f"The client's answer does not fit the question: {error}") from None

    def elicit_url(self, message: str, url: str, key: str | None = None) -> asking.Answer:
        """Ask the person to open a page, for anything secret; true when they agreed to. Spec: FEAT-204 to FEAT-222"""
        answer: asking.Answer = self._one(key, asking.url_elicitation(message, url))
        return answer

    def sample(
        self,
        messages: str | list[dict[str, Any]],
        max_tokens: int = 1000,
        *,
        system: str | None = None,
        tools: list[dict[str, Any]] | None = None,
        tool_choice: dict[str, Any] | None = None,
        temperature: float | None = None,
        stop: list[str] | None = None,
        preferences: dict[str, Any] | None = None,
        include_context: str | None = None,
        metadata: dict[str, Any] | None = None,
        key: str | None = None,
    ) -> asking.Sample:
        """Ask the client's model to write a message; `.text` of the result is what it wrote.

        Spec: FEAT-155 to FEAT-178
        """
        question = asking.sampling(
            messages,
            max_tokens,
            systemPrompt=system,
            tools=tools,
            toolChoice=tool_choice,
            temperature=temperature,
            stopSequences=stop,
            modelPreferences=preferences,
            includeContext=include_context,
            metadata=metadata,
        )
        answer: asking.Sample = self._one(key, question)
        return answer

    def list_roots(self, key: str | None = None) -> list[types.Root]:
        """Ask for the folders the client works in: a list of `{"uri": "file://...", "name"?: ...}`."""
        answer: list[types.Root] = self._one(key, asking.roots())
        return answer

    def _one(self, key: str | None, question: asking.Question) -> Any:
        self._asked += 1
        name = key or f"q{self._asked}"
        return self._ask({name: question}, named=key is not None)[name]

    def ask(self, **questions: asking.Question) -> dict[str, Any]:
        """Ask several things in one round and return `{key: answer}`.

        :param questions: `{"method": ..., "params": {...}}` as in `inputRequests`; `minimcp.server.asking` has builders
            for them: `elicitation`, `url_elicitation`, `sampling` and `roots`.
        """
        asking.check_keys(questions)
        return self._ask(questions, named=True)

    def _ask(self, questions: dict[str, asking.Question], named: bool) -> dict[str, Any]:
        self.check()
        if self.method not in spec.MAY_ASK:
            raise RuntimeError(f"A handler of {self.method} cannot ask; only tools, prompts and resources can")
        if self._thread != threading.get_ident():
            raise RuntimeError("Ask from the thread that runs the handler: on 2026-07-28 the question ends that run")
        answers: dict[str, Any] = self.asker.ask(self, questions, named)
        self.check()
        return answers

    def can(self, capability: str, detail: str | None = None) -> bool:
        """Say whether this client can be asked, as in `can("elicitation", "url")` or `can("sampling")`."""
        return asking.declared(self.capabilities, {capability: {detail: {}} if detail else {}})

    def extension(self, identifier: str) -> dict[str, Any] | None:
        """The client's settings for an extension both sides support on this request, or None."""
        offered = self.capabilities.get("extensions")
        settings = offered.get(identifier) if isinstance(offered, dict) else None
        return settings if isinstance(settings, dict) and identifier in self.server.extensions else None

    @property
    def flow(self) -> str:
        """An identifier of this call that stays the same through all its rounds: the idempotency key of its effects."""
        flow: str = self.asker.flow()
        return flow

    def check(self) -> None:
        """Return, unless the call was cancelled.

        :raises Cancelled: when it was; let it pass, it ends the call.
        """
        if self.cancelled.is_set():
            raise Cancelled

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Have a function called when the call is cancelled, at once if it already is."""
        self._on_cancel.append(callback)
        if self.cancelled.is_set():
            callback()

    def cancel(self, reason: Any = None) -> None:
        """Cancel the call: `cancelled` is set and the next progress, log or ask raises."""
        if self.cancelled is _NEVER:
            return
        log.info("%s %.100r cancelled: %.200r", self.method, self.request_id, reason)
        self.cancelled.set()
        for callback in list(self._on_cancel):
            callback()


# Stands in until a call begins; nobody sets it.
_NEVER = threading.Event()


def _no_stream(retry_ms: int | None = None) -> None:
    """Stands in for `close_stream` where there is no stream that a client could come back to."""
