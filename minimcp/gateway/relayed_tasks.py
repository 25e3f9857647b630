"""Tasks of the servers: their ids leave sealed, so that a caller comes back to the server and replica of its own task.

Spec: EXT-028 to EXT-048
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..protocol import spec
from ..protocol.content import Raw
from ..protocol.errors import InvalidParams, MethodNotFound, MissingCapability
from ..protocol.principal import key_of
from ..server.methods import read_text
from ..server.seal import BadSeal

if TYPE_CHECKING:
    from ..server.context import Context
    from ..server.engine import Engine
    from .gateway import Gateway

Message = dict[str, Any]

# For as long as a server may keep a task.
_LIFETIME_S = 30 * 86400.0


class RelayedTasks:
    """The methods `tasks/get`, `tasks/update` and `tasks/cancel` of a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._own: dict[str, Any] = {}  # the handlers of the gateway's own tasks, if it has some

    def install(self, engine: Engine) -> None:
        """Put the methods into an engine, around those of tasks of its own."""
        rows = engine.methods["modern"]
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            row = rows.get(method, spec.METHODS[method])
            if row.handler != self._relay:
                self._own[method] = row.handler
                rows[method] = row._replace(handler=self._relay, interactive=True)

    def public(self, ctx: Context, server: str, replica: str, result: Message) -> Message:
        """Return a result that is a task with the id that its caller gets."""
        payload = {"server": server, "replica": replica, "task": result["taskId"], "for": key_of(ctx.principal)}
        return {**result, "taskId": self._gateway.engine.sealer.seal("task", payload, _LIFETIME_S)}

    def _relay(self, ctx: Context, params: Message) -> Raw:
        """Relay a request about a task.

        :raises InvalidParams: for a task that is not this caller's, as for an unknown one.
        """
        if spec.TASKS not in ctx._engine.extensions:
            raise MethodNotFound(f"Method not found: {ctx.method}")
        if ctx.extension(spec.TASKS) is None:
            raise MissingCapability("The client did not declare the tasks extension", {"extensions": {spec.TASKS: {}}})
        id = read_text(params, "taskId")
        try:
            found = self._gateway.engine.sealer.unseal("task", id)
        except BadSeal:
            own = self._own[ctx.method]
            if own is not None:
                return own(ctx, params)  # type: ignore[no-any-return]
            found = {}
        upstream = self._gateway.upstreams.get(found.get("server", ""))
        if upstream is None or found["for"] != key_of(ctx.principal):
            raise InvalidParams("Unknown task")
        result = upstream.call(ctx, ctx.method, {**params, "taskId": found["task"]}, replica=found["replica"])
        return Raw({**result, "taskId": id}) if "taskId" in result else result
