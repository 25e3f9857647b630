"""T240: what a stranger sends cannot write a line of its own into the log, colour it, or fill it."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from minimcp import Context, Server
from tests.embedded import Wire, embedded
from tests.helpers import modern

HOSTILE = "x\r\nERROR forged\x1b[31m" + "y" * 1_000_000


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Any:
    """The messages that were logged, without the tracebacks, which are the server's own."""
    caplog.set_level(logging.DEBUG, "minimcp")
    return lambda: [record.getMessage() for record in caplog.records]


def clean(messages: list[str]) -> bool:
    return bool(messages) and all(
        message.isprintable() and len(message) < 1000 and "forged\x1b" not in message for message in messages
    )


def test_the_reason_of_a_cancellation_is_escaped_and_cut(lines: Any) -> None:
    server = Server("logs")
    session = server.engine.open_session(send=lambda message: None)

    @server.tool
    def cancelled_by_itself(ctx: Context) -> str:
        params = {"requestId": HOSTILE[:4000], "reason": HOSTILE}
        server.handle({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}, session=session)
        ctx.check()
        return "not reached"

    request = modern("tools/call", HOSTILE[:4000], name="cancelled_by_itself")
    assert server.handle(request, session=session) is None
    assert clean(lines())


@pytest.mark.parametrize("state", [HOSTILE, "x\r\nforged\x1b[31m", 5, None])
def test_a_forged_request_state_is_not_quoted(lines: Any, state: Any) -> None:
    server = Server("logs")
    server.tool(lambda: "ran", "tool")
    reply = server.handle(modern("tools/call", name="tool", requestState=state))
    assert reply["error"]["code"] == -32602
    assert clean(lines())


def test_the_path_of_a_request_that_failed_is_escaped_and_cut(lines: Any) -> None:
    def fails(environ: Any, start_response: Any) -> Any:
        raise RuntimeError("on purpose")

    with embedded(fails) as server, Wire(server) as wire:
        status, _ = wire.get("/x%0d%0aforged%1b[31m" + "y" * 5000).answer()
        assert status == 500
    assert clean([message for message in lines() if "failed" in message])


def test_an_unknown_name_or_method_is_not_logged_at_all(lines: Any) -> None:
    server = Server("logs")
    server.tool(lambda: "ran", "tool")
    for request in (modern("tools/call", name=HOSTILE), modern(HOSTILE), modern("resources/read", uri=HOSTILE)):
        assert server.handle(request)["error"]["code"] in (-32601, -32602)
    assert lines() == []
