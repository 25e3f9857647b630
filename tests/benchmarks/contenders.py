"""The five contenders: where each finds its packages, how its server starts, and how it is told to stop."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from . import wire

PEERS = Path(__file__).parent / "peers"
CHECKOUT = Path(__file__).parents[2]
PYTHON_PACKAGES = {"sdk": ["mcp==2.3.0"], "fastmcp": ["fastmcp"]}
NODE_PACKAGES = ["@modelcontextprotocol/server@2.4.0", "@modelcontextprotocol/node@2.1.2", "zod@4"]
OLDEST_NODE = 22
START_S = 30.0


class Contender(NamedTuple):
    """One column of the table; `http` and `stdio` are commands, `imports` is how a server file begins."""

    name: str
    label: str
    http: List[str]
    stdio: List[str]
    env: Dict[str, str]
    python: Optional[str] = None
    imports: Optional[str] = None


def find(envs: Path, node: Optional[str]) -> Tuple[List[Contender], Dict[str, str]]:
    """Make what is missing under `envs`; return the contenders, and a reason for each that is absent."""
    found: List[Contender] = []
    absent: Dict[str, str] = {}
    # Installed packages have compiled files, so the checkout may write its own, too.
    dropped = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
    clean = {name: value for name, value in os.environ.items() if name not in dropped}
    env = {**clean, "PYTHONPATH": str(CHECKOUT)}
    ours = str(PEERS / "minimcp_peer.py")
    importing = "from minimcp import Server, Context"
    command = [sys.executable, ours]
    found.append(Contender("minimcp", "minimcp", command, command, env, sys.executable, importing))
    for name, importing in (
        ("sdk", "from mcp.server import MCPServer"),
        ("fastmcp", "from fastmcp import FastMCP, Context"),
    ):
        try:
            python = python_environment(envs / name, PYTHON_PACKAGES[name])
            command = [python, str(PEERS / f"{name}_peer.py")]
            label = installed(python, "mcp" if name == "sdk" else name)
            found.append(Contender(name, label, command, command, clean, python, importing))
        except (OSError, subprocess.SubprocessError, RuntimeError) as fault:
            absent[name] = f"environment not made: {fault}"
    try:
        command = node_environment(envs / "typescript", node, NODE_PACKAGES, PEERS / "typescript_peer.mjs")
        found.append(Contender("typescript", NODE_PACKAGES[0], command, command, clean))
    except (OSError, subprocess.SubprocessError, RuntimeError) as fault:
        absent["typescript"] = str(fault)
    bare_http = [sys.executable, str(PEERS / "bare_http_peer.py")]
    bare_stdio = [sys.executable, str(PEERS / "bare_stdio_peer.py")]
    importing = "import werkzeug.serving"
    found.append(Contender("bare", "bare loop", bare_http, bare_stdio, clean, sys.executable, importing))
    return found, absent


def python_environment(folder: Path, packages: List[str]) -> str:
    """Make a virtual environment with these packages, unless it is there, and return its Python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"making {folder} with {', '.join(packages)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        try:
            subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        except subprocess.CalledProcessError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return str(python)


def installed(python: str, package: str) -> str:
    """The name and version of a package in an environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    version = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, text=True, check=True).stdout
    return f"{package} {version.strip()}"


def node_environment(folder: Path, node: Optional[str], packages: List[str], file: Path) -> List[str]:
    """Make an npm prefix with these packages, unless it is there, and return the command that runs `file` in it.

    :raises RuntimeError: when there is no node that is new enough.
    """
    program = node_packages(folder, node, packages)
    return [program, shutil.copy(file, folder)]


def node_packages(folder: Path, node: Optional[str], packages: List[str]) -> str:
    """Make an npm prefix with these packages, unless it is there, and return the node to run them with.

    :raises RuntimeError: when there is no node that is new enough.
    """
    program = node or shutil.which("node")
    if not program:
        raise RuntimeError(f"node is not on PATH (name one of version {OLDEST_NODE} or newer with --node)")
    said = subprocess.run([program, "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout
    version = re.match(r"v(\d+)", said)
    if not version or int(version.group(1)) < OLDEST_NODE:
        raise RuntimeError(f"node {said.strip()} is older than {OLDEST_NODE} (name a newer one with --node)")
    names = [package[: package.index("@", 1)] for package in packages]
    if not all((folder / "node_modules" / name).exists() for name in names):
        folder.mkdir(parents=True, exist_ok=True)
        print(f"making {folder} with {', '.join(packages)}", file=sys.stderr)
        options = ["--silent", "--no-audit", "--no-fund", "--prefix", str(folder)]
        subprocess.run([*_npm(program), "install", *options, *packages], check=True)
    return program


def _npm(node: str) -> List[str]:
    """The command of npm: the script that came with node, or what is on PATH."""
    script = Path(node).resolve().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if script.exists():
        return [node, str(script)]
    npm = shutil.which("npm")
    if not npm:
        raise RuntimeError("npm is not on PATH")
    return [npm]


class HttpServer:
    """A contender's HTTP server as a child process on a free port, ready when constructed."""

    def __init__(self, contender: Contender, mode: str, tools: int = 0) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.contender = contender
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        command = [*contender.http, "http", str(self.port), "--mode", mode, "--tools", str(tools)]
        self._child = subprocess.Popen(
            command, env=contender.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._log
        )
        self.pid = self._child.pid
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def _wait(self) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            if self._child.poll() is not None:
                self._log.seek(0)
                raise RuntimeError(f"server ended at its start: {self._log.read().decode().strip()[-200:]}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("the server did not listen in time")

    def close(self) -> None:
        """Stop the child: politely, then by force after five seconds."""
        end(self._child)
        self._log.close()

    def ask(self, body: bytes, headers: Dict[str, str]) -> Tuple[Tuple[Dict[str, Any], ...], Optional[str], int]:
        """POST once; return the messages of the reply, its session id and the size of its body in bytes."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_S)
        try:
            connection.request("POST", "/mcp", body, headers)
            reply = connection.getresponse()
            data = reply.read()
            session = reply.getheader("Mcp-Session-Id")
            if reply.status == 202:
                return (), session, 0
            if reply.status != 200:
                raise RuntimeError(f"HTTP {reply.status}: {data[:200].decode(errors='replace')}")
            return wire.messages_of(reply.getheader("Content-Type") or "", data), session, len(data)
        except (OSError, http.client.HTTPException, ValueError) as fault:
            raise RuntimeError(f"{type(fault).__name__}: {fault}") from fault
        finally:
            connection.close()

    def handshake(self) -> Optional[str]:
        """Open a legacy session and return its id."""
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        if self.contender.name == "bare":
            return "bare"
        _, session, _ = self.ask(json.dumps(wire.INITIALIZE).encode(), headers)
        if not session:
            raise RuntimeError("initialize opened no session")
        more = {**headers, "Mcp-Session-Id": session, "MCP-Protocol-Version": wire.LEGACY}
        self.ask(json.dumps(wire.INITIALIZED).encode(), more)
        return session


def end(child: subprocess.Popen[Any], wait_s: float = 5.0) -> None:
    """Stop a child process, politely, then by force."""
    child.terminate()
    try:
        child.wait(wait_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
