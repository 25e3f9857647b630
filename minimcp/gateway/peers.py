"""Several gateways with one secret: a retry that reaches the wrong one is passed on to that in which its call waits."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Optional

from ..client.client import Client
from ..client.connection import Reply
from ..client.errors import CallCancelled, RemoteError
from ..engines.errors import ClientError
from ..protocol import spec
from ..protocol.content import Raw
from ..protocol.errors import Cancelled, InvalidParams, McpError, Unauthorized
from ..protocol.principal import Principal
from ..server.seal import BadSeal

if TYPE_CHECKING:
    from ..auth.verifier import AuthRequest
    from ..server.context import Context
    from .gateway import Gateway

Message = dict[str, Any]

_TOKEN_S = 30.0
_MOST_PEERS = 100
_GREETING = {"protocolVersion": spec.MODERN_VERSIONS[-1], "capabilities": {}}


class Peers:
    """The other gateways, as far as states name them.

    It is a verifier too: it lets a request in that another gateway passes on for its caller, by a token that only
    the common secret makes, which names this gateway and is good for half a minute.

    :param url: the endpoint at which the other gateways reach this one.
    """

    schemes = ("Bearer",)

    def __init__(self, gateway: Gateway, url: str) -> None:
        self.url = url
        self._gateway = gateway
        self._lock = threading.Lock()  # guards _clients
        self._clients: dict[str, Client] = {}

    def verify(self, request: AuthRequest) -> Optional[Principal]:
        """Return the caller for whom another gateway passes on a request; None for any other request."""
        if request.scheme != "bearer" or request.token.count(".") != 1:
            return None
        try:
            found = self._gateway.engine.sealer.unseal("peer", request.token)
        except BadSeal:
            return None
        if found["to"] != self.url:
            raise Unauthorized("The token is for another gateway")
        who = found["who"]
        return Principal(
            who["id"], who["issuer"], who["scopes"], who["roles"], None, who["via"], expires=who["expires"]
        )

    def _token(self, url: str, principal: Principal) -> str:
        names = ("id", "issuer", "scopes", "roles", "via", "expires")
        who = {name: getattr(principal, name) for name in names}
        return self._gateway.engine.sealer.seal("peer", {"to": url, "who": who}, _TOKEN_S)

    def forward(self, ctx: Context, url: str) -> Raw:
        """Pass a retry on to the gateway in which its call waits, and return the result.

        :raises InvalidParams: when that gateway is gone, and the call with it.
        """
        headers = {"Authorization": f"Bearer {self._token(url, ctx.principal)}"} if ctx.principal is not None else {}

        def take(message: Message, reply: Optional[Reply]) -> None:
            if reply is None:
                ctx._emit(message["method"], message.get("params") or {})

        try:
            return Raw(
                self._client(url).exchange(
                    ctx.method, ctx.params, ctx.meta, take, headers=headers, on_start=ctx.on_cancel
                )
            )
        except CallCancelled:
            raise Cancelled from None
        except RemoteError as problem:
            raise McpError(problem.message, problem.data, problem.code) from None
        except ClientError:
            raise InvalidParams("The gateway in which this call waits cannot be reached; start again") from None

    def _client(self, url: str) -> Client:
        with self._lock:
            found = self._clients.get(url)
            if found is None:
                if len(self._clients) >= _MOST_PEERS:
                    self._clients.pop(next(iter(self._clients))).close()
                # Nothing is asked before the request, which alone has a token.
                found = self._clients[url] = Client(
                    url, mode="modern", discovery=_GREETING, validate=False, cache=False, max_timeout=None
                )
            return found

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            clients, self._clients = list(self._clients.values()), {}
        for client in clients:
            client.close()
