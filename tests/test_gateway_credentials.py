"""The credentials of a gateway at its servers: its own, and tokens in exchange for those of its callers."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytest.importorskip("jwt")
pytest.importorskip("cryptography")

from minimcp import Client, Context, Gateway, OAuth, Server
from minimcp.auth import Introspection, Jwt, Keys
from minimcp.engines.errors import AuthorizationError, ConnectionLost
from minimcp.gateway import credentials as credentials_module
from minimcp.gateway.config import UpstreamSettings
from minimcp.gateway.credentials import Credentials, NotExchangeable
from minimcp.protocol.principal import Principal
from tests.authority import Authority, Resource, basic
from tests.gateways import served
from tests.tokens import AUDIENCE, Issuer

URL = "https://crm.example/mcp"
KEY = "key-of-ann-0123456789"
SECRET = "s3cret-of-the-gateway"


@pytest.fixture
def authority() -> Iterator[Authority]:
    with Authority() as site:
        yield site


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as made:
        yield made


def upstream(credentials: Any = None, url: str = URL, **more: Any) -> UpstreamSettings:
    entry = {"url": url, **more.pop("entry", {})}
    return UpstreamSettings("crm", (entry,), credentials=credentials, **more)


def exchanging(authority: Authority, issuer: Issuer, *more: Any, **options: Any) -> Credentials:
    found = {
        "tokenUrl": f"{authority.url}/token",
        "clientId": "me",
        "clientSecret": SECRET,
        "audience": "crm",
        **options,
    }
    return Credentials(upstream({"tokenExchange": found}), [*more, verifier(issuer)], AUDIENCE)


def verifier(issuer: Issuer) -> Jwt:
    return Jwt(issuer.url, jwks=issuer.document())


def ann(issuer: Issuer, id: str = "ann") -> Principal:
    return Principal(id, issuer.url)


def bearer(token: str) -> dict[str, Any]:
    return {"HTTP_AUTHORIZATION": f"Bearer {token}"}


def sign(credentials: Credentials, principal: Any, environ: Any, url: str = URL) -> Any:
    auth = credentials.auth_for(principal).for_server(URL)
    with credentials.acting(principal, environ):
        return auth.sign("POST", url, {})


# The gateway's own credentials


def test_without_credentials_there_are_none() -> None:
    found = Credentials(upstream())
    assert found.auth_for(None) is None and found.auth_for(Principal("ann")) is None
    assert not found.per_principal and found.headers_for({"HTTP_AUTHORIZATION": "x"}) == {}


def test_a_static_token() -> None:
    found = Credentials(upstream({"bearer": "the-token"}))
    assert found.auth_for(Principal("ann")) == "the-token" and not found.per_principal


def test_what_a_program_gives_is_used_as_it_is() -> None:
    auth = OAuth("a program")
    found = Credentials(upstream(auth))
    assert found.auth_for(Principal("ann")) is auth and not found.per_principal


def test_client_credentials_of_an_endpoint(authority: Authority) -> None:
    options = {"tokenUrl": f"{authority.url}/token", "clientId": "me", "clientSecret": SECRET, "scope": "a"}
    found = Credentials(upstream({"clientCredentials": {**options, "audience": "crm", "method": "client_secret_post"}}))
    auth = found.auth_for(None)
    assert auth is found.auth_for(Principal("ann")) and not found.per_principal
    for _ in range(2):
        ((name, value),) = auth.for_server(URL).sign("POST", URL, {}).items()
    (token,) = authority.issued
    assert (name, value) == ("Authorization", f"Bearer {token}")
    (asked,) = authority.asked("/token")
    assert asked.form == {
        "grant_type": "client_credentials",
        "audience": "crm",
        "scope": "a",
        "client_id": "me",
        "client_secret": SECRET,
    }


def test_client_credentials_of_a_server_that_names_its_authority(authority: Authority) -> None:
    authority.metadata["token_endpoint_auth_methods_supported"] = ["client_secret_basic"]
    with Resource(authority) as resource:
        options = {"clientId": "me", "clientSecret": SECRET, "issuer": authority.issuer, "scope": "a"}
        found = Credentials(upstream({"clientCredentials": options}, resource.endpoint))
        import requests

        auth: OAuth = found._fixed._auth
        assert requests.get(resource.endpoint, auth=auth, timeout=10).status_code == 200
        (asked,) = authority.asked("/token")
        assert asked.form["grant_type"] == "client_credentials" and asked.form["resource"] == resource.endpoint
        assert basic(asked.headers["Authorization"]) == ("me", SECRET)


# Tokens in exchange


def test_the_callers_token_is_exchanged_and_the_new_one_kept(authority: Authority, issuer: Issuer) -> None:
    found = exchanging(authority, issuer, scope="read", resource=URL)
    assert found.per_principal
    token = issuer.token()
    signed = [sign(found, ann(issuer), bearer(token)) for _ in range(3)]
    ((new, old),) = authority.exchanged.items()
    assert signed == [{"Authorization": f"Bearer {new}"}] * 3 and old == token
    (asked,) = authority.asked("/token")
    assert asked.form == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "subject_token": token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "audience": "crm",
        "resource": URL,
        "scope": "read",
        "client_id": "me",
    }
    assert basic(asked.headers["Authorization"]) == ("me", SECRET)


def test_each_caller_and_each_of_their_tokens_has_its_own(authority: Authority, issuer: Issuer) -> None:
    found = exchanging(authority, issuer)
    first, second, bens = issuer.token(jti="1"), issuer.token(jti="2"), issuer.token(sub="ben")
    signed = [
        sign(found, ann(issuer), bearer(first)),
        sign(found, ann(issuer), bearer(second)),
        sign(found, ann(issuer, "ben"), bearer(bens)),
        sign(found, ann(issuer), bearer(first)),
    ]
    subjects = [authority.exchanged[each["Authorization"][7:]] for each in signed]
    assert subjects == [first, second, bens, first] and len(authority.asked("/token")) == 3


def test_what_goes_on_in_the_background_has_the_callers_last_token(authority: Authority, issuer: Issuer) -> None:
    found = exchanging(authority, issuer)
    auth = found.auth_for(ann(issuer)).for_server(URL)
    with pytest.raises(NotExchangeable):
        auth.sign("POST", URL, {})
    first, second = issuer.token(jti="1"), issuer.token(jti="2")
    for token in (first, second):
        sign(found, ann(issuer), bearer(token))
    assert authority.exchanged[auth.sign("GET", URL, {})["Authorization"][7:]] == second
    with pytest.raises(NotExchangeable):
        found.auth_for(ann(issuer, "ben")).for_server(URL).sign("GET", URL, {})


def test_concurrent_requests_of_a_caller_exchange_once(authority: Authority, issuer: Issuer) -> None:
    found = exchanging(authority, issuer)
    token, issue = issuer.token(), authority.token
    here, go = threading.Barrier(9), threading.Event()

    def slow(seen: Any) -> Any:
        go.wait(10)
        return issue(seen)

    authority.pages["/token"] = slow

    def send(_: int) -> Any:
        here.wait(10)
        return sign(found, ann(issuer), bearer(token))

    with ThreadPoolExecutor(8) as pool:
        sent = [pool.submit(send, number) for number in range(8)]
        here.wait(10)
        go.set()
        signed = [each.result(10) for each in sent]
    assert signed == signed[:1] * 8 and len(authority.asked("/token")) == 1


def test_callers_do_not_wait_for_one_another(authority: Authority, issuer: Issuer) -> None:
    found = exchanging(authority, issuer)
    anns, bens = issuer.token(), issuer.token(sub="ben")
    go, issue = threading.Event(), authority.token
    authority.pages["/token"] = lambda seen: (seen.form["subject_token"] == bens or go.wait(10)) and issue(seen)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(sign, found, ann(issuer), bearer(anns))
        assert sign(found, ann(issuer, "ben"), bearer(bens))
        assert not slow.done()
        go.set()
        assert slow.result(10)


@pytest.mark.parametrize(
    "environ",
    [
        None,
        {},
        {"HTTP_X_API_KEY": KEY},
        bearer(KEY),
        bearer("opaque"),
        {"HTTP_AUTHORIZATION": "Basic YW5uOng="},
    ],
)
def test_a_caller_without_a_token_is_told_what_to_do(authority: Authority, issuer: Issuer, environ: Any) -> None:
    found = exchanging(authority, issuer, Keys({"ann": KEY}))
    with pytest.raises(NotExchangeable, match="sign in with a bearer access token") as caught:
        sign(found, ann(issuer), environ)
    assert not authority.seen and KEY not in str(caught.value)


def test_a_token_of_somebody_else_or_one_that_is_not_valid_is_never_sent(authority: Authority, issuer: Issuer) -> None:
    found = exchanging(authority, issuer)
    for token in (
        issuer.token(sub="ben"),
        issuer.token(exp=int(time.time()) - 600),
        issuer.token(aud="https://other.example"),
        issuer.token()[:-8] + "AAAAAAAA",
    ):
        with pytest.raises(NotExchangeable):
            sign(found, ann(issuer), bearer(token))
    # Also where another verifier, such as one of certificates, has found the caller.
    with pytest.raises(NotExchangeable):
        sign(found, Principal("ann", "certificates"), bearer(issuer.token()))
    with pytest.raises(NotExchangeable):
        sign(found, None, bearer(issuer.token()))
    assert not authority.seen


def test_a_token_that_is_bound_to_its_senders_key_cannot_be_exchanged(authority: Authority, issuer: Issuer) -> None:
    found = exchanging(authority, issuer)
    with pytest.raises(NotExchangeable):
        sign(found, ann(issuer), {"HTTP_AUTHORIZATION": f"DPoP {issuer.token(cnf={'jkt': 'x'})}"})
    with pytest.raises(NotExchangeable):
        sign(found, ann(issuer), bearer(issuer.token(cnf={"jkt": "x"})))

    class Asked(Jwt):
        def verify(self, request: Any) -> Any:
            raise AssertionError("a proof is for one use")

    options = {"tokenUrl": f"{authority.url}/token", "clientId": "me", "clientSecret": SECRET, "audience": "crm"}
    never = Credentials(upstream({"tokenExchange": options}), Asked(issuer.url, jwks=issuer.document(), dpop=True))
    with pytest.raises(NotExchangeable):
        sign(never, ann(issuer), {"HTTP_AUTHORIZATION": "DPoP x.y.z", "HTTP_DPOP": "x.y.z"})
    assert not authority.seen


def test_an_opaque_token_is_exchanged_when_it_was_introspected(authority: Authority, issuer: Issuer) -> None:
    answer = {"active": True, "sub": "ann", "aud": AUDIENCE}
    issuer.site.pages["/introspect"] = lambda seen: (200, answer, {})
    auth = Introspection(issuer.url, "me", "my-secret", private_addresses=True)
    options = {"tokenUrl": f"{authority.url}/token", "clientId": "me", "clientSecret": SECRET, "audience": "crm"}
    found = Credentials(upstream({"tokenExchange": options}), auth, AUDIENCE)
    assert sign(found, ann(issuer), bearer("opaque"))
    assert list(authority.exchanged.values()) == ["opaque"]


def test_a_connection_of_one_caller_is_of_no_use_to_another(authority: Authority, issuer: Issuer) -> None:
    found = exchanging(authority, issuer)
    auth = found.auth_for(ann(issuer)).for_server(URL)
    with found.acting(ann(issuer, "ben"), bearer(issuer.token(sub="ben"))):
        with pytest.raises(AuthorizationError, match="There is no access"):
            auth.sign("POST", URL, {})
    assert not authority.seen


def test_tokens_go_to_their_server_alone_and_never_in_the_clear(authority: Authority, issuer: Issuer) -> None:
    found = exchanging(authority, issuer)
    assert sign(found, ann(issuer), bearer(issuer.token()), "https://other.example/mcp") == {}
    auth = found.auth_for(ann(issuer)).for_server("http://10.0.0.1/mcp")
    with found.acting(ann(issuer), bearer(issuer.token())), pytest.raises(AuthorizationError):
        auth.sign("POST", "http://10.0.0.1/mcp", {})
    assert not authority.seen


def test_only_so_many_tokens_are_kept(authority: Authority, issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials_module, "MOST_CALLERS", 3)
    found = exchanging(authority, issuer)
    tokens = [issuer.token(sub=f"user {number}") for number in range(5)]
    for number in (0, 1, 2, 0, 3):
        sign(found, ann(issuer, f"user {number}"), bearer(tokens[number]))
    assert len(authority.asked("/token")) == 4
    for number, count in ((0, 4), (3, 4), (1, 5)):
        sign(found, ann(issuer, f"user {number}"), bearer(tokens[number]))
        assert len(authority.asked("/token")) == count
    exchanges = found._exchange
    assert exchanges is not None and len(exchanges._found) == len(exchanges._last) == 3


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ((400, {"error": "invalid_target", "error_description": "D3TAIL"}, {}), AuthorizationError, "invalid_target"),
        ((200, b"<html>D3TAIL</html>", {}), AuthorizationError, ""),
        ((200, b"x" * 10_000_000, {}), AuthorizationError, ""),
        ((302, b"", {"Location": "http://169.254.169.254/D3TAIL"}), AuthorizationError, ""),
        ((200, {"access_token": "D3TAIL \r\n"}, {}), AuthorizationError, ""),
        ((503, b"D3TAIL", {}), ConnectionLost, "The authorization server of 'crm' does not answer"),
    ],
)
def test_a_failed_exchange_tells_the_caller_nothing_secret(
    authority: Authority, issuer: Issuer, caplog: pytest.LogCaptureFixture, answer: Any, kind: Any, said: str
) -> None:
    authority.pages["/token"] = lambda seen: answer
    token = issuer.token()
    with caplog.at_level(logging.INFO), pytest.raises(kind) as caught:
        sign(exchanging(authority, issuer), ann(issuer), bearer(token))
    if kind is AuthorizationError:
        said = f"There is no access to the server 'crm'{said and ': ' + said}"
    assert str(caught.value) == said
    assert "No token for crm: " in caplog.text
    for secret in (token, SECRET, base64.b64encode(f"me:{SECRET}".encode()).decode()):
        assert secret not in caplog.text + str(caught.value)
    assert [seen.path for seen in authority.seen] == ["/token"]


# Through a gateway


@contextlib.contextmanager
def two_hops(authority: Authority, issuer: Issuer) -> Iterator[tuple[str, list[Any]]]:
    """A gateway that exchanges its callers' tokens, and what its server saw of them."""
    seen: list[Any] = []

    def caller(request: Any) -> Any:
        seen.append({name: value for name, value in request.environ.items() if name.startswith("HTTP_")})
        subject = authority.exchanged.get(request.token)
        if subject is None:
            return None
        claims = subject.split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"])

    crm = Server("crm", auth=caller)

    @crm.tool
    def whoami(ctx: Context) -> str:
        assert ctx.principal is not None
        return ctx.principal.id

    options = {"tokenUrl": f"{authority.url}/token", "clientId": "me", "clientSecret": SECRET, "audience": "crm"}
    jwt = {"issuer": issuer.url, "audience": AUDIENCE, "jwks": issuer.document()}
    auth = [{"jwt": jwt}, {"keys": {"ann": KEY}}]
    with served(crm) as url:
        entry = {"url": url, "probe": 0, "credentials": {"tokenExchange": options}}
        with Gateway({"mcpServers": {"crm": entry}, "gateway": {"auth": auth}}) as gateway, served(gateway) as front:
            yield front, seen


@pytest.mark.parametrize("mode", ["modern", "legacy"])
def test_callers_of_a_gateway_are_themselves_behind_it(authority: Authority, issuer: Issuer, mode: str) -> None:
    with two_hops(authority, issuer) as (front, seen):
        for name in ("ann", "ben", "ann"):
            token = issuer.token(sub=name)
            with Client(front, auth=token, mode=mode) as client:
                assert [tool["name"] for tool in client.list_tools()] == ["crm_whoami"]
                assert client.call_tool("crm_whoami").text == name
        sent = "\n".join(map(str, seen))
        assert not any(each in sent for each in [KEY, SECRET, *authority.exchanged.values()])


def test_a_caller_with_a_key_gets_nothing_of_such_a_server(authority: Authority, issuer: Issuer) -> None:
    with two_hops(authority, issuer) as (front, seen):
        with Client(front, headers={"X-API-Key": KEY}, mode="modern") as client:
            assert client.list_tools() == []
        assert KEY not in str(seen) and not authority.seen


# Headers of callers


def test_only_the_headers_that_are_named_are_forwarded() -> None:
    found = Credentials(upstream(forward_headers=("X-Tenant", "x-request-class")))
    environ = {
        "HTTP_X_TENANT": "blue",
        "HTTP_X_REQUEST_CLASS": "a; b=\xe9",
        "HTTP_AUTHORIZATION": "Bearer x",
        "HTTP_COOKIE": "a=b",
        "HTTP_X_OTHER": "y",
    }
    assert found.headers_for(environ) == {"X-Tenant": "blue", "x-request-class": "a; b=\xe9"}
    assert found.headers_for({}) == found.headers_for(None) == {}


@pytest.mark.parametrize(
    "value", ["", "a\r\nAuthorization: x", "a\0", "a\x7f", " a", "a ", "\u20ac", "x" * 8193, None, 7]
)
def test_a_header_that_cannot_be_sent_is_left_out(value: Any) -> None:
    found = Credentials(upstream(forward_headers=("X-Tenant", "X-Other")))
    assert found.headers_for({"HTTP_X_TENANT": value, "HTTP_X_OTHER": "x"}) == {"X-Other": "x"}


@pytest.mark.parametrize(
    "name",
    [
        *("Authorization", "authorization", "Cookie", "Proxy-Authorization", "X-API-Key", "DPoP", "Set-Cookie"),
        *("Mcp-Session-Id", "MCP-Protocol-Version", "Mcp-Param-X", "Mcp-Method", "Last-Event-ID"),
        *("Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Expect"),
        *("X-Forwarded-For", "X-Forwarded-User", "Forwarded", "X-Real-IP", "Via", "Host", "Origin", "Sec-Fetch-Site"),
        *("Content-Length", "Content-Type", "Accept", "Accept-Encoding", "X_Tenant", "X Tenant", "X:", "", "X\n"),
    ],
)
def test_a_header_that_may_never_be_forwarded(name: str) -> None:
    with pytest.raises(ValueError, match="The server 'crm': forwardHeaders"):
        Credentials(upstream(forward_headers=("X-Tenant", name)))


# Mistakes in a configuration

CLIENT = {"clientId": "me", "clientSecret": "S3CRET"}
EXCHANGE = {**CLIENT, "tokenUrl": "https://id.example/token", "audience": "crm"}


@pytest.mark.parametrize(
    ("credentials", "said"),
    [
        ({}, "credentials has one of bearer, clientCredentials, tokenExchange"),
        ({"bearer": "x", "clientCredentials": CLIENT}, "credentials has one of"),
        ({"barer": "S3CRET"}, "credentials has no option 'barer'; did you mean 'bearer'?"),
        ({"token_exchange": EXCHANGE}, "did you mean 'tokenExchange'?"),
        ({"clientCredentials": [CLIENT]}, "credentials.clientCredentials must be an object, not a list"),
        ({"bearer": ""}, "credentials.bearer must be a string that is not empty"),
        ({"bearer": "Bearer S3CRET"}, "credentials.bearer is a token, which has no spaces"),
        ({"bearer": {"token": "S3CRET"}}, "credentials.bearer must be a string"),
        ({"clientCredentials": "S3CRET"}, "credentials.clientCredentials must be an object"),
        ({"clientCredentials": {"clientId": "me"}}, "credentials.clientCredentials needs 'clientSecret'"),
        ({"clientCredentials": {**CLIENT, "scopes": "a"}}, "has no option 'scopes'; did you mean 'scope'?"),
        ({"clientCredentials": {**CLIENT, "audience": "a"}}, "clientCredentials.audience goes with tokenUrl"),
        ({"clientCredentials": {**EXCHANGE, "issuer": "https://id.example"}}, "issuer goes without tokenUrl"),
        ({"clientCredentials": {**CLIENT, "tokenUrl": "http://id.example/S3CRET"}}, "tokenUrl cannot be used"),
        (
            {"clientCredentials": {**EXCHANGE, "method": "none"}},
            "must be one of client_secret_basic, client_secret_post",
        ),
        ({"tokenExchange": {**CLIENT, "audience": "crm"}}, "credentials.tokenExchange needs 'tokenUrl'"),
        ({"tokenExchange": {**CLIENT, "tokenUrl": "https://id.example/token"}}, "needs 'audience' or 'resource'"),
        (
            {"tokenExchange": {**EXCHANGE, "tokenUrl": "http://id.example/token"}},
            "must be https, or http on this machine",
        ),
        ({"tokenExchange": {**EXCHANGE, "clientsecret": "x"}}, "did you mean 'clientSecret'?"),
        ({"tokenExchange": {**EXCHANGE, "subjectTokenType": 7}}, "subjectTokenType must be a string"),
    ],
)
def test_a_mistake_is_named_with_its_place(issuer: Issuer, credentials: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        Credentials(upstream(credentials), verifier(issuer), AUDIENCE)
    text = str(caught.value)
    assert text.startswith("The server 'crm': credentials") and said in text
    assert "S3CRET" not in text.replace("id.example/S3CRET", "")


def test_an_exchange_needs_callers_with_tokens(issuer: Issuer) -> None:
    for auth in (None, "public", Keys({"ann": KEY}), ["public", lambda request: "ann"]):
        with pytest.raises(ValueError, match="the gateway's auth has neither jwt nor introspection"):
            Credentials(upstream({"tokenExchange": EXCHANGE}), auth, AUDIENCE)
    assert Credentials(upstream({"tokenExchange": EXCHANGE}), ["public", verifier(issuer)], AUDIENCE).per_principal


def test_credentials_and_their_server_go_together(issuer: Issuer) -> None:
    process = UpstreamSettings("crm", ({"command": "x"},), credentials={"bearer": "x"})
    with pytest.raises(ValueError, match="a process gets its credentials by env"):
        Credentials(process)
    with pytest.raises(ValueError, match="both credentials; name one"):
        Credentials(upstream({"bearer": "x"}, entry={"headers": {"AUTHORIZATION": "Bearer y"}}))
    for credentials in ({"tokenExchange": EXCHANGE}, {"clientCredentials": CLIENT}):
        with pytest.raises(ValueError, match="needs https"):
            Credentials(upstream(credentials, "http://crm.example/mcp"), verifier(issuer), AUDIENCE)
    assert Credentials(upstream({"bearer": "x"}, "http://10.0.0.1/mcp")).auth_for(None) == "x"


def test_a_secret_that_looks_like_a_variable_stays_one() -> None:
    assert Credentials(upstream({"bearer": "${HOME}"})).auth_for(None) == "${HOME}"


def test_nothing_shows_a_secret(authority: Authority, issuer: Issuer) -> None:
    found = exchanging(authority, issuer)
    sign(found, ann(issuer), bearer(issuer.token()))
    shown = repr([found, found.auth_for(ann(issuer)), found._exchange, *vars(found).values()])
    assert SECRET not in shown and not any(each in shown for each in authority.exchanged)
