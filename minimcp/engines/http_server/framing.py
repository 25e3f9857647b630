"""Strict HTTP/1.1 request framing: parses bytes to a request head and a body, or refuses them.

On a connection that is kept alive, client and server must agree where a body ends and the next request begins. So a
request that could be read in two ways is refused, and the connection closed. Spec: RFC 9112
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple, Optional
from urllib.parse import unquote_to_bytes

# Returns more bytes: at most that many, at least one, or b"" at the end of the stream.
Receive = Callable[[int], bytes]

# Bytes and counts; the embedded server's own limits include them.
LIMITS: dict[str, float] = {
    "line_bytes": 8 * 1024,  # the request line
    "head_bytes": 32 * 1024,  # the request line and all headers
    "headers": 100,
    "body_bytes": 4 * 1024 * 1024,
}

METHODS = frozenset(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
# Joining two of these with a comma would let the application and a proxy in front of it see different values.
_SINGLE = frozenset(
    [
        "HTTP_HOST",
        "HTTP_ORIGIN",
        "HTTP_AUTHORIZATION",
        "HTTP_TRANSFER_ENCODING",
        "HTTP_CONTENT_ENCODING",
        "HTTP_EXPECT",
        "HTTP_LAST_EVENT_ID",
        "CONTENT_TYPE",
        "CONTENT_LENGTH",
    ]
)
_CHUNKS = 10_000  # chunks of one body, beside one for each 64 bytes of the limit
_CHUNK_LINE = 1024  # bytes of a chunk's size and extensions, or of a trailer
_TRAILERS = 32
_HEADS = 256  # heads remembered, each of at most
_HEAD_BYTES = 1024

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_FIELDS = re.compile(rf"(?:{_TOKEN}:[\t\x20-\x7e\x80-\xff]*\r\n)*\r\n")
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])")
_ABSOLUTE = re.compile(r"https?://([^/?#@]+)(/[^#]*|\?[^#]*|)", re.IGNORECASE)
_HOST = re.compile(r"[A-Za-z0-9._~!$&'()*+;=%:\[\]-]+")
_LENGTH = re.compile(r"[0-9]{1,18}")
_LONE = re.compile(rb"(?<!\r)\n|\r[^\n]")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rf"{_TOKEN}:[\t\x20-\x7e\x80-\xff]*".encode("latin-1"))


class BadRequest(Exception):
    """A request that is refused, after which the connection must be closed.

    :param status: the HTTP status to refuse it with.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Head(NamedTuple):
    """A request without its body; `environ` holds what a WSGI environ takes from it, and is not to be changed."""

    method: str
    environ: dict[str, str]
    length: Optional[int]  # None: the body is chunked
    close: bool  # the connection ends with this request
    expects: bool  # the client waits for "100 Continue"


def parse_request_line(line: str) -> tuple[str, str, bool]:
    """Return method, target, and whether it is HTTP/1.1.

    :raises BadRequest: when it is malformed, or not supported.
    """
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise BadRequest(400, "The request line is malformed")
    method, target, major, minor = found.groups()
    if major != "1":
        raise BadRequest(505, "Only HTTP/1.1 and HTTP/1.0 are served")
    if method not in METHODS:
        raise BadRequest(501, "This method is not served")
    return method, target, minor != "0"


def take_head(data: bytes, limits: Mapping[str, float], known: dict[bytes, Head]) -> Head:
    """Return a parsed head, from `known` if possible: clients repeat their heads to the byte."""
    head = known.get(data)
    if head is None:
        head = parse_head(data, limits)
        if len(data) <= _HEAD_BYTES:
            if len(known) >= _HEADS:
                known.clear()
            known[data] = head
    return head


def check_part(data: bytes, limits: Mapping[str, float] = LIMITS) -> None:
    """Refuse bytes that cannot become a valid head, before its end has arrived.

    :raises BadRequest: for a beginning that is malformed or too large.
    """
    if not data[:1].isalpha() or _LONE.search(data):
        raise BadRequest(400, "This is not an HTTP/1.1 request")
    end = data.find(b"\r\n")
    if end >= 0:
        parse_request_line(data[:end].decode("latin-1"))
    elif len(data) > limits["line_bytes"]:
        raise BadRequest(414, "The request line is too long")
    if len(data) >= limits["head_bytes"]:
        raise BadRequest(431, "The headers are too large")


def parse_head(data: bytes, limits: Mapping[str, float] = LIMITS) -> Head:
    """Parse a request's head, including the empty line at its end.

    Header names with an underscore are dropped: in an environ they look like the ones with a hyphen.

    :raises BadRequest: when it is malformed, ambiguous or too large.
    """
    line, _, rest = data.decode("latin-1").partition("\r\n")
    if len(line) > limits["line_bytes"]:
        raise BadRequest(414, "The request line is too long")
    method, target, http11 = parse_request_line(line)
    if _FIELDS.fullmatch(rest) is None:
        raise BadRequest(400, "A header is malformed")
    fields = rest.split("\r\n")
    if len(fields) - 2 > limits["headers"]:
        raise BadRequest(431, "There are too many headers")
    environ = {
        "REQUEST_METHOD": method,
        "SERVER_PROTOCOL": "HTTP/1.1" if http11 else "HTTP/1.0",
        "REQUEST_URI": target,
        "RAW_URI": target,
    }
    for field in fields[:-2]:
        name, _, value = field.partition(":")
        key = _environ_key(name)
        if key is None:
            continue
        value = value.strip(" \t")
        if key in environ:
            if key in _SINGLE or key.startswith("HTTP_MCP_"):
                raise BadRequest(400, f"The header {name} is there twice")
            value = environ[key] + ("; " if key == "HTTP_COOKIE" else ",") + value
        environ[key] = value
    path, _, environ["QUERY_STRING"] = _origin_form(method, target, environ.get("HTTP_HOST")).partition("?")
    environ["PATH_INFO"] = unquote_to_bytes(path).decode("latin-1") if "%" in path else path
    host = environ.get("HTTP_HOST")
    if (host is None and http11) or (host is not None and _HOST.fullmatch(host) is None):
        raise BadRequest(400, "There must be one well-formed Host header")
    length = _body_length(environ, http11)
    if length is not None and length > limits["body_bytes"]:
        raise BadRequest(413, f"The body is larger than {int(limits['body_bytes'])} bytes")
    expects = environ.get("HTTP_EXPECT") if http11 else None
    if expects is not None and expects.lower() != "100-continue":
        raise BadRequest(417, "This expectation cannot be met")
    connection = environ.get("HTTP_CONNECTION")
    close = not http11 or (connection is not None and "close" in re.split(r"[ \t,]+", connection.lower()))
    return Head(method, environ, length, close, expects is not None)


# Header names are few and repeat. Bounded; threads that race for it compute the same value.
_keys: dict[str, Optional[str]] = {}


def _environ_key(name: str) -> str | None:
    try:
        return _keys[name]
    except KeyError:
        pass
    key: str | None = None
    if "_" not in name:
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
    if len(_keys) < 512 and len(name) < 64:
        _keys[name] = key
    return key


def _origin_form(method: str, target: str, host: str | None) -> str:
    if target.startswith("/") and "#" not in target:
        return target
    if target == "*" and method == "OPTIONS":
        return target
    found = _ABSOLUTE.fullmatch(target)
    # RFC 9112 section 3.2.2 lets the target override Host, past every check that was made on Host.
    if found is None or (host or "").lower() != found.group(1).lower():
        raise BadRequest(400, "The request target is malformed, or it is not for the Host it came with")
    return found.group(2) if found.group(2).startswith("/") else "/" + found.group(2)


def _body_length(environ: dict[str, str], http11: bool) -> int | None:
    coding, length = environ.pop("HTTP_TRANSFER_ENCODING", None), environ.get("CONTENT_LENGTH")
    if coding is None:
        if length is None:
            return 0
        if _LENGTH.fullmatch(length) is None:
            raise BadRequest(400, "Content-Length is not a number")
        return int(length)
    if length is not None:
        raise BadRequest(400, "Content-Length and Transfer-Encoding exclude each other")
    if not http11:
        raise BadRequest(400, "HTTP/1.0 has no Transfer-Encoding")
    if coding.lower() != "chunked":
        raise BadRequest(501, "The only transfer coding served is chunked")
    return None


def read_exactly(buffer: bytes, length: int, receive: Receive) -> tuple[bytes, bytes]:
    """Take `length` bytes from what is buffered and what is received; return them and the rest.

    :raises BadRequest: when the stream ends before.
    """
    if len(buffer) >= length:
        return buffer[:length], buffer[length:]
    parts, missing = [buffer], length - len(buffer)
    while missing:
        part = receive(min(missing, 1 << 18))
        if not part:
            raise BadRequest(400, "The body ends early")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts), b""


def read_chunked(buffer: bytes, limit: int, receive: Receive) -> tuple[bytes, bytes]:
    """Decode a chunked body, drop its extensions and trailers; return the body and what follows it.

    :raises BadRequest: when it is malformed, ends early, or has more than `limit` bytes.
    """
    body: list[bytes] = []
    total = 0
    while True:
        line, buffer = _read_line(buffer, receive)
        found = _CHUNK_SIZE.fullmatch(line)
        if found is None:
            raise BadRequest(400, "A chunk size is malformed")
        size = int(found.group(1), 16)
        if size == 0:
            break
        total += size
        # Counting the chunks too: a body in chunks of one byte costs more than it holds.
        if total > limit or len(body) > _CHUNKS + limit // 64:
            raise BadRequest(413, f"The body is larger than {limit} bytes")
        data, buffer = read_exactly(buffer, size + 2, receive)
        if not data.endswith(b"\r\n"):
            raise BadRequest(400, "A chunk does not end where its size says")
        body.append(data[:-2])
    for _ in range(_TRAILERS):
        line, buffer = _read_line(buffer, receive)
        if not line:
            return b"".join(body), buffer
        if _TRAILER.fullmatch(line) is None:
            raise BadRequest(400, "A trailer is malformed")
    raise BadRequest(400, "There are too many trailers")


def _read_line(buffer: bytes, receive: Receive) -> tuple[bytes, bytes]:
    while b"\n" not in buffer and len(buffer) <= _CHUNK_LINE:
        part = receive(4096)
        if not part:
            raise BadRequest(400, "The body ends early")
        buffer += part
    line, _, rest = buffer.partition(b"\n")
    if not line.endswith(b"\r") or len(line) > _CHUNK_LINE:
        raise BadRequest(400, "A line of the chunked body is malformed")
    return line[:-1], rest
