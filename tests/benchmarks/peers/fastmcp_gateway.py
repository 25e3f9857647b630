"""FastMCP's proxy over HTTP: PORT, then one URL, one command, or a JSON object of the `mcpServers` form."""

from __future__ import annotations

import json
import sys

from fastmcp.server import create_proxy

port, target = sys.argv[1:]
create_proxy(json.loads(target) if target.startswith("{") else target, name="proxy").run(
    "http", port=int(port), show_banner=False, log_level="WARNING"
)
