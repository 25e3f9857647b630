"""The two eras as a client speaks them, and the negotiated server (`Peer`).

In the modern era (2026-07-28) every request names the client and its capabilities; in the legacy era (2024-11-05 to
2025-11-25) `initialize` does so once for the connection.

Spec: 26:basic/index#meta, 26:server/discover, 26:basic/patterns/mrtr, 11:basic/lifecycle
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

from ..engines.errors import InvalidArguments, ProtocolError
from ..protocol import headers, revisions, spec
from .errors import RemoteError

if TYPE_CHECKING:
    from .connection import Connection

Message = dict[str, Any]

# Transports whose requests carry the `Mcp-*` headers.
_MIRRORING = ("http", "wsgi")


class ClientEra:
    """The base of the two eras, `MODERN` and `LEGACY`.

    :ivar absent: methods of the other era, and the replacement for each.
    :ivar empty_cursor_ends: whether a `nextCursor` of "" is the end of a list. Spec: FEAT-117
    :ivar caches: whether results say for how long they may be kept.
    :ivar answers: whether a request of the server may be answered.
    """

    name = ""
    absent: dict[str, str] = {}
    empty_cursor_ends = False
    caches = False
    answers = True

    def write_meta(
        self, conn: Connection, message: Message, version: str, meta: Message | None, progress: bool
    ) -> None:
        """Complete the `_meta` of a request.

        :param meta: members that the caller wants in it.
        :param progress: whether to ask for progress notifications, under the request's own id.
        """
        raise NotImplementedError

    def headers(self, conn: Connection, message: Message) -> dict[str, str]:
        """Return the HTTP headers of a message, beside those of the transport itself."""
        return {}

    def outcome(self, method: str, result: Message, tasks: bool) -> str:
        """Classify a result: "complete", "input_required" or "task".

        :param tasks: whether the client declared the tasks extension.
        :raises ProtocolError: when it is none of these, or not allowed for this method.
        """
        return "complete"


class ModernClientEra(ClientEra):
    """Fills `_meta` from the client's settings, mirrors it into headers, and reads `resultType`."""

    name = "modern"
    caches = True
    answers = False  # Spec: BASE-016
    absent = {
        "ping": "any request shows that the server is there",
        "logging/setLevel": "each request names its own level",
        "resources/subscribe": "use listen(resources=[...])",
        "resources/unsubscribe": "close the listen stream",
    }

    def write_meta(
        self, conn: Connection, message: Message, version: str, meta: Message | None, progress: bool
    ) -> None:
        """Add the per-request fields. Spec: BASE-036 to BASE-042"""
        fields: Message = dict(meta) if meta else {}
        fields[spec.META_VERSION] = version
        fields[spec.META_CAPABILITIES] = conn.capabilities(version)
        settings = conn.settings
        if settings.info is not None:
            fields[spec.META_CLIENT] = settings.info
        if settings.log_level is not None:
            fields[spec.META_LOG_LEVEL] = settings.log_level
        if progress:
            fields["progressToken"] = message["id"]
        message["params"] = {**message.get("params", {}), "_meta": fields}

    def headers(self, conn: Connection, message: Message) -> dict[str, str]:
        """Mirror the message. Spec: TRN-055, TRN-061 to TRN-063, TRN-072"""
        if conn.transport.kind not in _MIRRORING:
            return {}
        method = message["method"]
        row = spec.METHODS.get(method)
        name = row.name_param if row is not None else None
        params = message.get("params", {})
        annotations = conn.tools.annotations(params.get("name")) if method == "tools/call" else []
        try:
            headers.check_integers(params.get("arguments"), annotations)
            return headers.mirror(message, name if name in params else None, annotations)
        except InvalidArguments as problem:
            raise ProtocolError(f"The argument {problem}") from None
        except ValueError as problem:
            raise ProtocolError(f"The message has no form as headers: {problem}") from None

    def outcome(self, method: str, result: Message, tasks: bool) -> str:
        """Read `resultType`; absent means complete. Spec: BASE-052, BASE-053, BASE-173, EXT-018"""
        kind = result.get("resultType", "complete")
        if kind == "complete":
            return "complete"
        row = spec.METHODS.get(method)
        if kind == "input_required" and row is not None and row.may_ask:
            if "inputRequests" not in result and "requestState" not in result:
                raise ProtocolError("The server requires input but says neither which nor for what state")
            return "input_required"
        if kind == "task" and tasks and method == "tools/call":
            return "task"
        raise ProtocolError(
            f"The server answered {method} with the result type {str(kind)[:50]!r}, which is not allowed"
        )


class LegacyClientEra(ClientEra):
    """Adds nothing to a request but the wish for progress."""

    name = "legacy"
    empty_cursor_ends = True
    absent = {
        "server/discover": "initialize has said what the server is",
        "subscriptions/listen": "notices come by themselves",
    }

    def write_meta(
        self, conn: Connection, message: Message, version: str, meta: Message | None, progress: bool
    ) -> None:
        """Add a `_meta` if there is anything to put into it."""
        fields: Message = dict(meta) if meta else {}
        if progress:
            fields["progressToken"] = message["id"]
        if fields:
            message["params"] = {**message.get("params", {}), "_meta": fields}


MODERN = ModernClientEra()
LEGACY = LegacyClientEra()


class Peer:
    """A server as negotiation found it.

    :ivar info: its name and version as it gives them; unverified, so no decision may rest on them. Spec: BASE-047
    :ivar capabilities: its ServerCapabilities, or None when it did not say.
    :ivar greeting: the result of `server/discover` or `initialize`, {} when there was none.
    """

    def __init__(self, era: ClientEra, version: str, greeting: Message) -> None:
        self.era = era
        self.version = version
        self.greeting = greeting
        info = greeting.get("serverInfo")
        if not isinstance(info, dict):
            meta = greeting.get("_meta")
            info = meta.get(spec.META_SERVER) if isinstance(meta, dict) else None
        self.info: Message = info if isinstance(info, dict) else {}
        capabilities = greeting.get("capabilities")
        self.capabilities: Optional[Message] = capabilities if isinstance(capabilities, dict) else None
        instructions = greeting.get("instructions")
        self.instructions = instructions if isinstance(instructions, str) else None

    @property
    def name(self) -> str:
        """The server's name for messages to people."""
        return str(self.info.get("title") or self.info.get("name") or "the server")

    def offers(self, *path: str) -> bool:
        """Say whether the server declared a capability, such as `("resources", "subscribe")`; unknown counts as yes.

        So does one that its revision has no name for. Spec: FEAT-093
        """
        found: Any = self.capabilities
        if found is None or self.version < revisions.CAPABILITIES_SINCE.get(path[0], ""):
            return True
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return found is not None and found is not False

    def extension(self, name: str) -> bool:
        """Say whether the server declared an extension."""
        extensions = (self.capabilities or {}).get("extensions")
        return isinstance(extensions, dict) and name in extensions

    def require(self, method: str, *path: str) -> None:
        """Refuse a method that the server did not declare. Spec: BASE-108

        :param path: the capability that the method needs.
        :raises ProtocolError: naming the method.
        """
        if method in self.era.absent:
            raise ProtocolError(f"{method} does not exist in {self.version}: {self.era.absent[method]}")
        if path and not self.offers(*path):
            raise ProtocolError(f"{self.name} does not offer {'.'.join(path)}, so {method} cannot be used")


def initialize_params(conn: Connection, version: str) -> Message:
    """Return the params of `initialize`. Spec: BASE-096"""
    info = conn.settings.info or {"name": "minimcp", "version": "0"}
    known = revisions.known(version, info, revisions.IMPLEMENTATION_FIELDS_SINCE)
    return {"protocolVersion": version, "capabilities": conn.capabilities(version), "clientInfo": known}


def result_of(response: Message) -> Message:
    """Return the result in a response.

    :raises RemoteError: when it is an error.
    :raises ProtocolError: when it is neither.
    """
    problem = response.get("error")
    if problem is not None:
        code = problem.get("code") if isinstance(problem, dict) else None
        if isinstance(code, bool) or not isinstance(code, int):
            raise ProtocolError("The server answered with an error that has no integer code")
        raise RemoteError(code, str(problem.get("message", "")), problem.get("data"))
    result = response.get("result")
    if not isinstance(result, dict):
        raise ProtocolError("The server answered with a result that is not an object")
    return result
