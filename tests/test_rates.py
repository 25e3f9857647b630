"""Rate limits: who is refused when, what the refusal says, and that there is no way around."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from minimcp import Principal, Server
from minimcp.auth import counts, rates
from minimcp.auth.counts import Count, Limit, Memory
from minimcp.auth.rates import Rates
from minimcp.auth.verifier import PublicAddress
from minimcp.gateway import config
from minimcp.gateway.gateway import Gateway
from tests.helpers import Clock, Legacy, Process, exchange, free_port, http_headers, modern, serving

pytest.importorskip("limits", reason="rate limits need the package limits")

TOOL = {"tools": "weather_*", "limit": "3/minute"}


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Limited(Server):
    """A server with limits; `ran` are the names of what has run."""

    def __init__(self, hook: Rates, **options: Any) -> None:
        super().__init__("s", around_request=hook, secret="0123456789abcdef", **options)
        self.ran: list[str] = []

        @self.tool
        def weather_now() -> None:
            self.ran.append("weather_now")

        @self.tool
        def weather_then() -> None:
            self.ran.append("weather_then")

        @self.tool
        def other() -> None:
            self.ran.append("other")

        @self.resource("db://rows/1")
        def first() -> str:
            self.ran.append("row")
            return "x"

        @self.resource("db://rows/{id}")
        def row(id: str) -> str:
            self.ran.append("row")
            return id

        @self.prompt
        def hello() -> str:
            self.ran.append("prompt")
            return "x"


def ask(server: Server, message: Any, who: Any = "ada", request: Any = None) -> Any:
    """Send a request as somebody, by way of an environ of WSGI."""
    principal = Principal(who) if isinstance(who, str) else who
    return server.engine.call(message, principal=principal, request=request).run()


def call(server: Server, who: Any = "ada", name: str = "weather_now", request: Any = None) -> Any:
    """Call a tool and return the error, or None."""
    return ask(server, modern("tools/call", name=name), who, request).get("error")


def environ(address: str, **more: str) -> dict[str, str]:
    return {"REMOTE_ADDR": address, "REQUEST_METHOD": "POST", **more}


# What a refusal says


def test_beyond_the_limit_a_call_is_refused_with_the_time_to_come_back(clock):
    limited = Limited(Rates([TOOL], clock=clock))
    assert [call(limited) for _ in range(3)] == [None] * 3
    clock.now += 48.2
    reply = limited.handle(modern("tools/call", 7, name="weather_now"), principal=Principal("ada"))
    assert reply == {
        "jsonrpc": "2.0",
        "id": 7,
        "error": {
            "code": -32603,
            "message": "Too many requests: 'weather_now' has a limit of 3/minute; try again in 12 s",
            "data": {"retryAfterMs": reply["error"]["data"]["retryAfterMs"], "limit": "3/minute"},
        },
    }
    wait_ms = reply["error"]["data"]["retryAfterMs"]
    assert wait_ms == 11_800
    clock.now += wait_ms / 1000 - 0.01
    assert call(limited)
    clock.now += 0.02
    assert call(limited) is None
    assert limited.ran == ["weather_now"] * 4


def test_over_http_the_status_is_429_and_legacy_clients_get_200(clock):
    limited = Limited(Rates([{"tools": "*", "limit": "1/hour"}], clock=clock), auth=lambda request: Principal("ada"))
    with serving(limited.wsgi) as url:
        message = modern("tools/call", 5, name="other")
        with exchange(f"{url}/mcp", message, http_headers(message)) as response:
            assert response.status == 200
        with exchange(f"{url}/mcp", message, http_headers(message)) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "3600")
            said = json.loads(response.read())
        assert (said["id"], said["error"]["data"]["limit"]) == (5, "1/hour")
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        info = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
        hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": info}
        with exchange(f"{url}/mcp", hello, headers) as response:
            headers["Mcp-Session-Id"] = response.headers["Mcp-Session-Id"]
        message = {"jsonrpc": "2.0", "id": "x", "method": "tools/call", "params": {"name": "other"}}
        with exchange(f"{url}/mcp", message, headers) as response:
            said = json.loads(response.read())
            assert (response.status, said["id"], said["error"]["code"]) == (200, "x", -32603)
            assert "try again in 3600 s" in said["error"]["message"]


def test_what_a_client_sends_is_shown_cut_and_quoted(clock):
    limited = Limited(Rates([{"tools": "*", "limit": "1/minute"}], clock=clock))
    name = "a\n" + "b" * 500
    call(limited, name=name)
    message = call(limited, name=name)["message"]
    assert message == f"Too many requests: 'a\\n{'b' * 98}' has a limit of 1/minute; try again in 60 s"


# What is counted


def test_a_rule_has_one_count_for_all_that_it_is_about_and_nothing_else(clock):
    limited = Limited(Rates([TOOL], clock=clock))
    for name in ("weather_now", "weather_then", "weather_now"):
        assert call(limited, name=name) is None
    assert call(limited, name="weather_then")
    assert call(limited, name="other") is None


def test_a_call_must_be_within_all_limits_and_one_that_is_refused_counts_for_none(clock):
    rules = [{"tools": "weather_*", "limit": "2/minute; 5/hour"}, {"limit": "100/day"}]
    limited = Limited(Rates(rules, clock=clock))
    found = []
    for _ in range(10):
        found.append([call(limited) is None for _ in range(5)])
        clock.now += 60.1
    assert [sum(each) for each in found] == [2, 2, 1, 0, 0, 0, 0, 0, 0, 0]
    error = call(limited)
    assert error["data"]["limit"] == "5/hour"
    clock.now += error["data"]["retryAfterMs"] / 1000
    assert call(limited) is None


def test_the_window_moves_so_that_its_edge_lets_no_double_burst_through(clock):
    limited = Limited(Rates([{"tools": "*", "limit": "10/minute"}], clock=clock))
    times = []
    for _ in range(3000):
        if call(limited) is None:
            times.append(clock.now)
        clock.now += 0.1
    assert all(later - earlier >= 60 for earlier, later in zip(times, times[10:]))
    assert len(times) == 50


@pytest.mark.parametrize(
    ("rule", "counted"),
    [
        ({}, {"call", "other", "read", "get"}),
        ({"tools": "*"}, {"call", "other"}),
        ({"tools": ["weather_*", "other"]}, {"call", "other"}),
        ({"tools": "weather_*"}, {"call"}),
        ({"resources": "db://*"}, {"read"}),
        ({"resources": "db://rows/{id}"}, {"read"}),
        ({"prompts": "hello", "tools": "other"}, {"get", "other"}),
        ({"methods": ["tools/list", "ping"]}, {"list"}),
        ({"tools": "*", "methods": "tools/list"}, {"list"}),
        ({"tools": "weather_*", "methods": "tools/list"}, set()),
        ({"prompts": "hello", "methods": "completion/complete"}, {"complete"}),
        ({"resources": "db://*", "methods": "completion/complete"}, {"complete a URI"}),
        ({"servers": "*"}, {"call", "other", "read", "get"}),
        ({"servers": "crm"}, set()),
    ],
)
def test_which_requests_a_rule_is_about(clock, rule, counted):
    argument = {"name": "a", "value": ""}
    requests = {
        "call": modern("tools/call", name="weather_now"),
        "other": modern("tools/call", name="other"),
        "read": modern("resources/read", uri="db://rows/2"),
        "get": modern("prompts/get", name="hello"),
        "list": modern("tools/list"),
        "prompts": modern("prompts/list"),
        "complete": modern("completion/complete", ref={"type": "ref/prompt", "name": "hello"}, argument=argument),
        "complete a URI": modern(
            "completion/complete", ref={"type": "ref/resource", "uri": "db://rows/{id}"}, argument=argument
        ),
    }
    found = set()
    for name, message in requests.items():
        limited = Limited(Rates([{**rule, "limit": "1/minute"}], clock=clock))
        replies = [limited.handle(message, principal=Principal("ada")) for _ in range(2)]
        if "Too many requests" in replies[1].get("error", {}).get("message", ""):
            found.add(name)
    assert found == counted


def test_a_rule_may_be_about_the_servers_that_entries_come_from(clock):
    limited = Limited(Rates([{"servers": ["crm", "erp"], "limit": "1/minute"}], clock=clock))
    limited.engine.catalog.tools["other"].origin = "crm"
    assert [call(limited, name="other") is None for _ in range(2)] == [True, False]
    assert [call(limited, name="weather_now") is None for _ in range(2)] == [True, True]


# Who is counted


def test_other_callers_are_not_affected(clock):
    limited = Limited(Rates([TOOL], clock=clock))
    for _ in range(20):
        call(limited, "ada")
    assert [call(limited, "bob") is None for _ in range(4)] == [True, True, True, False]
    assert call(limited, Principal("ada", "https://other.example")) is None


def test_principals_whose_names_look_alike_are_not_one(clock):
    limited = Limited(Rates([{"tools": "*", "limit": "1/minute"}], clock=clock))
    alike = [
        Principal("a/b", "c"),
        Principal("b", "c/a"),
        Principal("a", "c/b"),
        Principal("address"),
        Principal("all"),
    ]
    assert [call(limited, who) for who in [*alike, None, Principal("Address")]] == [None] * 7
    assert call(limited, None, request=environ("192.0.2.1")) is None
    assert call(limited, Principal("192.0.2.1", "address")) is None
    assert all(call(limited, who) for who in [*alike, None])


def test_all_callers_together(clock):
    limited = Limited(Rates([{**TOOL, "per": "all"}], clock=clock))
    assert [call(limited, who) is None for who in ("ada", "bob", None, "eve")] == [True, True, True, False]


def test_an_anonymous_caller_counts_by_its_address(clock):
    limited = Limited(Rates([{"tools": "*", "limit": "1/minute"}], clock=clock))
    assert call(limited, None, request=environ("192.0.2.1")) is None
    assert call(limited, None, request=environ("192.0.2.1"))
    assert call(limited, None, request=environ("192.0.2.1", HTTP_X_FORWARDED_FOR="192.0.2.9", HTTP_X_USER="bob"))
    assert call(limited, None, request=environ("::ffff:192.0.2.1"))
    assert call(limited, None, request=environ("192.0.2.2")) is None
    assert call(limited, "ada", request=environ("192.0.2.1")) is None
    assert call(limited, None, request=environ("2001:db8::1")) is None
    assert call(limited, None, request=environ("2001:db8::ffff:1")), "a host has all addresses of its /64"
    assert call(limited, None, request=environ("2001:db8:0:1::1")) is None


def test_per_address_a_principal_counts_by_its_address_too(clock):
    limited = Limited(Rates([{**TOOL, "per": "address"}], clock=clock))
    found = [call(limited, who, request=environ("192.0.2.1")) is None for who in ("ada", "bob", None, "eve")]
    assert found == [True, True, True, False]


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("10.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "198.51.100.7, 192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "192.0.2.1, 10.0.0.2", "192.0.2.1"),
        ("::ffff:10.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "192.0.2.1:4711", "192.0.2.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::/64"),
        ("10.0.0.1", "2001:db8::1", "2001:db8::/64"),
        ("10.0.0.1", "192.0.2.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.3", "10.0.0.3"),
        ("203.0.113.5", "192.0.2.1", "203.0.113.5"),
    ],
)
def test_behind_a_trusted_proxy_an_address_is_what_that_says(peer, forwarded, expected):
    proxies = PublicAddress(trusted_proxy="10.0.0.0/24")
    assert rates._network(rates._address(environ(peer, HTTP_X_FORWARDED_FOR=forwarded), proxies)) == expected


def test_callers_behind_a_trusted_proxy_do_not_count_for_each_other(clock):
    limited = Limited(Rates([{"limit": "1/minute"}], trusted_proxy="10.0.0.1", clock=clock))
    first, second = (environ("10.0.0.1", HTTP_X_FORWARDED_FOR=f"9.9.9.{each}, 192.0.2.{each}") for each in (1, 2))
    assert (call(limited, None, request=first), call(limited, None, request=second)) == (None, None)
    again = environ("10.0.0.1", HTTP_X_FORWARDED_FOR="8.8.8.8, 192.0.2.1")
    assert call(limited, None, request=again), "what stands before is the caller's own word"


def test_what_was_counted_for_a_rule_that_stays_still_counts_after_a_reload(clock):
    old = Rates([TOOL, {"tools": "other", "limit": "1/hour"}], clock=clock)
    limited = Limited(old)
    for name in ("weather_now", "weather_now", "other"):
        assert call(limited, name=name) is None
    new = Rates(
        [{"tools": "other", "limit": "2/hour"}, {"limit": "3/minute", "tools": "weather_*"}], before=old, clock=clock
    )
    limited.engine.around_request = new
    assert [call(limited) is None for _ in range(2)] == [True, False]
    assert [call(limited, name="other") is None for _ in range(3)] == [True, True, False]


def test_a_gateway_goes_on_counting_when_its_configuration_is_read_again():
    def read(listen_timeout: int) -> Any:
        options = {"rates": [TOOL], "listTimeout": listen_timeout, "log": False}
        return config.read({"mcpServers": {}, "gateway": options})

    with Gateway(read(5)) as gateway:

        @gateway.tool
        def weather_now() -> None: ...

        assert [call(gateway) is None for _ in range(2)] == [True, True]
        gateway.reload(read(6))
        assert [call(gateway) is None for _ in range(2)] == [True, False]


# Ways around


def test_a_new_session_is_no_new_caller_nor_is_another_era(clock):
    limited = Limited(Rates([{"tools": "*", "limit": "3/minute"}], clock=clock))
    sessions = [Legacy(limited, version) for version in ("2025-11-25", "2024-11-05", "2025-06-18")]
    for session in sessions:
        assert session.result("tools/call", name="other")
    assert Legacy(limited).problem("tools/call", name="other")["code"] == -32603
    assert call(limited, None)["data"]["limit"] == "3/minute"


def test_a_name_in_another_case_is_no_other_name_of_the_tool(clock):
    limited = Limited(Rates([TOOL], clock=clock))
    for _ in range(3):
        call(limited)
    for name in ("Weather_now", "WEATHER_NOW", " weather_now", "weather_now\0"):
        call(limited, name=name)
    assert limited.ran == ["weather_now"] * 3


def test_a_uri_that_is_spelled_in_another_way_is_the_same(clock):
    limited = Limited(Rates([{"resources": "db://rows/*", "limit": "1/minute"}], clock=clock))
    for uri in ("db://rows/1", "db://%72ows/1", "db://rows/%31"):
        limited.handle(modern("resources/read", uri=uri))
    assert limited.ran == ["row"]
    limited = Limited(Rates([{"resources": "db://rows/7", "limit": "1/minute"}], clock=clock))
    for uri in ("db://rows/7", "db://rows/%37", "db://rows/%37"):
        limited.handle(modern("resources/read", uri=uri))
    assert limited.ran == ["row"]


def test_what_does_not_exist_is_counted_as_well(clock):
    limited = Limited(Rates([TOOL], clock=clock))
    found = [call(limited, name=f"weather_{number}")["code"] for number in range(5)]
    assert found == [-32602, -32602, -32602, -32603, -32603]


def test_many_connections_share_one_count():
    limited = Limited(Rates([{"tools": "*", "limit": "25/hour"}]), auth=lambda request: Principal("ada"))
    barrier, statuses = threading.Barrier(8), []

    def work(url: str) -> None:
        message = modern("tools/call", name="other")
        barrier.wait(10)
        for _ in range(10):
            with exchange(f"{url}/mcp", message, http_headers(message)) as response:
                statuses.append(response.status)

    with serving(limited.wsgi) as url:
        threads = [threading.Thread(target=work, args=(url,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert (statuses.count(200), statuses.count(429), len(limited.ran)) == (25, 55, 25)


@pytest.mark.parametrize("params", [None, {}, {"name": 5}, {"name": None}, {"name": ["weather_now"]}, {"ref": "x"}])
@pytest.mark.parametrize("method", ["tools/call", "resources/read", "prompts/get", "completion/complete"])
def test_a_request_without_a_proper_name_harms_nothing(clock, method, params):
    limited = Limited(Rates([TOOL, {"methods": "completion/complete", "limit": "1/minute"}], clock=clock))
    message = modern(method)
    message["params"].update(params or {})
    assert "error" in limited.handle(message)
    assert "error" in limited.handle({"jsonrpc": "2.0", "id": 1, "method": method, "params": 5})


# Memory


def test_callers_that_are_not_seen_any_more_are_forgotten(clock):
    hook = Rates([{"limit": "100000/minute"}], clock=clock)
    limited = Limited(hook)
    for number in range(500):
        call(limited, f"caller {number}", "other")
    assert isinstance(hook._counts, Memory)
    (windows,) = hook._counts._windows.values()
    assert len(windows._callers) == 500
    clock.now += 61
    for _ in range(300):
        call(limited, "ada", "other")
    assert len(windows._callers) == 1
    (slices, total) = windows._callers[next(iter(windows._callers))]
    assert (len(slices), total) == (1, [300])


def test_no_more_callers_are_held_than_there_is_room_for(clock, monkeypatch):
    monkeypatch.setattr(counts, "_MOST_CALLERS", 10)
    hook = Rates([{"limit": "1/hour"}], clock=clock)
    limited = Limited(hook)
    for number in range(100):
        assert call(limited, f"caller {number}", "other") is None
    (windows,) = hook._counts._windows.values()  # type: ignore[union-attr]
    assert len(windows._callers) == 10
    assert call(limited, "caller 99", "other")


def test_a_large_limit_takes_little_memory_and_is_never_exceeded(clock):
    memory, steps = Memory(clock), itertools.cycle([0.001, 0.0, 0.013])
    count = Count(Limit(5000, 60.0, "5000/minute", None), "rule", "ada")
    times = []
    for _ in range(30_000):
        if memory.take([count]) is None:
            times.append(clock.now)
        clock.now += next(steps)
    (windows,) = memory._windows.values()
    assert len(windows._callers["ada"][0]) <= 1002
    assert len(times) > 10_000
    assert all(later - earlier >= 60 for earlier, later in zip(times, times[5000:]))


def test_threads_never_take_more_than_there_is():
    memory, taken = Memory(), []
    count = Count(Limit(500, 3600.0, "500/hour", None), "rule", "ada")
    barrier = threading.Barrier(6)

    def work() -> None:
        barrier.wait(10)
        taken.append(sum(memory.take([count]) is None for _ in range(400)))

    threads = [threading.Thread(target=work) for _ in range(6)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    assert sum(taken) == 500


# Rules that cannot be understood


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"tools": "*"}, "needs a limit such as '10/minute'"),
        ({"limit": ""}, "needs a limit"),
        ({"limit": "ten a minute"}, "needs a limit"),
        ({"limit": "10/fortnight"}, "needs a limit"),
        ({"limit": "0/minute"}, "needs a limit"),
        ({"limit": 10}, "needs a limit"),
        ({"limit": "1/minute", "tool": "x"}, r"has \['tool'\]; it may have"),
        ({"limit": "1/minute", "per": "tool"}, "counts per 'tool', which is not one of"),
        ({"limit": "1/minute", "tools": 5}, "not iterable|neither a string"),
        ({"limit": "1/minute", "tools": [5]}, "neither a string nor a list of strings"),
        (
            {"limit": "1/minute", "methods": ["tool/call"]},
            "'tool/call', which is no method of MCP; did you mean 'tools/call'",
        ),
    ],
)
def test_a_rule_that_cannot_be_understood_is_refused(rule, said):
    with pytest.raises(ValueError, match=said):
        Rates([rule])


def test_a_url_that_is_not_of_redis_is_refused_without_showing_it():
    for url in ("http://user:hunter2@localhost", "localhost:6379", "memory://", "async+redis://localhost"):
        with pytest.raises(ValueError, match="'redis://localhost:6379'") as caught:
            Rates([TOOL], redis=url)
        assert "hunter2" not in str(caught.value)


def test_a_missing_package_is_said_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "limits", None)
    with pytest.raises(ImportError, match=r"pip install 'minimcp-sync\[gateway\]'"):
        Rates([TOOL])
    assert Rates([]).refusal is not None


def test_a_missing_package_for_redis_is_said_too(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(ImportError, match="need the packages limits and redis"):
        Rates([TOOL], redis="redis://127.0.0.1:1")


# Redis


@pytest.fixture
def redis_url(monkeypatch) -> Iterator[str]:
    pytest.importorskip("redis", reason="limits in Redis need the package redis")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("there is no redis-server here")
    port = free_port()
    with Process([program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--daemonize", "no"]) as process:
        process.wait_for("Ready to accept connections")
        # A call that waits no longer than usual passes uncounted where this machine is busy.
        monkeypatch.setattr(counts, "_STORAGE_TIMEOUT_S", 30.0)
        yield f"redis://127.0.0.1:{port}"


def test_several_gateways_share_their_counts_in_redis(redis_url):
    one, other = (Limited(Rates([TOOL], redis=redis_url)) for _ in range(2))
    assert [call(each) is None for each in (one, other, one, other, one)] == [True, True, True, False, False]
    error = call(other)
    assert error["data"]["limit"] == "3/minute"
    assert 50_000 < error["data"]["retryAfterMs"] <= 60_000
    assert call(other, "bob") is None

    import redis

    with redis.Redis.from_url(redis_url) as client:
        keys = client.keys()
        assert len(keys) == 2 and not any(b"ada" in key for key in keys)
        assert all(0 < client.ttl(key) <= 60 for key in keys)


def test_of_several_limits_in_redis_the_longest_counts_no_less(redis_url):
    limited = Limited(Rates([{"tools": "*", "limit": "5/hour; 2/second"}], redis=redis_url))
    taken = sum(call(limited) is None for _ in range(4))
    assert 2 <= taken <= 4  # more than 2 when a second has passed in between
    shared = [Limited(Rates([{"tools": "other", "limit": "20/hour"}], redis=redis_url)) for _ in range(4)]
    found: list[Any] = []
    barrier = threading.Barrier(4)

    def work(limited: Any) -> None:
        barrier.wait(10)
        found.extend(call(limited, name="other") for _ in range(10))

    threads = [threading.Thread(target=work, args=(each,)) for each in shared]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (found.count(None), len(found)) == (20, 40)


def test_while_redis_is_gone_calls_pass_and_the_log_says_so_once_a_minute(clock, caplog):
    pytest.importorskip("redis", reason="limits in Redis need the package redis")
    url = f"redis://user:hunter2@127.0.0.1:{free_port()}"
    limited = Limited(Rates([TOOL], redis=url, clock=clock))
    with caplog.at_level(logging.ERROR, "minimcp"):
        for _ in range(59):
            assert call(limited) is None
            clock.now += 1
        assert [record.getMessage() for record in caplog.records] == [
            "rate limits are not kept, since their storage fails: ConnectionError"
        ]
        for _ in range(59):
            assert call(limited) is None
            clock.now += 1
    assert len(caplog.records) == 2
    assert "hunter2" not in caplog.text


def test_a_redis_that_does_not_answer_delays_one_call_and_only_shortly(clock):
    pytest.importorskip("redis", reason="limits in Redis need the package redis")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        limited = Limited(Rates([TOOL], redis=f"redis://127.0.0.1:{silent.getsockname()[1]}", clock=clock))
        before = time.monotonic()
        assert call(limited) is None
        assert time.monotonic() - before < 10
        before = time.monotonic()
        for _ in range(20):
            assert call(limited) is None
        assert time.monotonic() - before < 9  # each one that waits takes half a second
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()
        clock.now += 5.1
        assert call(limited) is None
        silent.accept()[0].close()


def test_once_redis_is_back_calls_are_counted_again(clock, redis_url, monkeypatch):
    hook = Rates([TOOL], redis=redis_url, clock=clock)
    limited = Limited(hook)
    hit = hook._counts._limiter.hit  # type: ignore[union-attr]

    def fail(*arguments: Any) -> bool:
        raise ConnectionError("gone")

    monkeypatch.setattr(hook._counts._limiter, "hit", fail)  # type: ignore[union-attr]
    assert [call(limited) for _ in range(10)] == [None] * 10
    monkeypatch.setattr(hook._counts._limiter, "hit", hit)  # type: ignore[union-attr]
    assert [call(limited) for _ in range(10)] == [None] * 10
    clock.now += 5.1
    assert [call(limited) is None for _ in range(4)] == [True, True, True, False]
