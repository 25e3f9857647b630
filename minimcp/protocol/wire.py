"""JSON-RPC messages: bytes to dicts, dicts to bytes, and functions that build and classify them."""

from __future__ import annotations

import json
import logging
from typing import Any

from ..engines.bounds import exceeded, has_more_values
from . import spec
from .errors import InternalError, InvalidRequest, McpError, ParseError

log = logging.getLogger("minimcp")

Message = dict[str, Any]

MAX_DEPTH = int(spec.LIMITS["depth"])
MAX_ELEMENTS = int(spec.LIMITS["elements"])
MAX_ID = 4096


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("an object has two members of the same name")
    return members


_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse_constant).decode
# A value that contains itself ends in a RecursionError without the slower check for it.
dump_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False, check_circular=False).encode
_encode_ascii = json.JSONEncoder(separators=(",", ":"), allow_nan=False, check_circular=False).encode


def loads(raw: bytes, max_depth: int = MAX_DEPTH, max_elements: int = MAX_ELEMENTS) -> Any:
    """Parse one message strictly: UTF-8, no NaN, no duplicate members, bounded nesting and size.

    :raises ParseError: when the bytes are not JSON. Spec: BASE-063
    :raises InvalidRequest: when the value is too deep or has too many elements.
    """
    if len(raw) > max_elements and has_more_values(raw, max_elements):
        # Decoded, they could take thirty times the memory.
        raise InvalidRequest(f"The message has more than {max_elements} elements")
    try:
        value = _decode(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise ParseError("Parse error: the message is not UTF-8") from None
    except RecursionError:
        raise InvalidRequest("The message is nested too deeply") from None
    except ValueError as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)[:80]
        raise ParseError(f"Parse error: {reason}") from None
    # Counting brackets bounds the depth from above at the speed of memchr; only a message that might break the limit is
    # walked.
    if raw.count(b"[") + raw.count(b"{") > max_depth and exceeded(value, max_depth, max_elements):
        raise InvalidRequest(f"The message is nested deeper than {max_depth} levels")
    return value


def dumps(message: Any) -> bytes:
    """Encode a message on one line of UTF-8.

    :raises ValueError: for NaN, infinities and values JSON cannot say.
    """
    try:
        return dump_text(message).encode("utf-8")
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8 form; its JSON escape is legal.
        return _encode_ascii(message).encode("ascii")
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None


def encode(message: Any) -> bytes:
    """Encode a message of a server; a reply that is not JSON, say a NaN from a handler, becomes an internal error.

    :raises ValueError: for a notification or request that is not JSON; it is told to the handler that sends it.
    """
    try:
        return dumps(message)
    except ValueError as problem:
        if isinstance(message, list):
            return b"[" + b",".join(encode(member) for member in message) + b"]"
        if "method" in message:
            raise
        log.error("a reply is not JSON: %s", problem)
        return dumps(error(message.get("id"), InternalError("The result cannot be written as JSON")))


def is_id(value: Any) -> bool:
    """Say whether a value may be a request id: a string or an integer, never a bool. Spec: BASE-002, BASE-003

    Every answer repeats the id, so one longer than `MAX_ID` characters is not taken.
    """
    if isinstance(value, str):
        return len(value) <= MAX_ID
    return isinstance(value, int) and value is not True and value is not False


def check(message: Any) -> str:
    """Check the envelope of a received message and return "request", "notification" or "response".

    Params, a result beside an error, or an error that are null are absent.

    :raises InvalidRequest: when it is none of these; answer it under `readable_id`, unless it is a notification.
    """
    if not isinstance(message, dict):
        raise InvalidRequest("A message is a JSON object")
    if message.get("jsonrpc") != "2.0":
        raise InvalidRequest('The member "jsonrpc" must be "2.0"')
    if "method" not in message:
        failed = message.get("error") is not None
        if (message.get("result") is None if failed else "result" in message) and is_id(message.get("id")):
            return "response"
        raise InvalidRequest('The member "method" is missing')
    if not isinstance(message["method"], str):
        raise InvalidRequest('The member "method" must be a string')
    params = message.get("params")
    if params is not None and not isinstance(params, dict):
        raise InvalidRequest('The member "params" must be an object')
    if "id" not in message:
        return "notification"
    if not is_id(message["id"]):
        raise InvalidRequest(f'The member "id" must be an integer or a string of at most {MAX_ID} characters')
    return "request"


def is_notification(message: Any) -> bool:
    """Say whether a message is a notification, well-formed or not: it is never answered. Spec: BASE-013"""
    return isinstance(message, dict) and isinstance(message.get("method"), str) and "id" not in message


def readable_id(message: Any) -> Any:
    """Return the id of a message whose envelope is wrong, or None when it has none that may be echoed."""
    value = message.get("id") if isinstance(message, dict) else None
    return value if is_id(value) else None


def request(id: Any, method: str, params: Message | None = None) -> Message:
    """Build a request."""
    message: Message = {"jsonrpc": "2.0", "id": id, "method": method}
    if params is not None:
        message["params"] = params
    return message


def notification(method: str, params: Message | None = None) -> Message:
    """Build a notification."""
    message: Message = {"jsonrpc": "2.0", "method": method}
    if params is not None:
        message["params"] = params
    return message


def result(id: Any, value: Message) -> Message:
    """Build the answer to a request."""
    return {"jsonrpc": "2.0", "id": id, "result": value}


def error(id: Any, problem: McpError) -> Message:
    """Build an error reply; `id` None stands for one that could not be read and is left out. Spec: BASE-008"""
    body: Message = {"code": problem.code, "message": problem.message}
    if problem.data is not None:
        body["data"] = problem.data
    if id is None:
        return {"jsonrpc": "2.0", "error": body}
    return {"jsonrpc": "2.0", "id": id, "error": body}
