"""The facts of the protocol: revisions, methods, keys, codes and fields, as plain tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Optional

from .limits import LIMITS as LIMITS

LEGACY_VERSIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
MODERN_VERSIONS = ("2026-07-28",)
VERSIONS = LEGACY_VERSIONS + MODERN_VERSIONS
LATEST_LEGACY = LEGACY_VERSIONS[-1]

# Keys of a modern message's `_meta`. Spec: BASE-036 to BASE-048
META_VERSION = "io.modelcontextprotocol/protocolVersion"
META_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
META_CLIENT = "io.modelcontextprotocol/clientInfo"
META_LOG_LEVEL = "io.modelcontextprotocol/logLevel"
META_SERVER = "io.modelcontextprotocol/serverInfo"
META_SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"

# The identifier of the tasks extension.
TASKS = "io.modelcontextprotocol/tasks"

# Error codes. Spec: 26:basic/index#error-codes
PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
RESOURCE_NOT_FOUND = -32002
URL_ELICITATION_REQUIRED = -32042
HEADER_MISMATCH = -32020
MISSING_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022

# The HTTP status of a modern error reply; codes that are not listed go out as 200.
# Spec: 26:basic/transports/streamable-http
HTTP_STATUS = {
    PARSE_ERROR: 400,
    INVALID_REQUEST: 400,
    INVALID_PARAMS: 400,
    HEADER_MISMATCH: 400,
    MISSING_CAPABILITY: 400,
    UNSUPPORTED_VERSION: 400,
    METHOD_NOT_FOUND: 404,
}


class Method(NamedTuple):
    """Facts of one method; an era or an extension of a server is a dict of these, by the method's name.

    :ivar handler: `f(ctx, params) -> result` on a server; one that `streams` is a generator of what it emits.
    :ivar capability: the server capability without which the method does not exist. Spec: BASE-061
    :ivar name_param: the parameter that the `Mcp-Name` header mirrors. Spec: TRN-062
    :ivar may_ask: whether its handler may ask the client something. Spec: BASE-173, BASE-174
    :ivar cacheable: whether its result carries `ttlMs` and `cacheScope`. Spec: FEAT-121
    :ivar streams: whether it stays open and emits messages until it ends.
    :ivar interactive: whether its handler may emit or ask before it answers, as a tool with a Context may.
    :ivar before_handshake: whether a legacy client may send it before `initialize`. Spec: BASE-117
    """

    handler: Optional[Callable[..., Any]] = None
    capability: Optional[str] = None
    name_param: Optional[str] = None
    may_ask: bool = False
    cacheable: bool = False
    streams: bool = False
    interactive: bool = False
    before_handshake: bool = False


# Both ends read these; a server puts its handlers into them.
METHODS: dict[str, Method] = {
    "tools/list": Method(capability="tools", cacheable=True),
    "tools/call": Method(capability="tools", name_param="name", may_ask=True),
    "resources/list": Method(capability="resources", cacheable=True),
    "resources/templates/list": Method(capability="resources", cacheable=True),
    "resources/read": Method(capability="resources", name_param="uri", may_ask=True, cacheable=True),
    "prompts/list": Method(capability="prompts", cacheable=True),
    "prompts/get": Method(capability="prompts", name_param="name", may_ask=True),
    "completion/complete": Method(capability="completions"),
    "server/discover": Method(cacheable=True),
    "subscriptions/listen": Method(streams=True),
    "initialize": Method(before_handshake=True),
    "ping": Method(before_handshake=True),
    "logging/setLevel": Method(capability="logging"),
    "resources/subscribe": Method(capability="subscribe"),
    "resources/unsubscribe": Method(capability="subscribe"),
    "tasks/get": Method(name_param="taskId"),
    "tasks/update": Method(name_param="taskId"),
    "tasks/cancel": Method(name_param="taskId"),
}

LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")
LOG_RANKS = {level: rank for rank, level in enumerate(LOG_LEVELS)}

# Change kinds of a registry and the notification and `listen` filter field each has.
CHANGES = {
    "tools": ("notifications/tools/list_changed", "toolsListChanged"),
    "prompts": ("notifications/prompts/list_changed", "promptsListChanged"),
    "resources": ("notifications/resources/list_changed", "resourcesListChanged"),
}

# The only revision with batches. Spec: BASE-022, BASE-025
BATCHES = "2025-03-26"
# The first revision whose clients come back to a stream that was closed on them. Spec: TRN-134, TRN-140
POLLING_SINCE = "2025-11-25"
