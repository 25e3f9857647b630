"""The servers of `examples/protected`, as they are shown: behind nginx, in a Flask application, in a Django project."""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from minimcp import Client, OAuth
from tests.authority import Authority, Browser
from tests.helpers import Process, free_port, http_headers, modern
from tests.tokens import Issuer
from tests.transports import ROOT

pytest.importorskip("jwt", reason="PyJWT is not installed")
pytest.importorskip("cryptography", reason="cryptography is not installed")

EXAMPLES = str(ROOT / "examples")
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")


def certificates(folder: Path) -> None:
    """Make a server's certificate, an authority for those of clients, and three clients' own."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now = datetime.datetime.now(datetime.timezone.utc)

    def make(file: str, name: str, issuer: Any = None, authority: bool = False) -> Any:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name.from_rfc4514_string(name)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer[0] if issuer else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), True)
            .add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
                ),
                False,
            )
            .sign(issuer[1] if issuer else key, hashes.SHA256())
        )
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        (folder / f"{file}.key").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        (folder / f"{file}.pem").write_bytes(made.public_bytes(pem))
        return subject, key

    make("server", "CN=localhost", authority=True)
    issuer = make("clients", "CN=clients", authority=True)
    make("operator", "CN=operator,O=Example", issuer)
    make("other", "CN=other,O=Example", issuer)
    make("stranger", "CN=operator,O=Example")


class LoginServer(Authority):
    """An authorization server whose access tokens are JSON Web Tokens for the resource that was asked for."""

    def __init__(self) -> None:
        super().__init__()
        metadata = "/.well-known/oauth-authorization-server"
        page = self.pages[metadata]
        self.signer = Issuer(self)
        self.pages[metadata] = page
        self.metadata["jwks_uri"] = f"{self.url}/keys"
        self.resources: dict[str, str] = {}

    def authorize(self, seen: Any) -> Any:
        answer = super().authorize(seen)
        self.resources[seen.form["client_id"]] = seen.form["resource"]
        return answer

    def token(self, seen: Any) -> Any:
        status, body, headers = super().token(seen)
        if status == 200:
            client = seen.form["client_id"]
            scope = self.issued[body["access_token"]]
            body["access_token"] = self.signer.token(aud=self.resources[client], scope=scope, azp=client)
        return status, body, headers


class Deployed:
    """The example server behind nginx."""

    def __init__(self, url: str, key: str, login: LoginServer, folder: Path) -> None:
        self.url, self.key, self.login, self.folder = url, key, login, folder
        self.origin = url[: url.index("/team/")]
        self.verify = str(folder / "server.pem")

    def ask(self, name: str = "who_am_i", certificate: str = "", **headers: str) -> Any:
        message = modern("tools/call", name=name, arguments={"text": "x"} if name == "write_note" else {})
        cert = (str(self.folder / f"{certificate}.pem"), str(self.folder / f"{certificate}.key"))
        return requests.post(
            self.url,
            json=message,
            headers=http_headers(message, **headers),
            verify=self.verify,
            cert=cert if certificate else None,
            timeout=20,
        )

    def who(self, **more: str) -> Any:
        answer = self.ask(**more)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]["structuredContent"]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: Any) -> Iterator[Deployed]:
    if NGINX is None:
        pytest.skip("nginx is not installed")
    folder = tmp_path_factory.mktemp("deployed")
    certificates(folder)
    command = [sys.executable, "-m", "minimcp", "token", "backup", "--role", "operator"]
    command += ["--file", str(folder / "keys.json")]
    key = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    port = free_port()
    url = f"https://localhost:{port}/team/mcp"
    with LoginServer() as login:
        env = {"PROTECTED_URL": url, "PROTECTED_ISSUER": login.issuer, "PROTECTED_KEYS": str(folder / "keys.json")}
        command = [sys.executable, "-m", "minimcp", "run", "examples/protected/server.py", "--http", "0"]
        with Process(command, cwd=str(ROOT), **env) as server:
            behind = server.wait_for(r"listening on (http://127\.0\.0\.1:\d+)/mcp").group(1)
            config = (ROOT / "examples/protected/nginx.conf").read_text()
            for old, new in (
                ("listen 443", f"listen 127.0.0.1:{port}"),
                ("http://127.0.0.1:8000", behind),
                ("/etc/ssl/tools.example", str(folder / "server")),
                ("/etc/ssl/clients", str(folder / "clients")),
                ("tools.example;", "localhost;"),
            ):
                assert old in config
                config = config.replace(old, new)
            places = "".join(
                f"{name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            )
            main = f"daemon off; master_process off; pid {folder}/pid; error_log stderr notice; events {{}}\n"
            (folder / "nginx.conf").write_text(f"{main}http {{\naccess_log off;\n{places}{config}\n}}\n")
            with Process([NGINX, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]) as nginx:
                nginx.wait_for("using the .* event method")
                yield Deployed(url, key, login, folder)


def test_behind_a_prefix_the_challenge_leads_to_metadata_that_is_there(deployed: Deployed) -> None:
    answer = deployed.ask()
    assert answer.status_code == 401
    place = f"{deployed.origin}/.well-known/oauth-protected-resource/team/mcp"
    assert answer.headers["WWW-Authenticate"] == f'Bearer resource_metadata="{place}"'
    document = requests.get(place, verify=deployed.verify, timeout=20).json()
    assert (document["resource"], document["authorization_servers"]) == (deployed.url, [deployed.login.issuer])
    root = requests.get(f"{deployed.origin}/.well-known/oauth-protected-resource", verify=deployed.verify, timeout=20)
    assert root.status_code == 404


def test_a_key_a_token_and_a_certificate_each_have_their_caller(deployed: Deployed) -> None:
    assert deployed.who(X_API_Key=deployed.key) == {"id": "backup", "issuer": "", "roles": ["operator"], "via": "key"}
    claims = {"aud": deployed.url, "azp": "desk", "realm_access": {"roles": ["operator"]}}
    found = deployed.who(Authorization=f"Bearer {deployed.login.signer.token(**claims)}")
    assert found == {"id": "ann", "issuer": deployed.login.issuer, "roles": ["operator"], "via": "desk"}
    found = deployed.who(certificate="operator")
    assert found["id"] == "CN=operator,O=Example" and (found["issuer"], found["roles"]) == ("certificate", ["operator"])
    assert deployed.who(certificate="other")["roles"] == []


def test_a_token_for_the_address_behind_the_proxy_is_refused(deployed: Deployed) -> None:
    for audience in (f"{deployed.origin}/mcp", f"{deployed.origin}/team", f"{deployed.url}/"):
        token = deployed.login.signer.token(aud=audience)
        assert deployed.ask(Authorization=f"Bearer {token}").status_code == 401


def test_nobody_claims_a_certificate_by_a_header_or_with_one_of_another_authority(deployed: Deployed) -> None:
    said = {"X_Client_Subject": "CN=operator,O=Example", "X_Client_Verify": "SUCCESS"}
    assert deployed.ask(**said).status_code == 401
    assert deployed.who(certificate="other", **said)["id"] == "CN=other,O=Example"
    assert deployed.ask(certificate="stranger").status_code == 400


def test_a_tool_for_operators_is_unknown_to_others(deployed: Deployed) -> None:
    token = deployed.login.signer.token(aud=deployed.url)
    denied = deployed.ask("restart", Authorization=f"Bearer {token}").json()
    assert denied["error"]["message"] == "Unknown tool: restart"
    assert deployed.ask("restart", X_API_Key=deployed.key).json()["result"]["content"][0]["text"] == "Restarted."


def test_a_person_signs_in_through_the_proxy_and_steps_up(deployed: Deployed) -> None:
    browser = Browser()
    with requests.Session() as session:
        session.trust_env, session.verify = False, deployed.verify
        auth = OAuth("test", login=browser, verify=deployed.verify)
        with Client(deployed.url, session=session, auth=auth) as client:
            assert client.call_tool("who_am_i").data["id"] == "ann"
            assert [tool["name"] for tool in client.list_tools()] == ["who_am_i"]
            assert client.call_tool("write_note", text="milk").text == "Noted: milk"
    assert len(browser.opened) == 2 and browser.query()["scope"].split() == ["notes:write"]
    assert browser.query()["resource"] == deployed.url


# Flask-Login


@pytest.fixture
def flask_site(tmp_path: Path, monkeypatch: Any) -> Any:
    pytest.importorskip("flask_login", reason="flask-login is not installed")
    from minimcp.auth.keys import make_key

    monkeypatch.syspath_prepend(EXAMPLES)
    from protected import flask_site

    key = make_key(tmp_path / "keys.json", "report", ["staff"])
    return flask_site.create_app(str(tmp_path / "keys.json")), key


def flask_call(client: Any, name: str = "greet", **headers: str) -> Any:
    message = modern("tools/call", name=name)
    return client.post("/mcp", json=message, headers=http_headers(message, **headers))


def test_a_page_of_the_flask_application_calls_as_its_user(flask_site: Any) -> None:
    app, key = flask_site
    texts = {}
    for name in ("ann", "bob"):
        client = app.test_client()
        assert flask_call(client).status_code == 401
        assert client.post("/login", data={"name": name, "password": f"{name}'s password"}).status_code == 200
        texts[name] = [flask_call(client, tool).get_json() for tool in ("greet", "report")]
        assert texts[name][0]["result"]["content"][0]["text"] == f"Hello {name}"
        client.post("/logout")
        assert flask_call(client).status_code == 401
    assert texts["ann"][1]["result"]["content"][0]["text"] == "All is well."
    assert texts["bob"][1]["error"]["message"] == "Unknown tool: report"
    robot = flask_call(app.test_client(), "report", Authorization=f"Bearer {key}")
    assert robot.get_json()["result"]["content"][0]["text"] == "All is well."


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "http://localhost:3000"}, 401),
        ({"Origin": "http://localhost"}, 200),
    ],
)
def test_a_page_of_another_site_does_not_call_as_the_user(flask_site: Any, headers: Any, status: int) -> None:
    client = flask_site[0].test_client()
    client.post("/login", data={"name": "ann", "password": "ann's password"})
    assert flask_call(client, **headers).status_code == status


# Django and django-oauth-toolkit


@pytest.fixture(scope="module")
def django_site(tmp_path_factory: Any) -> Iterator[str]:
    pytest.importorskip("django", reason="django is not installed")
    pytest.importorskip("gunicorn", reason="gunicorn is not installed")
    pytest.importorskip("oauth2_provider", reason="django-oauth-toolkit is not installed")
    home, port = tmp_path_factory.mktemp("site"), free_port()
    url = f"http://localhost:{port}"
    env = {"HOME": str(home), "PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": "protected.django_site.settings"}
    env.update(SITE_URL=url, SITE_DATABASE=str(home / "site.sqlite3"))

    def manage(*arguments: str) -> None:
        command = [sys.executable, "-m", "django", *arguments]
        subprocess.run(
            command, cwd=EXAMPLES, env={**os.environ, **env}, timeout=90, check=True, capture_output=True, text=True
        )

    manage("migrate", "--verbosity", "0")
    manage(
        "shell",
        "-c",
        "from django.contrib.auth.models import Group, User\n"
        "ann, bob = (User.objects.create_user(name, password=name + ' has a password') for name in ('ann', 'bob'))\n"
        "ann.groups.add(Group.objects.create(name='staff'))",
    )
    client = [
        "public",
        "authorization-code",
        "--client-id",
        "desk",
        "--redirect-uris",
        "http://127.0.0.1:7000/callback",
    ]
    manage("createapplication", *client)
    command = [sys.executable, "-m", "gunicorn", "--threads", "2", "--bind", f"localhost:{port}"]
    with Process([*command, "django.core.wsgi:get_wsgi_application()"], cwd=EXAMPLES, **env) as process:
        process.wait_for("Listening at")
        yield url


class Visitor:
    """A browser with cookies, whose user logs in and agrees; what `OAuth(login=...)` wants."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.session = requests.Session()
        self.session.trust_env = False

    def __call__(self, url: str) -> str:
        answer = self.session.get(url, timeout=20)
        if "/login" in answer.url:
            answer = self.submit(answer, username=self.name, password=f"{self.name} has a password")
        if not answer.is_redirect:
            answer = self.submit(answer, follow=False, allow="Authorize")
        return answer.headers["Location"]

    def submit(self, page: Any, follow: bool = True, **values: str) -> Any:
        assert page.status_code == 200, page.text
        fields = {}
        for field in re.findall("<input[^>]*hidden[^>]*>", page.text):
            named, value = (re.search(f' {name}="([^"]*)"', field) for name in ("name", "value"))
            fields[named[1]] = value[1].replace("&amp;", "&") if value else ""  # type: ignore[index]
        return self.session.post(page.url, data={**fields, **values}, timeout=20, allow_redirects=follow)


def signed_in(site: str, name: str) -> Client:
    redirect = "http://127.0.0.1:7000/callback"
    return Client(f"{site}/mcp", auth=OAuth(client_id="desk", redirect_uri=redirect, login=Visitor(name)))


def test_a_user_of_django_signs_in_and_has_groups_as_roles(django_site: str) -> None:
    with signed_in(django_site, "ann") as client:
        assert client.call_tool("greet").text == "Hello ann"
        assert [tool["name"] for tool in client.list_tools()] == ["greet", "report"]
    with signed_in(django_site, "bob") as client:
        assert client.call_tool("greet").text == "Hello bob"
        assert [tool["name"] for tool in client.list_tools()] == ["greet"]


def test_a_page_of_the_django_site_calls_as_its_user_and_another_does_not(django_site: str) -> None:
    visitor, message = Visitor("ann"), modern("tools/call", name="greet")
    page = visitor.session.get(f"{django_site}/login?next=/nowhere", timeout=20)
    visitor.submit(page, follow=False, username="ann", password="ann has a password")

    def call(**headers: str) -> Any:
        return visitor.session.post(
            f"{django_site}/mcp", json=message, headers=http_headers(message, **headers), timeout=20
        )

    assert json.loads(call(Origin=django_site).text)["result"]["content"][0]["text"] == "Hello ann"
    assert call(Origin="http://localhost:3000").status_code == 401
    assert call(Origin="https://evil.example").status_code == 403
    visitor.session.cookies.clear()
    challenge = call().headers["WWW-Authenticate"]
    assert f'resource_metadata="{django_site}/.well-known/oauth-protected-resource/mcp"' in challenge
