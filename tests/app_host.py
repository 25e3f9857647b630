"""A small web host of MCP Apps: its page in one origin, the sandbox in another, a client of the server behind it."""

from __future__ import annotations

import contextlib
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from minimcp import Client
from minimcp.client.app_views import AppView
from tests.browser import Browser
from tests.embedded import embedded

HERE = Path(__file__).with_name("apps")
Message = dict[str, Any]
VIEW = ("#frame", "iframe")  # the sandbox, and the page in it


class AppHost:
    """One tool of a server, with its page, shown to a browser at `url`.

    :ivar heard: the messages of the page, in order.
    :ivar told: those to the page.
    """

    def __init__(self, client: Client, tool: str, arguments: Message, **options: Any) -> None:
        self.client, self.arguments, self.theme = client, arguments, "light"
        page = client.app(tool)
        assert page is not None
        self.page = page
        handlers: dict[str, Callable[[Message], Any]] = {"ui/notifications/size-changed": self._resize}
        handlers.update(options.pop("handlers", {}))
        context = {"theme": "light", "containerDimensions": {"maxHeight": 2000}, **options.pop("context", {})}
        self.view: Any = None
        make_view = options.pop("make_view", None)
        if make_view is None:
            self.view = AppView(client, page, context=context, handlers=handlers, **options)
        self.url = self.proxy = ""
        self.heard: list[Message] = []
        self.told: list[Message] = []
        self.failures: list[str] = []
        self._height = 0
        self._changed = threading.Condition()  # guards the lists, and everything below
        self._taken: list[Message] = []  # those of heard that the view has taken
        self._next: list[Message] = []
        self._over = False
        if make_view is not None:
            self.view = make_view(self)

    def _resize(self, size: Message) -> None:
        self._height = size.get("height", 0)

    def tell(self, messages: list[Message], theme: str = "") -> None:
        """Post messages that the view wants to be posted now."""
        with self._changed:
            self._next += messages
            self.theme = theme or self.theme
            self._changed.notify_all()

    def call(self) -> Any:
        """Call the tool, and tell the page its arguments and its result."""
        self.tell(self.view.input(self.arguments))
        result = self.client.call_tool(self.page.tool["name"], self.arguments)
        self.tell(self.view.result(result))
        return result

    def wait(self, method: str, timeout_s: float = 20) -> Message:
        """Wait until the view has taken a message with this method from the page, and return it."""
        until = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = next(
                    (each for each in self._taken if isinstance(each, dict) and each.get("method") == method), None
                )
                if found is not None:
                    return found
                assert self._changed.wait(until - time.monotonic()), f"no {method} among {self.heard}"

    def end(self) -> None:
        """Let the page that waits for messages go."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def app(self, environ: Any, start_response: Any) -> list[bytes]:
        """Serve the origin of the host."""
        path, nonce = environ["PATH_INFO"], secrets.token_urlsafe(12)
        headers = [("Cache-Control", "no-store"), ("X-Content-Type-Options", "nosniff")]
        if path == "/":
            body = (HERE / "host.html").read_bytes().replace(b"{{nonce}}", nonce.encode())
            policy = f"default-src 'none'; connect-src 'self'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}' "
            policy += f"'unsafe-inline'; frame-src {self.proxy}; base-uri 'none'; form-action 'none'"
            kind, headers = "text/html; charset=utf-8", [*headers, ("Content-Security-Policy", policy)]
        else:
            kind, body = "application/json", json.dumps(self._answer(path, environ)).encode()
        start_response("200 OK", [("Content-Type", kind), ("Content-Length", str(len(body))), *headers])
        return [body]

    def _answer(self, path: str, environ: Any) -> Message:
        if path == "/view":
            said = f"{self.page.tool['name']} {json.dumps(self.arguments, ensure_ascii=False)}"
            found = {"proxy": self.proxy + "/proxy", "origin": self.proxy, "resource": self.page.resource_ready}
            border = self.page.ui.get("prefersBorder", True)
            return {**found, "allow": self.page.allow, "said": said, "theme": self.theme, "border": border}
        if path == "/say":
            message = json.loads(environ["wsgi.input"].read())
            with self._changed:
                self.heard.append(message)
            posted = self.view.receive(message)
            with self._changed:
                self.told += posted
                self._taken.append(message)
                self._changed.notify_all()
            return {"post": posted, "height": self._height, "closed": self.view.closed.is_set()}
        assert path == "/next", path
        with self._changed:
            self._changed.wait_for(lambda: self._next or self._over, 10)
            posted, self._next = self._next, []
            self.told += posted
            return {"post": posted, "theme": self.theme, "closed": self.view.closed.is_set(), "over": self._over}

    def sandbox(self, environ: Any, start_response: Any) -> list[bytes]:
        """Serve the origin of the sandbox: its only document, under the policy of the page."""
        body = (HERE / "proxy.html").read_bytes().replace(b"{{host}}", self.url.encode())
        headers = [("Content-Security-Policy", self.page.policy), ("Cache-Control", "no-store")]
        fields = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body))), *headers]
        start_response("200 OK" if environ["PATH_INFO"] == "/proxy" else "404 Not Found", fields)
        return [body if environ["PATH_INFO"] == "/proxy" else b" " * len(body)]


@contextlib.contextmanager
def app_host(target: Any, tool: str, arguments: Message, **options: Any) -> Iterator[AppHost]:
    """Show the page of a tool of a server, whose client has the options given as `client`."""
    with Client(target, apps=True, **options.pop("client", {})) as client:
        host = AppHost(client, tool, arguments, **options)
        with embedded(host.sandbox) as sandbox, embedded(host.app) as listening:
            host.url, host.proxy = f"http://127.0.0.1:{listening.port}", f"http://localhost:{sandbox.port}"
            try:
                yield host
            finally:
                host.end()


@contextlib.contextmanager
def showing(window: Browser, server: Any, tool: str, arguments: Any, **options: Any) -> Iterator[AppHost]:
    """Show the page of a tool in the window, as soon as it is initialized."""
    with app_host(server, tool, arguments, **options) as host:
        window.look(720, 700)
        window.log()
        window.enter()
        window.open(host.url + "/")
        host.wait("ui/notifications/initialized")
        window.enter(*VIEW)
        try:
            yield host
        finally:
            window.enter()
            window.open("about:blank")


def texts(window: Browser, selector: str) -> Any:
    return window.run(
        f"return Array.from(document.querySelectorAll({json.dumps(selector)}), (each) => each.textContent)"
    )
