"""TLS of the embedded server: its certificate, read again when it was renewed, and those that clients show."""

from __future__ import annotations

import logging
import os
import re
import ssl
import threading
from collections.abc import Iterable
from typing import Any, Optional

log = logging.getLogger("minimcp")

Environ = dict[str, Any]

# The names of RFC 4514 and those that OpenSSL prints, for the long ones that Python reports.
_SHORT = {
    "commonName": "CN",
    "countryName": "C",
    "domainComponent": "DC",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "streetAddress": "STREET",
    "userId": "UID",
}
_SPECIAL = re.compile(r'[,+"\\<>;=]|^[ #]| $')


class Certificates:
    """The certificate of a server, and the authorities whose certificates clients need.

    :param cert: the path of a certificate chain; `key` that of its private key.
    :param ca: a file, or a folder as OpenSSL wants it, with the authorities; a client without a certificate of one of
        them is refused in the handshake. None asks clients for none.
    :raises ValueError: when the files cannot be used.
    """

    def __init__(self, cert: str, key: str, ca: Optional[str] = None) -> None:
        self._cert, self._key, self._ca = cert, key, ca
        self._lock = threading.Lock()  # guards the two below while they are replaced
        self._seen = self._state()
        try:
            self._context = self._load()
        except (OSError, ValueError) as problem:
            raise ValueError(f"TLS cannot be served with {self._names()}: {problem}") from None

    @property
    def context(self) -> ssl.SSLContext:
        """The context for a new connection; files that have changed are read first, and broken ones left out."""
        if self._state() != self._seen:
            with self._lock:
                state = self._state()
                if state != self._seen:
                    try:
                        self._context = self._load()
                    except (OSError, ValueError) as problem:
                        log.error("%s cannot be used, the former ones stay: %s", self._names(), problem)
                    # Of broken files too, so that the log has one line for each change.
                    self._seen = state
        return self._context

    def _names(self) -> str:
        return " and ".join(str(path) for path in (self._cert, self._key, self._ca) if path)

    def _state(self) -> list[Any]:
        """Return what changes when one of the files is written or replaced."""
        return [_stamp(path) for path in (self._cert, self._key, self._ca) if path]

    def _load(self) -> ssl.SSLContext:
        for path in filter(None, (self._cert, self._key, self._ca)):
            # OpenSSL would not say which file is missing.
            os.stat(path)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self._cert, self._key, _no_passphrase)
        if self._ca is not None:
            folder = os.path.isdir(self._ca)
            context.load_verify_locations(None if folder else self._ca, self._ca if folder else None)
            context.verify_mode = ssl.CERT_REQUIRED
            # A resumed session would not have its certificate verified again.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
        return context


def _no_passphrase() -> str:
    raise ValueError("the key is encrypted; a server cannot ask for its passphrase")


def _stamp(path: str) -> Any:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def client_environ(connection: ssl.SSLSocket) -> Environ:
    """Return what the environ says of a connection over TLS, and of a certificate that was verified in its handshake.

    The names are those of Apache's mod_ssl; `minimcp.client_certificate` is the dict that Python makes of the
    certificate, which no header and no proxy can set.
    """
    environ: Environ = {"HTTPS": "on", "SSL_PROTOCOL": connection.version() or "", "SSL_CLIENT_VERIFY": "NONE"}
    found: Any = connection.getpeercert()
    raw = connection.getpeercert(binary_form=True)
    if not found or not raw:
        return environ
    environ.update(
        {
            "minimcp.client_certificate": found,
            "SSL_CLIENT_VERIFY": "SUCCESS",
            "SSL_CLIENT_CERT": ssl.DER_cert_to_PEM_cert(raw),
            "SSL_CLIENT_S_DN": _native(distinguished_name(found.get("subject", ()))),
            "SSL_CLIENT_I_DN": _native(distinguished_name(found.get("issuer", ()))),
            "SSL_CLIENT_M_SERIAL": found.get("serialNumber", ""),
            "SSL_CLIENT_V_START": found.get("notBefore", ""),
            "SSL_CLIENT_V_END": found.get("notAfter", ""),
        }
    )
    for kind, name in (("DNS", "DNS"), ("email", "Email")):
        values = [value for each, value in found.get("subjectAltName", ()) if each == kind]
        environ.update({f"SSL_CLIENT_SAN_{name}_{place}": _native(value) for place, value in enumerate(values)})
    return environ


def distinguished_name(parts: Iterable[Iterable[tuple[str, str]]]) -> str:
    """Write the name of a subject or issuer, the most specific part first; no value can look like another part.

    Spec: RFC 4514
    """
    written = ["+".join(f"{_SHORT.get(name, name)}={_escaped(value)}" for name, value in part) for part in parts]
    return ",".join(reversed(written))


def _escaped(value: str) -> str:
    escaped = _SPECIAL.sub(lambda found: "\\" + found[0], value)
    return "".join(
        each if each.isprintable() else "".join(f"\\{byte:02X}" for byte in _bytes(each)) for each in escaped
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _native(text: str) -> str:
    """Return a text in the form that PEP 3333 gives to strings of an environ."""
    return _bytes(text).decode("latin-1")
