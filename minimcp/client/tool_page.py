"""MCP Apps for hosts: the page of a tool, and the tools that a model may see.

Spec: EXT-103, EXT-104, EXT-107
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from ..engines.errors import ProtocolError
from ..protocol import app_pages
from .results import Result

if TYPE_CHECKING:
    from .methods import Methods

log = logging.getLogger("minimcp")

Message = dict[str, Any]


class AppPage(NamedTuple):
    """The page of a tool, to be shown in a sandboxed frame, as `Client.app` returns it.

    :ivar tool: the definition of the tool.
    :ivar html: the HTML document, which is the server's: it belongs in a frame of another origin and nowhere else.
    :ivar ui: the valid ones of its settings: `csp`, `permissions`, `domain`, `prefersBorder`.
    """

    tool: Message
    uri: str
    html: str
    ui: Message

    @property
    def policy(self) -> str:
        """The Content-Security-Policy of the frame: that of the proxy around it, whose documents inherit it."""
        return app_pages.policy(self.ui.get("csp"))

    @property
    def allow(self) -> str:
        """The `allow` attribute of the frame, if the host grants all permissions that the page asks for."""
        return app_pages.allow(self.ui.get("permissions", {}))

    @property
    def domains(self) -> list[str]:
        """The origins that the page wants to reach, for a warning. Spec: EXT-117"""
        return sorted({domain for listed in self.ui.get("csp", {}).values() for domain in listed})

    @property
    def resource_ready(self) -> Message:
        """The params of `ui/notifications/sandbox-resource-ready`, with which the proxy loads the page."""
        given = {"csp": self.ui.get("csp"), "permissions": self.ui.get("permissions")}
        return {"html": self.html, **{key: value for key, value in given.items() if value is not None}}


def read_app(client: Methods, tool: Message) -> AppPage | None:
    """Read the page of a tool, or return None when it has none.

    :raises ProtocolError: when what the server has there is no page.
    """
    uri = app_pages.page_of(tool)
    if uri is None:
        return None
    contents = client.read_resource(uri).get("contents")
    listed = [each for each in contents if isinstance(each, dict)] if isinstance(contents, list) else []
    found = next((each for each in listed if app_pages.is_page_type(each.get("mimeType"))), None)
    if found is None:
        raise ProtocolError(f"The page {uri} of the tool {tool['name']!r} is not {app_pages.MEDIA_TYPE}")
    carriers = [found]
    if not isinstance(found.get("_meta"), dict) or "ui" not in found["_meta"]:
        carriers = [dict(each) for each in client.list_resources() if each.get("uri") == uri]
    ui, wrong = app_pages.read_page_ui(*carriers)
    for what in wrong:
        log.warning("the page %s: %s, and is left out", uri, what)
    page = AppPage(tool, uri, _html(uri, found), ui)
    log.info("the page %s of %s has the policy %s", uri, tool["name"], page.policy)
    return page


def _html(uri: str, contents: Message) -> str:
    html = contents.get("text")
    try:
        if html is None:
            html = (Result(contents=[contents]).bytes or b"").decode("utf-8")
        if not isinstance(html, str):
            raise ValueError(f"{uri}: its text is no text")
        return app_pages.check_document(uri, html)
    except ValueError as problem:
        raise ProtocolError(f"The page cannot be shown: {problem}") from None


def for_model(tools: Iterable[Message]) -> list[Message]:
    """Return the tools that a model may see; others are for pages alone. Spec: EXT-104"""
    return [tool for tool in tools if "model" in app_pages.audiences(tool)]
