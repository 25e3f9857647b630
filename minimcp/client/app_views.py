"""MCP Apps for hosts: the conversation between a page in its frame and the host.

Spec: EXT-105, EXT-110 to EXT-117
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional

from .. import __version__
from ..engines.addresses import is_web
from ..engines.bounds import weight
from ..engines.errors import ClientError
from ..protocol import app_pages, content, wire
from ..protocol.errors import InvalidParams, InvalidRequest, McpError, MethodNotFound
from .errors import RemoteError

if TYPE_CHECKING:
    from .methods import Methods
    from .results import Result
    from .tool_page import AppPage

log = logging.getLogger("minimcp")

Message = dict[str, Any]
# Takes the params of what a page asks or says; for a request it may return the result.
Handler = Callable[[Message], Any]

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_SIDE = 10_000  # pixels of a page whose container has no bounds
MAX_CALLS = 16  # of one page at a time
_REFUSED = -32000
_MOST_KEPT = 100  # messages for a page that has not said that it is ready
_TEARDOWN = "teardown"

# What a page may ask of the host, and the capability that says so.
_ASKED = {"ui/open-link": "openLinks", "ui/message": "message", "ui/update-model-context": "updateModelContext"}
_TOLD = ("notifications/message", "ui/notifications/size-changed", "ui/notifications/request-teardown")


def _check_asked(method: str, params: Message) -> None:
    """Check what a page asks of its host.

    :raises InvalidParams: when it is not what the method is for.
    """
    if method == "ui/open-link":
        if not isinstance(params.get("url"), str) or not is_web(params["url"]):
            raise InvalidParams("Only http and https links are opened")
        return
    blocks = params.get("content", [])
    if method == "ui/message" and (params.get("role") != "user" or not blocks):
        raise InvalidParams('A message has the role "user" and some content')
    if not all(map(content.is_block, blocks if isinstance(blocks, list) else [blocks])):
        raise InvalidParams("content must be content blocks")
    if not isinstance(params.get("structuredContent", {}), dict):
        raise InvalidParams("structuredContent must be an object")


class AppView:
    """The conversation with one page in its frame; the host carries its messages, by postMessage.

    Each function returns the messages to post to the frame now, in this order. Nothing is posted before the page has
    said that it is initialized; until then messages are kept. Functions may be called from any thread; a tool that the
    page calls runs on the thread of `receive`.

    :param client: the client of the server that the page is from; its `approve` is asked before each call.
    :param context: the `hostContext`: `theme`, `styles`, `locale`, `displayMode`, `containerDimensions` and so on.
    :param handlers: functions by the method that they are for: "ui/open-link", "ui/message",
        "ui/update-model-context" and "ui/request-display-mode", which is called before the mode changes, are answered
        by what they return, {} for None, and refused with an McpError that they raise; "notifications/message",
        "ui/notifications/size-changed" and "ui/notifications/request-teardown", which may return False to stay.
    :param grants: whether the permissions that the page asks for are given to its frame.
    :ivar closed: set when the page has answered to `teardown`, so that its frame can be removed.
    """

    def __init__(
        self,
        client: Methods,
        page: AppPage,
        *,
        context: Message | None = None,
        handlers: Mapping[str, Handler] | None = None,
        info: Message | None = None,
        grants: bool = False,
    ) -> None:
        unknown = set(handlers or ()) - {*_ASKED, *_TOLD, "ui/request-display-mode"}
        if unknown:
            raise ValueError(f"A page never sends {', '.join(sorted(unknown))}, or the host does not answer it")
        self.page = page
        self.closed = threading.Event()
        self._client = client
        self._handlers = handlers or {}
        self._info = info or {"name": "minimcp", "version": __version__}
        self._grants = grants
        self._calls = threading.BoundedSemaphore(MAX_CALLS)
        self._lock = threading.Lock()  # guards everything below
        self._context: Message = {"toolInfo": {"tool": page.tool}, "displayMode": "inline", **(context or {})}
        self._modes: Optional[Sequence[Any]] = None  # that the page declared
        self._greeted = self._ready = self._has_input = self._has_result = self._leaving = False
        self._kept: list[Message] = []

    # From the host to the page

    def partial_input(self, arguments: Message) -> list[Message]:
        """Tell the page the arguments that a model has written so far."""
        with self._lock:
            if self._has_input:
                raise ValueError("The page has the whole arguments already")
            return self._post("ui/notifications/tool-input-partial", {"arguments": arguments})

    def input(self, arguments: Message) -> list[Message]:
        """Tell the page the whole arguments of the call; once, and before its result. Spec: EXT-112"""
        with self._lock:
            if self._has_input:
                raise ValueError("The page has the whole arguments already")
            self._has_input = True
            return self._post("ui/notifications/tool-input", {"arguments": arguments})

    def result(self, result: Result | Message) -> list[Message]:
        """Tell the page the result of the call. Spec: EXT-113"""
        return self._end("ui/notifications/tool-result", dict(result))

    def cancelled(self, reason: str = "") -> list[Message]:
        """Tell the page that the call was cancelled. Spec: EXT-113"""
        return self._end("ui/notifications/tool-cancelled", {"reason": reason})

    def _end(self, method: str, params: Message) -> list[Message]:
        with self._lock:
            if not self._has_input:
                raise ValueError("Give the page the arguments first: input(arguments)")
            if self._has_result:
                raise ValueError("The page knows already how the call has ended")
            self._has_result = True
            return self._post(method, params)

    def change(self, **context: Any) -> list[Message]:
        """Change the context of the page, such as its theme.

        :raises ValueError: for a display mode that the page did not declare. Spec: EXT-115
        """
        with self._lock:
            if "displayMode" in context and not self._may_be(context["displayMode"]):
                raise ValueError(f"The page has no display mode {context['displayMode']!r}")
            self._context.update(context)
            return self._post("ui/notifications/host-context-changed", context)

    def teardown(self, reason: str = "") -> list[Message]:
        """Ask the page to end: wait a while for `closed`, then remove its frame. Spec: EXT-114"""
        with self._lock:
            if self._leaving:
                return []
            self._leaving = True
            if not self._ready:
                self.closed.set()
                return []
            return [wire.request(_TEARDOWN, "ui/resource-teardown", {"reason": reason} if reason else {})]

    def _post(self, method: str, params: Message) -> list[Message]:
        """Return a notification to post now, or keep it for later. Spec: EXT-110"""
        message = wire.notification(method, params)
        if self._leaving:
            return []
        if self._ready:
            return [message]
        if len(self._kept) == _MOST_KEPT:
            # There is one input and one end; of the others the last one says all that counts.
            self._kept = [each for each in self._kept if not each["method"].endswith(("-partial", "-changed"))]
        self._kept.append(message)
        return []

    # From the page to the host

    def receive(self, message: Any) -> list[Message]:
        """Take a message of the page: a request is answered, a call of a tool goes to the server.

        What it says is the server's word, and not to be trusted: a malformed message, and one for which there is no
        room, is refused.
        """
        if self.closed.is_set():
            return []
        try:
            if weight(message, MAX_MESSAGE_BYTES) > MAX_MESSAGE_BYTES:
                raise InvalidRequest(f"A message has at most {MAX_MESSAGE_BYTES} bytes")
            kind = wire.check(message)
        except McpError as problem:
            return [] if wire.is_notification(message) else [wire.error(wire.readable_id(message), problem)]
        if kind == "response":
            if self._leaving and message["id"] == _TEARDOWN:
                self.closed.set()
            return []
        method, params = message["method"], message.get("params") or {}
        if kind == "notification":
            return self._notice(method, params)
        if not self._calls.acquire(blocking=False):
            return [wire.error(message["id"], McpError(f"More than {MAX_CALLS} requests at once", code=_REFUSED))]
        try:
            return [wire.result(message["id"], self._answer(method, params))]
        except McpError as problem:
            return [wire.error(message["id"], problem)]
        except RemoteError as problem:
            return [wire.error(message["id"], McpError(problem.message, problem.data, problem.code))]
        except ClientError as problem:
            return [wire.error(message["id"], McpError(problem.message, code=_REFUSED))]
        except Exception:
            log.exception("the page %s: %s failed", self.page.uri, method)
            return [wire.error(message["id"], McpError(f"{method} failed"))]
        finally:
            self._calls.release()

    def _notice(self, method: str, params: Message) -> list[Message]:
        if method == "ui/notifications/initialized":
            with self._lock:
                if not self._greeted or self._ready:
                    return []
                self._ready = True
                kept, self._kept = self._kept, []
                return kept
        if method not in _TOLD:
            return []
        answer = None
        if method in self._handlers:
            try:
                answer = self._handlers[method](self._size(params) if method.endswith("size-changed") else params)
            except Exception:
                log.exception("the page %s: the handler of %s failed", self.page.uri, method)
        if method == "ui/notifications/request-teardown" and answer is not False:
            return self.teardown()
        return []

    def _size(self, params: Message) -> Message:
        """Return the size that a page says it has, no larger than its container may be."""
        bounds = self._context.get("containerDimensions", {})
        found = {}
        for side in ("width", "height"):
            value = params.get(side)
            if isinstance(value, (int, float)) and 0 <= value < math.inf:
                most = bounds.get(f"max{side.title()}", bounds.get(side, MAX_SIDE))
                found[side] = math.ceil(min(value, most))
        return found

    def _answer(self, method: str, params: Message) -> Message:
        if method == "ping":
            return {}
        if method == "ui/initialize":
            return self._greet(params)
        if not self._greeted:
            raise InvalidRequest("Begin with ui/initialize")
        if method == "tools/call":
            return self._call(params)
        if method == "resources/read":
            uri = params.get("uri")
            if not isinstance(uri, str):
                raise InvalidParams("uri must be a string")
            log.info("the page %s reads %.200r", self.page.uri, uri)
            return dict(self._client.read_resource(uri))
        if method == "ui/request-display-mode":
            return self._switch(params)
        handler = self._handlers.get(method) if method in _ASKED else None
        if handler is None:
            raise MethodNotFound(f"This host does not answer {method[:100]}")
        _check_asked(method, params)
        log.info("the page %s sends %s", self.page.uri, method)
        answer: Message = handler(params) or {}
        return answer

    def _greet(self, params: Message) -> Message:
        """Answer `ui/initialize`. Spec: EXT-111"""
        app = params.get("appCapabilities")
        modes = app.get("availableDisplayModes") if isinstance(app, dict) else None
        found: Message = {"serverTools": {}, "serverResources": {}}
        found.update({name: {} for method, name in _ASKED.items() if method in self._handlers})
        if "notifications/message" in self._handlers:
            found["logging"] = {}
        found["sandbox"] = {"csp": self.page.ui.get("csp", {})}
        if self._grants:
            found["sandbox"]["permissions"] = self.page.ui.get("permissions", {})
        with self._lock:
            self._greeted = True
            self._modes = modes if isinstance(modes, list) else None
            context = dict(self._context)
        return {
            "protocolVersion": app_pages.VERSION,
            "hostInfo": self._info,
            "hostCapabilities": found,
            "hostContext": context,
        }

    def _call(self, params: Message) -> Message:
        """Call a tool for the page, if it is one for pages; only its name and arguments go on. Spec: EXT-105"""
        name, arguments = params.get("name"), params.get("arguments")
        if not isinstance(name, str) or not isinstance({} if arguments is None else arguments, dict):
            raise InvalidParams("name must be a string, and arguments an object")
        tool = self._client._tool(name)
        if tool is None or "app" not in app_pages.audiences(tool):
            raise InvalidParams(f"A page may not call the tool {name[:200]!r}, or there is none of this name")
        log.info("the page %s calls the tool %s", self.page.uri, name)
        return dict(self._client.call_tool(name, arguments or {}, check=False))

    def _switch(self, params: Message) -> Message:
        """Answer `ui/request-display-mode` with the mode that the page has then. Spec: EXT-115"""
        mode = params.get("mode")
        with self._lock:
            offered = mode in self._context.get("availableDisplayModes", ()) and self._may_be(mode)
        handler = self._handlers.get("ui/request-display-mode")
        if offered and handler is not None:
            handler({"mode": mode})
            with self._lock:
                self._context["displayMode"] = mode
        return {"mode": self._context["displayMode"]}

    def _may_be(self, mode: Any) -> bool:
        return self._modes is None or mode in self._modes
