"""Bodies of HTTP: the message in a request, and responses of JSON and of server-sent events."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..protocol import spec, wire
from ..protocol.errors import HttpAnswer
from ..protocol.served import Environ, Headers, Reply, Response
from .origin import Refused
from .streams import EventStream

_REASONS = {
    200: "200 OK",
    202: "202 Accepted",
    204: "204 No Content",
    400: "400 Bad Request",
    401: "401 Unauthorized",
    403: "403 Forbidden",
    404: "404 Not Found",
    405: "405 Method Not Allowed",
    406: "406 Not Acceptable",
    413: "413 Content Too Large",
    415: "415 Unsupported Media Type",
    429: "429 Too Many Requests",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
}
_STREAM_HEADERS: Headers = [
    ("Content-Type", "text/event-stream"),
    ("Cache-Control", "no-cache, no-transform"),
    # Keeps a framework's gzip middleware from holding the stream back.
    ("Content-Encoding", "identity"),
    ("X-Accel-Buffering", "no"),
]
_PAGE = (
    "<!doctype html><html lang=en><meta charset=utf-8><title>{name}</title><h1>{name}</h1>"
    "<p>This is the endpoint of an MCP server, which programs call. To connect a host, add the address of this page to "
    "its list of MCP servers."
)
# Accept headers are few and repeat. No lock: threads that race write the same; bounded.
_accepted: dict[str, frozenset[str]] = {}


def accepts(environ: Environ) -> frozenset[str]:
    """Return the kinds of response that the client takes: "json" and "stream".

    :raises Refused: when it takes neither.
    """
    accept = environ.get("HTTP_ACCEPT", "*/*")
    found = _accepted.get(accept)
    if found is None:
        types = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
        known = {"json": {"application/json", "application/*"}, "stream": {"text/event-stream", "text/*"}}
        found = frozenset(kind for kind, names in known.items() if types & (names | {"*/*"}))
        if len(_accepted) < 256 and len(accept) < 256:
            _accepted[accept] = found
    if not found:
        raise Refused(406, "Accept must allow application/json or text/event-stream")
    return found


def read_message(environ: Environ, limits: Mapping[str, float]) -> Any:
    """Read and parse the body.

    :raises Refused: for another media type, an encoding, a bad length or too many bytes.
    :raises McpError: when it is not JSON within the limits.
    """
    media_type = environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refused(415, "Content-Type must be application/json")
    if environ.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
        raise Refused(415, "Content-Encoding is not supported")
    limit = int(limits["body_bytes"])
    length = environ.get("CONTENT_LENGTH") or ""
    if length and not (length.isascii() and length.isdigit()):
        raise Refused(400, "Content-Length is not a number")
    # More digits than these are more bytes than any limit, and may be more than `int` takes.
    wanted = int(length[:18]) if length else 0
    body = b""
    try:
        if length and wanted <= limit:
            body = environ["wsgi.input"].read(wanted)
        elif not length and environ.get("wsgi.input_terminated"):
            body = environ["wsgi.input"].read(limit + 1)
    except OSError:
        raise Refused(400, "The body ends early") from None
    if max(len(body), wanted) > limit:
        raise Refused(413, f"The body is larger than {limit} bytes")
    # Other servers run an application also when the client has sent less than it announced.
    if len(body) < wanted:
        raise Refused(400, "The body ends early")
    return wire.loads(body, int(limits["depth"]), int(limits["elements"]))


def respond(status: int, body: bytes = b"", extra: Headers | None = None) -> Response:
    """Build a short response, JSON unless it is empty."""
    fields: Headers = [("Content-Length", str(len(body)))] if status != 204 else []
    if body:
        fields.append(("Content-Type", "application/json"))
    return status, fields + extra if extra else fields, [body] if body else []


def respond_with_reply(reply: Reply | None, http: HttpAnswer | None = None, status: int | None = None) -> Response:
    """Build the response that carries a reply; a cancelled call has none and is only accepted.

    :param http: the status and headers of an error that has its own.
    :param status: None for the status that the modern era has for the reply's error code.
    """
    if reply is None:
        return respond(202)
    if http is not None:
        return respond(http[0], wire.encode(reply), http[1])
    if status is None:
        error = reply.get("error") if isinstance(reply, dict) else None
        status = 200 if error is None else spec.HTTP_STATUS.get(error["code"], 200)
    return respond(status, wire.encode(reply))


def respond_with_events(
    environ: Environ, batches: Iterator[bytes], on_close: Callable[[bool], None], nudge: Callable[[], None]
) -> Response:
    """Build a response of server-sent events; the arguments are those of `EventStream`."""
    return 200, list(_STREAM_HEADERS), EventStream(batches, environ, on_close, nudge)


def asks_for_events(environ: Environ) -> bool:
    """Say whether a client asks for a stream of events in so many words."""
    return "text/event-stream" in environ.get("HTTP_ACCEPT", "")


def is_browser(environ: Environ) -> bool:
    """Say whether a person's browser asks, and no client of MCP."""
    accept = environ.get("HTTP_ACCEPT", "")
    return (
        "text/html" in accept
        and not asks_for_events(environ)
        and "HTTP_AUTHORIZATION" not in environ
        and "HTTP_MCP_SESSION_ID" not in environ
    )


def respond_with_page(name: str, environ: Environ) -> Response:
    """Tell a person who opened the endpoint in a browser what it is."""
    body = _PAGE.format(name=html.escape(name)).encode()
    fields = [("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", "default-src 'none'")]
    return 200, [("Content-Length", str(len(body))), *fields], [body]


def reason(status: int) -> str:
    """Return the status line of a status, without its version."""
    found = _REASONS.get(status)
    if found is not None:
        return found
    from http import HTTPStatus

    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"
