"""The server behind every gateway: `echo` says what it is told, and can write down each text that it was told.

`stdio` or `http PORT`; `--count FILE` appends a line for each execution, `--tools N` registers further tools.
"""

from __future__ import annotations

import argparse
import os
import time
from typing import Any

import options

from minimcp import Server

parser = argparse.ArgumentParser()
parser.add_argument("door", choices=["stdio", "http"])
parser.add_argument("port", nargs="?", type=int, default=0)
parser.add_argument("--count", metavar="FILE")
parser.add_argument("--tools", type=int, default=0)
arguments = parser.parse_args()
server = Server("echo", "1.0", ttl_ms=60_000)
file = None if arguments.count is None else os.open(arguments.count, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def echo(text: str) -> Any:
    """Say it again."""
    if file is not None:
        os.write(file, text.encode() + b"\n")
        # So that whoever kills this process does so to calls that have run and are not answered.
        time.sleep(0.002)
    return text


server.tool(echo, annotations={"readOnlyHint": file is None})
for extra in options.extra_tools(arguments.tools):
    server.tool(extra)

if arguments.door == "stdio":
    server.run()
else:
    server.run_http(port=arguments.port)
