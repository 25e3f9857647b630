"""The gateways under comparison: where each finds its packages, how it is configured, and how it is started."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from . import contenders
from .contenders import CHECKOUT, PEERS
from .hammer import Caller

LITELLM = ["litellm[proxy]==1.108.*"]
FASTMCP = ["fastmcp>=4,<5"]
NODE = ["mcp-proxy@6", "supergateway@4"]
KEY = "key-of-the-benchmark-0123456789"
START_S = 90.0
Upstreams = Dict[str, Dict[str, Any]]


class Setting(NamedTuple):
    """What a gateway is started with: its command and environment, and how its one echo tool is called."""

    command: List[str]
    env: Dict[str, str]
    tool: str = "echo"
    headers: Dict[str, str] = {}


class Gateway(NamedTuple):
    """One contender; `configure(upstreams, port, folder)` returns how it is started.

    :ivar doors: the kinds of upstream that it takes.
    :ivar modern: whether clients of 2026-07-28 are served, and at least as fast.
    """

    name: str
    label: str
    configure: Callable[[Upstreams, int, Path], Setting]
    doors: Tuple[str, ...] = ("http", "stdio")
    modern: bool = True
    federates: bool = True


def environment() -> Dict[str, str]:
    """The environment of this process without what would change how Python runs."""
    dropped = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
    return {name: value for name, value in os.environ.items() if name not in dropped}


def echo(*options: str) -> Dict[str, Any]:
    """The `mcpServers` entry of the echo server over stdio."""
    command = [str(PEERS / "echo_peer.py"), "stdio", *options]
    return {"command": sys.executable, "args": command, "env": {"PYTHONPATH": str(CHECKOUT)}}


def minimal(upstreams: Upstreams, port: int, folder: Path) -> Setting:
    """Our gateway with nothing but its upstreams."""
    return ours(upstreams, {"port": port, "log": False, "listTimeout": 1}, folder)


def guarded(upstreams: Upstreams, port: int, folder: Path) -> Setting:
    """Our gateway with every policy on, none of which refuses anything."""
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"hammer": {"key": KEY, "roles": ["staff"]}}), encoding="utf-8")
    keys.chmod(0o600)
    options = {
        "port": port,
        "listTimeout": 1,
        "auth": {"keys": str(keys)},
        "rules": [{"allow": ["tools:*", "resources:*", "prompts:*"], "roles": ["staff"]}],
        "rates": [{"tools": "*", "per": "principal", "limit": "100000000/minute"}],
        "audit": {"file": str(folder / "audit.jsonl")},
        "pins": {"file": str(folder / "pins.json"), "mode": "block"},
        "sanitize": {},
        "log": False,
    }
    return ours(upstreams, options, folder)._replace(headers={"Authorization": f"Bearer {KEY}"})


def ours(upstreams: Upstreams, options: Dict[str, Any], folder: Path) -> Setting:
    """The command of our gateway; a single upstream has no prefix."""
    alone = len(upstreams) == 1
    servers = {name: {**entry, "prefix": ""} if alone else entry for name, entry in upstreams.items()}
    file = folder / "gateway.json"
    file.write_text(json.dumps({"mcpServers": servers, "gateway": options}), encoding="utf-8")
    env = {**environment(), "PYTHONPATH": str(CHECKOUT)}
    return Setting([sys.executable, "-m", "minimcp", "gateway", str(file)], env)


def _fastmcp(python: str, upstreams: Upstreams, port: int, folder: Path) -> Setting:
    entry = next(iter(upstreams.values()))
    target = entry["url"] if len(upstreams) == 1 and "url" in entry else json.dumps({"mcpServers": upstreams})
    return Setting([python, str(PEERS / "fastmcp_gateway.py"), str(port), target], environment())


def _litellm(python: str, upstreams: Upstreams, port: int, folder: Path) -> Setting:
    servers = {
        name: {**entry, "transport": "http" if "url" in entry else "stdio", "allow_all_keys": True}
        for name, entry in upstreams.items()
    }
    config = {"model_list": [], "mcp_servers": servers, "general_settings": {"master_key": f"sk-{KEY}"}}
    file = folder / "litellm.yaml"
    # JSON is YAML.
    file.write_text(json.dumps(config), encoding="utf-8")
    env = {**environment(), "LITELLM_ENABLE_MCP_STDIO": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    program = "import sys; from litellm import run_server; sys.exit(run_server())"
    command = [python, "-c", program, "--config", str(file), "--port", str(port), "--telemetry", "False"]
    return Setting(command, env, f"{next(iter(upstreams))}-echo", {"Authorization": f"Bearer sk-{KEY}"})


def _mcp_proxy(node: str, prefix: Path, upstreams: Upstreams, port: int, folder: Path) -> Setting:
    entry = next(iter(upstreams.values()))
    script = str(prefix / "node_modules" / "mcp-proxy" / "dist" / "bin" / "mcp-proxy.mjs")
    options = ["--host", "127.0.0.1", "--port", str(port), "--server", "stream", "--endpoint", "/mcp", "--"]
    command = [node, script, *options, entry["command"], *entry["args"]]
    return Setting(command, {**environment(), **entry["env"]})


def _supergateway(node: str, prefix: Path, upstreams: Upstreams, port: int, folder: Path) -> Setting:
    entry = next(iter(upstreams.values()))
    script = str(prefix / "node_modules" / "supergateway" / "dist" / "index.js")
    options = ["--outputTransport", "streamableHttp", "--stateful", "--streamableHttpPath", "/mcp"]
    options += ["--logLevel", "none", "--port", str(port)]
    command = [node, script, "--stdio", " ".join([entry["command"], *entry["args"]]), *options]
    return Setting(command, {**environment(), **entry["env"]})


def find(peers: Optional[Path], envs: Path, node: Optional[str]) -> Tuple[List[Gateway], Dict[str, str]]:
    """Make what is missing under `envs` and not among the `peers`; return the gateways, and why others are absent."""
    found = [
        Gateway("minimcp", "minimcp gateway", minimal),
        Gateway("guarded", "minimcp gateway, every policy", guarded),
        Gateway("legacy", "minimcp gateway, 2025-11-25 clients", minimal, modern=False),
    ]
    absent: Dict[str, str] = {}
    for name, packages, configure, modern in (
        ("fastmcp", FASTMCP, _fastmcp, True),
        ("litellm", LITELLM, _litellm, False),
    ):
        try:
            folder = envs / name
            if peers is not None and (peers / name / "bin" / "python").exists():
                folder = peers / name
            python = contenders.python_environment(folder, packages)
            label = contenders.installed(python, name)
            made = _with(configure, python)
            found.append(Gateway(name, label, made, modern=modern))
        except (OSError, subprocess.SubprocessError, RuntimeError) as fault:
            absent[name] = f"environment not made: {fault}"
    try:
        prefix = envs / "gateways"
        program = contenders.node_packages(prefix, node, NODE)
        for name, proxy, modern in (("mcp-proxy", _mcp_proxy, True), ("supergateway", _supergateway, False)):
            package = json.loads((prefix / "node_modules" / name / "package.json").read_text(encoding="utf-8"))
            label = f"{name} {package['version']}"
            found.append(Gateway(name, label, _with(proxy, program, prefix), ("stdio",), modern, False))
    except (OSError, subprocess.SubprocessError, RuntimeError) as fault:
        absent.update({name: str(fault) for name in ("mcp-proxy", "supergateway")})
    return found, absent


def _with(configure: Callable[..., Setting], *first: Any) -> Callable[[Upstreams, int, Path], Setting]:
    return lambda upstreams, port, folder: configure(*first, upstreams, port, folder)


class Running:
    """A gateway, or a server of ours, as a child process, in a group that does not outlive it."""

    def __init__(self, setting: Setting, port: int, modern: bool) -> None:
        self.port, self.setting, self.modern = port, setting, modern
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self.begun = time.perf_counter()
        self._child = subprocess.Popen(
            setting.command,
            env=setting.env,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        self.pid = self._child.pid

    def job(self, **more: Any) -> Dict[str, Any]:
        """A job of the load generator."""
        ask = {"method": "tools/call", "tool": self.setting.tool, "headers": self.setting.headers}
        return {"port": self.port, "path": "/mcp", "modern": self.modern, **ask, **more}

    def wait(self, what: str = "call") -> float:
        """Wait until it serves, and return the seconds since its start.

        :param what: "http": some answer, "greeting": one to the handshake or discovery, "call": a right one to a call.
        :raises RuntimeError: when there is none, with the end of what it printed.
        """
        attempt = {"http": self._serves, "greeting": self._greet, "call": self._call}[what]
        reason = "nothing listened"
        while time.perf_counter() - self.begun < START_S:
            if self._child.poll() is not None:
                raise RuntimeError(f"it ended at its start: {self.said()}")
            try:
                answer = attempt()
                if answer is None:
                    return time.perf_counter() - self.begun
                reason = answer
            except (OSError, RuntimeError, AssertionError, http.client.HTTPException) as fault:
                reason = f"{type(fault).__name__}: {fault}"
            time.sleep(0.005)
        raise RuntimeError(f"no good answer within {START_S:.0f} s: {reason[:300]} {self.said()}")

    def _call(self) -> Optional[str]:
        # With texts that no call of the load has.
        caller = Caller(self.job(), 800)
        try:
            caller.open()
            data = caller.answer()
            fault = caller.fault(data)
            return None if fault is None else f"{fault} {data[-300:]!r}"
        finally:
            if caller.connection is not None:
                caller.connection.close()

    def _serves(self) -> Optional[str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_S)
        try:
            connection.request("GET", "/healthz")
            connection.getresponse().read()
            return None
        finally:
            connection.close()

    def _greet(self) -> Optional[str]:
        caller = Caller(self.job(method="server/discover" if self.modern else "initialize"), 0)
        try:
            if not self.modern:
                caller.open()
                return None
            caller.connect()
            data = caller.answer()
            return None if data.startswith(b"HTTP/1.1 200") else repr(data[-300:])
        finally:
            if caller.connection is not None:
                caller.connection.close()

    def said(self) -> str:
        """The end of what it printed."""
        self._log.seek(0)
        return self._log.read().decode(errors="replace").strip()[-400:]

    def kill(self) -> None:
        """End it at once, as a machine that fails."""
        self._child.kill()
        self._child.wait()

    def close(self) -> None:
        """Stop the child, politely, then by force after five seconds, and whoever is left of its group."""
        contenders.end(self._child)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._log.close()


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(port: int = 0, *options: str) -> Iterator[Running]:
    """The echo server over HTTP, ready to be called."""
    port = port or free_port()
    command = [sys.executable, str(PEERS / "echo_peer.py"), "http", str(port), *options]
    running = Running(Setting(command, {**environment(), "PYTHONPATH": str(CHECKOUT)}), port, True)
    try:
        running.wait()
        yield running
    finally:
        running.close()


@contextlib.contextmanager
def starting(gateway: Gateway, upstreams: Upstreams) -> Iterator[Running]:
    """A gateway in front of these servers, perhaps not ready yet."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        running = Running(gateway.configure(upstreams, port, Path(folder)), port, gateway.modern)
        try:
            yield running
        finally:
            running.close()
