"""A Django view of a server: login, middleware, transactions and database connections inside handlers."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

import pytest

from minimcp import Context, Server, ToolError
from tests.helpers import events, exchange, http_headers, modern, post, serving
from tests.test_frameworks import TIMEOUT_S, YES, call, check_routes, leave_a_running_call, tool


@pytest.fixture(scope="module")
def django(tmp_path_factory: Any) -> Any:
    django = pytest.importorskip("django", reason="django is not installed")
    from django.conf import settings

    settings.configure(
        SECRET_KEY="only for tests",
        ALLOWED_HOSTS=["127.0.0.1", "polls.example"],
        ROOT_URLCONF="",
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"],
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": str(tmp_path_factory.mktemp("django") / "test.sqlite3"),
                "ATOMIC_REQUESTS": True,
            }
        },
        USE_TZ=True,
    )
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    yield django
    django.db.connections.close_all()


SESSION = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]


@contextlib.contextmanager
def django_site(server: Server, middleware: Any = (), **settings: Any) -> Iterator[str]:
    """Serve a Django project whose only view is the server's."""
    from django.core.handlers.wsgi import WSGIHandler
    from django.test import override_settings
    from django.urls import path

    urls = types.ModuleType("urls")
    view = server.django_view()
    places = ("mcp", "mcp/<path:rest>", ".well-known/<path:rest>")
    urls.urlpatterns = [path(place, view) for place in places]  # type: ignore[attr-defined]
    with override_settings(ROOT_URLCONF=urls, MIDDLEWARE=list(middleware), **settings), serving(WSGIHandler()) as url:
        yield url + "/mcp"


@pytest.fixture
def ann(django: Any) -> Iterator[str]:
    """A user, logged in: the Cookie header."""
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY, get_user_model
    from django.contrib.sessions.backends.db import SessionStore

    user = get_user_model().objects.create_user("ann")
    store = SessionStore()
    store[SESSION_KEY] = str(user.pk)
    store[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    store[HASH_SESSION_KEY] = user.get_session_auth_hash()
    store.save()
    yield f"sessionid={store.session_key}"
    get_user_model().objects.all().delete()


def whoami() -> Server:
    server = Server("who")

    @server.tool
    def plain() -> dict:
        return {"fine": True}

    @server.tool
    def me(ctx: Context) -> dict:
        return {"principal": ctx.principal and ctx.principal.id, "user": str(ctx.request["django.request"].user)}

    return server


def test_a_django_view_needs_no_csrf_token(django: Any) -> None:
    with django_site(whoami(), SESSION) as url:
        assert call(url, "plain") == {"fine": True}


def test_further_paths_are_reached_through_a_django_view(django: Any) -> None:
    server = whoami()
    with django_site(server, SESSION) as url:
        check_routes(url[: -len("/mcp")], server)


def test_the_principal_is_the_user_whom_django_logged_in(django: Any, ann: str) -> None:
    with django_site(whoami(), SESSION) as url:
        assert call(url, "me", Cookie=ann) == {"principal": "ann", "user": "ann"}
        assert call(url, "me") == {"principal": None, "user": "AnonymousUser"}


def test_a_front_servers_user_counts_only_where_django_has_no_users(django: Any) -> None:
    server = Server("front")

    @server.tool
    def me(ctx: Context) -> dict:
        return {"principal": ctx.principal and ctx.principal.id}

    class Front:
        def __init__(self, get_response: Any) -> None:
            self.get_response = get_response

        def __call__(self, request: Any) -> Any:
            request.META["REMOTE_USER"] = "bob"
            return self.get_response(request)

    module = sys.modules.setdefault("front_middleware", types.ModuleType("front_middleware"))
    module.Front = Front  # type: ignore[attr-defined]
    with django_site(server, ["front_middleware.Front"]) as url:
        assert call(url, "me") == {"principal": "bob"}
    with django_site(server, ["front_middleware.Front", *SESSION]) as url:
        assert call(url, "me") == {"principal": None}


def test_where_django_requires_a_login_nobody_gets_in_and_nobody_is_redirected(django: Any, ann: str) -> None:
    if django.VERSION < (5, 1):
        pytest.skip("LoginRequiredMiddleware came with Django 5.1")
    middleware = [*SESSION, "django.contrib.auth.middleware.LoginRequiredMiddleware"]
    with django_site(whoami(), middleware) as url:
        with exchange(url, tool("plain"), http_headers(tool("plain"))) as response:
            assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")
            assert json.load(response)["error"]["code"] == -32600
        assert call(url, "me", Cookie=ann) == {"principal": "ann", "user": "ann"}
    server = Server("tokens", auth=lambda request: {"x": "xenia"}.get(request.token))
    server.tool(lambda: {"fine": True}, "plain")
    with django_site(server, middleware) as url:
        assert post(url, tool("plain"))[0] == 401
        assert call(url, "plain", Authorization="Bearer x") == {"fine": True}


@pytest.mark.parametrize("middleware", [[], ["django.middleware.gzip.GZipMiddleware"]], ids=["plain", "gzip"])
def test_djangos_compression_does_not_hold_events_back(django: Any, middleware: Any) -> None:
    server, read = Server("steps"), threading.Semaphore(0)

    @server.tool
    def steps(ctx: Context) -> str:
        for step in range(1, 4):
            ctx.progress(step)
            assert read.acquire(timeout=TIMEOUT_S)
        return "done"

    with django_site(server, middleware) as url:
        headers = http_headers(tool("steps"), Accept_Encoding="gzip")
        with exchange(url, tool("steps"), headers) as response:
            coming = events(response)
            for step in (1, 2, 3):
                assert next(coming)["params"]["progress"] == step
                read.release()
            assert next(coming)["result"]["content"][0]["text"] == "done"


def test_a_login_read_by_the_view_locks_nothing_that_the_worker_writes(django: Any, ann: str) -> None:
    server = Server("votes")

    @server.tool
    def talks(ctx: Context) -> dict:
        user = ctx.request["django.request"].user
        user.first_name = "Ann"
        user.save()
        return {"user": user.get_username()}

    with django_site(server, SESSION) as url:
        assert call(url, "talks", Cookie=ann) == {"user": "ann"}


@pytest.mark.parametrize("name", ["plain", "talks"])
def test_a_failed_django_call_is_rolled_back_and_a_good_one_is_kept(django: Any, name: str) -> None:
    from django.contrib.auth.models import Group

    server = Server("writes")

    @server.tool
    def plain(fail: bool) -> dict:
        Group.objects.create(name="written")
        if fail:
            raise ToolError("on second thought, no")
        return {"done": True}

    @server.tool
    def talks(fail: bool, ctx: Context) -> dict:
        return plain(fail)

    with django_site(server) as url:
        status, reply = post(url, tool(name, fail=True))
        assert (status, reply["result"]["isError"]) == (200, True)
        assert not Group.objects.filter(name="written").exists()
        assert call(url, name, {"fail": False}) == {"done": True}
        assert Group.objects.filter(name="written").delete()[0] == 1


def test_what_a_handler_wrote_before_it_asked_is_rolled_back(django: Any) -> None:
    from django.contrib.auth.models import Group

    server = Server("asks")

    @server.tool
    def confirm(ctx: Context) -> dict:
        Group.objects.create(name="too early")
        return {"sure": ctx.elicit("Sure?", {"sure": bool})["sure"]}

    with django_site(server) as url:
        status, reply = post(url, tool("confirm"))
        assert (status, reply["result"]["resultType"]) == (200, "input_required")
        assert not Group.objects.filter(name="too early").exists()
        retry = tool("confirm")
        responses = dict.fromkeys(reply["result"]["inputRequests"], YES)
        retry["params"].update(requestState=reply["result"]["requestState"], inputResponses=responses)
        assert post(url, retry)[1]["result"]["structuredContent"] == {"sure": True}
        assert Group.objects.filter(name="too early").delete()[0] == 1


def test_a_worker_closes_its_database_connection(django: Any) -> None:
    server, used = Server("reads"), []

    @server.tool
    def talks(ctx: Context) -> dict:
        from django.contrib.auth.models import Group
        from django.db import connections

        used.append((threading.get_ident(), connections["default"]))
        return {"groups": Group.objects.count()}

    with django_site(server) as url:
        assert call(url, "talks") == {"groups": 0}
    ((thread, connection),) = used
    assert thread != threading.get_ident()
    assert connection.connection is None


def test_django_decides_by_its_allowed_hosts(django: Any) -> None:
    with django_site(whoami()) as url:
        assert call(url, "plain", Host="polls.example") == {"fine": True}
        with exchange(url, tool("plain"), http_headers(tool("plain"), Host="evil.example")) as response:
            assert response.status == 400
    with django_site(whoami(), ALLOWED_HOSTS=["*"]) as url:
        assert post(url, tool("plain"), Host="evil.example")[0] == 403


def test_djangos_limit_of_a_body_is_kept(django: Any) -> None:
    with django_site(whoami(), DATA_UPLOAD_MAX_MEMORY_SIZE=2000) as url:
        status, reply = post(url, tool("plain", text="x" * 2000))
        assert (status, reply["error"]["code"]) == (413, -32600)
        assert call(url, "plain") == {"fine": True}


def test_a_notification_to_a_django_view_gets_an_empty_202(django: Any) -> None:
    note = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
    note["params"] = {"_meta": modern("x")["params"]["_meta"], "requestId": 1}
    with django_site(whoami()) as url, exchange(url, note, http_headers(note)) as response:
        assert (response.status, response.headers["Content-Type"], response.read()) == (202, None, b"")


def test_a_django_view_streams_changes_and_holds_no_database_connection(django: Any, ann: str) -> None:
    from django.db import connections

    used = []

    def authenticate(request: Any) -> Any:
        used.append(connections["default"])
        return request.environ["django.request"].user.get_username()

    server = Server("changes", auth=authenticate)
    server.tool(lambda: "x", "first")
    message = modern("subscriptions/listen", notifications={"toolsListChanged": True})
    headers = http_headers(message, Cookie=ann)
    with django_site(server, SESSION) as url, exchange(url, message, headers) as response:
        coming = events(response)
        assert next(coming)["params"]["notifications"] == {"toolsListChanged": True}
        assert [connection.connection for connection in used] == [None]
        server.tool(lambda: "x", "more")
        assert next(coming)["method"] == "notifications/tools/list_changed"
        server.close()
        assert [event.get("method", "result") for event in coming] == ["notifications/cancelled", "result"]


@pytest.mark.parametrize("talk", [True, False], ids=["in a stream", "before anything was sent"])
def test_a_client_that_leaves_a_django_view_cancels_its_call(django: Any, talk: bool) -> None:
    server = Server("patient", limits={"keepalive_s": 0.1, "silence_s": 30})
    with django_site(server, ALLOWED_HOSTS=["localhost"]) as url:
        assert leave_a_running_call(url, server, talk)
