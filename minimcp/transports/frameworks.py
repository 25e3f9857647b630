"""Views that serve a server from inside a Flask or Django application, in the application's own context.

A handler without a Context runs on the request's thread, where the login, `g`, the database session and the transaction
are those of any view. One with a Context runs on a worker thread while this thread carries what it emits: there the
view's hook, `environ["minimcp.around_call"]`, gives it a context of its own, which ends with the call and not with the
response. A stream that only waits for changes holds none of this.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..protocol.errors import InvalidRequest
from ..protocol.served import Environ, Headers
from .origin import Refused

if TYPE_CHECKING:
    from .http import HttpApp

_METHODS = ["GET", "POST", "DELETE", "OPTIONS"]


def flask_view(app: HttpApp[Any]) -> Callable[..., Any]:
    """Make a view function for `add_url_rule("/mcp", view_func=..., strict_slashes=False)` of a Flask app or blueprint.

    The same view serves further paths: `add_url_rule("/mcp/<path:rest>", view_func=view)` those below the endpoint
    (`Server.route`, HTTP+SSE), `add_url_rule("/.well-known/<path:rest>", view_func=view)` those of another place.

    `Server(auth=...)` is asked in the request context, so `auth=lambda request: g.user.name` will do. A handler on
    a worker has a request context of its own, in which the `before_request` hooks run once more, so that what they put
    into `g` (user, database session) belongs to that thread; names that only `g` of the request has, say from a
    decorator of the view, are copied, except those with a leading underscore. Teardown functions run there as well.

    Where Flask-WTF protects every view, exempt this one: `csrf.exempt(view)`. A foreign form cannot send JSON.
    """

    def mcp(rest: str = "", **_: Any) -> Any:
        from flask import Response, current_app, g, request

        flask_app, thread = current_app._get_current_object(), threading.get_ident()  # type: ignore[attr-defined]
        held = {name: g.get(name) for name in g if not name.startswith("_")}

        def around_call(ctx: Any) -> Any:
            return ExitStack() if threading.get_ident() == thread else _flask_context(flask_app, held)

        # Read by the app once the body's length is known not to be too large.
        environ = {
            **request.environ,
            "wsgi.input": SimpleNamespace(read=_flask_body),
            "minimcp.around_call": around_call,
            "minimcp.host_checked": current_app.config.get("TRUSTED_HOSTS") is not None,
        }
        status, headers, body = _call(app, environ, request.script_root + request.path, rest)
        response = Response(body, status, headers, direct_passthrough=not isinstance(body, list))
        if body == []:
            del response.headers["Content-Type"]
        return response

    # Read by `add_url_rule`.
    mcp.methods = _METHODS  # type: ignore[attr-defined]
    mcp.provide_automatic_options = False  # type: ignore[attr-defined]
    return mcp


@contextmanager
def _flask_context(app: Any, held: dict[str, Any]) -> Iterator[None]:
    """Enter a second context for the request, on a thread that has a copy of its context variables."""
    from flask import g, globals
    from werkzeug.exceptions import HTTPException

    # Since Flask 3.2 one context is both; LocalProxy passes the look-up on.
    copy = getattr(globals.app_ctx, "copy", None) or globals.request_ctx.copy
    again = copy()
    with app.app_context(), again:
        takes_context = inspect.signature(app.preprocess_request).parameters
        try:
            refusal = app.preprocess_request(*([again] if takes_context else []))
        except HTTPException as error:
            refusal = error
        if refusal is not None:
            raise InvalidRequest("A before_request hook of the application refused the request")
        for name, value in held.items():
            g.setdefault(name, value)
        yield


def _flask_body(size: int) -> bytes:
    from flask import request
    from werkzeug.exceptions import RequestEntityTooLarge

    try:
        # A hook of the application may have read it already; Flask then remembers it.
        rest = request.stream.read(size) if request.content_length is None else b""
        return rest or request.get_data()[:size]
    except RequestEntityTooLarge:
        raise Refused(413, "The body is larger than the application's MAX_CONTENT_LENGTH") from None


def django_view(app: HttpApp[Any]) -> Callable[..., Any]:
    """Make a view for `path("mcp", server.django_view())`; under ASGI a stream arrives all at once, when it ends.

    The same view serves further paths: `path("mcp/<path:rest>", view)` those below the endpoint (`Server.route`,
    HTTP+SSE), `path(".well-known/<path:rest>", view)` those of another place.

    The principal is the name of the user whom Django has logged in, and nobody else, unless `Server(auth=...)`
    decides; `ctx.request["django.request"]` is the request. Where LoginRequiredMiddleware is installed, a request
    without a principal gets 401 instead of the redirect. Every call runs in a transaction of its own for each database
    with ATOMIC_REQUESTS, rolled back when the call fails or ends with a question.
    """
    login_required: list[bool] = []

    def mcp(request: Any, rest: str = "", **_: Any) -> Any:
        from django.http import HttpResponse, StreamingHttpResponse

        if not login_required:
            login_required.append(_login_required())
        environ = _django_environ(request)
        environ["minimcp.login_required"] = login_required[0]
        status, headers, body = _call(app, environ, request.path, rest)
        if isinstance(body, list):
            response: Any = HttpResponse(body, status=int(status[:3]))
        else:
            response = StreamingHttpResponse(body, status=int(status[:3]))
            _let_go()
        del response["Content-Type"]
        for name, value in headers:
            response[name] = value
        return response

    # A JSON body of exactly this media type cannot come from a foreign form, so no CSRF token is needed.
    mcp.csrf_exempt = True  # type: ignore[attr-defined]
    mcp.login_required = False  # type: ignore[attr-defined]
    # A transaction of the view's would wait, with its locks, for the worker whose call those locks keep waiting.
    return _without_transaction(mcp)


def _without_transaction(view: Callable[..., Any]) -> Callable[..., Any]:
    from django.db import connections, transaction

    for alias in connections:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


def _django_environ(request: Any) -> Environ:
    from django.conf import settings

    environ = {
        **request.META,
        "django.request": request,
        "wsgi.input": SimpleNamespace(read=lambda size: _django_body(request, size)),
    }
    user = getattr(request, "user", None)
    if user is not None:
        environ["REMOTE_USER"] = user.get_username() if user.is_authenticated else ""
    request.get_host()
    if "*" not in settings.ALLOWED_HOSTS:
        environ["minimcp.host_checked"] = True
    if "wsgi.version" not in environ:
        # Under ASGI Django collects a stream before it sends it, so none may wait for what happens later.
        environ["wsgi.multithread"] = False
    thread = threading.get_ident()
    environ["minimcp.around_call"] = lambda ctx: _django_context(threading.get_ident() != thread)
    return environ


def _let_go() -> None:
    """Close this thread's database connections: Django would keep them for as long as the stream is open."""
    from django.db import connections

    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()


@contextmanager
def _django_context(worker: bool) -> Iterator[None]:
    """Enter the transactions of a request, with database connections that are not stale."""
    from django.db import close_old_connections, connections, transaction

    if worker:
        close_old_connections()
    try:
        with ExitStack() as transactions:
            for alias, options in connections.settings.items():
                if options["ATOMIC_REQUESTS"]:
                    transactions.enter_context(transaction.atomic(using=alias))
            yield
    finally:
        if worker:
            close_old_connections()


def _django_body(request: Any, size: int) -> bytes:
    from django.core.exceptions import RequestDataTooBig

    try:
        body: bytes = request.body
        return body[:size]
    except RequestDataTooBig:
        raise Refused(413, "The body is larger than the application's DATA_UPLOAD_MAX_MEMORY_SIZE") from None


def _login_required() -> bool:
    """Say whether LoginRequiredMiddleware (Django 5.1) is installed."""
    from django.apps import apps
    from django.conf import settings
    from django.utils.module_loading import import_string

    if not apps.is_installed("django.contrib.auth"):
        return False
    from django.contrib.auth import middleware

    wanted = getattr(middleware, "LoginRequiredMiddleware", ())
    found = [import_string(path) for path in settings.MIDDLEWARE]
    return any(isinstance(each, type) and issubclass(each, wanted) for each in found)


def _call(app: HttpApp[Any], environ: Environ, path: str, rest: str) -> tuple[str, Headers, Iterable[bytes]]:
    """Call the WSGI app as mounted where the framework has routed it.

    :param path: the whole path of the request.
    :param rest: the part of it that is below the mount.
    """
    started: list[tuple[str, Headers]] = []

    def start_response(status: str, headers: Headers) -> None:
        started.append((status, headers))

    mount = path[: -len(rest)] if rest else path
    environ["SCRIPT_NAME"] = mount.rstrip("/").encode("utf-8").decode("latin-1")
    environ["PATH_INFO"] = f"/{rest}".encode().decode("latin-1") if rest else ""
    body = app(environ, start_response)
    return (*started[0], body)
