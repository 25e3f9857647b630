"""One of several processes that serve the same clients, for tests: `python shared_server.py REDIS SECRET`."""

from __future__ import annotations

import os
import sys
import time

from minimcp import Context, Server
from minimcp.server import sharing
from minimcp.server.redis_bus import RedisBus
from minimcp.transports import shared_streams


def wait_for(path: str, ctx: Context) -> None:
    """Wait until a file exists, or the call is cancelled."""
    until = time.monotonic() + 20
    while not os.path.exists(path) and not ctx.cancelled.wait(0.01):
        assert time.monotonic() < until


def build(redis: str, secret: str, **options) -> Server:
    """The server of each process."""
    limits = {"keepalive_s": 1.0, "session_idle_s": 600, **options.pop("limits", {})}
    bus = RedisBus(redis, **{"timeout_s": 10.0, **options.pop("bus", {})}) if redis else None
    auth = [lambda request: request.header("X-User"), "public"]
    server = Server("shared", "1", secret=secret, bus=bus, limits=limits, auth=auth, **options)

    @server.tool
    def pid() -> int:
        return os.getpid()

    @server.tool
    def ask(ctx: Context) -> str:
        return f"{ctx.elicit('Name?', {'name': str})['name']} {os.getpid()}"

    @server.tool
    def sample(ctx: Context) -> str:
        return ctx.sample("Say something", max_tokens=5).text

    @server.tool
    def three(ctx: Context) -> str:
        for number in (1, 2, 3):
            ctx.progress(number)
        return "done"

    @server.tool
    def held(ctx: Context, until: str) -> str:
        ctx.progress(1)
        wait_for(until, ctx)
        ctx.progress(2)
        return "held"

    @server.tool
    def polled(ctx: Context, until: str) -> str:
        ctx.progress(1)
        ctx.close_stream(retry_ms=40)
        wait_for(until, ctx)
        ctx.progress(2)
        return "polled"

    @server.tool
    def say(ctx: Context) -> dict:
        for level in ("debug", "info", "error"):
            ctx.log(level, level)
        return {"client": ctx.client_info.get("name"), "pid": os.getpid()}

    @server.tool
    def change(topic: str) -> str:
        server.changed(topic) if topic in ("tools", "prompts", "resources") else server.updated(topic)
        return "changed"

    server.resource("a://{id}")(lambda id: "x")
    server.prompt(lambda: "x", "p")
    return server


def be_patient(patch=setattr) -> None:
    """Give other processes more time to agree and to answer, as they may need where the machine is busy."""
    for module, name in ((sharing, "_AGREE_S"), (sharing, "_ASK_S"), (shared_streams, "_REPLY_S")):
        patch(module, name, 5.0)


if __name__ == "__main__":
    be_patient()
    build(sys.argv[1], sys.argv[2]).run_http(port=0, ready=lambda listening: print(listening.url + "/mcp", flush=True))
