"""HTTP requests to one address, from any thread of any process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Optional

from ..fork import PerProcess
from .connections import Connections, HttpConnections
from .reply import Reply
from .request import fingerprint, is_native
from .response import Headers


class Pool:
    """Makes requests; used by any number of threads, and in a forked child with connections of its own.

    :param make: returns the connections of a process.
    """

    def __init__(self, make: Callable[[], Connections]) -> None:
        self._connections = PerProcess(make)
        # Until the first request there is nothing to close.
        self._closed = True

    def ready(self) -> None:
        """Check the address and the settings, without a connection.

        :raises ProtocolError: when they cannot be used.
        """
        self._connections()

    def request(
        self,
        method: str,
        headers: Headers,
        body: bytes,
        deadline: float | None,
        url: str | None = None,
        before: Optional[Callable[[Reply], Any]] = None,
        raw: bool = False,
    ) -> Reply:
        """Send a request.

        :param headers: they prevail over those of the pool.
        :param deadline: a `time.monotonic()`; put off by the time that the auth takes, which may ask a person.
        :param url: another address of the same origin.
        :param before: called just before the headers are sent, when they are known.
        :param raw: whether to return redirects and compressed answers as they come, instead of following or refusing.
        :raises ClientError: when it could not be sent; `retry` is "always" when the server surely did not run it.
        """
        connections = self._connections()
        self._closed = connections.closed = False
        own = {name.lower(): (name, value) for name, value in headers.items()}
        fields = {**connections.fields, **own}
        if body:
            fields["content-length"] = ("Content-Length", str(len(body)))
        reply = Reply(connections, method, fields, body, raw, own.keys())
        reply.send(url or connections.url, deadline, before)
        return reply

    def identity(self, headers: Headers) -> str:
        """Return a fingerprint of all that the caller would bring to a request with these headers, "" for nothing."""
        connections = self._connections()
        own = {name.lower(): (name, value) for name, value in headers.items()}
        outgoing = connections.prepare("POST", connections.url, {**connections.fields, **own}, b"")
        return fingerprint(outgoing.fields, (*connections.ours, *own), connections.caller())

    def close(self) -> None:
        """Close the connections that are not in use, and those in use as they come back."""
        if not self._closed:
            self._closed = True
            self._connections().close()


def make_pool(
    url: str, headers: Optional[Mapping[str, Any]], auth: Any, session: Any, limits: Optional[Mapping[str, float]]
) -> Pool:
    """Make a pool: one of its own connections, or where something was made for `requests`, one that leaves all to it.

    :param auth: a user and a password, credentials as in `request.Auth`, or what `requests` takes.
    :param session: a requests.Session or None.
    """
    if session is None and (auth is None or isinstance(auth, tuple) or is_native(auth)):
        return Pool(lambda: HttpConnections(url, headers, auth, limits))
    from .foreign import SessionConnections

    return Pool(lambda: SessionConnections(url, headers, auth, session, limits))
