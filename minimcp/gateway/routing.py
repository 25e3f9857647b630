"""The way of a request to one of a server's replicas: the choice, the repetition, and the answer to a failure."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Optional

from ..client.errors import CallCancelled, RemoteError
from ..engines.errors import ClientError, Timeout
from ..protocol import spec
from ..protocol.content import Raw
from ..protocol.errors import Cancelled, InternalError, InvalidParams, McpError, ResourceNotFound, ToolError
from . import answering, relaying
from .failures import UpstreamUnavailable, fate, may_have_run, may_repeat, verdict
from .replicas import ReplicaCall, choose

if TYPE_CHECKING:
    from ..server.context import Context
    from .entries import RelayedEntry
    from .leases import Replica
    from .parked import ParkedCall
    from .upstream import Upstream

log = logging.getLogger("minimcp")

Message = dict[str, Any]

# Members of the params that one hop adds.
_OF_A_HOP = ("_meta", "requestState", "inputResponses")


class Routing:
    """Sends requests to the replicas of one server."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._gateway = upstream.gateway

    def call(
        self,
        ctx: Context,
        method: str,
        params: Message,
        entry: RelayedEntry | None = None,
        replica: str | None = None,
    ) -> Raw:
        """Relay a request and return its result, which may be a question to the client.

        :param params: those of the client with the server's own name or URI.
        :param replica: the name of the replica that has what the request is about.
        :raises McpError: the server's own error, or one that says whether it may have run the request.
        """
        sent = {name: value for name, value in params.items() if name not in _OF_A_HOP}
        _check_answers(params)
        state = {"replica": replica} if replica is not None else self._gateway.states.open(ctx)
        if "parked" in state:
            if state.get("at") != self._gateway.peer_url:
                return self._gateway.forward(ctx, state.get("at"))
            return Raw(self._finish(ctx, self._gateway.parked.resume(ctx, state["parked"])))
        if state.get("again"):
            _check_visited(params.get("inputResponses"))
        elif "inputResponses" in params:
            sent["inputResponses"] = params["inputResponses"]
        if "state" in state:
            sent["requestState"] = state["state"]
        definition = entry.original if entry is not None else {}
        tried: list[Replica] = []
        again = False
        while True:
            turn: Optional[ReplicaCall[Replica]] = None
            try:
                # First a slot, so that a call which waits for one holds no replica.
                self._upstream.slots.take(self._upstream.settings.timeout_s, ctx.on_cancel)
                try:
                    turn = self._choose(ctx, state, tried)
                except BaseException:
                    self._upstream.slots.release()
                    raise
                return Raw(self._send(ctx, turn, method, sent, entry))
            except CallCancelled:
                raise Cancelled from None
            except UpstreamUnavailable as problem:
                raise problem.answer(ctx.version) from None
            except RemoteError as problem:
                if problem.code == spec.HEADER_MISMATCH and not again and self._relists():
                    # The tool is no longer the one that was listed, and it was not run. Spec: TRN-092
                    again = True
                    if entry is not None and entry.kind == "tools":
                        entry = self._upstream.named(entry.original["name"]) or entry
                    continue
                pages = relaying.pages_of(problem) if ctx._era.name == "modern" else None
                if pages:
                    sealed = self._gateway.states.seal(ctx, {"again": True})
                    return Raw(resultType="input_required", inputRequests=pages, requestState=sealed)
                raise self._answered(problem, method) from None
            except ClientError as problem:
                if turn is not None and self._repeats(problem, turn.replica, tried, method, definition):
                    tried.append(turn.replica)
                    continue
                raise self._failed(problem, ctx) from None

    def _answered(self, problem: RemoteError, method: str) -> McpError:
        """Return the server's own error; that of a missing resource has another code in each era."""
        data = problem.data
        missing = method == "resources/read" and isinstance(data, dict) and isinstance(data.get("uri"), str)
        if missing and problem.code in (spec.INVALID_PARAMS, spec.RESOURCE_NOT_FOUND):
            return ResourceNotFound(problem.message, {**data, "uri": self._upstream.public_uri(data["uri"])})
        return McpError(problem.message, data, problem.code)

    def _relists(self) -> bool:
        """List the server again, and say whether that worked."""
        try:
            self._upstream.refresh()
        except ClientError:
            return False
        return True

    def _repeats(
        self, problem: ClientError, replica: Replica, tried: list[Replica], method: str, definition: Message
    ) -> bool:
        """Say whether a request goes out again: once more to each other replica, or once to the only one."""
        if len(tried) >= max(1, len(self._upstream.replicas) - 1):
            return False
        return may_repeat(problem, method, definition, self._upstream.settings.trusted)

    def _choose(self, ctx: Context, state: Message, tried: list[Replica]) -> ReplicaCall[Replica]:
        """Begin a call on the replica where its state or session is, or on the one with the least to do."""
        kept, replicas = None, self._upstream.replicas
        if len(replicas) > 1 and not tried:
            name = state.get("replica")
            kept = next((each for each in replicas if each.name == name or (not name and each.has(ctx))), None)
            if kept is not None and not name and kept.health.state != "closed":
                # Its session is lost to the caller as long as it does not answer; another one begins elsewhere.
                kept = None
        if kept is not None and kept.health.usable:
            return choose([kept], (), False, self._upstream.settings.name)
        fail_fast = len(replicas) > 1 or not self._upstream.credentials.per_principal
        return choose(replicas, tried if len(replicas) > 1 else (), fail_fast, self._upstream.settings.name)

    def _send(
        self, ctx: Context, turn: ReplicaCall[Replica], method: str, sent: Message, entry: RelayedEntry | None
    ) -> Message:
        replica, parked = turn.replica, False
        try:
            with self._upstream.credentials.acting(ctx.principal, ctx.request):
                lease = replica.lease(ctx)
                request = relaying.Relay(self._upstream, lease, ctx, method, sent, entry, turn.alive)
                if lease.is_modern or not answering.may_ask(ctx):
                    result = self._exchange(replica, request)
                    turn.end(True)
                    return result

            def work(call: ParkedCall) -> Message:
                request.asked = call
                try:
                    with turn, self._upstream.credentials.acting(ctx.principal, ctx.request):
                        return self._exchange(replica, request)
                finally:
                    self._upstream.slots.release()

            call = self._gateway.parked.start(ctx, work)
            parked = True
        except BaseException as problem:
            turn.end(verdict(problem, self._upstream.credentials.per_principal), problem)
            raise
        finally:
            if not parked:
                self._upstream.slots.release()
        return self._finish(ctx, call)

    def _finish(self, ctx: Context, call: ParkedCall) -> Message:
        return self._gateway.parked.finish(ctx, call, lambda key: self._seal_parked(ctx, key))

    def _seal_parked(self, ctx: Context, key: str) -> str:
        return self._gateway.states.seal(ctx, {"parked": key, "at": self._gateway.peer_url})

    def _exchange(self, replica: Replica, request: relaying.Relay) -> Message:
        result = relaying.written(self._upstream, request.lease, request.ctx, request.run())
        if result.get("resultType") == "input_required" and "requestState" in result:
            state = {"state": result["requestState"], "replica": replica.name}
            result = {**result, "requestState": self._gateway.states.seal(request.ctx, state)}
        elif result.get("resultType") == "task" and isinstance(result.get("taskId"), str):
            result = self._gateway.relayed_tasks.public(request.ctx, self._upstream.settings.name, replica.name, result)
        return result

    def _failed(self, problem: ClientError, ctx: Context) -> McpError:
        """Return the error for a client whose request got no answer."""
        name = self._upstream.settings.name
        log.warning("%s: %.1000s", name, problem)
        reason = f"The server {name!r} gave no answer ({type(problem).__name__})"
        data: Message = {"server": name, "mayHaveRun": may_have_run(problem)}
        if isinstance(problem, Timeout):
            data["timedOut"] = True
        return InternalError(f"{reason}; {fate(problem)}", data)


def _check_answers(params: Message) -> None:
    """Refuse answers of another form than the protocol's, which no server has to look at.

    :raises InvalidParams: for these.
    """
    found = params.get("inputResponses", {})
    if not isinstance(found, dict) or not all(isinstance(each, dict) for each in found.values()):
        raise InvalidParams("inputResponses must be an object of answers")


def _check_visited(answers: Any) -> None:
    """Refuse to go on when the person did not consent to a page that the server wants visited.

    :raises ToolError: for the model to read.
    """
    found = list(answers.values()) if isinstance(answers, dict) else []
    if not found or not all(isinstance(each, dict) and each.get("action") == "accept" for each in found):
        raise ToolError("The user did not agree to visit the page that this needs")
