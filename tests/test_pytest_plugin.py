"""The fixtures for pytest, as a project that uses minimcp has them."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PROJECT = """
import os, threading
from pathlib import Path
from minimcp import Server, ConnectionLost
import pytest

server = Server("s", "1")
CLIENTS, URLS = [], []

@server.tool
def add(a: int, b: int) -> int:
    return a + b

SOURCE = '''
from minimcp import Server
server = Server("of a source", "1")
server.tool(lambda: "x", "t")
'''
ENV = {"PYTHONPATH": os.environ["PYTHONPATH"]}

def test_in_memory(mcp_client):
    client = mcp_client(server, mode="2025-11-25")
    CLIENTS.append(client)
    assert client.call_tool("add", a=1, b=2).text == "3"
    assert mcp_client(server).protocol_version == "2026-07-28"

def test_it_was_closed():
    assert CLIENTS[0].state == "closed"

@pytest.mark.parametrize("mode", ["2024-11-05", "2025-11-25", "2026-07-28"])
def test_over_http(mcp_client, mcp_http_server, mode):
    # Opened in this order, closed in the other, whatever the order of the parameters.
    url = mcp_http_server(server)
    assert url.endswith("/mcp")
    client = mcp_client(url, mode=mode)
    client.list_tools()
    assert client.call_tool("add", a=1, b=2).text == "3"
    assert mcp_client(mcp_http_server(server, "/other")).call_tool("add", a=1, b=2).text == "3"
    assert mcp_client(mcp_http_server(server.wsgi)).call_tool("add", a=1, b=2).text == "3"
    URLS.append(url)

def test_with_a_stream_open(mcp_http_server, mcp_client):
    client = mcp_client(mcp_http_server(server))
    stream = client.listen(tools=True)
    CLIENTS.append(stream)

def test_the_servers_are_gone(mcp_client):
    for url in URLS:
        with pytest.raises(ConnectionLost):
            mcp_client(url, mode="2026-07-28")
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("minimcp-pytest")]

def test_as_a_process(mcp_client, mcp_stdio_server, tmp_path):
    command = mcp_stdio_server(SOURCE)
    client = mcp_client(command, env=ENV)
    assert client.server_info["name"] == "of a source" and client.call_tool("t").text == "x"
    assert mcp_stdio_server(SOURCE) != command
    path = tmp_path / "mine.py"
    path.write_text(SOURCE.replace("of a source", "of a file"))
    assert mcp_client(mcp_stdio_server(path), env=ENV).server_info["name"] == "of a file"
    assert mcp_client(mcp_stdio_server(f"{path}:server"), env=ENV).server_info["name"] == "of a file"

def test_a_failure_closes_too(mcp_client, mcp_http_server):
    CLIENTS.append(mcp_client(mcp_http_server(server)))
    assert False, "on purpose"

def test_after_the_failure():
    assert CLIENTS[-1].state == "closed"
"""


def run(folder, *words, path=()):
    (folder / "test_project.py").write_text(PROJECT)
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *path)))}
    env.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def installed(folder):
    """What pip leaves behind: the entry points of setup.cfg."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    known = folder / "minimcp_sync-0.dist-info"
    known.mkdir(parents=True)
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: minimcp-sync\nVersion: 0\n")
    text = config["options.entry_points"]["pytest11"].strip()
    (known / "entry_points.txt").write_text(f"[pytest11]\n{text}\n")
    return folder


@pytest.mark.parametrize("how", ["installed", "installed and named twice"])
def test_a_project_has_the_fixtures_and_they_leave_nothing_open(tmp_path, how):
    if "twice" in how:
        (tmp_path / "conftest.py").write_text('pytest_plugins = ["minimcp.pytest_plugin"]\n')
    words = ["-p", "minimcp.pytest_plugin"] if "twice" in how else []
    done = run(tmp_path, *words, path=[installed(tmp_path / "site")])
    assert "1 failed, 9 passed" in done.stdout and "on purpose" in done.stdout, done.stdout + done.stderr


def test_it_loads_nothing_before_a_test_asks_for_it(tmp_path):
    code = (
        "import sys, minimcp.pytest_plugin\n"
        "found = [name for name in sys.modules if name.partition('.')[0] in ('minimcp', 'requests', 'werkzeug')]\n"
        "assert sorted(found) == ['minimcp', 'minimcp.pytest_plugin'], found"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=30)
