"""MCP Apps extension: pages that hosts show beside the results of tools.

Spec: EXT-093 to EXT-102
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from ..protocol.app_pages import IDENTIFIER, is_rendered
from ..server.pages import check_links

if TYPE_CHECKING:
    from ..server.context import Context
    from ..server.registration import Registration


class Apps:
    """The Apps extension of a server; `ui=` of a tool and `ui://` of a resource bring it with them.

    What a page and its host say to each other, such as `ui/notifications/request-teardown`, does not reach the server,
    but for the tools that it calls and the resources that it reads.
    """

    identifier = IDENTIFIER
    settings: dict[str, Any] = {}

    def setup(self, server: Registration) -> None:
        """Have the links of all tools checked when the server, or one that it is in, takes its first message."""
        check = partial(check_links, server.engine)
        server.engine.starting.append(check)
        server.engine.on_mount.append(lambda outer: outer.starting.append(check))


def shows_pages(ctx: Context) -> bool:
    """Say whether the client of this request shows pages; to any other one a tool's text is all there is."""
    return is_rendered(ctx.extension(IDENTIFIER))
