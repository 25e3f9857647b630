"""The identity of the surrounding application, and of the proxy in front: whose word counts, and when a cookie does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from werkzeug.test import Client

from minimcp import Context, Principal, Server, Unauthorized
from minimcp.auth import AuthRequest, DjangoUser, FlaskLogin, Keys, ProxyCertificate, RemoteUser
from tests.helpers import http_headers, modern

WHO = modern("tools/call", name="who")
PROXY = {"REMOTE_ADDR": "10.1.2.3"}
STRANGER = {"REMOTE_ADDR": "192.0.2.1"}


def who(ctx: Context) -> Any:
    found = ctx.principal
    return {"key": list(found.key), "roles": list(found.roles), "scopes": list(found.scopes)} if found else None


def guarded(auth: Any, **options: Any) -> Server:
    server = Server("s", auth=auth, **options)
    server.tool(who)
    return server


def ask(client: Client, base: str = "http://localhost", peer: Any = None, **headers: str) -> Any:
    return client.post(
        "/mcp", base, data=json.dumps(WHO), headers=http_headers(WHO, **headers), environ_base=peer or {}
    )


def found(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json["result"].get("structuredContent")


# Flask-Login


class Site:
    """A Flask application with a login, and a server behind it."""

    def __init__(self, **options: Any) -> None:
        flask, login = pytest.importorskip("flask"), pytest.importorskip("flask_login")
        self.users = {
            "7": login.UserMixin(),
            "8": login.UserMixin(),
        }
        for id, user in self.users.items():
            user.id, user.groups = id, ["staff"] if id == "7" else []
        app = flask.Flask("site")
        app.config.update(SECRET_KEY="only for tests")
        manager = login.LoginManager(app)
        manager.user_loader(self.users.get)
        app.add_url_rule("/login/<id>", view_func=lambda id: str(login.login_user(self.users[id])))
        auth = [FlaskLogin(roles=lambda user: user.groups, granted=["read"]), *options.pop("further", [])]
        server = guarded(auth, **options)
        app.add_url_rule("/mcp", view_func=server.flask_view())
        self.client = app.test_client()


@pytest.fixture
def site() -> Site:
    return Site()


def test_the_user_of_flask_login_calls(site: Site) -> None:
    assert ask(site.client).status_code == 401
    site.client.get("/login/7")
    assert found(ask(site.client)) == {"key": ["flask", "7"], "roles": ["staff"], "scopes": ["read"]}
    site.client.get("/login/8")
    assert found(ask(site.client)) == {"key": ["flask", "8"], "roles": [], "scopes": ["read"]}


def test_a_user_who_was_made_inactive_after_the_login_calls_no_more(site: Site) -> None:
    site.client.get("/login/7")
    site.users["7"].__class__ = type("Inactive", (type(site.users["7"]),), {"is_active": False})
    assert ask(site.client).status_code == 401


FOREIGN_PAGES = [
    {"Origin": "https://app.example"},
    {"Origin": "https://app.example", "Sec-Fetch-Site": "cross-site"},
    {"Origin": "http://localhost:3000"},
    {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
    {"Origin": "http://localhost", "Sec-Fetch-Site": "cross-site"},
]


@pytest.mark.parametrize("headers", FOREIGN_PAGES)
def test_a_cookie_is_no_credential_in_a_request_of_a_foreign_page(headers: dict[str, str]) -> None:
    """The pages are allowed to call, so the check of origins lets them pass, but not as the user of the browser."""
    site = Site(further=["public", Keys({"robot": "key-of-robot-012345"})], allowed_origins=["https://app.example"])
    site.client.get("/login/7")
    assert found(ask(site.client, **headers)) is None
    assert found(ask(site.client, X_API_Key="key-of-robot-012345", **headers))["key"] == ["", "robot"]
    assert found(ask(site.client, Origin="http://localhost"))["key"] == ["flask", "7"]
    assert found(ask(site.client, Origin="http://LOCALHOST", Sec_Fetch_Site="Same-Origin"))["key"] == ["flask", "7"]


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_a_page_that_is_not_allowed_reaches_no_verifier(site: Site, headers: dict[str, str]) -> None:
    site.client.get("/login/7")
    assert ask(site.client, **headers).status_code == 403


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_form_of_a_foreign_page_cannot_be_a_call(site: Site, kind: str) -> None:
    """A browser sends these without asking the server first."""
    site.client.get("/login/7")
    assert ask(site.client, Content_Type=kind).status_code in (400, 415)


def test_a_browser_is_not_told_that_cookies_are_welcome() -> None:
    site = Site(allowed_origins=["https://app.example"])
    answer = site.client.options("/mcp", headers={"Origin": "https://app.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
    assert "Access-Control-Allow-Credentials" not in answer.headers


def test_flask_login_outside_of_flask_is_a_503_whose_cause_is_in_the_log(caplog: Any) -> None:
    pytest.importorskip("flask_login")
    assert ask(Client(guarded(FlaskLogin()).wsgi)).status_code == 503
    assert "mount server.flask_view()" in caplog.text


# Django; tests/test_protected_example.py has a real one


class Groups(list):
    def order_by(self, name: str) -> Any:
        return self

    def values_list(self, name: str, flat: bool) -> Any:
        return iter(self)


def django_user(name: str = "ann", **more: Any) -> Any:
    known = {"is_authenticated": True, "is_active": True, "groups": Groups(["editors", "staff"]), **more}
    return SimpleNamespace(get_username=lambda: name, **known)


def django_request(user: Any, **headers: str) -> AuthRequest:
    environ: dict[str, Any] = {"django.request": SimpleNamespace(user=user)}
    environ.update({"HTTP_" + name.upper(): value for name, value in headers.items()})
    return AuthRequest(environ, "https://site.example/mcp", "")


def test_the_user_of_django_has_groups_as_roles() -> None:
    principal: Any = DjangoUser(granted=["read"]).verify(django_request(django_user()))
    assert (principal.key, principal.roles, principal.scopes) == (("django", "ann"), ("editors", "staff"), ("read",))
    staff = DjangoUser(roles=lambda user: ["boss"] if user.is_staff else [])
    assert staff.verify(django_request(django_user(is_staff=True))).roles == ("boss",)  # type: ignore[union-attr]


@pytest.mark.parametrize("state", [{"is_authenticated": False}, {"is_active": False}])
def test_a_user_who_has_not_logged_in_or_is_not_active_is_nobody(state: Any) -> None:
    assert DjangoUser().verify(django_request(django_user(**state))) is None


def test_a_session_of_django_is_no_credential_in_a_request_of_a_foreign_page() -> None:
    for headers in (
        {"origin": "https://app.example"},
        {"origin": "https://site.example", "sec_fetch_site": "same-site"},
    ):
        request = django_request(django_user(), cookie="sessionid=x", **headers)
        assert DjangoUser().verify(request) is None
    own = django_request(django_user(), cookie="sessionid=x", origin="https://site.example")
    token = django_request(django_user(), authorization="Bearer x", origin="https://app.example")
    assert DjangoUser().verify(own) == DjangoUser().verify(token) == Principal("ann", "django")


@pytest.mark.parametrize("environ", [{}, {"django.request": SimpleNamespace()}])
def test_django_users_outside_of_django_are_a_fault_of_the_server(environ: Any) -> None:
    with pytest.raises(RuntimeError, match="server.django_view"):
        DjangoUser().verify(AuthRequest(environ, "", ""))


# Proxies


def behind_proxy(*auth: Any) -> Client:
    return Client(guarded(list(auth), trusted_proxy=["10.0.0.0/8", "::1"], allowed_hosts=["tools.example"]).wsgi)


def named(client: Client, peer: Any, **headers: str) -> Any:
    return ask(client, "http://tools.example", peer, **headers)


@pytest.mark.parametrize("peer", [PROXY, {"REMOTE_ADDR": "::ffff:10.1.2.3"}])
def test_a_trusted_proxy_names_the_user(peer: Any) -> None:
    client = behind_proxy(RemoteUser("X-Remote-User", roles="X-Roles", granted=["read"]))
    answer = named(client, peer, X_Remote_User="ann", X_Roles="staff, admin,,")
    assert found(answer) == {"key": ["proxy", "ann"], "roles": ["staff", "admin"], "scopes": ["read"]}
    assert found(named(client, peer, X_Remote_User="ann"))["roles"] == []
    assert named(client, peer).status_code == 401


@pytest.mark.parametrize("peer", [STRANGER, {"REMOTE_ADDR": ""}, {"REMOTE_ADDR": "unix:"}])
def test_what_a_stranger_says_about_the_user_means_nothing(peer: Any) -> None:
    client = behind_proxy(RemoteUser("X-Remote-User"), ProxyCertificate(), Keys({"robot": "key-of-robot-012345"}))
    said = {"X_Remote_User": "ann", "X_Client_Subject": "CN=ann", "X_Client_Verify": "SUCCESS"}
    assert named(client, peer, X_Forwarded_For="10.1.2.3", **said).status_code == 401
    assert found(named(client, peer, X_API_Key="key-of-robot-012345", **said))["key"] == ["", "robot"]


@pytest.mark.parametrize("value", ["evil,ann", "evil, ann", ","])
def test_a_header_that_the_proxy_did_not_overwrite_is_refused(value: str) -> None:
    answer = named(behind_proxy(RemoteUser("X-Remote-User"), "public"), PROXY, X_Remote_User=value)
    assert answer.status_code == 401 and "more than once" in answer.json["error"]["message"]


def test_a_client_certificate_counts_once_the_proxy_has_verified_it() -> None:
    client = behind_proxy(ProxyCertificate(roles=lambda subject: ["robot"] if "OU=robots" in subject else []))
    subject = "CN=backup,OU=robots,O=Example"
    answer = named(client, PROXY, X_Client_Subject=subject, X_Client_Verify="SUCCESS")
    assert found(answer) == {"key": ["certificate", subject], "roles": ["robot"], "scopes": []}
    assert found(named(client, PROXY, X_Client_Subject="CN=ann", X_Client_Verify="SUCCESS"))["roles"] == []
    for verdict in ("FAILED:self-signed certificate", "NONE", "", "success", "SUCCESS,NONE", "NONE,SUCCESS"):
        assert named(client, PROXY, X_Client_Subject=subject, X_Client_Verify=verdict).status_code == 401
    assert named(client, PROXY, X_Client_Subject=subject).status_code == 401
    assert named(client, PROXY, X_Client_Verify="SUCCESS").status_code == 401


@pytest.mark.parametrize("verifier", [RemoteUser("X-Remote-User"), ProxyCertificate()])
def test_without_a_proxy_to_trust_these_protect_nothing(verifier: Any) -> None:
    with pytest.raises(ValueError, match="trusted_proxy="):
        Server("s", auth=verifier)


def test_one_name_of_two_issuers_is_two_callers() -> None:
    """Users choose their names; one must not come to be a key's."""
    keys = Keys({"ann": "key-of-ann-01234567"})
    callers: Iterator[Any] = (
        keys.verify(AuthRequest({"HTTP_X_API_KEY": "key-of-ann-01234567"}, "", "")),
        DjangoUser().verify(django_request(django_user())),
        RemoteUser("X-User").verify(AuthRequest({"HTTP_X_USER": "ann"}, "", "", True)),
        ProxyCertificate().verify(
            AuthRequest({"HTTP_X_CLIENT_SUBJECT": "ann", "HTTP_X_CLIENT_VERIFY": "SUCCESS"}, "", "", True)
        ),
    )
    assert len(set(callers)) == 4


def test_a_verifier_of_ones_own_can_ask_whether_to_believe_the_proxy() -> None:
    def forwarded(request: AuthRequest) -> Any:
        if request.header("X-User") and not request.trusted:
            raise Unauthorized("Only the proxy says who is calling")
        return request.header("X-User")

    client = behind_proxy(forwarded)
    assert found(named(client, PROXY, X_User="ann"))["key"] == ["", "ann"]
    assert named(client, STRANGER, X_User="ann").status_code == 401
