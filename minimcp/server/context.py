"""The context of a call: progress, log messages, questions to the client, cancellation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, Any, TypeVar

from ..engines.errors import InvalidArguments
from ..engines.schema import hints
from ..protocol import forms, revisions, spec, wire
from ..protocol.errors import Cancelled, ToolError
from ..protocol.input_requests import check
from . import asking, hooks
from .dispatcher import Call, RequestContext
from .habits import of_a_context

if TYPE_CHECKING:
    from ..protocol import types

T = TypeVar("T")

_TRACK_S = 0.1


class Context(RequestContext):
    """One call, as its handler sees it: the facts of the request, and the way back to the client.

    Everything about the caller is here and nowhere else; for a legacy session it is filled from the session.
    """

    __slots__ = ()

    if not TYPE_CHECKING:  # A type checker would take every name for one of these.

        def __getattr__(self, name: str) -> Any:
            """Say what is written here in place of a name of another kit."""
            raise AttributeError(of_a_context(name))

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
            params = revisions.known(self.version, params, revisions.PROGRESS_FIELDS_SINCE)
        self._emit("notifications/progress", params)

    def track(
        self, items: Iterable[T], total: float | None = None, message: Callable[[T], str] | str | None = None
    ) -> Iterator[T]:
        """Yield the items and report progress as they are done: `for row in ctx.track(rows):`.

        At most ten times a second the client is told how many are done; a second loop counts on from there.

        :param total: how many there are; by default their `len`, where they have one.
        :param message: the text beside the number, or a function that makes it of the item that comes.
        :raises Cancelled: when the call was cancelled.
        """
        if total is None and isinstance(items, Sized):
            total = len(items)
        done = before = self._last_progress or 0
        whole = None if total is None else before + total
        told = 0.0
        for item in items:
            now = time.monotonic()
            if now - told >= _TRACK_S:
                told = now
                self.progress(done, whole, message(item) if callable(message) else message)
            else:
                self.check()
            yield item
            done += 1
        if done > before:
            self.progress(done, whole, None if callable(message) else message)

    def log(self, level: str, data: Any, logger: str | None = None) -> None:
        """Send a log message, if the client wants this level. Spec: FEAT-101 to FEAT-112

        :param level: one of debug, info, notice, warning, error, critical, alert, emergency.
        :param data: any JSON value, or what a tool could return as one; never secrets or personal data.
        :raises Cancelled: when the call was cancelled.
        """
        if level not in spec.LOG_LEVELS:
            raise ValueError(f"{level!r} is not a log level; use one of {', '.join(spec.LOG_LEVELS)}")
        self.check()
        if self._log_level is None or spec.LOG_RANKS[level] < spec.LOG_RANKS[self._log_level]:
            return
        params = {"level": level, "data": hints.to_json(data)}
        if logger is not None:
            params["logger"] = logger
        self._emit("notifications/message", params)

    def _emit(self, method: str, params: dict[str, Any]) -> None:
        """Send a notification that belongs to this call, while the call runs."""
        if self._send is not None and not self._finished and not self.cancelled.is_set():
            self._send(wire.notification(method, params))

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
        """Ask the client's model to write a message; `.text` of the answer is its text.

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
        :raises ValueError: or TypeError, for a question that is none.
        """
        if not questions:
            raise TypeError("ask() needs at least one question: ask(name=elicitation(...))")
        return self._ask({key: check(question) for key, question in questions.items()}, named=True)

    def _ask(self, questions: dict[str, asking.Question], named: bool) -> dict[str, Any]:
        self.check()
        if not self._row.may_ask:
            raise RuntimeError(f"A handler of {self.method} cannot ask; tools, prompts and resources can")
        if self._thread != threading.get_ident():
            raise RuntimeError("Ask from the thread that runs the handler: on 2026-07-28 the question ends that run")
        answers = self._chosen().ask(self, questions, named)
        self.check()
        return answers

    def can(self, capability: str, detail: str | None = None) -> bool:
        """Say whether this client can be asked, as in `can("elicitation", "url")` or `can("sampling")`."""
        return revisions.declared(self.version, self.capabilities, {capability: {detail: {}} if detail else {}})

    def extension(self, identifier: str) -> dict[str, Any] | None:
        """Return the client's settings for an extension that both sides support on this request, or None."""
        offered = self.capabilities.get("extensions")
        settings = offered.get(identifier) if isinstance(offered, dict) else None
        return settings if isinstance(settings, dict) and identifier in self._engine.in_force[self._era.name] else None

    @property
    def app(self) -> Any:
        """The value that the context manager of `Server(lifespan=...)` gave in this process, such as a pool.

        :raises RuntimeError: when the server has none.
        """
        if self._lifespan is None:
            raise RuntimeError("This server keeps nothing open: ctx.app is what Server(lifespan=...) yields")
        return self._lifespan.enter()

    @property
    def idempotency_key(self) -> str:
        """A string that is the same in all rounds of this call: keep it with an effect that must happen once."""
        return self._chosen().key()

    def task(self, work: Callable[..., object], /, *arguments: object, **named: object) -> Any:
        """Go on in a task: `return ctx.task(work, ...)` answers the client, and `work` runs on.

        A parameter of `work` that is annotated Context gets the task's own. A client without tasks gets the result.
        A function at the top of the tool's module, with arguments of JSON, survives a restart, or runs elsewhere; any
        other one ends with this process, and its task then says so.

        :raises RuntimeError: when the server has no tasks.
        """
        tasks = self._engine.tasks
        if tasks is None:
            raise RuntimeError("This server has no tasks: write server.use(Tasks()) before it serves")
        return tasks.hand_over(self, work, arguments, named)

    def _chosen(self) -> asking.Strategy:
        if self._strategy is None:
            self._strategy = self._engine.choose_strategy(self)
        return self._strategy

    def check(self) -> None:
        """Raise Cancelled when the call was cancelled.

        :raises Cancelled: when it was; let it pass, it ends the call.
        """
        if self.cancelled.is_set():
            raise Cancelled

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Have a function called when the call is cancelled, at once if it already is."""
        self._on_cancel.append(callback)
        if self.cancelled.is_set():
            hooks.notify_once(self._on_cancel)

    def detach(
        self, handler: Callable[[Context, dict[str, Any]], Any], strategy: asking.Strategy | None = None
    ) -> Call:
        """Return a Call that goes on with this request after it has been answered, on any thread.

        `call.run(send)` calls `handler(ctx, params)` with a Context of its own and returns the reply that it would have
        had; `call.cancel()` cancels it. The caller delivers the reply; `send` takes what the handler emits.

        :param strategy: carries its questions; by default the way that was chosen for this request.
        """
        import copy

        later = copy.copy(self)
        later._finished, later._error, later._asked, later._on_cancel = False, None, 0, []
        later._strategy = strategy or self._strategy
        return Call(later, handler=handler)
