"""The redirect URI on this machine: an HTTP server that takes one authorization response.

Spec: AUTH-007, AUTH-074, RFC 8252 section 7.3
"""

from __future__ import annotations

import hmac
import os
import queue
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..errors import AuthorizationError, Timeout
from .grants import refusal

_LONGEST = 8192
_DONE = "You can close this page and go back to the program that opened it."


class Receiver(ThreadingHTTPServer):
    """Listens on this machine for one redirect: on the address that the URI names, or 127.0.0.1.

    :param uri: the redirect URI, http with a port; None for one with a port that is free.
    :raises OSError: when the port is taken.
    """

    daemon_threads = True
    block_on_close = False
    # Elsewhere this would let two programs share the port that a code comes to; here it only ends the wait after use.
    allow_reuse_address = os.name == "posix"
    allow_reuse_port = False

    def __init__(self, uri: str | None = None) -> None:
        parts = urlsplit(uri or "http://127.0.0.1/callback")
        self._state = ""
        self._path = parts.path or "/"
        self._found: queue.Queue[str] = queue.Queue()
        self._lock = threading.Lock()  # guards _used
        self._used = False
        host = parts.hostname or ""
        address = "127.0.0.1" if host == "localhost" else host
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, parts.port or 0), RedirectHandler)
        self.port: int = self.server_address[1]
        self.uri = uri or f"http://127.0.0.1:{self.port}{self._path}"
        self._hosts = {
            f"{name}:{self.port}" for name in ("127.0.0.1", "localhost", f"[{host}]" if ":" in host else host)
        }
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="minimcp-redirect", daemon=True)

    def expect(self, state: str) -> None:
        """Start to listen; a response with another state is refused and does not count."""
        self._state = state
        self._thread.start()

    def wait(self, timeout_s: float) -> str:
        """Return the query that came.

        :raises Timeout: when none did.
        """
        try:
            return self._found.get(timeout=timeout_s)
        except queue.Empty:
            raise Timeout(f"The browser sent no authorization response within {timeout_s:g} s", "always") from None

    def close(self) -> None:
        """Stop listening."""
        if self._thread.is_alive():
            self.shutdown()
            self._thread.join()
        self.server_close()

    def answer(self, target: str, host: str) -> tuple[int, str, str]:
        """Return a status and a text for a request, and the authorization response or "". Spec: AUTH-074"""
        if host.lower() not in self._hosts:
            return 403, "This address is for a browser on the same machine.", ""
        path, _, query = target.partition("?")
        if path != self._path:
            return 404, "There is nothing here.", ""
        given = parse_qs(query, keep_blank_values=True, max_num_fields=50) if len(query) <= _LONGEST else {}
        states = given.get("state", [])
        if len(states) != 1 or not hmac.compare_digest(states[0].encode(), self._state.encode()):
            return 400, "This is not the answer to the current request.", ""
        with self._lock:
            if self._used:
                return 410, "This address has been used already.", ""
            self._used = True
        return 200, _DONE, query

    def take(self, response: str) -> None:
        """Give the authorization response to the one who waits for it."""
        self._found.put(response)

    def server_bind(self) -> None:
        # HTTPServer would look up the name of 127.0.0.1, which may take its time.
        TCPServer.server_bind(self)

    def handle_error(self, *_: Any) -> None:
        pass


class RedirectHandler(BaseHTTPRequestHandler):
    server: Receiver
    # Browsers open connections that they never use.
    timeout = 10
    server_version = "minimcp"
    sys_version = ""

    def do_GET(self) -> None:
        try:
            status, text, response = self.server.answer(self.path, self.headers.get("Host", ""))
        except ValueError:
            status, text, response = 400, "This request cannot be read.", ""
        try:
            self._send(status, text.encode("ascii"))
        finally:
            # Not before: the program may end with it, and this thread in the middle of the page.
            if response:
                self.server.take(response)

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Log nothing: the request line holds the code."""


def read_answer(location: str, state: str, issuer: str, promised: bool) -> str:
    """Take the code out of the URL, or only its query, that the browser was sent back to.

    :param issuer: the validated issuer of the server the user was sent to.
    :param promised: whether that server says that it always sends `iss`.
    :raises AuthorizationError: when it is not the answer to this request, or a refusal. The text of a mismatching
        answer is not in the message. Spec: AUTH-074, AUTH-080 to AUTH-085
    """
    query = location.strip().partition("?")[2].partition("#")[0] if "?" in location else location
    try:
        given = parse_qs(query, keep_blank_values=True, max_num_fields=50) if len(query) <= _LONGEST else {}
    except ValueError:
        given = {}
    if any(len(given.get(name, [])) > 1 for name in ("code", "state", "iss", "error")):
        raise AuthorizationError("The authorization response names something twice")
    if not hmac.compare_digest(given.get("state", [""])[0].encode(), state.encode()):
        raise AuthorizationError("The authorization response has another state than the request; it was discarded")
    named = given.get("iss", [None])[0]
    if named is None and promised:
        raise AuthorizationError("The authorization response lacks the issuer that the server promised to send")
    if named is not None and named != issuer:
        raise AuthorizationError("The authorization response comes from another issuer; it was discarded")
    if "error" in given:
        said = {"error": given["error"][0], "error_description": given.get("error_description", [""])[0]}
        raise refusal("authorization server", 0, said, [state])
    if not given.get("code", [""])[0]:
        raise AuthorizationError("The authorization response has no code")
    return given["code"][0]
