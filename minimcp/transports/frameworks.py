"""Views that serve a server from inside a Flask or Django application, in the application's own context.

A handler then sees what any view sees: the login, `g`, the database session, the transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Environ = dict[str, Any]


def _call(app: Any, environ: Environ) -> tuple[str, list[tuple[str, str]], Iterable[bytes]]:
    """Call the WSGI app as its endpoint, wherever the framework routed it."""
    started: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> None:
        started[:] = [status, headers]

    body = app({**environ, "PATH_INFO": ""}, start_response)
    return started[0], started[1], body


def flask_view(app: Any) -> Callable[..., Any]:
    """Make a view for `app.add_url_rule("/mcp", view_func=..., methods=["GET", "POST", "DELETE"])`.

    On a blueprint the blueprint's own hooks apply. A stream keeps the request context until it ends.
    """

    def mcp(*_: Any, **__: Any) -> Any:
        from flask import Response, request, stream_with_context

        status, headers, body = _call(app, request.environ)
        if isinstance(body, list):
            return Response(b"".join(body), status, headers)
        response = Response(stream_with_context(_closing(body)), status, headers, direct_passthrough=True)
        response.call_on_close(body.close)  # type: ignore[attr-defined]
        return response

    # For Flask-WTF: a JSON body of exactly this media type cannot come from a foreign form.
    mcp.csrf_exempt = True  # type: ignore[attr-defined]
    return mcp


def django_view(app: Any) -> Callable[..., Any]:
    """Make a view for `path("mcp", ...)`; a foreign form is refused by its media type, so it needs no CSRF token."""

    def mcp(request: Any, *_: Any, **__: Any) -> Any:
        from io import BytesIO

        from django.http import HttpResponse, StreamingHttpResponse

        environ = {**request.META, "django.request": request}
        environ["wsgi.input"] = BytesIO(request.body)
        environ["CONTENT_LENGTH"] = str(len(request.body))
        user = getattr(request, "user", None)
        if user is not None and user.is_authenticated:
            environ["REMOTE_USER"] = user.get_username()
        status, headers, body = _call(app, environ)
        code = int(status.split(" ", 1)[0])
        if isinstance(body, list):
            response = HttpResponse(b"".join(body), status=code, content_type=None)
        else:
            response = StreamingHttpResponse(_closing(body), status=code)
            response._resource_closers.append(body.close)  # type: ignore[attr-defined]
        for name, value in headers:
            response[name] = value
        return response

    mcp.csrf_exempt = True  # type: ignore[attr-defined]
    mcp.login_required = False  # type: ignore[attr-defined]
    return mcp


def _closing(body: Any) -> Iterable[bytes]:
    try:
        yield from body
    finally:
        body.close()
