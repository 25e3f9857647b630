"""Rate limits: how many requests a caller may make in a time, over all its connections."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Optional, Protocol

from ..protocol import spec
from ..protocol.errors import InternalError
from ..protocol.later import seconds, try_later
from ..protocol.principal import Principal
from ..protocol.spelling import normal
from .counts import Count, Limit, Memory, Redis
from .policy import Patterns, remembered, strings_of
from .verifier import PublicAddress

Message = dict[str, Any]

_MEMBERS = frozenset({"tools", "resources", "prompts", "servers", "per", "limit", "methods"})
# What is counted where a rule names no methods: each kind, and its use.
_USES = {"tools": "tools/call", "resources": "resources/read", "prompts": "prompts/get"}
_PER = ("principal", "address", "all")
# An address, which some proxies write with the port.
_ADDRESS = re.compile(r"\[?([0-9A-Fa-f]*:[0-9A-Fa-f:.]*)(?:\](?::\d+)?)?\Z|(\d+(?:\.\d+){3})(?::\d+)?\Z")
_PASS: AbstractContextManager[Any] = nullcontext()


class LimitedRequest(Protocol):
    """The part of `around_request`'s outcome that is counted."""

    method: Optional[str]
    principal: Optional[Principal]
    ctx: Any
    request: Optional[Message]


class Rates:
    """A hook that refuses requests beyond a rate: `around_request=Rates([{"tools": "find_*", "limit": "9/minute"}])`.

    Each rule has a "limit", such as "10/minute" or "10/minute; 100/hour", and one count for all that it is about: uses
    of the "tools", "resources" and "prompts" (a pattern or a list of them, in which `*` stands for anything), only
    those of "servers", and only "methods" that it names, in place of calls, reads and gets. It counts "per"
    "principal", where an anonymous caller counts by its address, per "address", or "all" callers together. A request
    must be within all rules that it falls under.

    :param redis: the URL of the Redis in which the counts are, for several processes; None for this one's memory. While
        it fails, requests pass.
    :param trusted_proxy: the addresses or networks of proxies whose X-Forwarded-For says where a caller is.
    :param before: those of an earlier configuration; what they have counted for rules that stay still counts.
    :raises ValueError: for a rule that cannot be understood.
    :raises ImportError: without the package `limits`.
    """

    def __init__(
        self,
        rules: Iterable[Mapping[str, Any]],
        redis: str | None = None,
        trusted_proxy: str | Collection[str] = (),
        before: Rates | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # The same rule twice is one.
        made = {rate.digest: rate for rate in map(_Rate, rules)}.values()
        self._about = remembered(lambda *subject: [rule for rule in made if rule.covers(*subject)])
        self._proxies = PublicAddress(trusted_proxy=trusted_proxy)
        self._redis = redis
        self._counts: Memory | Redis
        if before is not None and before._redis == redis:
            self._counts = before._counts
        else:
            self._counts = Memory(clock) if redis is None else Redis(redis, clock)

    def __call__(self, request: LimitedRequest) -> AbstractContextManager[Any]:
        """Stand around one request.

        :raises InternalError: when a limit is reached.
        """
        problem = self.refusal(request)
        if problem is not None:
            raise problem
        return _PASS

    def refusal(self, request: LimitedRequest) -> InternalError | None:
        """Count a request, or return the error that it is to be answered with since a limit is reached."""
        ctx = request.ctx
        if ctx is None or request.method is None:
            return None
        kind, names = _subject(ctx)
        server = getattr(ctx._entry, "origin", "")
        wanted = []
        for rule in self._about(request.method, kind, server, *names):
            caller = self._caller(rule.per, request)
            wanted += [Count(limit, rule.digest, caller) for limit in rule.limits]
        refused = self._counts.take(wanted) if wanted else None
        if refused is None:
            return None
        limit, wait_s = refused
        what = repr(names[0][:100]) if names else request.method
        said = f"Too many requests: {what} has a limit of {limit.text}; try again in {seconds(wait_s)}"
        return try_later(said, wait_s, 429, ctx.version, limit=limit.text)

    def _caller(self, per: str, request: LimitedRequest) -> str:
        """Return the caller that a request counts for."""
        if per == "principal" and request.principal is not None:
            return _digest("principal", *request.principal.key)
        if per == "all":
            return per
        return _digest("address", "" if request.request is None else _network(_address(request.request, self._proxies)))


class _Rate:
    """One rule.

    :ivar digest: stands for the rule in the storage, the same in all processes that have it.
    """

    def __init__(self, rule: Mapping[str, Any]) -> None:
        unknown = sorted(set(rule) - _MEMBERS)
        if unknown:
            raise ValueError(f"The rate {dict(rule)} has {unknown}; it may have {sorted(_MEMBERS)}")
        self.per = rule.get("per", "principal")
        if self.per not in _PER:
            raise ValueError(f"The rate {dict(rule)} counts per {self.per!r}, which is not one of {list(_PER)}")
        self.limits = _limits(rule)
        self._names = {kind: Patterns(strings_of(rule[kind])) for kind in _USES if kind in rule}
        self._servers = Patterns(strings_of(rule["servers"])) if "servers" in rule else None
        uses = [use for kind, use in _USES.items() if kind in self._names or not self._names]
        self._methods = frozenset(strings_of(rule["methods"]) if "methods" in rule else uses)
        for method in sorted(self._methods - set(spec.METHODS)):
            raise ValueError(f"The rate {dict(rule)} is about {method!r}, which is no method of MCP{_guess(method)}")
        self.digest = _digest(json.dumps(dict(rule), sort_keys=True))

    def covers(self, method: str, kind: str, server: str, *names: str) -> bool:
        """Say whether a request falls under it."""
        if method not in self._methods or (self._servers is not None and not self._servers.matches(server)):
            return False
        if not self._names:
            return True
        patterns = self._names.get(kind)
        # A list has no name; a rule for all of a kind is about it as well.
        return patterns is not None and any(map(patterns.matches, names or ("",)))


def _limits(rule: Mapping[str, Any]) -> list[Limit]:
    try:
        from limits import parse_many
    except ImportError:
        raise ImportError(
            "Rate limits need the package limits: pip install 'minimcp-sync[gateway]'", name="limits"
        ) from None
    text = rule.get("limit")
    try:
        found = parse_many(text) if isinstance(text, str) else []
    except ValueError:
        found = []
    if not found or any(item.amount < 1 or item.multiples < 1 for item in found):
        raise ValueError(f"The rate {dict(rule)} needs a limit such as '10/minute' or '10/minute; 100/hour'")
    limits = {_text(item): item for item in found}
    return [Limit(item.amount, float(item.get_expiry()), text, item) for text, item in limits.items()]


def _guess(method: str) -> str:
    close = get_close_matches(method, spec.METHODS, 1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _text(item: Any) -> str:
    unit = item.GRANULARITY.name
    return f"{item.amount}/{unit}" if item.multiples == 1 else f"{item.amount}/{item.multiples} {unit}s"


def _subject(ctx: Any) -> tuple[str, list[str]]:
    """Return the kind of what a request is for, and its names: as it was sent, respelled, and as it is defined."""
    method, params = ctx.method, ctx.params
    kind = method.partition("/")[0]
    name = params.get("uri" if kind == "resources" else "name")
    if method == "completion/complete":
        ref = params.get("ref")
        ref = ref if isinstance(ref, dict) else {}
        kind = "prompts" if ref.get("type") == "ref/prompt" else "resources"
        name = ref.get("name" if kind == "prompts" else "uri")
    if not isinstance(name, str):
        return kind, []
    if kind != "resources":
        return kind, [name]
    definition = {} if ctx._entry is None else ctx._entry.definition
    defined = definition.get("uri") or definition.get("uriTemplate")
    return kind, [name, normal(name), *([defined] if isinstance(defined, str) else [])]


def _address(environ: Message, proxies: PublicAddress) -> str:
    """Return the address of a caller: that of the connection, or the nearest that no trusted proxy has."""
    found = str(environ.get("REMOTE_ADDR", ""))
    said = str(environ.get("HTTP_X_FORWARDED_FOR", "")).split(",")
    while said and proxies.trusts({"REMOTE_ADDR": found}):
        before = _ADDRESS.match(said.pop().strip())
        if before is None:
            break
        found = before[1] or before[2]
    return found


def _network(address: str) -> str:
    """Return what one host cannot leave by choosing another address: of IPv6 it has a whole /64."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((int(found), 64), strict=False))


@lru_cache(maxsize=4096)
def _digest(*texts: str) -> str:
    """Return what stands for texts in the storage, from which nobody reads them."""
    text = json.dumps(texts)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
