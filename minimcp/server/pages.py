"""Pages of MCP Apps as resources of a server: HTML documents, with what they need beside them."""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..protocol import app_pages, content
from ..protocol.spelling import normal
from .catalog import Entry

if TYPE_CHECKING:
    from .context import Context
    from .engine import Engine

log = logging.getLogger("minimcp")


class PageEntry(Entry):
    """A resource, or a template of some, whose function returns the HTML of a page."""

    def run(self, ctx: Context, arguments: dict[str, Any]) -> Any:
        """Call the function and return the contents of the page; None and a whole result stay as they are.

        :raises TypeError: when it returns something else.
        :raises ValueError: when its text is no HTML5 document. Spec: EXT-095
        """
        html = super().run(ctx, arguments)
        if html is None or content.is_result(html, "contents", content.is_contents):
            return html
        if isinstance(html, bytes):
            html = html.decode("utf-8")
        if not isinstance(html, str):
            raise TypeError(f"The function of a page returns its HTML as text, not {type(html).__name__}")
        uri = ctx.params["uri"]
        contents = {"uri": uri, "mimeType": app_pages.MEDIA_TYPE, "text": app_pages.check_document(uri, html)}
        if "_meta" in self.definition:
            contents["_meta"] = self.definition["_meta"]
        return {"contents": [contents]}


def page_function(uri: str, html: str | os.PathLike[str]) -> Callable[[], str]:
    """Return a function that returns the HTML of a page: the text itself, or that of a file as it is then.

    :raises ValueError: when it is no HTML5 document.
    """

    def read() -> str:
        if isinstance(html, str):
            return html
        with open(html, encoding="utf-8") as file:
            return file.read(app_pages.MAX_PAGE_BYTES + 1)

    if isinstance(html, str) and "<" not in html:
        raise ValueError(f"{uri}: {html[:100]!r} is no HTML; a file is given as its Path: Path({html[:100]!r})")
    app_pages.check_document(uri, read())
    return read


def check_links(engine: Engine, *names: str) -> None:
    """Log a warning for each tool whose page is not registered; without names, for all of them. Spec: EXT-097"""
    registry = engine.registry
    for name in names or list(registry.tools):
        entry = registry.tools.get(name)
        uri = None if entry is None or entry.origin else app_pages.page_of(entry.definition)
        if uri is None or normal(uri) in registry.resources:
            continue
        if any(each.template and each.template.match(uri) is not None for each in registry.resourceTemplates.values()):
            continue
        near = difflib.get_close_matches(uri, registry.resources, 1)
        hint = f"did you mean {near[0]}?" if near else f'register it: server.page("{uri}", html)'
        log.warning("the tool %r names the page %s, which is not there; %s", name, uri, hint)
