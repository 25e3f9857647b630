"""Certificates for tests: an authority, and the certificates that it issues, as PEM files."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LONG = {
    "CN": NameOID.COMMON_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
}


def _name(parts: dict[str, str]) -> Any:
    return x509.Name([x509.NameAttribute(_LONG[kind], value) for kind, value in parts.items()])


class Authority:
    """A certificate authority with its files below a folder; `ca` is the path of its own certificate."""

    def __init__(self, home: Path, name: str = "Test CA") -> None:
        self._home = home
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name({"O": "Example", "CN": name})
        certificate = self._build(self._name, self._key, authority=True)
        self.ca = str(home / f"{name}.pem".replace(" ", "-"))
        Path(self.ca).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        file: str,
        subject: dict[str, str],
        names: tuple[Any, ...] = (),
        usage: str = "client",
        lasts_s: float = 3600,
        began_s: float = 60,
    ) -> tuple[str, str]:
        """Issue a certificate, and return the paths of it and its key; a file of this name is replaced."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._build(_name(subject), key, names, usage, lasts_s, began_s)
        cert, private = self._home / f"{file}.pem", self._home / f"{file}.key"
        private.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return str(cert), str(private)

    def server(self, file: str = "server", name: str = "localhost") -> tuple[str, str]:
        """Issue the certificate of a server on this machine."""
        names = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
        return self.issue(file, {"CN": name}, names, "server")

    def _build(
        self,
        subject: Any,
        key: Any,
        names: tuple[Any, ...] = (),
        usage: str = "client",
        lasts_s: float = 3600,
        began_s: float = 60,
        authority: bool = False,
    ) -> Any:
        now = datetime.datetime.now(datetime.timezone.utc)
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - datetime.timedelta(seconds=began_s))
        made = made.not_valid_after(now + datetime.timedelta(seconds=lasts_s))
        made = made.add_extension(x509.BasicConstraints(authority, None), critical=True)
        own, issuing = key.public_key(), self._key.public_key()
        made = made.add_extension(x509.SubjectKeyIdentifier.from_public_key(own), critical=False)
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuing), critical=False)
        if authority:
            made = made.add_extension(x509.KeyUsage(*[True] + [False] * 4, True, True, False, False), critical=True)
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if not authority:
            purpose = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}[usage]
            made = made.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        return made.sign(self._key, hashes.SHA256())
