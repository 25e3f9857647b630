"""Every block of the README is executed, word for word."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from minimcp import Gateway

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
INSIDE = (ROOT / "minimcp/README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def marked_command(name: str) -> str:
    found = re.search(rf"<!-- {name} command -->\n```sh\n(.*?)\n```", README)
    assert found is not None, f"the README has no {name} command"
    return found.group(1)


def test_every_fenced_block_is_python_a_configuration_or_a_marked_command() -> None:
    fences = re.findall(r"^```(\w+)$", README, re.MULTILINE)
    assert fences.count("sh") == 2
    assert set(fences) == {"sh", "python", "json"}
    assert marked_command("run") and marked_command("test")
    assert not re.findall(r"^```(\w+)$", INSIDE, re.MULTILINE)


def test_each_configuration_is_one_that_a_gateway_takes(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks("json"):
        for name in re.findall(r"\$\{(\w+)\}", block):
            monkeypatch.setenv(name, "a-secret-of-this-test")
        gateway = Gateway(json.loads(block))
        assert list(gateway.settings.upstreams) == list(json.loads(block)["mcpServers"])


def test_python_blocks_run_in_order_and_the_server_answers(monkeypatch, tmp_path) -> None:
    pytest.importorskip("flask")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "readme"}
    for number, block in enumerate(blocks("python")):
        exec(compile(block, f"README block {number + 1}", "exec"), names)
    names["reports"].tasks.close()  # type: ignore[attr-defined]
    server = names["server"]
    client = names["app"].test_client()  # type: ignore[attr-defined]
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    message = {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "resources/read",
        "params": {"uri": "weather://Oslo", "_meta": meta},
    }
    headers = {
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "resources/read",
        "Mcp-Name": "weather://Oslo",
    }
    answer = client.post("/mcp", json=message, headers=headers)
    assert answer.status_code == 200
    assert answer.json["result"]["contents"][0]["text"] == "It is sunny in Oslo."
    assert answer.json == server.handle(message)  # type: ignore[attr-defined]


def test_the_module_map_names_every_module_and_no_other() -> None:
    table = INSIDE[INSIDE.index("## The map") : INSIDE.index("## Budgets")]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("|")]
    folder, named = "", set()
    for row in rows:
        folder = row[1].strip(" `") or folder
        named |= {f"{folder}{name}.py" for name in re.findall(r"`(\w+)`", row[2])}
    present = {path.relative_to(ROOT).as_posix() for path in (ROOT / "minimcp").glob("*/**/*.py")}
    assert named == {path for path in present if not path.endswith("__init__.py")}


def test_the_run_command_serves_the_example_in_an_empty_environment(tmp_path: Path) -> None:
    if os.environ.get("MINIMCP_SKIP_INSTALL"):
        pytest.skip("MINIMCP_SKIP_INSTALL is set: nothing is installed")
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", 8000))
        except OSError:
            pytest.skip("port 8000 is in use")
    skipped = shutil.ignore_patterns(".git", ".venv", "*.egg-info", "build", "__pycache__", ".*_cache", "tests")
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT, checkout, ignore=skipped)
    install, _, serve = marked_command("run").rpartition(" && ")
    install = install.replace("python3 ", f"{sys.executable} ", 1)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    subprocess.run(["sh", "-c", install], cwd=checkout, env=environment, check=True, timeout=300)
    process = subprocess.Popen(
        ["sh", "-c", f"exec {serve}"], cwd=checkout, env=environment, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stderr is not None
        said = [process.stderr.readline()]
        assert "listening on http://127.0.0.1:8000/mcp" in said[0], said
        while "Ctrl-C" not in said[-1]:
            said.append(process.stderr.readline())
        assert sum("mcpServers" in line for line in said) == 2
        connection = http.client.HTTPConnection("127.0.0.1", 8000, timeout=60)
        initialize = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": initialize})
        connection.request("POST", "/mcp", body, {"Content-Type": "application/json", "Accept": "*/*"})
        answer = connection.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["result"]["protocolVersion"] == "2025-11-25"
        connection.close()
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=60)
        assert process.returncode == 0
        assert rest == ""
    finally:
        process.kill()
        process.communicate()
