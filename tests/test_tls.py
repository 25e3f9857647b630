"""TLS of the embedded server: certificates of clients, their principals, and a certificate that is renewed."""

from __future__ import annotations

import json
import logging
import os
import shutil
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cryptography")
from cryptography import x509

import minimcp
from minimcp import Context, Server
from minimcp.auth import AuthRequest, ClientCertificate
from minimcp.engines.http_server.certificates import Certificates, distinguished_name
from minimcp.engines.http_server.wsgi_server import WsgiServer, make_server
from minimcp.protocol.errors import Unauthorized
from minimcp.transports.http import HttpApp
from tests.certificates import Authority
from tests.embedded import Wire, echo, embedded
from tests.helpers import http_headers, modern

Pair = tuple[str, str]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def serving(authority: Authority) -> Pair:
    return authority.server()


def connect(listening: WsgiServer, ca: str, certificate: Pair | None = None, version: Any = None) -> Wire:
    context = ssl.create_default_context(cafile=ca)
    if version is not None:
        context.maximum_version = version
    if certificate is not None:
        context.load_cert_chain(*certificate)
    wire = Wire(listening)
    try:
        wire.socket = context.wrap_socket(wire.socket, server_hostname="localhost")
    except BaseException:
        wire.socket.close()
        raise
    return wire


def refused(listening: WsgiServer, ca: str, certificate: Pair | None, version: Any) -> bool:
    """Whether the server ends a connection in or right after the handshake, without an answer."""
    try:
        with connect(listening, ca, certificate, version) as wire:
            return wire.get("/").head()[0] == 0
    except ssl.SSLCertVerificationError:
        raise  # The client's own doubts.
    except (ssl.SSLError, ConnectionError):
        return True


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_needs_a_certificate_of_the_authority(
    authority: Authority, serving: Pair, tmp_path: Path, version: Any
) -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        return echo(environ, start_response)

    names = (x509.DNSName("ann.example"), x509.RFC822Name("ann@example.com"), x509.DNSName("b.example"))
    ann = authority.issue("ann", {"O": "Exämple, Inc.", "CN": "Ann+Bob"}, names)
    stranger = Authority(tmp_path, "Other CA").issue("stranger", {"CN": "Ann"})
    itself = authority.issue("web", {"CN": "web"}, usage="server")
    old = authority.issue("old", {"CN": "old"}, lasts_s=-10)
    soon = authority.issue("soon", {"CN": "soon"}, began_s=-600)
    with embedded(app, tls=serving, ca=authority.ca) as listening:
        for wrong in (None, stranger, itself, old, soon):
            assert refused(listening, authority.ca, wrong, version), wrong
        assert seen == []
        with connect(listening, authority.ca, ann, version) as wire:
            lines = "SSL_CLIENT_S_DN: CN=root", "Ssl-Client-Verify: NONE", "Minimcp.client_certificate: {}"
            assert wire.get("/in", *lines).answer() == (200, b"/in")
            assert wire.get("/again").answer() == (200, b"/again")
    environ = seen[0]
    assert environ["HTTPS"] == "on" and environ["wsgi.url_scheme"] == "https"
    assert environ["SSL_PROTOCOL"] == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
    assert environ["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert environ["SSL_CLIENT_S_DN"].encode("latin-1").decode() == "CN=Ann\\+Bob,O=Exämple\\, Inc."
    assert environ["SSL_CLIENT_I_DN"] == "CN=Test CA,O=Example"
    assert environ["SSL_CLIENT_CERT"].strip() == Path(ann[0]).read_text().strip()
    assert environ["SSL_CLIENT_V_END"].endswith("GMT") and environ["SSL_CLIENT_V_START"].endswith("GMT")
    assert int(environ["SSL_CLIENT_M_SERIAL"], 16) > 0
    sans = {name: value for name, value in environ.items() if name.startswith("SSL_CLIENT_SAN")}
    assert sans == {
        "SSL_CLIENT_SAN_DNS_0": "ann.example",
        "SSL_CLIENT_SAN_DNS_1": "b.example",
        "SSL_CLIENT_SAN_Email_0": "ann@example.com",
    }
    assert seen[1]["SSL_CLIENT_S_DN"] == environ["SSL_CLIENT_S_DN"]


def test_without_an_authority_no_certificate_is_asked_for(authority: Authority, serving: Pair) -> None:
    seen: list[dict[str, Any]] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        return echo(environ, start_response)

    with embedded(app, tls=serving) as listening:
        with connect(listening, authority.ca, authority.issue("any", {"CN": "any"})) as wire:
            assert wire.get("/", "SSL_CLIENT_VERIFY: SUCCESS", "Ssl-Client-Cert: x").answer() == (200, b"/")
    assert seen[0]["SSL_CLIENT_VERIFY"] == "NONE" and "minimcp.client_certificate" not in seen[0]
    assert [name for name in seen[0] if name.startswith("SSL_CLIENT")] == ["SSL_CLIENT_VERIFY"]


def test_a_certificate_is_a_principal(authority: Authority, serving: Pair) -> None:
    roles = {"ann.example": ["admin"]}
    verifier = ClientCertificate(roles=lambda claims: roles.get(*claims["names"]["DNS"], []))
    server = Server("s", auth=verifier)

    @server.tool(roles=["admin"])
    def who(ctx: Context) -> dict:
        found = ctx.principal
        assert found is not None
        return {"key": list(found.key), "claims": dict(found.claims), "via": found.via, "left": found.lasts_s()}

    def call(wire: Wire, *lines: str) -> tuple[int, Any]:
        message = modern("tools/call", name="who", arguments={})
        body = json.dumps(message).encode()
        fields = {**http_headers(message), "Host": "localhost", "Content-Length": str(len(body))}
        fields.setdefault("Content-Type", "application/json")
        fields.setdefault("Accept", "application/json, text/event-stream")
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        wire.send(f"POST /mcp HTTP/1.1\r\n{head}".encode() + "".join(f"{x}\r\n" for x in lines).encode() + b"\r\n")
        status, answer = wire.send(body).answer()
        return status, json.loads(answer)

    ann = authority.issue("ann", {"O": "Example", "CN": "ann"}, (x509.DNSName("ann.example"),))
    bob = authority.issue("bob", {"CN": "bob"}, (x509.DNSName("bob.example"),))
    with embedded(HttpApp(server.engine), tls=serving, ca=authority.ca) as listening:
        with connect(listening, authority.ca, ann) as wire:
            status, reply = call(wire)
            assert status == 200
            found = json.loads(reply["result"]["content"][0]["text"])
            assert found["key"] == ["CN=Test CA,O=Example", "CN=ann,O=Example"] and found["via"] == "certificate"
            assert found["claims"]["subject"] == "CN=ann,O=Example"
            assert found["claims"]["names"] == {"DNS": ["ann.example"]}
            assert 3000 < found["left"] <= 3600
        with connect(listening, authority.ca, bob) as wire:
            assert "Unknown tool" in str(call(wire)[1])
    with embedded(HttpApp(server.engine), tls=serving) as listening:
        # Nobody has verified a certificate here, whatever headers say.
        with connect(listening, authority.ca, ann) as wire:
            status, reply = call(wire, "SSL-CLIENT-VERIFY: SUCCESS", "SSL-CLIENT-S-DN: CN=ann", "X-SSL-Client-Cert: x")
            assert (status, reply["error"]["message"]) == (401, "Authentication is required")


def request(**found: Any) -> AuthRequest:
    known = {"notAfter": "Jan  1 00:00:00 2090 GMT", "issuer": ((("commonName", "CA"),),), **found}
    return AuthRequest({"minimcp.client_certificate": known}, "https://x/mcp", "")


def test_a_certificate_without_a_subject_goes_by_its_first_other_name() -> None:
    names = (("URI", "spiffe://example/ann"), ("DNS", "ann.example"))
    found = ClientCertificate(roles="names.DNS").verify(request(subjectAltName=names))
    assert found is not None and found.key == ("CN=CA", "URI:spiffe://example/ann")
    assert found.roles == ("ann.example",)
    with pytest.raises(Unauthorized, match="names nobody"):
        ClientCertificate().verify(request())


def test_a_certificate_that_expires_on_an_open_connection_ends_with_it() -> None:
    with pytest.raises(Unauthorized, match="has expired"):
        ClientCertificate().verify(request(subject=((("commonName", "a"),),), notAfter="Jan  1 00:00:00 2020 GMT"))


def test_certificates_of_another_server_or_proxy_are_none() -> None:
    told = {"SSL_CLIENT_VERIFY": "SUCCESS", "SSL_CLIENT_S_DN": "CN=ann", "SSL_CLIENT_CERT": "x"}
    assert ClientCertificate().verify(AuthRequest(told, "https://x/mcp", "")) is None


@pytest.mark.parametrize(
    "parts, written",
    [
        ([[("commonName", "ann")]], "CN=ann"),
        ([[("organizationName", "E")], [("commonName", "a,O=Admin")]], "CN=a\\,O\\=Admin,O=E"),
        ([[("commonName", "a"), ("userId", "7")]], "CN=a+UID=7"),
        ([[("commonName", "#x ")]], "CN=\\#x\\ "),
        ([[("commonName", 'a"\\<>;')]], 'CN=a\\"\\\\\\<\\>\\;'),
        ([[("commonName", "a\0b\n")]], "CN=a\\00b\\0A"),
        ([[("1.2.3.4", "x")]], "1.2.3.4=x"),
        ([], ""),
    ],
)
def test_no_value_of_a_name_looks_like_another(parts: Any, written: str) -> None:
    assert distinguished_name(parts) == written


def serial(listening: WsgiServer, ca: str, certificate: Pair | None = None) -> str:
    with connect(listening, ca, certificate) as wire:
        assert wire.get("/x").answer() == (200, b"/x")
        found: Any = wire.socket.getpeercert()  # type: ignore[attr-defined]
        return str(found["serialNumber"])


def test_a_renewed_certificate_is_served_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    authority = Authority(tmp_path)
    pair = authority.server()
    with embedded(echo, tls=pair) as listening, connect(listening, authority.ca) as kept:
        first = serial(listening, authority.ca)
        assert serial(listening, authority.ca) == first
        new = authority.server("new")
        # The certificate first, as programs that renew it do: for a moment it does not fit its key.
        os.replace(new[0], pair[0])
        with caplog.at_level(logging.ERROR, "minimcp"):
            assert [serial(listening, authority.ca) for _ in range(3)] == [first] * 3
        assert len(caplog.records) == 1 and "the former ones stay" in caplog.text
        assert "server.pem" in caplog.text and "server.key" in caplog.text
        os.replace(new[1], pair[1])
        second = serial(listening, authority.ca)
        assert second != first
        for broken in (b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n"):
            caplog.clear()
            Path(pair[0]).write_bytes(broken)
            assert [serial(listening, authority.ca) for _ in range(2)] == [second] * 2
            assert len(caplog.records) == 1
        caplog.clear()
        os.unlink(pair[0])
        assert [serial(listening, authority.ca) for _ in range(2)] == [second] * 2
        assert len(caplog.records) == 1 and "No such file" in caplog.text
        authority.server()
        assert serial(listening, authority.ca) not in (first, second)
        # A connection that was open all the while is none the worse for it.
        assert kept.get("/kept").answer() == (200, b"/kept")


def test_other_authorities_hold_for_new_connections(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "new").mkdir()
    old, new = Authority(tmp_path, "One"), Authority(tmp_path / "new", "Two")
    ann, bob, version = old.issue("ann", {"CN": "ann"}), new.issue("bob", {"CN": "bob"}), ssl.TLSVersion.TLSv1_3
    trusted = tmp_path / "trusted.pem"
    shutil.copy(old.ca, trusted)
    with embedded(echo, tls=old.server(), ca=str(trusted)) as listening:
        assert serial(listening, old.ca, ann)
        assert refused(listening, old.ca, bob, version)
        trusted.write_text("nothing")
        assert serial(listening, old.ca, ann)
        assert len(caplog.records) == 1
        shutil.copy(new.ca, trusted)
        assert serial(listening, old.ca, bob)
        assert refused(listening, old.ca, ann, version)


def test_no_session_is_resumed_where_certificates_are_needed(authority: Authority, serving: Pair) -> None:
    ann = authority.issue("ann", {"CN": "ann"})
    with embedded(echo, tls=serving, ca=authority.ca) as listening:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with connect(listening, authority.ca, ann, version) as wire:
                assert wire.get("/x").answer() == (200, b"/x")
                session: Any = wire.socket.session  # type: ignore[attr-defined]
                assert session is None or not session.has_ticket


def test_many_connections_while_the_certificate_changes(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.server()
    problems: list[BaseException] = []
    done = threading.Event()
    with embedded(echo, tls=pair) as listening:

        def client() -> None:
            try:
                while not done.is_set():
                    assert serial(listening, authority.ca)
            except BaseException as problem:
                problems.append(problem)

        threads = [threading.Thread(target=client) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(10):
            authority.server()
            last = serial(listening, authority.ca)
        done.set()
        for thread in threads:
            thread.join(20)
        assert serial(listening, authority.ca) == last
    assert problems == [] and not any(thread.is_alive() for thread in threads)


def test_files_that_cannot_be_used_are_refused_at_the_start(
    authority: Authority, serving: Pair, tmp_path: Path
) -> None:
    other = authority.server("other")
    empty = tmp_path / "empty.pem"
    empty.touch()
    gone = str(tmp_path / "gone.pem")
    for tls, ca, problem in (
        ((gone, serving[1]), None, "No such file or directory: .*gone.pem"),
        ((serving[0], gone), None, "No such file or directory: .*gone.pem"),
        ((serving[0], other[1]), None, "TLS cannot be served with .*server.pem and .*other.key"),
        ((str(empty), serving[1]), None, "TLS cannot be served with"),
        (serving, str(empty), "TLS cannot be served with .*empty.pem"),
        (serving, gone, "No such file or directory: .*gone.pem"),
        (None, authority.ca, "ca= goes with tls="),
    ):
        with pytest.raises(ValueError, match=problem):
            make_server(echo, port=0, tls=tls, ca=ca)


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to encrypt a key")
def test_an_encrypted_key_is_refused_and_nobody_is_asked(serving: Pair, tmp_path: Path) -> None:
    locked = str(tmp_path / "locked.key")
    command = ["openssl", "pkcs8", "-topk8", "-in", serving[1], "-out", locked, "-passout", "pass:secret"]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ValueError, match="the key is encrypted"):
        Certificates(serving[0], locked)


def test_a_folder_of_authorities(authority: Authority, serving: Pair, tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("needs openssl to name the files")
    command = ["openssl", "x509", "-subject_hash", "-noout", "-in", authority.ca]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    shutil.copy(authority.ca, tmp_path / f"{found}.0")
    with embedded(echo, tls=serving, ca=str(tmp_path)) as listening:
        assert serial(listening, authority.ca, authority.issue("ann", {"CN": "ann"}))
        assert refused(listening, authority.ca, None, ssl.TLSVersion.TLSv1_3)


def test_a_server_is_run_with_certificates(authority: Authority, serving: Pair) -> None:
    import requests

    server = Server("s", auth=ClientCertificate())

    @server.tool
    def who(ctx: Context) -> str:
        assert ctx.principal is not None
        return ctx.principal.id

    ready = threading.Event()
    listening: list[WsgiServer] = []

    def on_ready(found: WsgiServer) -> None:
        listening.append(found)
        ready.set()

    options: dict[str, Any] = {"port": 0, "tls": serving, "ca": authority.ca, "ready": on_ready}
    thread = threading.Thread(target=lambda: server.run_http(**options))
    thread.start()
    try:
        assert ready.wait(10)
        session = requests.Session()
        session.trust_env = False
        session.verify, session.cert = authority.ca, authority.issue("ann", {"CN": "ann"})
        url = f"https://localhost:{listening[0].port}/mcp"
        with minimcp.Client(url, session=session) as client:
            assert client.call_tool("who").text == "CN=ann"
    finally:
        assert ready.is_set()
        listening[0].stop()
        thread.join(10)
    assert not thread.is_alive()
