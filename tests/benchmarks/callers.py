"""The six clients: where each finds its packages, how its program runs, and the servers that all of them call."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from . import contenders
from .contenders import CHECKOUT, Contender

CLIENTS = Path(__file__).parent / "clients"
PYTHON_PACKAGES = {"sdk": ["mcp==2.3.0"], "sdk1": ["mcp==1.30.0"], "fastmcp": ["fastmcp"]}
NODE_PACKAGES = ["@modelcontextprotocol/client@2.4.0"]
RUN_S = 120.0


class Caller(NamedTuple):
    """One column of the table; `command` is its program, without job and target."""

    name: str
    label: str
    command: List[str]
    env: Dict[str, str]


def find(envs: Path, node: Optional[str]) -> Tuple[List[Caller], List[Contender], Dict[str, str]]:
    """Make what is missing under `envs`; return the clients, the servers, and a reason for what is absent."""
    absent: Dict[str, str] = {}
    dropped = ("PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")
    clean = {name: value for name, value in os.environ.items() if name not in dropped}
    ours = {**clean, "PYTHONPATH": str(CHECKOUT)}
    found = [Caller("minimcp", "minimcp", [sys.executable, str(CLIENTS / "minimcp_client.py")], ours)]
    served = [server("minimcp", sys.executable, ours)]
    for name, packages in PYTHON_PACKAGES.items():
        try:
            python = contenders.python_environment(envs / name, packages)
            label = contenders.installed(python, "fastmcp" if name == "fastmcp" else "mcp")
            found.append(Caller(name, label, [python, str(CLIENTS / f"{name}_client.py")], clean))
            if name == "sdk":
                served.append(server(name, python, clean))
        except (OSError, subprocess.SubprocessError, RuntimeError) as fault:
            absent[name] = f"environment not made: {fault}"
    try:
        program = CLIENTS / "typescript_client.mjs"
        command = contenders.node_environment(envs / "typescript-client", node, NODE_PACKAGES, program)
        found.append(Caller("typescript", NODE_PACKAGES[0], command, clean))
    except (OSError, subprocess.SubprocessError, RuntimeError) as fault:
        absent["typescript"] = str(fault)
    found.append(Caller("bare", "bare loop", [sys.executable, str(CLIENTS / "bare_client.py")], clean))
    return found, served, absent


def server(name: str, python: str, env: Dict[str, str]) -> Contender:
    """A server of the server benchmark, as a command that needs nothing of the environment it is started in."""
    command = [python, str(contenders.PEERS / f"{name}_peer.py")]
    bare = [shutil.which("env") or "env", f"PYTHONPATH={env.get('PYTHONPATH', '')}", *command]
    return Contender(name, name, command, [*bare, "stdio"], env)


def run(caller: Caller, job: str, count: int, target: List[str]) -> Dict[str, Any]:
    """What a job of a client reports, with `first_ms` from the start of its process to that line.

    :raises RuntimeError: when it reports nothing.
    """
    begin = time.perf_counter()
    child = subprocess.Popen(
        [*caller.command, job, str(count), *target],
        env=caller.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    watchdog = threading.Timer(RUN_S, child.kill)
    watchdog.start()
    said: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    assert child.stdout is not None and child.stderr is not None
    drain = threading.Thread(target=lambda: said.put(child.stderr.read()), daemon=True)  # type: ignore[union-attr]
    drain.start()
    try:
        line = child.stdout.readline()
        first_ms = (time.perf_counter() - begin) * 1000
        child.stdout.read()
        child.wait()
        if not line:
            lines = said.get(timeout=5).decode(errors="replace").strip().splitlines()
            raise RuntimeError(lines[-1][:180] if lines else f"ended with {child.returncode} and said nothing")
        return {**json.loads(line), "first_ms": first_ms}
    finally:
        watchdog.cancel()
        child.kill()
        child.wait()
        child.stdout.close()
        drain.join(5)
        child.stderr.close()
