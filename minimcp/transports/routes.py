"""Routes: the handlers of an author's further paths, and those whose path ends in a variable."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Optional

from ..protocol.errors import InternalError, McpError
from ..protocol.served import Environ, Handler, Response

log = logging.getLogger("minimcp")

Routes = Mapping[str, Mapping[str, Handler]]

# The paths of HTTP+SSE, which lie below the endpoint in a framework.
_BELOW = ("/sse", "/messages")


def tailed(further: Routes, *paths: str) -> tuple[dict[str, Handler], ...]:
    """Return the routes whose path ends in a variable that fits one of these paths, the longest beginning first.

    Their handlers find its text in `environ["minimcp.route"]`.
    """
    found = []
    for pattern, route in tuple(further.items()):
        start, brace, name = pattern.partition("{")
        for path in paths if brace else ():
            text = _text(path[len(start) :]) if path.startswith(start) else None
            if text and (name[0] == "+" or "/" not in text):
                variables = {name.strip("+}"): text}
                found.append((len(start), {method: _given(route[method], variables) for method in route}))
                break
    return tuple(route for _, route in sorted(found, key=lambda each: -each[0]))


def _text(tail: str) -> Optional[str]:
    """Return a part of PATH_INFO as it was meant, or None when it is not UTF-8."""
    try:
        return tail.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return None


def _given(handler: Handler, variables: dict[str, str]) -> Handler:
    return lambda environ: handler({**environ, "minimcp.route": variables})


def guarded(handler: Handler) -> Handler:
    """Wrap the handler of an author's route, so that its failure is answered."""

    def run(environ: Environ) -> Response:
        try:
            status, fields, body = handler(environ)
            return status, list(fields), body
        except McpError:
            raise
        except Exception:
            raise _failed(f"the route {environ.get('PATH_INFO')}") from None

    return run


def _failed(function: str) -> McpError:
    """Log the exception of an author's function and return the error to answer with."""
    log.exception("%s failed", function)
    problem = InternalError("Internal error")
    problem.http = (500, [])
    return problem


def without_body(handler: Handler) -> Handler:
    """Wrap the handler of GET for HEAD."""

    def run(environ: Environ) -> Response:
        status, fields, body = handler(environ)
        if isinstance(body, list) and not any(name.lower() == "content-length" for name, _ in fields):
            fields = [*fields, ("Content-Length", str(sum(map(len, body))))]
        close = getattr(body, "close", None)
        if close is not None:
            close()
        return status, fields, []

    return run


def is_mounted(environ: Environ, mount: str, path: str) -> bool:
    """Say whether our own paths are served where the application is mounted.

    A framework's view that has a rest of a path asks its framework, and HTTP+SSE alone lies below the endpoint.
    """
    is_endpoint = environ.get("minimcp.is_endpoint")
    if is_endpoint is not None:
        return path in _BELOW and bool(is_endpoint())
    return "/.well-known" not in mount
