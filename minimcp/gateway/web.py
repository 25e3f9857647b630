"""The routes by which people and machines watch a gateway: the status page, health, readiness and metrics."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
from collections.abc import Collection
from importlib import resources
from typing import TYPE_CHECKING, Any, Optional
from weakref import WeakKeyDictionary

from ..engines.addresses import is_loopback
from ..monitoring.series import series_of
from ..protocol import spec
from ..protocol.errors import Forbidden
from ..protocol.served import Environ, Headers, Response
from ..server import modern
from ..server.catalog import Entry, visible
from ..server.context import Context
from ..server.needs import Needs
from ..transports.origin import Refused, embedded_in_page

if TYPE_CHECKING:
    from ..monitoring.calls import Calls, Record
    from ..protocol.principal import Principal
    from .gateway import Gateway

Message = dict[str, Any]

# Calls in a row that failed, after which a server does not count as ready.
_FAILING = 5
_MOST_TOOLS = 2000
_LONGEST_TEXT = 300
_BARE: Headers = [
    ("Cache-Control", "no-store"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
]
# Nothing but the page's own style and script, by their hashes; text never becomes markup.
_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)


def install_web(
    gateway: Gateway,
    calls: Calls,
    *,
    status: bool = True,
    metrics: bool = False,
    status_roles: Collection[str] = (),
) -> None:
    """Add to a gateway the routes /healthz and /readyz, and by choice those of the status page and of metrics.

    :param status: whether there is a page at / and /status, and its data at /status.json.
    :param metrics: whether there is /metrics.
    :param status_roles: the roles whose callers see everything and not only what is their own; "*" for every caller.
        By default nobody does where callers are asked who they are, and those on this machine where they are not.
    :raises ImportError: when the package for the metrics is missing.
    """
    routes = StatusRoutes(gateway, calls, status_roles)
    gateway.route("/healthz", routes.healthz)
    gateway.route("/readyz", routes.readyz)
    if status:
        page = Page()
        gateway.route("/", page.answer)
        gateway.route("/status", page.answer)
        gateway.route("/status.json", routes.status)
    if metrics:
        from ..monitoring.metrics import Metrics

        measured = Metrics(calls, gateway.snapshot)

        def answer(environ: Environ) -> Response:
            routes.let_in(environ)
            kind, text = measured.text()
            return _respond(200, text, kind)

        gateway.route("/metrics", answer)


class Page:
    """The status page: one file without data, which fetches `status.json` as whoever reads it."""

    def __init__(self) -> None:
        self._body = resources.files("minimcp.gateway").joinpath("status.html").read_bytes()
        parts = {
            tag: re.search(rb"<%s>(.*?)</%s>" % (tag, tag), self._body, re.DOTALL) for tag in (b"script", b"style")
        }
        hashes = {
            tag.decode(): f"'sha256-{base64.b64encode(hashlib.sha256(found.group(1)).digest()).decode()}'"
            for tag, found in parts.items()
            if found is not None
        }
        self._fields = [
            ("Content-Security-Policy", _POLICY.format(**hashes)),
            ("X-Frame-Options", "DENY"),
            ("Cross-Origin-Opener-Policy", "same-origin"),
        ]

    def answer(self, environ: Environ) -> Response:
        """Answer with the page, to everybody."""
        return _respond(200, self._body, "text/html; charset=utf-8", self._fields)


class StatusRoutes:
    """Tells callers the state of a gateway, each as much as it may know.

    :param status_roles: see `install_web`.
    """

    def __init__(self, gateway: Gateway, calls: Calls, status_roles: Collection[str]) -> None:
        self._gateway = gateway
        self._calls = calls
        self._roles = frozenset(status_roles)
        # By entry the policy, the definition and what is shown of them. No lock: threads that race make the same.
        self._shown: WeakKeyDictionary[Entry, tuple[Any, Any, Message]] = WeakKeyDictionary()

    def healthz(self, environ: Environ) -> Response:
        """Answer that the process works."""
        return _respond_json(200, {"status": "ok"})

    def readyz(self, environ: Environ) -> Response:
        """Answer 200 when calls can be served, else 503 and for each server why not.

        A server that is down counts as ready as long as its last-known list is served, unless all calls to it fail.
        """
        problems = {}
        for server in self._gateway.snapshot()["servers"]:
            name = server["name"]
            if server["state"] == "disabled":
                continue
            failing = self._calls.failing(name)
            if failing >= _FAILING:
                problems[name] = f"its last {failing} calls have failed"
            elif server["state"] == "starting" and not server.get("stale"):
                problems[name] = "it has not answered yet"
            elif server["state"] == "down" and not server.get("stale"):
                problems[name] = "it does not answer"
        if problems:
            return _respond_json(503, {"status": "not ready", "servers": problems}, [("Retry-After", "5")])
        return _respond_json(200, {"status": "ready"})

    def let_in(self, environ: Environ) -> None:
        """Let a caller pass who may see everything.

        :raises Unauthorized: as the endpoint does.
        :raises Forbidden: for all others.
        """
        if not self._caller(environ)[1]:
            raise Forbidden("Only callers with a role of the gateway's statusRoles may read this")

    def _caller(self, environ: Environ) -> tuple[Optional[Principal], bool]:
        """Return the caller of a request, and whether it may see everything."""
        if embedded_in_page(environ):
            raise Refused(403, "Pages of other origins may not read this")
        engine = self._gateway.engine
        principal = self._gateway.wsgi.authenticate(environ)
        if "*" in self._roles or (principal is not None and not self._roles.isdisjoint(principal.roles)):
            return principal, True
        local = is_loopback(environ.get("REMOTE_ADDR", "")) and not _forwarded(environ)
        return principal, local and not self._roles and engine.auth is None and not engine.public

    def status(self, environ: Environ) -> Response:
        """Answer with everything that the page shows, as far as it is the caller's to see.

        The tools are left out when a caller names the `toolsId` that it had with the same ones: `?tools=ID`.
        """
        principal, everything = self._caller(environ)
        snapshot, now = self._gateway.snapshot(), time.time()
        tools, servers = self._tools(principal, environ, everything)
        shown = [self._tool(each, everything) for each in tools[:_MOST_TOOLS]]
        id = hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]
        records = self._calls.recent()
        if not everything:
            records = [_own(each) for each in records if principal is not None and each.principal == principal.key]
        points, summary = self._calls.series()
        if not everything:
            series = series_of((each.time, each.ms, each.failed) for each in records)
            points, summary = series.points(now), series.summary(now)
        found: Message = {
            "name": snapshot["name"],
            "version": snapshot["version"],
            "uptimeS": round(snapshot["uptimeS"], 1),
            "now": round(now, 3),
            "caller": None if principal is None else principal.id,
            "everything": everything,
            "servers": [
                _shown(each, everything) for each in snapshot["servers"] if everything or each["name"] in servers
            ],
            "tools": None if environ.get("QUERY_STRING") == f"tools={id}" else shown,
            "toolsId": id,
            "moreTools": max(0, len(tools) - _MOST_TOOLS),
            "calls": [
                {
                    "time": round(each.time, 3),
                    "principal": each.principal[1] if each.principal is not None else None,
                    "method": each.method,
                    "name": each.name,
                    "server": each.server,
                    "outcome": each.outcome,
                    "failed": each.failed,
                    "ms": round(each.ms, 3),
                }
                for each in records
            ],
            "series": points,
            "summary": summary,
        }
        if everything:
            # Its own request is not counted, since it is none of MCP.
            found.update({name: snapshot.get(name) for name in ("sessions", "parked", "collisions")})
            found["running"] = self._calls.running
        return _respond_json(200, found)

    def _tools(
        self, principal: Optional[Principal], environ: Environ, everything: bool
    ) -> tuple[list[Entry], set[str]]:
        """Return the tools that a caller may see, and the servers of which it may see anything."""
        engine = self._gateway.engine
        ctx = Context(engine, modern.ERA, {"method": "tools/list"}, None, principal, environ)
        tools = [each for each in list(engine.registry.tools.values()) if visible(ctx, each)]
        servers = {each.origin for each in tools}
        if not everything:
            for kind in ("prompts", "resources", "resourceTemplates"):
                for entry in list(getattr(engine.registry, kind).values()):
                    if entry.origin not in servers and visible(ctx, entry):
                        servers.add(entry.origin)
        tools.sort(key=lambda each: each.order)
        return tools, servers

    def _tool(self, entry: Entry, everything: bool) -> Message:
        policy, definition = self._gateway.engine.policy, entry.definition
        known = self._shown.get(entry)
        if known is None or known[0] is not policy or known[1] is not definition:
            known = self._shown[entry] = policy, definition, self._describe(entry)
        found = known[2]
        return found if everything else {name: found[name] for name in found if name != "who"}

    def _describe(self, entry: Entry) -> Message:
        definition = entry.definition
        found: Message = {"name": _cut(definition["name"]), "server": entry.origin}
        for member in ("title", "description"):
            if isinstance(definition.get(member), str):
                found[member] = _cut(definition[member])
        found["who"] = self._audience(entry)
        return found

    def _audience(self, entry: Entry) -> list[str]:
        """Return who may see a tool, as far as rules say it: roles, scopes and principals."""
        policy, allow = self._gateway.engine.policy, entry.allow
        found: list[str] = []
        if isinstance(allow, Needs):
            found = [*sorted(allow.roles), *(f"scope {each}" for each in sorted(allow.scopes))]
        elif allow is not None:
            found = ["its own rule"]
        audience = getattr(policy, "audience", None)
        if audience is not None:
            return [*found, *audience("tools", entry.definition["name"], entry.origin)]
        if policy is not None:
            return [*found, "the gateway's policy"]
        return found or ["everybody"]


def _shown(server: Message, everything: bool) -> Message:
    """Return what a caller may know of a server: errors and addresses are for those who may see everything."""
    if everything:
        return server
    return {name: server.get(name) for name in ("name", "state", "stale")}


def _own(record: Record) -> Record:
    """Return a call as its caller may know it: what was hidden from it looks like what is not there."""
    if record.outcome != "denied" or not record.name:
        return record
    return record._replace(outcome=f"error {spec.INVALID_PARAMS}", server="")


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "\u2026"


def _forwarded(environ: Environ) -> bool:
    """Say whether a proxy has passed a request on, whose caller may be anywhere."""
    return any(name in environ for name in ("HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED", "HTTP_X_REAL_IP", "HTTP_VIA"))


def _respond_json(status: int, data: Message, extra: Headers | None = None) -> Response:
    return _respond(status, json.dumps(data, allow_nan=False).encode("ascii"), "application/json", extra)


def _respond(status: int, body: bytes, kind: str, extra: Headers | None = None) -> Response:
    fields = [("Content-Type", kind), ("Content-Length", str(len(body))), *_BARE, *(extra or [])]
    return status, fields, [body]
