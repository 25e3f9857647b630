"""W3C trace context: taken from the headers of a request for `_meta`, and back for the requests to servers.

Spec: BASE-033, BASE-034
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from ..server.context import Context

_LONGEST = 8192
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-[!-~]*)?")
# One member of `tracestate`: a key, and a value of printable characters that does not end in a space.
_STATE = re.compile(r"([a-z0-9][a-z0-9_*/@-]{0,255})=[ -+\--<>-~]{0,255}[!-+\--<>-~]")
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_OCTETS = r"[!#-+\--:<-\[\]-~]*"
# One member of `baggage`: a key, a value, and properties with or without one.
_BAGGAGE = re.compile(rf"{_TOKEN}[ \t]*=[ \t]*{_OCTETS}(?:[ \t]*;[ \t]*{_TOKEN}(?:[ \t]*=[ \t]*{_OCTETS})?)*")


def traced(ctx: Context) -> None:
    """Put the trace context of the HTTP request into `ctx.meta`, unless the message has one of its own.

    What is not of the form that W3C gives it is left out. The message itself is not changed.
    """
    request = ctx.request
    if not request or ("HTTP_TRACEPARENT" not in request and "HTTP_BAGGAGE" not in request):
        return
    meta, found = ctx.meta, {}
    parent = str(request.get("HTTP_TRACEPARENT", "")).strip()
    if "traceparent" not in meta and "tracestate" not in meta and trace_id(parent):
        found["traceparent"] = parent
        state = str(request.get("HTTP_TRACESTATE", ""))
        if _is_state(state):
            found["tracestate"] = state
    baggage = str(request.get("HTTP_BAGGAGE", ""))
    if "baggage" not in meta and _is_baggage(baggage):
        found["baggage"] = baggage
    if found:
        ctx.meta = {**meta, **found}


def trace_headers(meta: Mapping[str, Any]) -> dict[str, str]:
    """Return the HTTP headers that say what the trace context in a `_meta` says, as far as it has W3C's form."""
    parent, state, baggage = meta.get("traceparent"), meta.get("tracestate"), meta.get("baggage")
    found = {}
    if trace_id(parent):
        found["traceparent"] = str(parent)
        if isinstance(state, str) and _is_state(state):
            found["tracestate"] = state
    if isinstance(baggage, str) and _is_baggage(baggage):
        found["baggage"] = baggage
    return found


def trace_id(parent: Any) -> Optional[str]:
    """Return the trace id in a `traceparent`, or None when that is not of the form that W3C gives it."""
    found = _PARENT.fullmatch(parent) if isinstance(parent, str) and len(parent) <= 256 else None
    if found is None:
        return None
    version, trace, span, more = found.groups()
    if version == "ff" or not trace.strip("0") or not span.strip("0") or (version == "00" and more is not None):
        return None
    return trace


def _is_state(text: str) -> bool:
    members = [member.strip(" \t") for member in text.split(",")] if len(text) <= _LONGEST else []
    matches = [_STATE.fullmatch(member) for member in members if member]
    keys = {found.group(1) for found in matches if found is not None}
    return 0 < len(matches) == len(keys) <= 32


def _is_baggage(text: str) -> bool:
    members = [member.strip(" \t") for member in text.split(",")] if len(text) <= _LONGEST else []
    return 0 < len(members) <= 180 and all(map(_BAGGAGE.fullmatch, members))
