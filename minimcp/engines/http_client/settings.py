"""What HTTP requests are made with: what a caller said, and what a `requests.Session` has to say."""

from __future__ import annotations

import os
import re
import socket
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Optional
from urllib.parse import urlsplit, urlunsplit

from ..errors import ProtocolError
from .response import Headers, Response

# By lower-case name: the name to send and the value.
Fields = dict[str, tuple[str, str]]

# An address that needs nothing done to it.
_PLAIN = re.compile(r"http://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?(?:/[A-Za-z0-9._~/?=&+,;:-]*)?\Z")
_AGENT = "minimcp"
# The process in which each session was first used here.
_first_used: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


class HttpSettings:
    """What requests are made with in one process: addresses, headers, credentials and connections.

    :ivar connect: makes a connection that is not connected yet, or None where the adapter must send.
    """

    def __init__(self, url: str, headers: Optional[Headers], auth: Any, session: Any) -> None:
        self.pid = os.getpid()
        self.idle: deque[Response] = deque()
        self.url = url
        self.auth: Any = None
        self.hooks: list[Any] = []
        self.connect: Optional[Callable[[], Any]] = None
        self._session: Any = None
        if session is None and auth is None and _PLAIN.match(url):
            # Nothing that `requests` is needed for, and it takes its time to load.
            parts = urlsplit(url)
            try:
                host, port = parts.hostname or "", parts.port or 80
            except ValueError as problem:
                raise ProtocolError(f"The address of the server cannot be used: {problem}") from None
            self.connect = lambda: RawConnection(host, port)
            given = (headers or {}).items()
            self.fields: Fields = {name.lower(): (name, text_of(value)) for name, value in given if value is not None}
            self.fields.setdefault("user-agent", ("User-Agent", _AGENT))
        else:
            self._adopt(session or self.session, headers, auth)
        self.fields["accept-encoding"] = ("Accept-Encoding", "identity")

    @property
    def session(self) -> Any:
        """The session of `requests`; one of its own when it was given none."""
        if self._session is None:
            import requests

            self._session = requests.Session()
            # No credentials of .netrc and no proxy of the environment that nobody asked for.
            self._session.trust_env = False
            self._session.headers = requests.structures.CaseInsensitiveDict({"User-Agent": _AGENT})
        return self._session

    @property
    def cookies(self) -> Any:
        """The cookies to send, if any."""
        return None if self._session is None else self._session.cookies

    def close(self) -> None:
        """Close what this made, and not what it was given."""
        if self._session is not None and self._session not in _first_used:
            self._session.close()

    def _adopt(self, session: Any, headers: Optional[Headers], auth: Any) -> None:
        """Take what a session has to say about requests to this address."""
        import requests
        from requests.auth import HTTPBasicAuth

        if session is not self._session:
            self._session = session
            if _first_used.setdefault(session, self.pid) != self.pid:
                # The connections it holds are the parent's; closing them here does not end them there.
                _first_used[session] = self.pid
                session.close()
        try:
            # An `auth` of None would make the session look for one, and call it.
            prepared = session.prepare_request(requests.Request("POST", self.url, headers=headers, auth=_unchanged))
            self.adapter = session.get_adapter(prepared.url)
        except (requests.RequestException, ValueError) as problem:
            raise ProtocolError(f"The address of the server cannot be used: {problem}") from None
        parts = urlsplit(prepared.url)
        if auth is None:
            auth = session.auth
        if auth is None and parts.username:
            auth = requests.utils.get_auth_from_url(prepared.url)
        if auth is None and session.trust_env:
            auth = requests.utils.get_netrc_auth(prepared.url)
        self.auth = HTTPBasicAuth(*auth) if isinstance(auth, tuple) else auth
        self.hooks = list(session.hooks.get("response", ()))
        self.fields = {name.lower(): (name, text_of(value)) for name, value in prepared.headers.items()}
        self.fields.pop("content-length", None)
        if "cookie" not in {name.lower() for name in (*session.headers, *(headers or {}))}:
            # Those of the session's jar are found anew for every request.
            self.fields.pop("cookie", None)
        self.url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        self.settings = session.merge_environment_settings(self.url, {}, True, None, None)
        self.connect = self._connector(prepared)

    def _connector(self, prepared: Any) -> Optional[Callable[[], Any]]:
        from requests.adapters import HTTPAdapter
        from requests.utils import select_proxy

        adapter, settings = self.adapter, self.settings
        # Something that was put in its place, in a subclass or by a tool for tests, is to be used.
        send = getattr(type(adapter), "send", None)
        if send is not HTTPAdapter.send or send.__module__ != "requests.adapters":
            return None
        if select_proxy(self.url, settings["proxies"]) or adapter.max_retries.total:
            return None
        pool = adapter.get_connection_with_tls_context(prepared, settings["verify"], {}, settings["cert"])
        try:
            adapter.cert_verify(pool, self.url, settings["verify"], settings["cert"])
        except OSError as problem:
            raise ProtocolError(f"The TLS settings cannot be used: {problem}") from None
        return getattr(pool, "_new_conn", None)


class RawConnection:
    """A TCP connection, with as much of an interface as those of urllib3 are used by."""

    timeout: float | None = None
    sock: Any = None

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)

    def connect(self) -> None:
        self.sock = socket.create_connection(self._address, self.timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        if self.sock is not None:
            self.sock.close()


def _unchanged(prepared: Any) -> Any:
    return prepared


def text_of(value: Any) -> str:
    """A header value of `requests`, which may be bytes, as text."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)
