"""Prices that take a moment to find out, so that several processes share the work: `minimcp run prices.py`."""

import os
import time
import zlib

from minimcp import Server

server = Server("prices", "1.0")


@server.tool(annotations={"readOnlyHint": True})
def price(article: str) -> dict[str, object]:
    """Find out what an article costs, and say which process did so."""
    time.sleep(0.1)
    return {"article": article, "cents": 100 + zlib.crc32(article.encode()) % 9900, "process": os.getpid()}


if __name__ == "__main__":
    server.run()
