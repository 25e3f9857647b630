"""Authentication and authorization of a server: who calls, and what they may see and do.

A verifier finds the caller of a request; `Server(auth=...)` takes one, or a list that is asked in order. Each name here
is loaded on first use, so that a server without `auth=` starts as fast as before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

_MODULES = {
    "Audit": "audit",
    "AuthRequest": "verifier",
    "Chain": "chain",
    "ClientCertificate": "certificate",
    "DjangoUser": "surrounding",
    "FlaskLogin": "surrounding",
    "Introspection": "introspection",
    "Jwt": "jwt",
    "Keys": "keys",
    "ProxyCertificate": "surrounding",
    "Rates": "rates",
    "RemoteUser": "surrounding",
    "Rules": "policy",
    "Verifier": "verifier",
}

__all__ = list(_MODULES)

if TYPE_CHECKING:
    from .audit import Audit as Audit
    from .certificate import ClientCertificate as ClientCertificate
    from .chain import Chain as Chain
    from .introspection import Introspection as Introspection
    from .jwt import Jwt as Jwt
    from .keys import Keys as Keys
    from .policy import Rules as Rules
    from .rates import Rates as Rates
    from .surrounding import DjangoUser as DjangoUser
    from .surrounding import FlaskLogin as FlaskLogin
    from .surrounding import ProxyCertificate as ProxyCertificate
    from .surrounding import RemoteUser as RemoteUser
    from .verifier import AuthRequest as AuthRequest
    from .verifier import Verifier as Verifier


def __getattr__(name: str) -> Any:
    from importlib import import_module

    try:
        module = _MODULES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    globals()[name] = found = getattr(import_module(f"{__name__}.{module}"), name)
    return found


def __dir__() -> list[str]:
    return sorted(_MODULES)
