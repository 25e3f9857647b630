"""The attacked server as a child process; it prints on import, as careless files do."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

from minimcp import Context
from tests.hostile.support import Gate, attacked

print("a banner that must not reach the protocol")
gate = Gate()
server = attacked(gate, limits={"body_bytes": 4 * 1024 * 1024})


@server.tool
def open_gate() -> str:
    gate.go.set()
    return "open"


@server.tool
def large(size: int, mark: str) -> str:
    return mark * size


@server.tool
def large_apart(size: int, mark: str, ctx: Context) -> str:
    return mark * size


@server.tool
def was_told() -> bool:
    """Whether `hold` was told within a bound that it is cancelled."""
    return gate.told.acquire(timeout=20)


@server.tool
def read_input() -> str:
    return repr(sys.stdin.read()) + repr(os.read(0, 100))


@server.tool
def child_reads() -> str:
    script = "import sys; print('from the child'); sys.exit(len(sys.stdin.read()))"
    return str(subprocess.run([sys.executable, "-c", script], timeout=20).returncode)


@server.tool
def prints(text: str) -> str:
    print(text)
    sys.stdout.write(text)
    sys.stdout.flush()
    os.write(1, text.encode())
    print(text, file=sys.stderr)
    return "printed"


@server.tool
def complain(lines: int) -> str:
    for number in range(lines):
        logging.getLogger("minimcp").error("a complaint %d %s", number, "x" * 200)
        print("a complaint", "y" * 200)
    return "complained"
