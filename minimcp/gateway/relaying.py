"""One request on its way through the gateway: to a server of either era for a client of either era, and back.

Parsed dicts go through as they came. Only names, URIs and what belongs to a connection change: the `_meta` members that
name the client, progress tokens, and the form in which questions are asked.

Spec: BASE-016, BASE-142, 26:basic/patterns/mrtr
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from ..client.connection import Reply
from ..client.errors import RemoteError
from ..engines.errors import ProtocolError
from ..monitoring.propagation import trace_headers
from ..protocol import revisions, spec, wire
from ..protocol.errors import ClientRefused, InternalError, McpError, MethodNotFound, ToolError
from ..protocol.input_requests import QUESTIONS
from ..server import asking
from . import answering
from .parked import ParkedCall

if TYPE_CHECKING:
    from ..server.context import Context
    from .entries import RelayedEntry
    from .leases import Lease
    from .upstream import Upstream

Message = dict[str, Any]

CHANGE_NOTIFICATIONS = {"notifications/resources/updated", *(name for name, _ in spec.CHANGES.values())}

MAX_ROUNDS = 10
# The member of the `_meta` of `server/discover` by which gateways know each other.
META_GATEWAYS = "minimcp/gateways"
# Members of `_meta` that belong to a connection, or to one hop of a request.
_OF_A_HOP = {
    spec.META_VERSION,
    spec.META_CAPABILITIES,
    spec.META_CLIENT,
    spec.META_LOG_LEVEL,
    spec.META_SERVER,
    spec.META_SUBSCRIPTION,
}


class Relay:
    """A request to one server over one connection.

    :param params: the params as the server gets them, but for its `_meta`.
    :param entry: the entry that the request is for, or None.
    :param alive: called when a message shows that the server is at work on it.
    :ivar asked: the call that a modern client's retries come back to, where a legacy server may ask.
    """

    def __init__(
        self,
        upstream: Upstream,
        lease: Lease,
        ctx: Context,
        method: str,
        params: Message,
        entry: RelayedEntry | None,
        alive: Callable[[], None],
    ) -> None:
        self._alive = alive
        self.upstream = upstream
        self.lease = lease
        self.ctx = ctx
        self.method = method
        self.params = params
        self.tool = entry.original if entry is not None and entry.headers else None
        self.asked: Optional[ParkedCall] = None

    def run(self) -> Message:
        """Send the request and return what the client gets for it.

        :raises ClientError: when the server does not answer, or with an error.
        """
        ctx, modern = self.ctx, self.lease.is_modern
        self.lease.begin(ctx)
        try:
            if modern and ctx._era.name == "modern":
                return self._send(self.params)
            if modern:
                return self._answering()
            self.lease.set_level(ctx._log_level, self.upstream.settings.sessions == "own" and ctx.session is not None)
            return self._send(self.params)
        finally:
            self.lease.end(ctx)

    def _send(self, params: Message) -> Message:
        ctx, settings = self.ctx, self.upstream.settings
        start = self.asked.on_start if self.asked is not None else ctx.on_cancel
        headers = self.upstream.credentials.headers_for(ctx.request) if settings.forward_headers else {}
        if "traceparent" in ctx.meta:
            headers = {**headers, **trace_headers(ctx.meta)}
        return self.lease.client.exchange(
            self.method,
            params,
            meta=self._meta(),
            on_message=self._take,
            timeout=settings.timeout_s,
            headers=headers,
            on_start=start,
            tool=self.tool,
        )

    def _meta(self) -> Message:
        """Return the `_meta` of the request: the client's, with what this hop says of it."""
        ctx = self.ctx
        if self.lease.is_modern:
            meta = dict(ctx.meta)
            meta[spec.META_CAPABILITIES] = ctx.capabilities
            if ctx._era.name != "modern":
                if ctx.client_info:
                    meta[spec.META_CLIENT] = ctx.client_info
                if ctx._log_level is not None:
                    meta[spec.META_LOG_LEVEL] = ctx._log_level
            return meta
        return {name: value for name, value in ctx.meta.items() if name not in _OF_A_HOP}

    def _answering(self) -> Message:
        """Send the request as often as a modern server has questions, which a legacy client is asked meanwhile."""
        params = self.params
        for _ in range(MAX_ROUNDS + 1):
            result = self._send(params)
            if result.get("resultType", "complete") != "input_required":
                return result
            questions = result.get("inputRequests")
            more: Message = {}
            if isinstance(questions, dict):
                more["inputResponses"] = self._ask_all(questions)
            if "requestState" in result:
                more["requestState"] = result["requestState"]
            params = {**self.params, **more}
        raise ProtocolError(f"The server asked for input more than {MAX_ROUNDS} times in one call")

    def _ask_all(self, questions: Message) -> Message:
        """Ask a legacy client all questions of a round."""
        futures = {}
        for key, question in questions.items():
            futures[key] = self.ctx.session.ask(self.ctx, answering.check_askable(self.ctx, self.upstream, question))
        answers = {}
        for key, (id, future) in futures.items():
            answers[key] = asking.wait(self.ctx, id, future)
        return answers

    # Messages of the server that come before the answer

    def _take(self, message: Message, reply: Optional[Reply]) -> None:
        self._alive()
        if reply is not None:
            try:
                reply(self._answer(message))
            except McpError as problem:
                reply(wire.error(None, problem))
            except ClientRefused as problem:
                reply({"error": problem.error})
            except ToolError as problem:
                reply(wire.error(None, InternalError(str(problem))))
            return
        ctx = self.asked.ctx if self.asked is not None else self.ctx
        method, params = message["method"], message.get("params")
        if method in CHANGE_NOTIFICATIONS:
            # Of these the gateway makes its own notices, see `federation`.
            self.upstream.take_notice(message)
        elif method == "notifications/progress" and isinstance(params, dict):
            token = ctx.meta.get("progressToken")
            if token is not None:
                params = revisions.known(ctx.version, params, revisions.PROGRESS_FIELDS_SINCE)
                ctx._emit(method, {**params, "progressToken": token})
        elif method == "notifications/message" and isinstance(params, dict):
            pass_log(ctx, params)
        elif method != "notifications/cancelled":
            ctx._emit(method, params if isinstance(params, dict) else {})

    def _answer(self, request: Message) -> Message:
        """Answer a request of a legacy server: with what the client says to it."""
        method = request["method"]
        if method == "ping":
            return {"result": {}}
        question: Message = {name: request[name] for name in ("method", "params") if name in request}
        if method not in QUESTIONS:
            raise MethodNotFound(f"Method not found: {method[:100]}")
        if self.asked is None and self.ctx._send is None:
            # What is answered without a stream can carry no question; the session may have a stream of its own.
            return {"result": answering.answer(self.upstream, self.ctx.session, request)}
        question = answering.check_askable(self.ctx, self.upstream, question)
        if self.asked is not None:
            answer = self.asked.ask(question, self.upstream.gateway.parked.seconds)
            if answer is None:
                raise InternalError("The client did not answer in time")
            return {"result": answer}
        session = self.ctx.session
        if session is None or self.ctx._era.name == "modern":
            raise MethodNotFound("This client cannot be asked")
        id, future = session.ask(self.ctx, question)
        return {"result": asking.wait(self.ctx, id, future)}


def pass_log(ctx: Context, params: Message) -> None:
    """Pass a log message on to a client that wants its level."""
    wanted = ctx._log_level
    if wanted is not None and spec.LOG_RANKS.get(str(params.get("level")), 0) >= spec.LOG_RANKS[wanted]:
        ctx._emit("notifications/message", params)


def written(upstream: Upstream, lease: Lease, ctx: Context, result: Message) -> Message:
    """Return a result as the client's revision has it, with public URIs; all else stays as it came."""
    meta = result.get("_meta")
    if isinstance(meta, dict) and spec.META_SERVER in meta:
        rest = {name: value for name, value in meta.items() if name != spec.META_SERVER}
        result = {name: value for name, value in result.items() if name != "_meta"}
        if rest:
            result["_meta"] = rest
    result = upstream.rewrite(result)
    if isinstance(result.get("result"), dict):
        # That of a task which has ended.
        result = {**result, "result": upstream.rewrite(result["result"])}
    if ctx._era.name == "modern":
        if result.get("cacheScope") == "public" and not upstream.settings.trusted:
            ctx.private = True  # shared caches are not filled by the word of a server that is not trusted
        return result
    if lease.client.protocol_version == ctx.version:
        return result
    result = {name: value for name, value in result.items() if name not in ("resultType", "ttlMs", "cacheScope")}
    return ctx._era.write_envelope(ctx, result)


def pages_of(error: RemoteError) -> Message | None:
    """Return the questions of a 2025-11-25 server that wants pages visited before the call, `{key: question}`."""
    pages = error.data.get("elicitations") if isinstance(error.data, dict) else None
    if error.code != spec.URL_ELICITATION_REQUIRED or not isinstance(pages, list) or not 0 < len(pages) <= MAX_ROUNDS:
        return None
    return {
        f"page{number}": {"method": "elicitation/create", "params": {"mode": "url", **page}}
        for number, page in enumerate(pages, 1)
        if isinstance(page, dict)
    }
