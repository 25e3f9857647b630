"""HTTP/1.1 request framing, strictly: bytes to a request head, and bytes to a body, or a refusal.

A connection that is kept alive is only as safe as its framing: what one side takes for a body the other must not take
for the next request. So everything that RFC 9112 lets a server refuse is refused, and the connection closed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

# Where more bytes come from: at most that many, at least one, or b"" at the end of the stream.
Receive = Callable[[int], bytes]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_METHOD = re.compile(r"[A-Z]{1,20}\Z")
_TARGET = re.compile(r"/[\x21-\x7e]*\Z")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_DIGITS = re.compile(r"[0-9]{1,15}\Z")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]{0,1000})?\Z")

# Headers of which a second one changes the meaning of the request; never joined, always refused.
_SINGLE = frozenset(
    ["HTTP_HOST", "HTTP_ORIGIN", "HTTP_AUTHORIZATION", "CONTENT_TYPE", "CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING"]
    + ["HTTP_EXPECT", "HTTP_LAST_EVENT_ID", "HTTP_ACCEPT"]
)
_CHUNK_LINE = 1100


class BadRequest(Exception):
    """A request that is refused before it reaches the application; the connection closes after the answer."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Head:
    """The parsed head of a request.

    :ivar environ: the WSGI variables that come from it.
    :ivar length: the body's length, None when it is chunked.
    :ivar keep_alive: whether the client wants the connection to stay open.
    """

    __slots__ = ("continues", "environ", "keep_alive", "length")

    def __init__(self, environ: dict[str, Any]) -> None:
        self.environ = environ
        self.length: int | None = 0
        self.keep_alive = False
        self.continues = False


def parse_head(raw: bytes, max_line: int, max_headers: int) -> Head:
    """Parse a head, given without the empty line that ends it.

    :raises BadRequest: for anything that could be read in two ways, and for what is not HTTP/1.
    """
    lines = raw.decode("latin-1").split("\r\n")
    breaks = len(lines) - 1
    if raw.count(b"\r") != breaks or raw.count(b"\n") != breaks or b"\0" in raw:
        raise BadRequest("400 Bad Request", "Lines end in CR LF, and a NUL has no place in a head")
    if len(lines[0]) > max_line:
        raise BadRequest("414 URI Too Long", "The request line is too long")
    if breaks > max_headers:
        raise BadRequest("431 Request Header Fields Too Large", "There are too many headers")
    head = Head(_request_line(lines[0]))
    _add_headers(head.environ, lines)
    _settle(head)
    return head


def _request_line(line: str) -> dict[str, Any]:
    parts = line.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/"):
        raise BadRequest("400 Bad Request", "The request line is not METHOD TARGET HTTP/1.1")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        raise BadRequest("505 HTTP Version Not Supported", "This server speaks HTTP/1.1")
    if not _METHOD.match(method):
        raise BadRequest("400 Bad Request", "The method is malformed")
    if not _TARGET.match(target):
        raise BadRequest("400 Bad Request", "The request target must be a path")
    path, _, query = target.partition("?")
    if "%" in path:
        path = unquote_to_bytes(path).decode("latin-1")
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": version,
        "REQUEST_URI": target,
    }


def _add_headers(environ: dict[str, Any], lines: list[str]) -> None:
    for number in range(1, len(lines)):
        name, colon, value = lines[number].partition(":")
        key = _keys.get(name)
        if key is None:
            key = _key(name, colon)
        value = value.strip(" \t")
        if _CONTROL.search(value):
            raise BadRequest("400 Bad Request", "A header value has a control character")
        if not key:
            continue
        if key in environ:
            if key in _SINGLE or key.startswith("HTTP_MCP_"):
                raise BadRequest("400 Bad Request", f"The header {name[:60]} occurs twice")
            value = f"{environ[key]}, {value}"
        environ[key] = value


_keys: dict[str, str] = {}


def _key(name: str, colon: str) -> str:
    """The WSGI variable of a header, empty for one that could be taken for another's."""
    if not colon or not _TOKEN.match(name):
        raise BadRequest("400 Bad Request", "A header line is not NAME: VALUE")
    key = "" if "_" in name else name.upper().replace("-", "_")
    if key and key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        key = "HTTP_" + key
    if len(_keys) < 1000 and len(name) < 100:
        _keys[name] = key
    return key


def _settle(head: Head) -> None:
    """Decide how long the body is, and whether another request may follow."""
    environ = head.environ
    modern = environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    if modern and "HTTP_HOST" not in environ:
        raise BadRequest("400 Bad Request", "The Host header is missing")
    length, coding = environ.get("CONTENT_LENGTH"), environ.pop("HTTP_TRANSFER_ENCODING", None)
    if coding is not None:
        if length is not None or not modern:
            raise BadRequest("400 Bad Request", "Transfer-Encoding stands alone, and in HTTP/1.1 only")
        if coding.lower() != "chunked":
            raise BadRequest("501 Not Implemented", "The only transfer coding here is chunked")
        head.length = None
    elif length is not None:
        if not _DIGITS.match(length):
            raise BadRequest("400 Bad Request", "Content-Length is not a number")
        head.length = int(length)
    expect = environ.get("HTTP_EXPECT")
    if expect is not None and modern:
        if expect.lower() != "100-continue":
            raise BadRequest("417 Expectation Failed", "The only expectation here is 100-continue")
        head.continues = True
    options = environ.get("HTTP_CONNECTION", "").lower()
    head.keep_alive = modern and "close" not in [option.strip() for option in options.split(",")]


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
            raise BadRequest("400 Bad Request", "The body ends early")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts), b""


def read_chunked(buffer: bytes, limit: int, receive: Receive) -> tuple[bytes, bytes]:
    """Decode a chunked body and drop its trailers; return the body and what follows it.

    :raises BadRequest: when it is malformed, ends early, or has more than `limit` bytes.
    """
    body: list[bytes] = []
    size = total = 0
    while True:
        line, buffer = _line(buffer, receive)
        found = _CHUNK_SIZE.match(line)
        if found is None:
            raise BadRequest("400 Bad Request", "A chunk size is malformed")
        size = int(found.group(1), 16)
        if size == 0:
            break
        total += size
        # Counting the chunks too: a body in chunks of one byte costs more than it holds.
        if total > limit or len(body) > 10_000 + limit // 64:
            raise BadRequest("413 Content Too Large", f"The body is larger than {limit} bytes")
        data, buffer = read_exactly(buffer, size + 2, receive)
        if data[-2:] != b"\r\n":
            raise BadRequest("400 Bad Request", "A chunk does not end where its size says")
        body.append(data[:-2])
    for _ in range(32):
        line, buffer = _line(buffer, receive)
        if not line:
            return b"".join(body), buffer
    raise BadRequest("400 Bad Request", "There are too many trailers")


def _line(buffer: bytes, receive: Receive) -> tuple[bytes, bytes]:
    while b"\n" not in buffer:
        if len(buffer) > _CHUNK_LINE:
            break
        part = receive(4096)
        if not part:
            raise BadRequest("400 Bad Request", "The body ends early")
        buffer += part
    line, _, rest = buffer.partition(b"\n")
    if not line.endswith(b"\r") or len(line) > _CHUNK_LINE:
        raise BadRequest("400 Bad Request", "A line of the chunked body is malformed")
    return line[:-1], rest
