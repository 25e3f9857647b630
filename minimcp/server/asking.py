"""Questions to the client, their answers, and the strategies that carry them.

A question is a dict `{"method": "elicitation/create" | "sampling/createMessage" | "roots/list", "params": {...}}`.
`Block` serves the legacy era: it sends the question as a request and waits. `Replay` serves the modern era: it ends the
call with the question as its result, and the client's retry runs the handler again. `Server(strategy=f)` chooses
another one for a call or an entry. Spec: 26:basic/patterns/mrtr, 11:client/elicitation
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import TYPE_CHECKING, Any, Protocol

from ..engines.errors import InvalidArguments
from ..engines.schema import validator
from ..protocol import forms, revisions
from ..protocol.errors import InputRequired, InternalError, InvalidParams, MissingCapability, ToolError
from ..protocol.input_requests import blocks, check, check_members, required
from ..protocol.principal import key_of
from ..protocol.revisions import declared
from .seal import MAX_TOKEN, BadSeal, Sealer, digest

if TYPE_CHECKING:
    from .catalog import Entry
    from .context import Context

log = logging.getLogger("minimcp")

Question = dict[str, Any]

MAX_ROUNDS = 10
STATE_LIFETIME_S = 600.0
REFUSED = "The request state is not valid for this request; start again without it"


class Strategy(Protocol):
    """The way in which the questions of one call reach the client."""

    def ask(self, ctx: Context, questions: dict[str, Question], named: bool) -> dict[str, Any]:
        """Return `{key: answer}`, each answer as `read` makes it, or raise an exception that ends the call.

        :param named: whether the handler's author chose the keys; others are q1, q2, ... in order of asking.
        """
        ...

    def key(self) -> str:
        """Return a string that is the same in all rounds of one call."""
        ...


# Chooses the strategy of a call, whose entry is None for a method of an extension; None leaves it to the era.
Choose = Callable[["Context", "Entry | None"], "Strategy | None"]


class Answer(dict):  # type: ignore[type-arg]
    """The answer to a form: its fields as a dict, true only when the person accepted.

    :ivar action: "accept", "decline" or "cancel".
    """

    def __init__(self, fields: dict[str, Any], action: str) -> None:
        super().__init__(fields)
        self.action = action

    def __bool__(self) -> bool:
        return self.action == "accept"

    def __missing__(self, key: str) -> Any:
        if self:
            raise KeyError(key)
        raise ToolError(f"No answer was given for {key!r}: the user chose to {self.action}")


class Sample(dict):  # type: ignore[type-arg]
    """The answer of the client's model: a CreateMessageResult, and its text."""

    @property
    def text(self) -> str:
        """Join the text blocks of the message."""
        return "".join(block["text"] for block in blocks(self) if block.get("type") == "text")


def elicitation(message: str, fields: Any) -> Question:
    """Build a form question.

    :param fields: `{"nights": int, "breakfast": (bool, False)}`, a dataclass or TypedDict, or a ready schema.
    """
    form, _ = forms.form(fields)
    check_members("An elicitation", {"message": message}, {"message": str})
    return {"method": "elicitation/create", "params": {"mode": "form", "message": message, "requestedSchema": form}}


def url_elicitation(message: str, url: str) -> Question:
    """Build a question that is answered on a web page.

    :raises ValueError: unless the URL is one of http or https.
    """
    params = {"mode": "url", "message": message, "url": url}
    return check({"method": "elicitation/create", "params": params})


def sampling(messages: str | list[dict[str, Any]], max_tokens: int, **options: Any) -> Question:
    """Build a question to the client's model.

    :param options: further members of the params under the specification's names, None for absent.
    :raises ValueError: for messages or options that are not the specification's.
    """
    if isinstance(messages, str):
        messages = [{"role": "user", "content": {"type": "text", "text": messages}}]
    params = {"messages": messages, "maxTokens": max_tokens}
    params.update({name: value for name, value in options.items() if value is not None})
    return check({"method": "sampling/createMessage", "params": params})


def roots() -> Question:
    """Build the question for the client's roots."""
    return {"method": "roots/list"}


def read(question: Question, answer: Any) -> Any:
    """Check a client's answer to a question and convert it for the handler.

    :raises InvalidArguments: when the answer is not one to this question. Spec: FEAT-196
    """
    if not isinstance(answer, dict):
        raise InvalidArguments("an answer must be an object")
    if question["method"] == "roots/list":
        return _read_roots(answer)
    if question["method"] == "sampling/createMessage":
        if answer.get("role") not in ("user", "assistant") or not isinstance(answer.get("content"), (dict, list)):
            raise InvalidArguments("a sampling answer must have a role and content")
        return Sample(answer)
    action = answer.get("action")
    if action not in ("accept", "decline", "cancel"):
        raise InvalidArguments('an elicitation answer must have the action "accept", "decline" or "cancel"')
    if action != "accept" or question["params"].get("mode") == "url":
        return Answer({}, action)
    fields = answer.get("content")
    if not isinstance(fields, dict):
        raise InvalidArguments("an accepted form must have content")
    validator.Validator(question["params"]["requestedSchema"]).check(fields)
    return Answer(fields, action)


def check_declared(ctx: Context, questions: dict[str, Question]) -> None:
    """Refuse questions whose capabilities the request did not declare.

    :raises MissingCapability: naming them all.
    """
    needed: dict[str, Any] = {}
    for question in questions.values():
        if not declared(ctx.version, ctx.capabilities, required(question)):
            for name, details in required(question).items():
                needed.setdefault(name, {}).update(details)
    if needed:
        raise MissingCapability("The client did not declare a capability this call needs", needed)


def _read_roots(answer: dict[str, Any]) -> list[dict[str, Any]]:
    found = answer.get("roots")
    if not isinstance(found, list):
        raise InvalidArguments("a roots answer must have a list of roots")
    for root in found:
        if not isinstance(root, dict) or not str(root.get("uri", "")).startswith("file://"):
            raise InvalidArguments("a root must have a file:// URI")
    return found


class Block:
    """Sends each question on the call's own stream and waits for the answers."""

    def ask(self, ctx: Context, questions: dict[str, Question], named: bool) -> dict[str, Any]:
        """Ask and wait.

        :raises ToolError: when the client cannot be asked, refuses, answers nonsense, or not at all.
        """
        missing = [each for each in questions.values() if not declared(ctx.version, ctx.capabilities, required(each))]
        if missing or ctx._send is None or ctx.session is None:
            names = ", ".join(sorted({question["method"] for question in missing or questions.values()}))
            raise ToolError(f"This client cannot be asked: it does not support {names} here")
        for lacking in filter(None, (revisions.unsayable(ctx.version, question) for question in questions.values())):
            raise ToolError(f"This client cannot be asked: revision {ctx.version} does not have {lacking}")
        pending = {key: ctx.session.ask(ctx, revisions.question(ctx.version, each)) for key, each in questions.items()}
        answers = {}
        for key, (id, future) in pending.items():
            try:
                answers[key] = read(questions[key], wait(ctx, id, future))
            except InvalidArguments as error:
                raise ToolError(f"The client's answer does not fit the question: {error}") from None
        return answers

    def key(self) -> str:
        """Return a unique string: a legacy call runs once."""
        return os.urandom(12).hex()


def wait(ctx: Context, id: str, future: Future[Any]) -> Any:
    """Return the answer to a question that was sent by `Session.ask`.

    :raises ToolError: when that takes too long, or nobody has read the stream for a while on which it was asked.
    """
    limits = ctx._engine.limits
    until = time.monotonic() + limits["ask_s"]
    while True:
        left_s = until - time.monotonic()
        try:
            return future.result(max(0.0, min(left_s, limits["unread_s"])))
        except FutureTimeout:
            if left_s <= limits["unread_s"] or ctx._unread_s() >= limits["unread_s"]:
                ctx.session.give_up(ctx, id)
                raise ToolError("The client did not answer in time") from None


class Replay:
    """Ends the call with its questions; the answers come with the retry, bound to a signed state.

    The state holds a fingerprint of the request and of the principal, its expiry, the round, the key, the answers so
    far and a fingerprint of each open question. An answer counts when the state asked for it; without a state only
    under a key that the handler's author named, since that key says which question is meant.
    Spec: BASE-175 to BASE-187
    """

    def __init__(self, ctx: Context, sealer: Sealer) -> None:
        self._sealer = sealer
        self._key: str | None = None
        self._round = 0
        self._known: dict[str, list[Any]] = {}
        self._open: dict[str, str] = {}
        params = ctx.params
        self._bound = [
            digest([ctx.method, params.get("name"), params.get("uri"), params.get("arguments")]),
            key_of(ctx.principal),
        ]
        self._responses = params.get("inputResponses", {})
        if not isinstance(self._responses, dict):
            raise InvalidParams("inputResponses must be an object")
        self._stateless = "requestState" not in params
        if not self._stateless:
            self._restore(params["requestState"])

    def _restore(self, token: Any) -> None:
        try:
            state = self._sealer.unseal("state", token)
            if state["for"] != self._bound:
                raise BadSeal("it belongs to another request or principal")
        except BadSeal as error:
            log.warning("requestState refused: %s", error)
            raise InvalidParams(REFUSED) from None
        self._key, self._round = state["flow"], state["round"]
        self._known, self._open = state["known"], state["open"]

    def ask(self, ctx: Context, questions: dict[str, Question], named: bool) -> dict[str, Any]:
        """Return the answers when all are there; otherwise end the call with those that are missing.

        :raises InputRequired: to end this run with the questions.
        :raises MissingCapability: when this request did not declare what a question needs.
        :raises InvalidParams: when an answer does not fit its question.
        """
        check_declared(ctx, questions)
        answers: dict[str, Any] = {}
        missing: dict[str, Question] = {}
        for key, question in questions.items():
            mark = digest(question)
            found = self._find(key, mark, named)
            if found is None:
                missing[key] = question
                continue
            try:
                answers[key] = read(question, found[0])
            except InvalidArguments as error:
                raise InvalidParams(f"inputResponses[{key!r}] is not an answer to what was asked: {error}") from None
            self._known[key] = [mark, found[0]]
        if missing:
            raise InputRequired(missing, self._state(missing))
        return answers

    def _find(self, key: str, mark: str, named: bool) -> list[Any] | None:
        """Return the raw answer to a question, in a list, since an answer may be any JSON value; None without one."""
        known = self._known.get(key)
        if known is not None and known[0] == mark:
            return [known[1]]
        asked = self._open.get(key) == mark or (self._stateless and named)
        return [self._responses[key]] if asked and key in self._responses else None

    def _state(self, missing: dict[str, Question]) -> str:
        if self._round >= MAX_ROUNDS:
            log.error("a handler asked in more than %d rounds; does its question change every time?", MAX_ROUNDS)
            raise InternalError(f"The call needed more than {MAX_ROUNDS} rounds of questions")
        payload = {
            "for": self._bound,
            "round": self._round + 1,
            "flow": self.key(),
            "known": self._known,
            "open": {key: digest(question) for key, question in missing.items()},
        }
        state = self._sealer.seal("state", payload, STATE_LIFETIME_S)
        if len(state) > MAX_TOKEN:
            raise InvalidParams("The answers are too large to be kept until the next round")
        return state

    def key(self) -> str:
        """Return a string that stays the same through all rounds of one call."""
        if self._key is None:
            self._key = os.urandom(12).hex()
        return self._key
