"""Sealed states of a gateway: what a client brings back with the answers to a server's questions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..protocol.errors import InternalError, InvalidParams
from ..protocol.principal import key_of
from ..server.asking import REFUSED, STATE_LIFETIME_S
from ..server.seal import MAX_TOKEN, BadSeal, digest

if TYPE_CHECKING:
    from ..server.context import Context
    from .gateway import Gateway

log = logging.getLogger("minimcp")

Message = dict[str, Any]


class States:
    """Makes and reads the `requestState` of relayed requests, which is bound to the request and to the principal.

    It holds the server's own state with the name of the replica that gave it, or names a parked call.
    Spec: BASE-180 to BASE-187
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def seal(self, ctx: Context, payload: Message) -> str:
        """Return the state that a client gets with the questions.

        :raises InternalError: when the server's own state is too large.
        """
        found = self._gateway.engine.sealer.seal("relayed", {**payload, "for": self._bound(ctx)}, STATE_LIFETIME_S)
        if len(found) > MAX_TOKEN:
            raise InternalError("The server's state is too large to be kept until the next round")
        return found

    def open(self, ctx: Context) -> Message:
        """Return what the state of a retry holds, {} for a request without one.

        :raises InvalidParams: for a state that is not for this request and this principal.
        """
        if "requestState" not in ctx.params or ctx._era.name != "modern":
            return {}
        try:
            found = self._gateway.engine.sealer.unseal("relayed", ctx.params["requestState"])
            if found["for"] != self._bound(ctx):
                raise BadSeal("it belongs to another request or principal")
        except BadSeal as problem:
            log.warning("requestState refused: %s", problem)
            raise InvalidParams(REFUSED) from None
        return found

    def _bound(self, ctx: Context) -> list[Any]:
        params = ctx.params
        request = [ctx.method, params.get("name"), params.get("uri"), params.get("arguments")]
        return [digest(request), key_of(ctx.principal), self._gateway.name_of(ctx._engine)]


class Relaying:
    """The strategy of a relayed request, which asks nothing of its own accord."""

    def ask(self, ctx: Context, questions: dict[str, Any], named: bool) -> dict[str, Any]:
        """Refuse to ask.

        :raises InternalError: always.
        """
        raise InternalError("A relayed request asks what its server asks")

    def key(self) -> str:
        """Return no key: the server has one of its own."""
        return ""
