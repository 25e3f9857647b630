"""The modern era of the client (2026-07-28): every request says who asks and what it can do; nothing is remembered.

Spec: 26:basic/index#meta, 26:server/discover, 26:basic/patterns/mrtr
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..engines.errors import ProtocolError
from ..protocol import headers, spec
from .peer import Era

if TYPE_CHECKING:
    from .connection import Connection

Message = dict[str, Any]

# Transports whose requests carry the `Mcp-*` headers.
_MIRRORING = ("http", "wsgi")
TASK_METHODS = ("tasks/get", "tasks/update", "tasks/cancel")


class Modern(Era):
    """Fills `_meta` from the client's settings, mirrors into headers, and reads `resultType`."""

    name = "modern"
    caches = True
    answers = False  # Spec: BASE-016
    absent = {
        "ping": "any request shows that the server is there",
        "logging/setLevel": "each request names its own level",
        "resources/subscribe": "use listen(resources=[...])",
        "resources/unsubscribe": "close the listen stream",
    }

    def dress(self, conn: Connection, message: Message, version: str, meta: Message | None, progress: bool) -> None:
        """Add the per-request fields. Spec: BASE-036 to BASE-042"""
        fields: Message = dict(meta) if meta else {}
        fields[spec.META_VERSION] = version
        fields[spec.META_CAPABILITIES] = conn.capabilities(legacy=False)
        if conn.info is not None:
            fields[spec.META_CLIENT] = conn.info
        if conn.log_level is not None:
            fields[spec.META_LOG_LEVEL] = conn.log_level
        if progress:
            fields["progressToken"] = message["id"]
        message["params"] = {**message.get("params", {}), "_meta": fields}

    def headers(self, conn: Connection, message: Message) -> dict[str, str]:
        """Mirror the message. Spec: TRN-055, TRN-061 to TRN-063, TRN-072"""
        if conn.transport.kind not in _MIRRORING:
            return {}
        method = message["method"]
        name = spec.METHODS.get(method, spec.Method()).name_param
        params = message.get("params", {})
        annotations = conn.tools.annotations(params.get("name")) if method == "tools/call" else []
        return headers.mirror(message, name if name in params else None, annotations)

    def outcome(self, method: str, result: Message, tasks: bool) -> str:
        """Read `resultType`; absent means complete. Spec: BASE-052, BASE-053, BASE-173, EXT-018"""
        kind = result.get("resultType", "complete")
        if kind == "complete":
            return "complete"
        if kind == "input_required" and spec.METHODS.get(method, spec.Method()).may_ask:
            if "inputRequests" not in result and "requestState" not in result:
                raise ProtocolError("The server requires input but says neither which nor for what state")
            return "input_required"
        if kind == "task" and tasks and method == "tools/call":
            return "task"
        raise ProtocolError(
            f"The server answered {method} with the result type {str(kind)[:50]!r}, which is not allowed"
        )


ERA = Modern()
