"""The requests of an authorization flow over TLS, through proxies, and when nobody is there."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl

import pytest

from minimcp import AuthorizationError, ConnectionLost
from minimcp.engines.oauth.fetching import Fetcher
from tests.authority import Site


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that nobody has signed, and its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = tmp_path_factory.mktemp("tls") / "cert.pem"
    path.write_bytes(made.public_bytes(pem) + private)
    return str(path)


@pytest.fixture
def secure(certificate):
    """A site over TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with Site(context) as site:
        site.pages["/x"] = lambda seen: (200, {"a": 1}, {})
        yield site


def test_a_certificate_is_checked(secure, certificate):
    assert secure.url.startswith("https://127.0.0.1:")
    with Fetcher(True, 5) as fetch, pytest.raises(ConnectionLost, match="certificate verify failed"):
        fetch.get(f"{secure.url}/x", "document")
    with Fetcher(True, 5, verify=certificate) as fetch:
        assert fetch.get(f"{secure.url}/x", "document") == {"a": 1}
    with Fetcher(False, 5, verify=certificate) as fetch, pytest.raises(AuthorizationError, match="private"):
        fetch.get(f"{secure.url}/x", "document")
    assert len(secure.seen) == 1


def test_over_tls_too_the_address_that_was_connected_to_counts(secure, certificate, monkeypatch):
    real, left = socket.getaddrinfo, ["93.184.216.34", "127.0.0.1"]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *args, **named: real(left.pop(0), *args, **named))
    with Fetcher(False, 5, verify=certificate) as fetch, pytest.raises(AuthorizationError, match="private"):
        fetch.get(secure.url.replace("127.0.0.1", "as.example.com") + "/x", "document")
    assert not secure.seen and not left


def test_a_proxy_is_used_when_it_is_given_and_written_addresses_are_still_checked():
    with Site() as proxy:
        proxy.pages["/x"] = lambda seen: (200, {"by": seen.headers["Host"]}, {})
        with Fetcher(True, 5, proxies={"http": proxy.url}) as fetch:
            assert fetch.get("http://localhost:1/x", "document") == {"by": "localhost:1"}
        with (
            Fetcher(False, 5, proxies={"http": proxy.url}) as fetch,
            pytest.raises(AuthorizationError, match="private"),
        ):
            fetch.get("http://127.0.0.1:1/x", "document")
        assert len(proxy.seen) == 1


def test_where_nobody_listens_it_may_be_tried_again(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Fetcher(True, 5) as fetch, pytest.raises(ConnectionLost, match="could not be reached") as caught:
        fetch.get(f"http://127.0.0.1:{port}/x?secret=1", "document")
    assert caught.value.retry == "always" and "secret" not in str(caught.value)

    def unknown(*_, **__):
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with Fetcher(False, 5) as fetch, pytest.raises(ConnectionLost, match="unknown host"):
        fetch.get("https://as.example.com/x", "document")


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_no_answer(status):
    with Site() as site, Fetcher(True, 5) as fetch:
        site.pages["/x"] = lambda seen: (status, {}, {})
        with pytest.raises(ConnectionLost, match=str(status)):
            fetch.get(f"{site.url}/x", "document")


@pytest.mark.parametrize(("status", "body"), [(404, {}), (401, {}), (204, {}), (200, []), (200, b"<html>"), (200, b"")])
def test_what_is_no_document_is_none(status, body):
    with Site() as site, Fetcher(True, 5) as fetch:
        site.pages["/x"] = lambda seen: (status, body, {})
        assert fetch.get(f"{site.url}/x", "document") is None
