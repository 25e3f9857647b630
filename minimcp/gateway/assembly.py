"""The parts of a gateway that its options ask for: hooks, pins, pages, other gateways."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Optional

from ..server.hooks import AroundRequest, stacked
from ..server.seal import ENVIRONMENT
from .peers import Peers

if TYPE_CHECKING:
    from ..auth.chain import Chain
    from .gateway import Gateway
    from .pins import Pins

Message = dict[str, Any]


def make_chain(options: Message) -> Optional[Chain]:
    """Make the file that the audit log and changes of pins are written to, None for no such log."""
    audit = options["audit"]
    if audit is None:
        return None
    from ..auth.chain import Chain

    return Chain(audit["file"], audit.get("key"), max_bytes=audit["max_bytes"], fsync=audit["fsync"])


def make_hook(gateway: Gateway, options: Message, chain: Optional[Chain]) -> AroundRequest:
    """Make the hook around every request; its outermost part notes what the others do."""
    hooks: list[Any] = [gateway.calls]
    if chain is not None:
        from ..auth.audit import Audit

        hooks.append(Audit(chain, options["audit"]["arguments"]))
    if gateway.around is not None:
        hooks.append(gateway.around)
    if options["rates"]:
        from ..auth.rates import Rates

        gateway.rates = Rates(options["rates"], options["redis"], options["trusted_proxy"], gateway.rates)
        hooks.append(gateway.rates)
    return stacked(hooks)


def make_pins(options: Message, chain: Optional[Chain]) -> Optional[Pins]:
    """Make what holds the definitions of tools to those that were seen first, None where they may change."""
    if options["pins"] is None:
        return None
    from .pins import Pins

    pins = options["pins"]
    return Pins(pins["file"], pins["mode"], new=pins.get("new", "allow"), report=chain)


def make_peers(gateway: Gateway, options: Message) -> Optional[Peers]:
    """Make what passes retries on to other gateways, None where this one is alone.

    :raises ValueError: without a common secret.
    """
    if options["peer_url"] is None:
        return None
    if not options["secret"] and not os.environ.get(ENVIRONMENT):
        raise ValueError("peerUrl needs a secret that all gateways have: gateway.secret, or MINIMCP_SECRET")
    return Peers(gateway, options["peer_url"])


def install_pages(gateway: Gateway, options: Message) -> None:
    """Add the pages beside the endpoint; they stay as they are until a restart."""
    from .web import install_web

    roles = options["status_roles"]
    install_web(gateway, gateway.calls, status=options["status"], metrics=options["metrics"], status_roles=roles)
    if options["rest"]:
        from .rest import install_rest

        install_rest(gateway)
