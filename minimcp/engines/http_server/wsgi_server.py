"""The embedded HTTP server: Werkzeug's threaded server, one thread per connection, with connections kept alive.

Werkzeug closes a connection after each answer, because the standard library's parser cannot be trusted with a second
request. Here head and body are read by `framing`, completely and strictly, before the application runs.
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, get_sockaddr, select_address_family

from . import framing
from .admission import Admission, descriptors, raise_descriptor_limit
from .certificates import Certificates
from .framing import Head
from .gate import Gate
from .handler import ConnectionHandler
from .responses import refusal

log = logging.getLogger("minimcp")

Application = Callable[..., Iterable[bytes]]

# Limits with their defaults; `serve(limits={...})` overrides them one by one.
LIMITS: dict[str, float] = {
    **framing.LIMITS,
    "connections": 1500,  # or fewer, where fewer files may be open
    "bodies_bytes": 64 * 1024 * 1024,  # in all bodies of more than 64 KiB that are read or being answered
    "requests": 1_000_000,  # on one connection
    "running": 2,  # requests that compute at once; see gate
    "head_s": 10,  # from the first byte of a head to its last
    "body_s": 30,
    "idle_s": 30,  # before the first byte of the next head
    "send_s": 30,  # for a client that does not read
    "send_rate": 32 * 1024,  # bytes a second of one answer or event that a client reads, after send_s
    "grace_s": 5,  # for running requests when the server stops
}

_BACKLOG = 1024
_PAUSE_S = 0.2
_LEAVE_S = 5.0  # for `serve_forever`, which the bell has woken, on a busy machine
_REFUSALS = 16  # refused connections that are kept until the client has read why
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class CannotListen(OSError):
    """The server cannot listen on the address; the message says why and what to do."""


class WsgiServer(ThreadedWSGIServer):
    """The listening socket and its connections; made by `make_server`.

    :ivar port: the port it listens on, also when 0 was asked for.
    :ivar url: an address at which this machine reaches it, as a URL without a path.
    :ivar on_shutdown: functions to call when the server begins to close, so that streams end.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(
        self, app: Application, listener: socket.socket, certificates: Certificates | None, limits: Mapping[str, float]
    ) -> None:
        host, port = listener.getsockname()[:2]
        with listener:
            # Werkzeug duplicates the descriptor.
            super().__init__(host, port, app, ConnectionHandler, fd=listener.fileno())
        self.socket.setblocking(False)
        # An application that says so needs no length of a chunked body, and so gets the request before its body.
        self.judges_heads = bool(getattr(app, "judges_heads", False))
        self.certificates = certificates
        found = descriptors()
        most = int(limits["connections"] if found is None else min(limits["connections"], found))
        self.limits = {**limits, "connections": most}
        self.admission = Admission(most, int(limits["bodies_bytes"]))
        self.refusals = threading.BoundedSemaphore(_REFUSALS)
        scheme = "https" if certificates else "http"
        # A socket that listens to everyone has an address to which nobody can connect.
        shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        self.url = f"{scheme}://[{shown}]:{port}" if ":" in shown else f"{scheme}://{shown}:{port}"
        self.on_shutdown: list[Callable[[], Any]] = []
        self.gate = Gate(int(limits["running"]))
        self.known_heads: dict[bytes, Head] = {}
        self.stopping = False
        self._lock = threading.Lock()  # guards _closed
        self._closed = False
        self._complained = False
        # Set while `serve_forever` does not run, and once everything is closed.
        self._idle, self._ended = threading.Event(), threading.Event()
        self._idle.set()
        self._bell, self._ears = socket.socketpair()
        self._bell.setblocking(False)
        self.base_environ: dict[str, Any] = {
            "SCRIPT_NAME": "",
            "SERVER_NAME": host,
            "SERVER_PORT": str(port),
            "SERVER_SOFTWARE": "minimcp",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": scheme,
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            # The whole body has been read, also one that was chunked.
            "wsgi.input_terminated": True,
        }

    def serve_forever(self, poll_interval: float = 60.0) -> None:
        """Serve until `stop`, `shutdown` or `close` is called."""
        with self._lock:
            if self._closed:
                return
            self._idle.clear()
        watch = threading.Thread(target=self.gate.watch, name="minimcp-gate", daemon=True)
        watch.start()
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(self.socket, selectors.EVENT_READ)
                selector.register(self._ears, selectors.EVENT_READ)
                while not self.stopping:
                    selector.select(poll_interval)
                    self._accept()
        finally:
            self._idle.set()
            self.close()
            watch.join(1.0)

    def stop(self) -> None:
        """Make `serve_forever` close the server and return; a signal handler may call this."""
        self.stopping = True
        try:
            self._bell.send(b"!")
        except OSError:
            pass

    def shutdown(self) -> None:
        """Close the server, under the name that `socketserver` has for it."""
        self.close()

    def close(self, grace_s: float | None = None) -> None:
        """Stop accepting, end streams, let running requests finish for `grace_s` seconds, and close everything.

        If another thread is closing it already, wait until that is done.
        """
        grace_s = self.limits["grace_s"] if grace_s is None else grace_s
        with self._lock:
            first, self._closed = not self._closed, True
        self.stop()
        if not first:
            self._ended.wait(grace_s + _PAUSE_S + _LEAVE_S + 2.0)
            return
        until = time.monotonic() + grace_s
        for function in self.on_shutdown:
            try:
                function()
            except Exception:
                log.exception("a function of on_shutdown failed")
        self.admission.finish(until)
        self.gate.close()
        self.admission.end()
        # Closed under a thread that waits for them, they would never wake it.
        self._idle.wait(_PAUSE_S + _LEAVE_S)
        self.server_close()
        self._bell.close()
        self._ears.close()
        self._ended.set()

    def _accept(self) -> None:
        for _ in range(64):
            if self.stopping:
                return
            try:
                accepted, address = self.socket.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    if not self._complained:
                        log.error("No further connection can be accepted for now: %s", error.strerror)
                    self._complained = True
                    self.admission.make_room(_PAUSE_S)
                return
            self._complained = False
            accepted.setblocking(True)
            thread = threading.Thread(
                target=self.process_request_thread, args=(accepted, address), name="minimcp-connection", daemon=True
            )
            try:
                thread.start()
            except RuntimeError as error:
                log.error("No thread for another connection: %s", error)
                self._turn_away(accepted)

    def _turn_away(self, accepted: socket.socket) -> None:
        try:
            accepted.setblocking(False)
            accepted.send(refusal(503, "No thread is free; try again later"))
        except OSError:
            pass
        self.shutdown_request(accepted)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log the exception that ended a connection's thread."""
        log.error("a connection failed", exc_info=True)


def make_server(
    app: Application,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    tls: tuple[str, str] | None = None,
    ca: str | None = None,
    limits: Mapping[str, float] | None = None,
) -> WsgiServer:
    """Listen, and return the server, which serves once `serve_forever` is called.

    :param port: 0 for any free one.
    :param tls: the paths of a certificate chain and its key, which are read again when they have changed.
    :param ca: the path of the authorities by which every client needs a certificate.
    :param limits: overrides of `LIMITS`.
    :raises CannotListen: when the address is in use, not ours, or not allowed.
    :raises ValueError: for files that cannot be used.
    """
    unknown = set(limits or ()) - set(LIMITS)
    if unknown:
        raise ValueError(f"Unknown limits {sorted(unknown)}; there are {sorted(LIMITS)}")
    if ca is not None and tls is None:
        raise ValueError("ca= goes with tls=: certificates of clients are sent over TLS")
    certificates = Certificates(*tls, ca) if tls is not None else None
    return WsgiServer(app, _listen(host, port), certificates, {**LIMITS, **(limits or {})})


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise CannotListen(f"{port} is not a port; choose one from 0 to 65535")
    family = select_address_family(host, port)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # An IPv4 client would look like ::ffff:127.0.0.1, which no check of the peer's address expects.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(get_sockaddr(host, port, family))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise CannotListen(f"Port {port} on {host} is in use; stop what uses it or choose another port") from None
        raise CannotListen(f"Cannot listen on {host}, port {port}: {error.strerror or error}") from None
    return listener


def serve(
    app: Application,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    tls: tuple[str, str] | None = None,
    ca: str | None = None,
    limits: Mapping[str, float] | None = None,
    ready: Callable[[WsgiServer], Any] | None = None,
    handle_signals: bool = True,
    warn_open: bool = False,
) -> None:
    """Serve until SIGTERM or Ctrl-C, finish what runs, and return; a second signal ends the process at once.

    :param tls: see `make_server`, also for `ca`.
    :param ready: called once with the server when it listens; its `url` and `port` are the real ones.
    :param handle_signals: False leaves signals alone; in other threads than the main one they always are.
    :param warn_open: log a warning if others than this machine can connect.
    :raises CannotListen: when the address is in use, not ours, or not allowed.
    """
    raise_descriptor_limit(int({**LIMITS, **(limits or {})}["connections"]))
    server = make_server(app, host, port, tls=tls, ca=ca, limits=limits)
    address = str(server.server_address[0])
    if warn_open and not (address.startswith("127.") or address == "::1"):
        log.warning("Everyone who can reach %s can use this server: it does not ask who is calling", address)
    before: dict[int, Any] = {}

    def on_signal(number: int, frame: Any) -> None:
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        server.stop()

    if handle_signals and threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, on_signal)
    try:
        if ready is not None:
            ready(server)
        server.serve_forever()
    finally:
        server.close()
        for number, handler in before.items():
            signal.signal(number, handler)
