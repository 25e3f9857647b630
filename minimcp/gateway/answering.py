"""Questions of servers, put to the client on whose behalf they are asked; what a client can be asked is said by it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ..protocol import revisions
from ..protocol.errors import InternalError, McpError, MethodNotFound, ToolError
from ..protocol.input_requests import QUESTIONS, required
from ..server import asking, legacy
from ..server.context import Context

if TYPE_CHECKING:
    from ..server.session import Session
    from .upstream import Upstream

Message = dict[str, Any]

_PATIENCE_S = 5.0


def may_ask(ctx: Context) -> bool:
    """Say whether a client of 2026-07-28 can be asked anything, so that its call may have to be parked."""
    return ctx._era.name == "modern" and not ctx.capabilities.keys().isdisjoint(QUESTIONS.values())


def answer(upstream: Upstream, session: Session | None, request: Message) -> Message:
    """Put a question of a legacy server to the legacy client on whose behalf it was connected, and return its result.

    :raises McpError: when there is no such client, or it does not answer.
    """
    gateway = upstream.gateway
    if session is None and gateway.session is not None:
        # Its client may not be asked before it has said that it is ready. Spec: BASE-100
        gateway.initialized.wait(_PATIENCE_S)
        session = gateway.session
    if session is None or session.send is None or session.version is None or request["method"] not in QUESTIONS:
        raise MethodNotFound("Nobody can be asked that here")
    ctx = Context(gateway.engine, legacy.ERA, {"method": request["method"]}, session, session.principal, None)
    ctx.version, ctx.capabilities = session.version, session.capabilities
    ctx._send, ctx.cancelled = session.send, threading.Event()
    try:
        question = check_askable(ctx, upstream, request)
        id, future = session.ask(ctx, question)
        result: Message = asking.wait(ctx, id, future)
    except ToolError as problem:
        error = getattr(problem, "error", None)
        if isinstance(error, dict) and isinstance(error.get("code"), int):
            raise McpError(str(error.get("message")), error.get("data"), error["code"]) from None
        raise InternalError(str(problem)) from None
    return result


def _needed(question: Message) -> Message:
    needed = required(question)
    # Context that a client has not offered is not an error: it may leave it out.
    return {name: {part: {} for part in parts if part != "context"} for name, parts in needed.items()}


def check_askable(ctx: Context, upstream: Upstream, question: Any) -> Message:
    """Return a question as the client's revision has it, with public URIs.

    :raises ToolError: when the client did not say that it can answer it, naming what it lacks.
    """
    if not isinstance(question, dict) or question.get("method") not in QUESTIONS:
        raise ToolError("The server asked something that is not a question of the protocol")
    askable = ctx._era.name == "modern" or ctx._send is not None
    if not askable or not revisions.declared(ctx.version, ctx.capabilities, _needed(question)):
        raise ToolError(f"This client cannot be asked: it does not support {question['method']} here")
    params = question.get("params")
    asked: Message = dict(question)
    if isinstance(params, dict) and isinstance(params.get("messages"), list):
        asked["params"] = upstream.rewrite(params)
    if ctx._era.name == "modern":
        return asked
    lacking = revisions.unsayable(ctx.version, asked)
    if lacking:
        raise ToolError(f"This client cannot be asked: revision {ctx.version} does not have {lacking}")
    return revisions.question(ctx.version, asked)
