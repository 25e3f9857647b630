"""The limit for stdio: one loop of the standard library that decodes each line and encodes a fixed answer."""

from __future__ import annotations

import json
import sys
from typing import Any, Dict


def answer(message: Dict[str, Any]) -> Dict[str, Any]:
    """Add the two numbers of a ``tools/call``, believing everything the message says."""
    numbers = message["params"]["arguments"]
    total = numbers["a"] + numbers["b"]
    result = {
        "content": [{"type": "text", "text": str(total)}],
        "structuredContent": {"result": total},
        "resultType": "complete",
    }
    return {"jsonrpc": "2.0", "id": message["id"], "result": result}


def main() -> None:
    """Answer until end of file."""
    write, flush = sys.stdout.buffer.write, sys.stdout.buffer.flush
    for line in sys.stdin.buffer:
        write(json.dumps(answer(json.loads(line))).encode() + b"\n")
        flush()


main()
