"""Callbacks for the questions of a server: forms and pages for a person, a model's completion, and root folders.

The same three callbacks serve both eras; only the way of the question differs.

Spec: 26:client/elicitation, 26:client/sampling, 26:client/roots
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, Optional, Union

from ..engines.errors import InvalidArguments
from ..engines.schema.validator import NotSupported, Undecided, Validator, check_schema
from ..protocol import revisions, spec
from ..protocol.errors import InternalError, InvalidParams, McpError, MethodNotFound
from ..protocol.input_requests import check_members, check_message, check_pairs, required

log = logging.getLogger("minimcp")

Message = dict[str, Any]
Sample = Callable[[Message], Any]
Roots = Union[Iterable[Any], Callable[[], Iterable[Any]]]

_ACTIONS = ("accept", "decline", "cancel")


class Question(dict):  # type: ignore[type-arg]
    """The params of an elicitation, for the callback that puts it to a person.

    :ivar server: the server's own name for itself, not verified; show it. Spec: FEAT-200
    :ivar call: `{"method": str, "params": {...}}` of the call that the question came with, or None if that is unknown.
    """

    def __init__(self, params: Message, server: str, call: Optional[Message] = None) -> None:
        super().__init__(params)
        self["mode"] = self.get("mode") or "form"  # Spec: FEAT-183
        self.server = server
        self.call = call

    @property
    def message(self) -> str:
        """The server's text for the person: the request for data, or the reason to visit the page."""
        return str(self.get("message", ""))

    @property
    def url(self) -> Optional[str]:
        """The page to visit, or None for a form. Never fetch it, and open it only with consent. Spec: FEAT-212"""
        return self.get("url") if self["mode"] == "url" else None

    @property
    def fields(self) -> dict[str, Any]:
        """The form: field name to JSON Schema."""
        schema = self.get("requestedSchema")
        fields = schema.get("properties") if isinstance(schema, dict) else None
        found = fields.items() if isinstance(fields, dict) else ()
        return {name: field for name, field in found if isinstance(field, dict)}

    @property
    def defaults(self) -> dict[str, Any]:
        """The fields that have a default, with it; null is none. Spec: FEAT-192"""
        return {name: field["default"] for name, field in self.fields.items() if field.get("default") is not None}

    def check(self, content: dict[str, Any], only: Optional[str] = None) -> None:
        """Check an answer by the form as far as that can judge it. Spec: FEAT-195

        :param only: the one field to look at.
        :raises InvalidArguments: naming the field and what was expected there.
        """
        schema = self["requestedSchema"]
        if only is not None:
            schema = {**schema, "properties": {only: self.fields.get(only, True)}, "required": []}
        try:
            Validator(schema, "the form", foreign=True).check(content)
        except (Undecided, ValueError) as reason:
            log.warning("an answer to the server %.100r is not judged: %.300s", self.server, reason)


Elicit = Callable[[Question], Any]


class Answers:
    """The three callbacks, and the capabilities that the client declares because of them.

    :param elicit: gets a `Question`; returns the fields of a form as a dict (those left out take their defaults), True
        for consent to a page or to a form as it is, False or None to decline, "cancel" to dismiss it, or a whole
        ElicitResult.
    :param sample: gets the params of `sampling/createMessage`; returns text or a whole CreateMessageResult.
    :param sample_tools: whether `sample` can handle `tools` and `toolChoice`.
    :param roots: folders or `file://` URIs or `{"uri", "name"}` dicts, or a function that returns them.
    """

    def __init__(
        self,
        elicit: Elicit | None = None,
        sample: Sample | None = None,
        roots: Roots | None = None,
        sample_tools: bool = False,
    ) -> None:
        self._elicit = elicit
        self._sample = sample
        self._sample_tools = sample_tools
        self.roots = roots
        self._methods: dict[str, Callable[[Message, str, str, Optional[Message]], Message]] = {}
        if elicit is not None:
            self._methods["elicitation/create"] = self._answer_elicitation
        if sample is not None:
            self._methods["sampling/createMessage"] = self._answer_sampling
        if roots is not None:
            self._methods["roots/list"] = self._answer_roots

    def __bool__(self) -> bool:
        return bool(self._methods)

    def capabilities(self, version: str) -> Message:
        """Return the ClientCapabilities that these callbacks allow in a revision. Spec: FEAT-146, FEAT-155, FEAT-179"""
        found: Message = {}
        if self.roots is not None:
            found["roots"] = {"listChanged": True} if version in spec.LEGACY_VERSIONS else {}
        if self._sample is not None:
            found["sampling"] = {"tools": {}} if self._sample_tools else {}
        if self._elicit is not None:
            found["elicitation"] = {"form": {}, "url": {}}
        return revisions.declaration(version, found)

    def answer(
        self,
        method: str,
        params: Any,
        server: str,
        call: Optional[Message] = None,
        version: str = spec.MODERN_VERSIONS[-1],
    ) -> Message:
        """Return the result for a question; an exception of the callback passes through.

        :param server: the server's name for messages to people; `call` as in `Question`.
        :param version: the revision in force, which has its own questions and answers.
        :raises MethodNotFound: when there is no callback for it, or no such question in the revision. Spec: FEAT-150
        :raises InvalidParams: when the question is not well formed, or of a kind that was not declared.
        :raises InternalError: when the callback's answer does not fit the question.
        """
        handler, own = self._methods.get(method), self.capabilities(version)
        if handler is None or not required({"method": method}).keys() <= own.keys():
            raise MethodNotFound(f"Method not found: {method[:100]}")
        params = {} if params is None else params
        if not isinstance(params, dict) or not isinstance(params.get("mode") or "", str):
            raise InvalidParams("params must be an object, and its mode a string")
        ((name, parts),) = required({"method": method, "params": params}).items()
        # Context that a client has not offered is not an error: it may leave it out.
        parts = {part: {} for part in parts if part != "context"}
        if not revisions.declared(version, own, {name: parts}):
            raise InvalidParams(f"{name}.{', '.join(parts)} was not declared")  # Spec: FEAT-165, FEAT-181, FEAT-224
        return handler(params, version, server, call)

    def _answer_elicitation(self, params: Message, version: str, server: str, call: Optional[Message]) -> Message:
        question = Question(params, server, call)
        if question["mode"] == "url" and not isinstance(question.get("url"), str):
            raise InvalidParams("An elicitation of mode url needs a url")
        if question["mode"] == "form" and not isinstance(question.get("requestedSchema"), dict):
            raise InvalidParams("An elicitation of mode form needs a requestedSchema")
        if question["mode"] == "form":
            _check_form(question["requestedSchema"])
        assert self._elicit is not None
        return _elicit_result(question, self._elicit(question), version)

    def _answer_sampling(self, params: Message, version: str, server: str, call: Optional[Message]) -> Message:
        try:
            check_members("A sampling request", params, {"messages": list, "maxTokens": (int, float)})
            check_pairs(params["messages"])  # Spec: FEAT-170
        except ValueError as error:
            raise InvalidParams(str(error)) from None
        assert self._sample is not None
        reply = self._sample(params)
        if reply is None:
            raise McpError("The user rejected the sampling request", code=-1)  # Spec: FEAT-171
        if isinstance(reply, str):
            block = {"type": "text", "text": reply}
            return {"role": "assistant", "content": block, "model": "unknown", "stopReason": "endTurn"}
        try:
            check_message(reply)
            reply = {"model": "unknown", **{name: value for name, value in reply.items() if value is not None}}
            check_members("A model's answer", {"stopReason": "", **reply}, {"model": str, "stopReason": str})
        except ValueError as error:
            reason = f"sample= must return text, or a dict with role, content and model: {error}"
            raise InternalError(reason) from None
        return revisions.sampled(version, reply)

    def _answer_roots(self, params: Message, version: str, server: str, call: Optional[Message]) -> Message:
        found = self.roots() if callable(self.roots) else self.roots
        return {"roots": [revisions.part(version, _root(item)) for item in found or ()]}


def _check_form(schema: Message) -> None:
    """Refuse a form that is no schema; one by which nothing can be judged is put to the person all the same."""
    try:
        check_schema(schema, "requestedSchema", foreign=True)
    except NotSupported:
        pass
    except ValueError as problem:
        raise InvalidParams(str(problem)) from None


def _elicit_result(question: Question, reply: Any, version: str) -> Message:
    if reply is None or reply is False:
        return {"action": "decline"}
    if isinstance(reply, str) and reply in _ACTIONS:
        reply = {"action": reply}
    if _is_result(question, reply):
        if reply["action"] != "accept":
            return {"action": reply["action"]}
        reply = reply.get("content", {})
    if question["mode"] == "url":
        return {"action": "accept"}  # Spec: FEAT-194
    if reply is True:
        reply = {}
    if not isinstance(reply, dict):
        raise InternalError('elicit= must return a dict of fields, True, False, None, "accept", "decline" or "cancel"')
    fields = {**question.defaults, **reply}
    try:
        question.check(fields)  # Spec: FEAT-195
        revisions.check_fields(version, fields)
    except (InvalidArguments, ValueError) as error:
        raise InternalError(f"The answer does not fit the form: {error}") from None
    return {"action": "accept", "content": fields}


def _is_result(question: Question, reply: Any) -> bool:
    """Say whether the callback returned an ElicitResult rather than fields, one of which might be named action."""
    if not isinstance(reply, dict) or reply.get("action") not in _ACTIONS or "action" in question.fields:
        return False
    return reply.keys() <= {"action", "content", "_meta"}


def _root(item: Any) -> Message:
    """Make a Root of a folder's path, a `file://` URI or a ready dict. Spec: FEAT-148"""
    if isinstance(item, dict):
        uri = item.get("uri")
    else:
        from pathlib import Path

        text = os.fspath(item)
        uri = text if text.startswith("file://") else Path(text).resolve().as_uri()
        item = {"uri": uri}
    if not isinstance(uri, str) or not uri.startswith("file://"):
        raise InternalError(f"A root must be a folder or a file:// URI, not {str(uri)[:200]!r}")
    if not isinstance(item.get("name", ""), str):
        raise InternalError(f"The name of the root {uri[:200]!r} must be text")
    return dict(item)
