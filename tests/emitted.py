"""Every message a client emits, held against the official JSON Schema of its revision.

Messages that a test writes itself, such as those of a step-by-step client, are not looked at.
"""

from __future__ import annotations

import functools
import json
import threading
from typing import Any

from minimcp.client import connection
from minimcp.client.steps import ByHand, Steps
from tests import official

MODERN = "2026-07-28"
VERSION = "io.modelcontextprotocol/protocolVersion"
REQUESTS = {
    "initialize": "InitializeRequest",
    "ping": "PingRequest",
    "logging/setLevel": "SetLevelRequest",
    "resources/subscribe": "SubscribeRequest",
    "resources/unsubscribe": "UnsubscribeRequest",
    "server/discover": "DiscoverRequest",
    "subscriptions/listen": "SubscriptionsListenRequest",
    "tools/list": "ListToolsRequest",
    "tools/call": "CallToolRequest",
    "resources/list": "ListResourcesRequest",
    "resources/templates/list": "ListResourceTemplatesRequest",
    "resources/read": "ReadResourceRequest",
    "prompts/list": "ListPromptsRequest",
    "prompts/get": "GetPromptRequest",
    "completion/complete": "CompleteRequest",
}
NOTIFICATIONS = {
    "notifications/initialized": "InitializedNotification",
    "notifications/cancelled": "CancelledNotification",
    "notifications/roots/list_changed": "RootsListChangedNotification",
}
RESULTS = {
    "ping": "EmptyResult",
    "roots/list": "ListRootsResult",
    "sampling/createMessage": "CreateMessageResult",
    "elicitation/create": "ElicitResult",
}

_answering = threading.local()  # the method of the server's request that this thread answers


def violation(version: str, message: Any) -> str | None:
    """Say how a message of a client breaks its revision's schema, or None."""
    if version not in official.VERSIONS:
        return f"there is no revision {version!r}"
    known = official.definitions(version)
    if known is None:
        return None
    try:
        message = json.loads(json.dumps(message))
    except (TypeError, ValueError):
        return None  # It is refused, and never sent.
    method = message.get("method")
    if method is None:
        if version == MODERN:
            return "a client sends no response on 2026-07-28"
        if "error" in message:
            return official.violation(version, None, message)
        name = RESULTS.get(getattr(_answering, "method", ""), "Result")
        return official._first(version, name, message["result"])
    if "id" not in message:
        name = NOTIFICATIONS.get(method, "JSONRPCNotification")
    else:
        name = REQUESTS.get(method, "JSONRPCRequest")
        if name == "JSONRPCRequest" and version == MODERN and VERSION not in message["params"]["_meta"]:
            return f"{method} does not say its revision"
    if name not in known:
        return f"there is no {method} in {version}"
    return official._first(version, name, message)


def check(version: str, message: Any) -> None:
    """Remember a violation; the running test fails with it."""
    found = violation(version, message)
    if found is not None:
        official.violations.append(f"client: {found}\n    {json.dumps(message, default=repr)[:1000]}")


def _version(link: Any, message: Any) -> str:
    params = message.get("params", {})
    if message.get("method") == "initialize":
        return str(params.get("protocolVersion"))
    named = params.get("_meta", {}).get(VERSION)
    return named or link.version or "2025-11-25"


def by_hand(message: Any) -> bool:
    return isinstance(message, ByHand) or not isinstance(message, dict)


def watch() -> None:
    """Put a check where every message of a client passes: its link's `start` and `send`."""
    answer = connection.Connection._answer
    uses = {cls: cls.use for cls in (connection.Connection, Steps)}

    def checked_use(self: Any, make: Any) -> Any:
        def checked_make() -> Any:
            link = make()
            start, send = link.start, link.send

            def checked_start(message: Any, *arguments: Any) -> Any:
                if not by_hand(message):
                    check(_version(link, message), message)
                return start(message, *arguments)

            def checked_send(message: Any, *arguments: Any) -> None:
                if not by_hand(message):
                    check(_version(link, message), message)
                send(message, *arguments)

            link.start, link.send = checked_start, checked_send
            return link

        return uses[type(self)](self, checked_make)

    @functools.wraps(answer)
    def checked_answer(self: Any, request: Any, call: Any) -> None:
        _answering.method = request["method"]
        try:
            answer(self, request, call)
        finally:
            _answering.method = ""

    for cls in uses:
        cls.use = checked_use
    connection.Connection._answer = checked_answer  # type: ignore[method-assign]
