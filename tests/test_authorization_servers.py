"""A sign-in from end to end, with authorization servers that nobody here wrote: `oidc-provider` of npm, and `canaille`.

Our client, our server behind `Jwt` or `Introspection`, and in between the real thing. They live in the folder that
MINIMCP_PEERS_DIR names; see `test_peer_servers`.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import pytest
import requests

pytest.importorskip("jwt", reason="PyJWT is not installed")
pytest.importorskip("cryptography", reason="cryptography is not installed")

from minimcp import AuthorizationError, Client, Context, OAuth, Server
from minimcp.auth import Introspection, Jwt
from tests.embedded import embedded, wait_until
from tests.helpers import Process, free_port, http_headers, modern
from tests.test_peers import node, peer_file

PEERS = Path(__file__).resolve().parent / "peers"
SERVERS = PEERS / "servers"
DOCUMENT = "https://desk.example/client.json"


class Refused(Exception):
    """A page of the authorization server that is no form."""


class Visitor:
    """A browser with cookies whose user fills in every form; what `OAuth(login=...)` wants."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self._session = requests.Session()
        self._session.trust_env = False

    def __call__(self, url: str) -> str:
        self.opened.append(url)
        answer = self._session.get(url, timeout=20, allow_redirects=False)
        for _ in range(20):
            if answer.is_redirect:
                place = urljoin(answer.url, answer.headers["Location"])
                if urlsplit(place).path == "/callback":
                    return place
                answer = self._session.get(place, timeout=20, allow_redirects=False)
            else:
                answer = self._fill_in(answer)
        raise Refused("the sign-in does not end")

    def _fill_in(self, page: Any) -> Any:
        if page.status_code != 200 or "<form" not in page.text:
            raise Refused(page.text)
        fields = {}
        for field in re.findall("<input[^>]*>", page.text):
            name, value = (re.search(f' {each}="([^"]*)"', field) for each in ("name", "value"))
            if name is not None:
                fields[name[1]] = (value[1] if value else "") or "ann"
        place = re.search('<form[^>]* action="([^"]*)"', page.text)
        target = urljoin(page.url, place[1] if place else "")
        return self._session.post(target, data=fields, timeout=20, allow_redirects=False)

    def asked(self, index: int = -1) -> Any:
        """The parameters of an authorization request."""
        return dict(parse_qsl(urlsplit(self.opened[index]).query))


class Login:
    """A running `oidc-provider`."""

    def __init__(self, **settings: Any) -> None:
        port = free_port()
        self.issuer = f"http://127.0.0.1:{port}"
        known = {"format": "jwt", "lifetime": 600, "nonce": False, "scopes": [], "documents": {}, **settings}
        peer_file("oidc", "node_modules", "oidc-provider")
        command = [*node(), str(SERVERS / "oidc_provider.mjs"), peer_file("oidc"), str(port), json.dumps(known)]
        self._process = Process(command)

    def __enter__(self) -> Login:
        try:
            self._process.wait_for("^listening$", 30)
        except BaseException:
            self._process.__exit__()
            raise
        return self

    def __exit__(self, *problem: Any) -> None:
        self._process.__exit__(*problem)

    def events(self, kind: str) -> list[str]:
        """What happened there so far, such as every "grant"."""
        return [line.partition(" ")[2] for line in list(self._process.lines) if line.startswith(f"{kind} ")]


@pytest.fixture(scope="module")
def login() -> Iterator[Login]:
    with Login() as login:
        yield login


@pytest.fixture(scope="module")
def opaque() -> Iterator[Login]:
    with Login(format="opaque") as login:
        yield login


def guarded(auth: Any, **options: Any) -> Server:
    server = Server("guarded", auth=auth, on_denied="challenge", **options)

    @server.tool
    def who(ctx: Context) -> dict:
        found = ctx.principal
        return {"id": found.id, "issuer": found.issuer, "scopes": sorted(found.scopes), "via": found.via}

    @server.tool(scopes=["notes:write"])
    def write(text: str) -> str:
        return f"Noted: {text}"

    return server


@contextlib.contextmanager
def served(auth: Any, **options: Any) -> Iterator[str]:
    """Serve a guarded server whose public URL is where it really is."""
    apps: list[Any] = []
    with embedded(lambda environ, start_response: apps[0](environ, start_response)) as listening:
        url = f"{listening.url}/mcp"
        apps.append(guarded(auth, public_url=url, **options).wsgi)
        yield url


def by_jwt(login: Login, **options: Any) -> Jwt:
    return Jwt(login.issuer, scopes=["notes:read"], private_addresses=True, **options)


def by_introspection(login: Login, **options: Any) -> Introspection:
    known = {"scopes": ["notes:read"], "private_addresses": True, **options}
    return Introspection(login.issuer, "resource", "secret of the resource", **known)


def test_a_client_that_nobody_knows_registers_signs_in_and_calls(login: Login) -> None:
    visitor = Visitor()
    with served(by_jwt(login)) as url, Client(url, auth=OAuth("Tests", login=visitor)) as client:
        found = client.call_tool("who").data
        assert (found["id"], found["issuer"], found["scopes"]) == ("ann", login.issuer, ["notes:read"])
        wait_until(lambda: login.events("registered")[-1:] == [found["via"]])
        asked = visitor.asked()
        assert (asked["resource"], asked["code_challenge_method"]) == (url, "S256")
        assert asked["scope"] == "notes:read offline_access"
        assert len(visitor.opened) == 1


def test_a_token_for_one_server_is_worth_nothing_at_another(login: Login) -> None:
    store: dict[str, Any] = {}
    with served(by_jwt(login)) as url, served(by_jwt(login)) as other:
        with Client(url, auth=OAuth("Tests", login=Visitor(), store=store)) as client:
            client.list_tools()
        (token,) = (kept["access_token"] for name, kept in store.items() if name.startswith("token"))
        for place, status in ((url, 200), (other, 401)):
            message = modern("tools/list")
            headers = http_headers(message, Authorization=f"Bearer {token}")
            assert requests.post(place, json=message, headers=headers, timeout=20).status_code == status


def test_an_opaque_token_is_asked_about(opaque: Login) -> None:
    visitor = Visitor()
    with served(by_introspection(opaque)) as url, Client(url, auth=OAuth("Tests", login=visitor)) as client:
        found = client.call_tool("who").data
        assert (found["id"], found["issuer"], found["scopes"]) == ("ann", opaque.issuer, ["notes:read"])
        message = modern("tools/list")
        headers = http_headers(message, Authorization="Bearer not-one-of-theirs")
        assert requests.post(url, json=message, headers=headers, timeout=20).status_code == 401


@pytest.mark.parametrize("kind", ["jwt", "opaque"])
def test_a_token_that_has_ended_is_renewed_without_the_user(login: Login, opaque: Login, kind: str) -> None:
    visitor, store, server = Visitor(), {}, login if kind == "jwt" else opaque  # type: ignore[var-annotated]
    with served(by_jwt(login) if kind == "jwt" else by_introspection(opaque)) as url:
        with Client(url, auth=OAuth("Tests", login=visitor, store=store)) as client:
            client.list_tools()
        (place,) = (name for name in store if name.startswith("token"))
        for _ in range(2):
            before = store[place]
            store[place] = {**before, "access_token": "ended"}
            with Client(url, auth=OAuth("Tests", login=visitor, store=store)) as client:
                assert client.call_tool("who").data["id"] == "ann"
            assert store[place]["refresh_token"] not in (None, before["refresh_token"])
    assert len(visitor.opened) == 1
    wait_until(lambda: server.events("grant")[-2:] == ["refresh_token"] * 2)


def test_a_missing_scope_leads_to_a_sign_in_and_not_to_a_refresh(login: Login) -> None:
    """A refresh gives the scopes of before at most, so the refresh token that is there would be of no use."""
    visitor, store = Visitor(), {}  # type: ignore[var-annotated]
    before = len(login.events("grant"))
    with served(by_jwt(login)) as url, Client(url, auth=OAuth("Tests", login=visitor, store=store)) as client:
        client.call_tool("who")
        assert any(kept.get("refresh_token") for kept in store.values())
        assert client.call_tool("write", text="milk").text == "Noted: milk"
        wait_until(lambda: len(login.events("grant")) >= before + 2)
        assert login.events("grant")[before:] == ["authorization_code"] * 2
        assert len(visitor.opened) == 2
        assert set(visitor.asked()["scope"].split()) >= {"notes:read", "notes:write"}
        assert client.call_tool("who").data["scopes"] == ["notes:read", "notes:write"]
    assert len(visitor.opened) == 2


def test_a_missing_scope_is_an_error_where_the_user_does_not_agree(login: Login) -> None:
    visitor = Visitor()

    def once(url: str) -> str:
        if not visitor.opened:
            return visitor(url)
        state = dict(parse_qsl(urlsplit(url).query))["state"]
        refusal = {"error": "access_denied", "state": state, "iss": login.issuer}
        return f"http://127.0.0.1/callback?{urlencode(refusal)}"

    with served(by_jwt(login)) as url, Client(url, auth=OAuth("Tests", login=once)) as client:
        client.call_tool("who")
        with pytest.raises(AuthorizationError, match="access_denied"):
            client.call_tool("write", text="milk")
        assert client.call_tool("who").data["scopes"] == ["notes:read"]


@pytest.mark.parametrize("nonce", [False, True])
@pytest.mark.parametrize("kind", ["jwt", "opaque"])
def test_a_token_is_bound_to_the_key_of_its_client(kind: str, nonce: bool) -> None:
    visitor, store = Visitor(), {}  # type: ignore[var-annotated]
    with Login(format=kind, nonce=nonce) as login:
        verifier = (by_jwt if kind == "jwt" else by_introspection)(login, dpop="required", dpop_nonce=nonce)
        auth = OAuth("Tests", login=visitor, store=store, dpop=True)
        with served(verifier) as url, Client(url, auth=auth) as client:
            assert client.call_tool("who").data["id"] == "ann"
            assert client.call_tool("write", text="milk").text == "Noted: milk"
            with pytest.raises(AuthorizationError), Client(url, auth=OAuth("Tests", login=Visitor())) as plain:
                plain.list_tools()


def test_a_client_names_itself_by_its_metadata_document() -> None:
    visitor = Visitor()
    auth = OAuth("Tests", login=visitor, client_metadata_url=DOCUMENT)
    with Login(documents={DOCUMENT: auth.client_metadata()}) as login:
        with served(by_jwt(login)) as url, Client(url, auth=auth) as client:
            assert client.call_tool("who").data["via"] == DOCUMENT
        assert login.events("registered") == []


def test_the_client_of_another_documents_url_is_not_let_in() -> None:
    auth = OAuth("Tests", login=Visitor(), client_metadata_url=DOCUMENT)
    wrong = {**auth.client_metadata(), "client_id": "https://other.example/client.json"}
    with Login(documents={DOCUMENT: wrong}) as login, served(by_jwt(login)) as url:
        with pytest.raises(Refused, match="client_id does not match"), Client(url, auth=auth) as client:
            client.list_tools()


def official(client: str) -> list[str]:
    """The command of an official client that signs in, without its target."""
    kind, _, version = client.partition(" ")
    if kind == "python":
        return [peer_file(f"sdk{version}", "bin", "python"), str(PEERS / "python_sign_in.py")]
    peer_file("node", "node_modules", "@modelcontextprotocol", {"1": "sdk", "2": "client"}[version])
    return [*node(), str(PEERS / "typescript_sign_in.mjs"), peer_file("node"), version]


@pytest.mark.parametrize("client", ["python 1", "python 2", "typescript 1", "typescript 2"])
def test_an_official_client_signs_in(client: str) -> None:
    """These register for the scopes of the challenge, which this authorization server has to know then."""
    visitor, found, said = Visitor(), [], []  # type: ignore[var-annotated]
    with Login(scopes=["notes:read"]) as login, served(by_jwt(login)) as url:
        with subprocess.Popen(
            [*official(client), url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as child:
            bound = threading.Timer(60, child.kill)
            bound.start()
            assert child.stdin is not None and child.stdout is not None
            for line in child.stdout:
                kind, _, rest = line.rstrip("\n").partition(" ")
                if kind == "open":
                    child.stdin.write(visitor(rest) + "\n")
                    child.stdin.flush()
                elif kind == "result":
                    found.append(json.loads(rest))
                else:
                    said.append(line)
            bound.cancel()
            bound.join()
        assert [each["id"] for each in found] == ["ann"], "".join(said)
        assert found[0]["issuer"] == login.issuer and visitor.asked()["resource"] == url


@pytest.fixture(scope="module")
def canaille() -> Iterator[str]:
    port = free_port()
    with Process([peer_file("canaille", "bin", "python"), str(SERVERS / "canaille_login.py"), str(port)]) as process:
        process.wait_for("^listening$", 60)
        yield f"http://localhost:{port}"


def test_a_server_that_does_not_know_resources_names_its_clients_as_audience(canaille: str) -> None:
    """A token is for those clients that may ask about it; one of them is the resource."""
    known = ("resource", "secret of the resource")
    verifier = Introspection(canaille, *known, audience="resource", scopes=["groups"], private_addresses=True)
    visitor, store = Visitor(), {}  # type: ignore[var-annotated]
    options = {"client_id": "desk", "redirect_uri": "http://127.0.0.1:7000/callback", "login": visitor, "store": store}
    with served(verifier) as url:
        with Client(url, auth=OAuth(**options)) as client:
            found = client.call_tool("who").data
        assert (found["id"], found["issuer"], found["via"]) == ("ann", canaille, "desk")
        assert "groups" in found["scopes"]
        (place,) = (name for name in store if name.startswith("token"))
        before = store[place]
        store[place] = {**before, "access_token": "ended"}
        with Client(url, auth=OAuth(**options)) as client:
            assert client.call_tool("who").data["id"] == "ann"
    assert len(visitor.opened) == 1 and store[place]["access_token"] not in ("ended", before["access_token"])
    strict = Introspection(canaille, *known, audience="https://other.example/mcp", private_addresses=True)
    with served(strict) as url, pytest.raises(AuthorizationError), Client(url, auth=OAuth(**options)) as client:
        client.list_tools()
