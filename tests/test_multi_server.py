"""The example `examples/multi_server.py`, run as the file it is and imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from minimcp import Server
from tests.helpers import serving
from tests.transports import ROOT


@pytest.fixture
def servers(tmp_path: Any) -> Iterator[Any]:
    """The path of a configuration: one server over stdio, one over HTTP, and one that does not start."""
    shop = Server("shop", "1.0")

    @shop.tool
    def price(of: str) -> str:
        """Say what something costs."""
        return f"{of} is 6.00"

    @shop.tool
    def weekday(day: str) -> str:
        """A name that the other server has as well."""
        return f"closed on {day}"

    hello = {"command": sys.executable, "args": [str(ROOT / "examples" / "hello.py")], "env": {"PYTHONPATH": str(ROOT)}}
    with serving(shop.wsgi) as url:
        config = {"clock": hello, "shop": {"url": url + "/mcp"}, "gone": {"command": "no-such-program"}}
        path = tmp_path / "servers.json"
        path.write_text(json.dumps({"mcpServers": config}))
        yield path
        shop.close()


def run(*arguments: str) -> Any:
    command = [sys.executable, str(ROOT / "examples" / "multi_server.py"), *arguments]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def test_the_tools_of_all_servers_are_one_list(servers: Any) -> None:
    done = run(str(servers))
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == [
        *("clock__now", "clock__days_between", "clock__weekday", "clock__count"),
        *("shop__price", "shop__weekday"),
    ]
    assert done.stderr.startswith("gone is left out: ") and "no-such-program" in done.stderr


def test_a_call_goes_to_the_server_that_has_the_tool(servers: Any) -> None:
    assert run(str(servers), "clock__weekday", '{"day": "2026-07-28"}').stdout == "Tuesday\n"
    assert run(str(servers), "shop__weekday", '{"day": "Sunday"}').stdout == "closed on Sunday\n"


def test_a_tool_that_no_server_has_is_one_line(servers: Any) -> None:
    done = run(str(servers), "shop__now")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "No server has the tool 'shop__now'"


def test_all_are_closed_at_the_end_whatever_happens(servers: Any, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    import multi_server

    with pytest.raises(KeyError, match="clock__nothing"), multi_server.Servers(str(servers)) as all_of_them:
        assert [client.state for client in all_of_them.clients.values()][:2] == ["open", "open"]
        all_of_them.tools()
        all_of_them.call("clock__nothing", {})
    assert [client.state for client in all_of_them.clients.values()][:2] == ["closed", "closed"]
