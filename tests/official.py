"""Every message a server emits, held against the official JSON Schema of its revision.

The schemas lie beside the repository, in `../shared/protocol/schema`; where they do not, nothing is checked.
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, Optional

from minimcp.protocol import wire
from minimcp.server import dispatcher, session

SCHEMAS = Path(__file__).resolve().parents[2] / "shared" / "protocol" / "schema"
LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN = "2026-07-28"
VERSIONS = (*LEGACY, MODERN)

RESULTS = {
    "initialize": "InitializeResult",
    "ping": "EmptyResult",
    "logging/setLevel": "EmptyResult",
    "resources/subscribe": "EmptyResult",
    "resources/unsubscribe": "EmptyResult",
    "server/discover": "DiscoverResult",
    "subscriptions/listen": "SubscriptionsListenResult",
    "tools/list": "ListToolsResult",
    "tools/call": "CallToolResult",
    "resources/list": "ListResourcesResult",
    "resources/templates/list": "ListResourceTemplatesResult",
    "resources/read": "ReadResourceResult",
    "prompts/list": "ListPromptsResult",
    "prompts/get": "GetPromptResult",
    "completion/complete": "CompleteResult",
}
NOTIFICATIONS = {
    "notifications/cancelled": "CancelledNotification",
    "notifications/progress": "ProgressNotification",
    "notifications/message": "LoggingMessageNotification",
    "notifications/tools/list_changed": "ToolListChangedNotification",
    "notifications/prompts/list_changed": "PromptListChangedNotification",
    "notifications/resources/list_changed": "ResourceListChangedNotification",
    "notifications/resources/updated": "ResourceUpdatedNotification",
    "notifications/elicitation/complete": "ElicitationCompleteNotification",
    "notifications/subscriptions/acknowledged": "SubscriptionsAcknowledgedNotification",
}
REQUESTS = {
    "ping": "PingRequest",
    "roots/list": "ListRootsRequest",
    "sampling/createMessage": "CreateMessageRequest",
    "elicitation/create": "ElicitRequest",
}
ERRORS = {
    -32020: "HeaderMismatchError",
    -32021: "MissingRequiredClientCapabilityError",
    -32022: "UnsupportedProtocolVersionError",
    -32042: "URLElicitationRequiredError",
}
# Codes a revision may emit beside those of JSON-RPC and of the application. Spec: BASE-055 to BASE-060
OWN_CODES = {MODERN: {-32020, -32021, -32022}, "2025-11-25": {-32002, -32042}}
STANDARD_CODES = {-32700, -32600, -32601, -32602, -32603}
MODERN_ONLY = {"resultType", "ttlMs", "cacheScope", "inputRequests", "requestState"}
ITEMS = {"tools": "Tool", "resources": "Resource", "resourceTemplates": "ResourceTemplate", "prompts": "Prompt"}
MEMBERS = {"capabilities": "ServerCapabilities", "serverInfo": "Implementation"}
LEGACY_ONLY = {"initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"}
MAY_ASK = {"tools/call", "prompts/get", "resources/read"}

# What was found wrong since the running test began.
violations: list[str] = []


@functools.cache
def definitions(version: str) -> Optional[dict[str, Any]]:
    """The definitions of a revision's schema, or None where it is absent."""
    path = SCHEMAS / f"{version}.json"
    if not path.exists():
        return None
    document = json.loads(path.read_text(encoding="utf-8"))
    found: dict[str, Any] = document.get("$defs") or document["definitions"]
    # The generated schemas narrow these two unions; the sources they come from allow any number, and null.
    if "JSONValue" in found:
        found["JSONValue"]["anyOf"][-1]["type"] = ["string", "number", "boolean", "null"]
    if "ElicitResult" in found:
        values = found["ElicitResult"]["properties"]["content"]["additionalProperties"]
        for part in (values, *values.get("anyOf", ())):
            if "integer" in part.get("type", ()):
                part["type"] = ["string", "number", "boolean"]
    return found


@functools.cache
def validator(version: str, name: str) -> Any:
    """The compiled schema of one definition."""
    import jsonschema

    found = definitions(version)
    assert found is not None
    modern_layout = version in ("2025-11-25", MODERN)
    key, cls = (
        ("$defs", jsonschema.Draft202012Validator) if modern_layout else ("definitions", jsonschema.Draft7Validator)
    )
    return cls({"$ref": f"#/{key}/{name}", key: found})


def violation(version: str, method: str | None, message: Any) -> str | None:
    """Say how an emitted message breaks its revision's schema, or None.

    :param method: of the request that a response answers.
    """
    if version not in VERSIONS:
        return f"there is no revision {version!r}"
    known = definitions(version)
    if known is None:
        return None
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        return "not a JSON-RPC 2.0 object"
    # What is read back is what a client sees: a door answers with an error for a result that JSON cannot say.
    message = json.loads(wire.encode(message))
    if "method" in message:
        return _requested(version, known, message)
    if ("result" in message) == ("error" in message):
        return "a response has exactly one of result and error"
    if "error" in message:
        return _error(version, known, message)
    envelope = "JSONRPCResultResponse" if "JSONRPCResultResponse" in known else "JSONRPCResponse"
    result = message["result"]
    name = RESULTS.get(method or "", "Result")
    if version == MODERN and method in LEGACY_ONLY:
        return f"{method} has no result in {version}"
    if version == MODERN:
        if not isinstance(result, dict) or "resultType" not in result:
            return "a modern result has no resultType"
        if result["resultType"] == "input_required":
            # The schema knows no methods of extensions.
            if method in RESULTS and method not in MAY_ASK:
                return f"{method} must not be answered with an InputRequiredResult"
            if "ttlMs" in result or "cacheScope" in result:
                return "an input_required result carries no caching hints"
            name = "InputRequiredResult"
        elif result["resultType"] != "complete":
            name = "Result"
    elif isinstance(result, dict) and MODERN_ONLY & result.keys():
        return f"a legacy result has {sorted(MODERN_ONLY & result.keys())}"
    if name not in known:
        return f"{method} has no result in {version}"
    return _first(version, envelope, message) or _first(version, name, result) or _unsaid(version, known, result)


def _unsaid(version: str, known: dict[str, Any], result: dict[str, Any]) -> str | None:
    """Say what a legacy result has that its revision does not define: schemas are open, older clients may not be."""
    places = [(name, each) for field, name in ITEMS.items() for each in result.get(field, ())]
    places += [(name, result[field]) for field, name in MEMBERS.items() if field in result]
    for name, each in places:
        extra = each.keys() - known[name]["properties"].keys() - {"extensions"}
        if version != MODERN and extra:
            return f"there is no {sorted(extra)} in a {name} of {version}"
    return None


def _requested(version: str, known: dict[str, Any], message: dict[str, Any]) -> str | None:
    method = message["method"]
    table = REQUESTS if "id" in message else NOTIFICATIONS
    if "id" in message and version == MODERN:
        return f"a server sends no request on {version}: {method}"
    name = table.get(method)
    if name is None:
        name = "JSONRPCRequest" if "id" in message else "JSONRPCNotification"
    if name not in known:
        return f"there is no {method} in {version}"
    return _first(version, name, message)


def _error(version: str, known: dict[str, Any], message: dict[str, Any]) -> str | None:
    code = message["error"].get("code") if isinstance(message["error"], dict) else None
    if isinstance(code, int) and -32768 <= code <= -32000 and code not in STANDARD_CODES:
        allowed = OWN_CODES.get(version, {-32002})
        if code not in allowed:
            return f"the code {code} is not one of {version}"
    name = ERRORS.get(code, "")
    if name not in known:
        name = "JSONRPCErrorResponse" if "JSONRPCErrorResponse" in known else "JSONRPCError"
    if "id" not in message:
        # Earlier schemas require the id even of an error whose request had none that could be read. Spec: BASE-008
        message = {**message, "id": 0}
    return _first(version, name, message)


def _first(version: str, name: str, value: Any) -> str | None:
    import jsonschema

    error = jsonschema.exceptions.best_match(validator(version, name).iter_errors(value))
    if error is None:
        return None
    return f"{version} {name}: {error.json_path}: {error.message[:300]}"


def check_emitted(version: str, method: str | None, message: Any) -> Any:
    """Assert that a message of a child process or socket is one of its revision, and return it."""
    if isinstance(message, list):
        return [check_emitted(version, method, each) for each in message]
    found = violation(version, method, message)
    assert found is None, f"{found}\n{json.dumps(message)[:2000]}"
    return message


def _hold(version: str, method: str | None, message: Any) -> None:
    found = violation(version, method, message)
    if found is not None:
        violations.append(f"{found}\n    {json.dumps(message, default=repr)[:1000]}")


def _revision(ctx: Any) -> str:
    """The revision a call is answered in, also when it failed before that was settled."""
    if ctx.version:
        return str(ctx.version)
    return MODERN if ctx._era.name == "modern" else "2025-11-25"


def _checked_send(ctx: Any, send: Any) -> Any:
    if send is None:
        return None

    def checked(message: Any) -> None:
        _hold(_revision(ctx), None, message)
        send(message)

    return checked


def watch_emissions() -> None:
    """Put a check where every emission passes: a call's reply, what it sends, a session's own messages, errors."""
    run, messages, error = dispatcher.Call.run, dispatcher.Call.messages, wire.error

    @functools.wraps(run)
    def checked_run(self: Any, send: Any = None) -> Any:
        reply = run(self, _checked_send(self.ctx, send))
        if reply is not None:
            _hold(_revision(self.ctx), self.ctx.method, reply)
        return reply

    @functools.wraps(messages)
    def checked_messages(self: Any, send: Any = None) -> Any:
        for message in messages(self, _checked_send(self.ctx, send)):
            if message is not None:
                _hold(_revision(self.ctx), self.ctx.method, message)
            yield message

    @functools.wraps(error)
    def checked_error(id: Any, problem: Any) -> Any:
        # Doors answer what never became a call; the shape of an error is the same in every revision.
        reply = error(id, problem)
        if problem.code in STANDARD_CODES:
            _hold("2025-11-25", None, reply)
        return reply

    def get_send(self: Any) -> Any:
        return self.__dict__.get("send")

    def set_send(self: Any, send: Any) -> None:
        def checked(message: Any) -> None:
            if "method" in message and "id" not in message:
                _hold(self.version or "2025-11-25", None, message)
            send(message)

        self.__dict__["send"] = None if send is None else checked

    dispatcher.Call.run = checked_run  # type: ignore[method-assign]
    dispatcher.Call.messages = checked_messages  # type: ignore[method-assign]
    wire.error = checked_error
    session.Session.send = property(get_send, set_send)  # type: ignore[assignment]


# Objects whose members are anyone's, although the schema lists some.
_FREE = {"inputSchema", "outputSchema", "_meta", "metadata", "capabilities", "experimental", "extensions"}


@functools.cache
def _closed(version: str, name: str) -> Any:
    """The compiled schema of one definition, without members that it does not define."""
    import jsonschema

    known = definitions(version)
    assert known is not None

    def close(node: Any) -> Any:
        if isinstance(node, list):
            return [close(each) for each in node]
        if not isinstance(node, dict):
            return node
        found = {key: each if key in _FREE else close(each) for key, each in node.items()}
        listed = isinstance(found.get("properties"), dict) and found.get("type") == "object"
        # Results are open in the schemas, so that extensions can add to them.
        if listed and found.get("additionalProperties") in (None, {}):
            found["additionalProperties"] = False
        return found

    key = "$defs" if version in ("2025-11-25", MODERN) else "definitions"
    closed = {name: close(each) for name, each in known.items()}
    return jsonschema.Draft202012Validator({"$ref": f"#/{key}/{name}", key: closed})


def undefined(version: str, name: str, value: Any) -> str | None:
    """Say what a value has that a definition of a revision does not define, or None.

    The schemas are open, so that they let pass what an older peer does not know.
    """
    if isinstance(value, dict) and "method" in value and version not in ("2025-11-25", MODERN):
        value = {key: each for key, each in value.items() if key not in ("jsonrpc", "id")}
    import jsonschema

    error = jsonschema.exceptions.best_match(_closed(version, name).iter_errors(value))
    return None if error is None else f"{version} {name}: {error.json_path}: {error.message[:300]}"
