"""What test_foreign_servers runs on other people's WSGI servers; its tools report to a socket of the test's."""

from __future__ import annotations

import os
import socket

from minimcp import Context, Server

_LIMITS = {"keepalive_s": 0.1, "silence_s": 0.3}

server = Server("foreign", "1.0", limits=_LIMITS)
application = server.wsgi


@server.tool
def where() -> dict:
    """Tell which process serves."""
    return {"pid": os.getpid()}


@server.tool
def steps(port: int, ctx: Context) -> str:
    """Report progress three times, each time the test says so."""
    with socket.create_connection(("127.0.0.1", port), 20) as test:
        for step in range(1, 4):
            ctx.progress(step, 3)
            test.recv(1)
    return "done"


@server.tool
def patience(port: int, talk: bool, ctx: Context) -> str:
    """Wait to be cancelled, and tell the test."""
    with socket.create_connection(("127.0.0.1", port), 20) as test:
        if talk:
            ctx.progress(1)
        test.sendall(b"running\n")
        test.sendall(b"cancelled\n" if ctx.cancelled.wait(20) else b"forgotten\n")
    return "never read"


@server.tool
def confirm(ctx: Context) -> dict:
    """Ask, and tell which process asked (on its output) and which one got the answer."""
    print("asked by", os.getpid(), flush=True)
    answer = ctx.elicit("Sure?", {"sure": bool})
    return {"pid": os.getpid(), "sure": answer.get("sure")}


@server.tool
def grow() -> str:
    """Register one more tool."""
    server.tool(where, "again")
    return "grown"
