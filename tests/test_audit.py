"""The audit log: who asked for what, with which decision, and how it ended."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from werkzeug.test import Client

from minimcp import Server
from minimcp.auth import Audit, Keys
from tests.helpers import http_headers, modern

KEY = "key-of-ann-0123456789"


def audited(to: Any, **options: Any) -> Server:
    server = Server("s", auth=Keys({"ann": KEY}), around_request=Audit(to, **options))

    @server.tool
    def work(password: str = "", text: str = "") -> str:
        if text == "fail":
            raise ValueError("x")
        return text

    server.tool(lambda: "x", "admins", roles=["admin"])
    return server


def send(server: Server, method: str, key: str = KEY, **params: Any) -> None:
    message = modern(method, **params)
    Client(server.wsgi).post("/mcp", data=json.dumps(message), headers=http_headers(message, **{"X-API-Key": key}))


def test_every_request_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "audit.jsonl"
    server = audited(file)
    send(server, "tools/list")
    send(server, "tools/call", name="work", arguments={"text": "x", "password": "s3cret"})
    send(server, "tools/call", name="work", arguments={"text": "fail"})
    send(server, "tools/call", name="admins")
    send(server, "tools/call", name="none")
    send(server, "tools/list", key="not-a-key-0123456789")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    found = [[line[name] for name in ("principal", "method", "name", "decision", "outcome")] for line in lines]
    assert found == [
        ["ann", "tools/list", None, "allowed", "ok"],
        ["ann", "tools/call", "work", "allowed", "ok"],
        ["ann", "tools/call", "work", "allowed", "tool error"],
        ["ann", "tools/call", "admins", "denied", "error -32602"],
        ["ann", "tools/call", "none", "allowed", "error -32602"],
        [None, None, None, "unauthenticated", "error -32600"],
    ]
    assert all(line["ms"] >= 0 and line["time"].startswith("20") for line in lines)
    assert "s3cret" not in file.read_text() and KEY not in file.read_text()
    if os.name == "posix":
        assert file.stat().st_mode & 0o777 == 0o600


def test_arguments_are_written_by_choice_and_without_secrets() -> None:
    lines: list[Any] = []
    send(
        audited(lines.append, arguments=True), "tools/call", name="work", arguments={"text": "x", "password": "s3cret"}
    )
    assert lines[0]["arguments"]["text"] == "x" and "s3cret" not in json.dumps(lines[0])
