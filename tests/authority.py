"""An authorization server and a protected resource that do as a test says: two small sites on 127.0.0.1."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import requests


class Seen(NamedTuple):
    """A request that came in; `form` is the query of a GET, the form or JSON object of a POST."""

    method: str
    path: str
    headers: Any
    form: dict[str, Any]


class Site:
    """A web site whose pages are functions: `pages[path](seen)` returns a status, a body and headers.

    :param tls: serves https with this context.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.pages: dict[str, Any] = {}
        self.seen: list[Seen] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # One packet for each answer, not one for its head that the next waits for.
            wbufsize = 65536

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.headers.get("Content-Type") == "application/json":
                    form = json.loads(raw)
                else:
                    form = dict(parse_qsl(raw.decode() or parts.query, keep_blank_values=True))
                seen = Seen(self.command, parts.path, self.headers, form)
                site.seen.append(seen)
                page = site.pages.get(parts.path)
                status, body, headers = page(seen) if page else (404, {"error": "not found"}, {})
                raw = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Type" not in headers:
                    self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            do_POST = do_DELETE = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 100

            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Any:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def asked(self, path: str) -> list[Seen]:
        """The requests for a path, in order."""
        return [seen for seen in list(self.seen) if seen.path == path]


class Authority(Site):
    """An authorization server.

    :ivar metadata: its metadata; a test changes it before the first request.
    :ivar issued: the access tokens it issued, with their scopes.
    :ivar refreshes: refresh tokens that still work, with their scopes.
    :ivar iss: what it sends as `iss`, or None.
    :ivar reply: more members of a token reply.
    :ivar exchanged: the access tokens that it gave for others, with those; `subjects` are the ones it knows, None all.
    """

    def __init__(self, path: str = "") -> None:
        super().__init__()
        self.issuer = self.url + path
        self.metadata: dict[str, Any] = {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "registration_endpoint": f"{self.url}/register",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "token_endpoint_auth_methods_supported": ["none"],
        }
        self.issued: dict[str, str] = {}
        self.refreshes: dict[str, str] = {}
        self.iss: str | None = None
        self.reply: dict[str, Any] = {"expires_in": 3600}
        self.exchanged: dict[str, str] = {}
        self.subjects: set[str] | None = None
        self.clients: dict[str, dict[str, Any]] = {}
        self.codes: dict[str, dict[str, Any]] = {}
        self.count = 0
        self.pages.update({"/authorize": self.authorize, "/token": self.token, "/register": self.register})
        self.pages[f"/.well-known/oauth-authorization-server{path}"] = lambda seen: (200, self.metadata, {})

    def register(self, seen: Seen) -> Any:
        self.count += 1
        client = {**seen.form, "client_id": f"client-{self.count}"}
        self.clients[client["client_id"]] = client
        return 201, client, {}

    def authorize(self, seen: Seen) -> Any:
        self.count += 1
        code = f"code-{self.count}-{'x' * 20}"
        self.codes[code] = seen.form
        back = {"code": code, "state": seen.form["state"]}
        if self.iss is not None:
            back["iss"] = self.iss
        return 302, b"", {"Location": f"{seen.form['redirect_uri']}?{urlencode(back)}"}

    def token(self, seen: Seen) -> Any:
        form, scope = seen.form, seen.form.get("scope", "")
        if form["grant_type"] == "authorization_code":
            asked = self.codes.pop(form["code"], None)
            challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).decode()
            if asked is None or asked["code_challenge"] != challenge.rstrip("="):
                return 400, {"error": "invalid_grant"}, {}
            scope = asked.get("scope", "")
        elif form["grant_type"] == "refresh_token":
            if form["refresh_token"] not in self.refreshes:
                return 400, {"error": "invalid_grant"}, {}
            scope = self.refreshes.pop(form["refresh_token"])
        elif form["grant_type"] == "urn:ietf:params:oauth:grant-type:token-exchange":
            subject = form["subject_token"]
            if self.subjects is not None and subject not in self.subjects:
                return 400, {"error": "invalid_request", "error_description": f"unknown token {subject}"}, {}
            reply = {"issued_token_type": "urn:ietf:params:oauth:token-type:access_token", **self.issue(scope)}
            self.exchanged[reply["access_token"]] = subject
            return 200, reply, {}
        return 200, self.issue(scope, refresh=form["grant_type"] in ("authorization_code", "refresh_token")), {}

    def issue(self, scope: str, refresh: bool = False) -> dict[str, Any]:
        """Make a token reply."""
        self.count += 1
        token = f"access-{self.count}-{'y' * 20}"
        self.issued[token] = scope
        reply = {"access_token": token, "token_type": "Bearer", **self.reply}
        if refresh and "refresh_token" not in self.reply:
            reply["refresh_token"] = f"refresh-{self.count}-{'z' * 20}"
            self.refreshes[reply["refresh_token"]] = scope
        return reply


class Resource(Site):
    """A server that wants a token of one of some authorization servers.

    :ivar needs: the scopes a request needs.
    :ivar header: whether a challenge names the metadata; `names_scope` whether it names scopes.
    """

    def __init__(self, *authorities: Authority, path: str = "/mcp") -> None:
        super().__init__()
        self.authorities = list(authorities)
        self.path = path
        self.endpoint = self.url + path
        self.prm: dict[str, Any] = {
            "resource": self.endpoint,
            "authorization_servers": [authority.issuer for authority in authorities],
        }
        self.needs: tuple[str, ...] = ()
        self.header = True
        self.names_scope = False
        self.pages[path] = self.answer
        self.pages[f"/.well-known/oauth-protected-resource{path}"] = lambda seen: (200, self.prm, {})

    def answer(self, seen: Seen) -> Any:
        scheme, _, token = (seen.headers.get("Authorization") or "").partition(" ")
        for authority in self.authorities:
            if token in authority.issued:
                missing = set(self.needs) - set(authority.issued[token].split())
                return (
                    self.challenge(403, "insufficient_scope", " ".join(sorted(missing))) if missing else self.success()
                )
        return self.challenge(401, "invalid_token" if token else "", " ".join(self.needs) if self.names_scope else "")

    def success(self) -> Any:
        return 200, {"ok": True}, {}

    def challenge(self, status: int, error: str = "", scope: str = "") -> Any:
        """An answer that asks for a token, or another one."""
        params = {"error": error, "scope": scope}
        if self.header:
            params["resource_metadata"] = f"{self.url}/.well-known/oauth-protected-resource{self.path}"
        text = ", ".join(f'{name}="{value}"' for name, value in params.items() if value)
        return status, {"error": error}, {"WWW-Authenticate": f"Bearer {text}".strip()}


class Browser:
    """What `open_browser` and `login` stand for in a test; `opened` has every URL. A user who always agrees."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def __call__(self, url: str) -> str:
        """Go to a URL as `login=` does: return the URL that the user is sent back to."""
        self.opened.append(url)
        answer = requests.get(url, allow_redirects=False, timeout=10)
        return answer.headers["Location"]

    def open(self, url: str) -> bool:
        """Go there as `open_browser=` does, and follow."""
        self.opened.append(url)
        return requests.get(url, timeout=10).ok

    def query(self, index: int = -1) -> dict[str, str]:
        """The parameters of an authorization URL."""
        return dict(parse_qsl(urlsplit(self.opened[index]).query))


def basic(header: str) -> tuple[str, str]:
    """The client id and secret of a Basic header."""
    name, _, secret = base64.b64decode(header.partition(" ")[2]).decode().partition(":")
    return unquote(name), unquote(secret)
