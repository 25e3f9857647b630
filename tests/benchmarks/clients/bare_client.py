"""The limit: the same requests written to a pipe or sent with `http.client`, and only their JSON parsed."""

from __future__ import annotations

import http.client
import itertools
import json
import subprocess
import time
from typing import Any, Callable, Dict
from urllib.parse import urlsplit

import task

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "benchmark", "version": "1.0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
ids = itertools.count(1)


def request(name: str, arguments: Dict[str, Any], **meta: Any) -> bytes:
    """One `tools/call` as bytes."""
    params = {"name": name, "arguments": arguments, "_meta": {**META, **meta}}
    return json.dumps({"jsonrpc": "2.0", "id": next(ids), "method": "tools/call", "params": params}).encode()


def over_pipes(child: subprocess.Popen[bytes]) -> Callable[..., Any]:
    """What writes a request and reads lines up to its answer."""
    assert child.stdin is not None and child.stdout is not None
    write, flush, readline = child.stdin.write, child.stdin.flush, child.stdout.readline

    def ask(body: bytes, name: str) -> Any:
        write(body + b"\n")
        flush()
        while True:
            message = json.loads(readline())
            if "method" not in message:
                return message["result"]

    return ask


def over_http(url: str) -> Callable[..., Any]:
    """What posts a request on a kept connection and reads the answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)

    def ask(body: bytes, name: str) -> Any:
        headers = {
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call",
            "Mcp-Name": name,
        }
        connection.request("POST", parts.path, body, headers)
        reply = connection.getresponse()
        data = reply.read()
        if "event-stream" in (reply.getheader("Content-Type") or ""):
            data = [line[6:] for line in data.splitlines() if line.startswith(b"data: ")][-1]
        return json.loads(data)["result"]

    return ask


def main(ask: Callable[..., Any]) -> None:
    if task.JOB == "huge":
        result = ask(request("huge", {}, progressToken=1), "huge")
        task.report(size=len(result["content"][0]["text"]))
        return
    task.check(ask(request("add", task.NUMBERS), "add")["content"][0]["text"])
    if task.JOB == "first":
        task.report(first=True)
        return
    if task.JOB == "shared":
        raise SystemExit("a bare connection is not shared")
    for _ in range(task.WARM_UP):
        ask(request("add", task.NUMBERS), "add")
    begin = time.perf_counter()
    for _ in range(task.COUNT):
        task.check(ask(request("add", task.NUMBERS), "add")["content"][0]["text"])
    task.report_calls(begin, "2026-07-28")


if task.URL:
    main(over_http(task.URL))
else:
    with subprocess.Popen(task.TARGET, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        main(over_pipes(child))
        assert child.stdin is not None
        child.stdin.close()
