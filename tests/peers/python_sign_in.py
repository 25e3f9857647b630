"""Signs in to a server with the official Python SDK, 1.x or 2.x, and calls a tool: `URL`.

Prints "open URL" for each page that a user has to see, and reads where that led them from standard input.
"""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import parse_qsl, urlsplit

from mcp import ClientSession
from mcp.client.auth import OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared import auth
from mcp.shared._httpx_utils import create_mcp_http_client


class Kept:
    """What the client remembers."""

    tokens = info = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens) -> None:
        self.tokens = tokens

    async def get_client_info(self):
        return self.info

    async def set_client_info(self, client_info) -> None:
        self.info = client_info


async def show(url: str) -> None:
    print(f"open {url}", flush=True)


async def came_back():
    query = dict(parse_qsl(urlsplit(sys.stdin.readline().strip()).query))
    result = getattr(auth, "AuthorizationCodeResult", None)
    if result is None:
        return query["code"], query["state"]
    return result(code=query["code"], state=query["state"], iss=query.get("iss"))


async def main(url: str) -> None:
    metadata = auth.OAuthClientMetadata(
        client_name="python",
        redirect_uris=["http://127.0.0.1:7000/callback"],
        grant_types=["authorization_code", "refresh_token"],
        token_endpoint_auth_method="none",
    )
    provider = OAuthClientProvider(url, metadata, Kept(), show, came_back)
    async with create_mcp_http_client(auth=provider) as http:
        async with streamable_http_client(url, http_client=http) as (read, write, *_):
            async with ClientSession(read, write) as session:
                await session.initialize()
                result = await session.call_tool("who", {})
                print(f"result {result.content[0].text}", flush=True)


asyncio.run(main(sys.argv[1]))
