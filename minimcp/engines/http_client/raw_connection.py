"""A TCP connection to one host, with TLS where the address is https."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional, Union

if TYPE_CHECKING:
    import ssl

# Takes the IP address that was connected to, and raises for one that may not be used.
Check = Callable[[str], None]


class RawConnection:
    """A connection of one process, not open until `connect`.

    :param tls: the context of an https connection, None for http.
    :param check: called before anything is sent, the greeting of TLS included.
    """

    def __init__(self, host: str, port: int, tls: Optional[ssl.SSLContext] = None, check: Check | None = None) -> None:
        self.pid = os.getpid()
        self.sock: Any = None
        self._address = (host, port)
        self._tls = tls
        self._check = check

    def connect(self, timeout_s: float) -> None:
        """Connect.

        :raises OSError: when that fails or takes too long; an `ssl.SSLError` when the server cannot be trusted.
        """
        self.sock = sock = socket.create_connection(self._address, timeout_s)
        if self._check is not None:
            self._check(str(sock.getpeername()[0]))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(sock, server_hostname=self._address[0].rstrip("."))

    def close(self) -> None:
        """Close the connection, if it is open."""
        if self.sock is not None:
            self.sock.close()


def tls_context(verify: Union[bool, str] = True) -> ssl.SSLContext:
    """Return what an https connection is made with.

    :param verify: as for `requests`: True for the authorities that it trusts, or the path of a file or folder of
        certificates.
    :raises OSError: when there is nothing at that path.
    """
    import ssl

    if not isinstance(verify, str):
        from requests.utils import DEFAULT_CA_BUNDLE_PATH

        place = DEFAULT_CA_BUNDLE_PATH
    else:
        place = verify
    is_folder = os.path.isdir(place)
    context = ssl.create_default_context(cafile=None if is_folder else place, capath=place if is_folder else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if verify is False:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
