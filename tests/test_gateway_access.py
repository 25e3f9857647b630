"""Plain HTTP, the status page, the notes of calls and trace context of a real gateway, in front of real servers."""

from __future__ import annotations

from typing import Any

import pytest
from werkzeug.test import Client as Browser

from minimcp import Client, Context, Server, ToolError
from tests.gateways import client_of, gateway_of
from tests.helpers import http_headers, modern

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ERAS = pytest.mark.parametrize("mode", ["modern", "legacy"])


def shop() -> Server:
    server = Server("shop")
    server.seen = []  # type: ignore[attr-defined]

    @server.tool
    def order(count: int, ctx: Context) -> dict[str, int]:
        server.seen.append({name: ctx.meta[name] for name in ctx.meta if "/" not in name})  # type: ignore[attr-defined]
        if count > 9:
            raise ToolError("there are only nine")
        return {"ordered": count}

    @server.tool
    def ask(ctx: Context) -> str:
        return str(ctx.elicit("How many?", {"count": int})["count"])

    @server.tool
    def hang(ctx: Context) -> str:
        ctx.cancelled.wait(20)
        return "late"

    return server


def rest(gateway: Any, name: str, arguments: Any, **headers: str) -> Any:
    return Browser(gateway.wsgi).post(f"/tools/{name}", json=arguments, headers=headers)


@ERAS
def test_tools_of_servers_are_called_over_plain_http(mode: str) -> None:
    with gateway_of(shop(), gateway={"rest": True}, entries={"shop": {"mode": mode, "timeout": 30}}) as gateway:
        answer = rest(gateway, "shop_order", {"count": 3})
        assert (answer.status_code, answer.json) == (200, {"ordered": 3})
        refused = rest(gateway, "shop_order", {"count": "x"})
        assert refused.status_code == 400 and '"count" must be an integer' in refused.json["error"]["message"]
        failed = rest(gateway, "shop_order", {"count": 10})
        assert (failed.status_code, failed.json["error"]["message"]) == (422, "there are only nine")
        assert rest(gateway, "shop_sell", {}).status_code == 404
        upstream = gateway.upstreams["shop"]
        upstream.settings = upstream.settings._replace(timeout_s=2.0)
        late = rest(gateway, "shop_hang", {})
        assert late.status_code == 504
        assert late.json["error"]["data"] == {"server": "shop", "mayHaveRun": True, "timedOut": True}
        document = Browser(gateway.wsgi).get("/openapi.json").json
        assert list(document["paths"]) == ["/tools/shop_order", "/tools/shop_ask", "/tools/shop_hang"]


@pytest.mark.parametrize("mode, status", [("modern", 409), ("legacy", 422)])
def test_a_question_has_no_answer_over_plain_http(mode: str, status: int) -> None:
    with gateway_of(shop(), gateway={"rest": True}, entries={"shop": {"mode": mode}}) as gateway:
        # A legacy server turns the refusal of its question into a failure of its tool.
        assert rest(gateway, "shop_ask", {}).status_code == status


def test_a_server_that_is_gone_is_a_bad_gateway() -> None:
    with gateway_of(shop(), gateway={"rest": True}) as gateway:
        gateway.settle()
        for replica in gateway.upstreams["shop"].replicas:
            replica.entry = {"url": "http://127.0.0.1:1/mcp"}
            replica.release(("own",))
        answer = rest(gateway, "shop_order", {"count": 1})
        assert answer.status_code == 502 and answer.json["error"]["data"] == {"server": "shop", "mayHaveRun": False}


def test_rate_limits_hold_over_plain_http_too() -> None:
    pytest.importorskip("limits")
    options = {"rest": True, "rates": [{"tools": "shop_*", "per": "all", "limit": "2/minute"}]}
    with gateway_of(shop(), gateway=options) as gateway, client_of(gateway) as client:
        assert client.call_tool("shop_order", count=1).data == {"ordered": 1}
        assert rest(gateway, "shop_order", {"count": 1}).status_code == 200
        answer = rest(gateway, "shop_order", {"count": 1})
        assert answer.status_code == 429 and 0 < int(answer.headers["Retry-After"]) <= 60
        assert "limit of 2/minute" in answer.json["error"]["message"]
        # It is no failure of the server.
        assert gateway.calls.failing("shop") == 0 and gateway.calls.recent()[0].server == "shop"


def test_further_endpoints_have_their_tools_over_plain_http() -> None:
    options = {"rest": True, "endpoints": {"desk": {"servers": ["shop"], "allow": ["tools:shop_order"]}}}
    with gateway_of(shop(), gateway=options) as gateway:
        app = Browser(gateway.wsgi)
        assert app.post("/desk/tools/shop_order", json={"count": 2}).json == {"ordered": 2}
        assert app.post("/desk/tools/shop_ask").status_code == 404
        document = app.get("/desk/openapi.json").json
        assert list(document["paths"]) == ["/tools/shop_order"] and document["servers"] == [{"url": "/desk"}]
        assert len(app.get("/openapi.json").json["paths"]) == 3


@ERAS
def test_the_trace_context_of_headers_goes_to_the_server(mode: str) -> None:
    server = shop()
    headers = {"traceparent": PARENT, "tracestate": "a=1", "baggage": "k=v"}
    with gateway_of(server, gateway={"rest": True}, entries={"shop": {"mode": mode}}) as gateway:
        message = modern("tools/call", name="shop_order", arguments={"count": 1})
        answer = Browser(gateway.wsgi).post("/mcp", json=message, headers={**http_headers(message), **headers})
        assert answer.status_code == 200
        assert rest(gateway, "shop_order", {"count": 1}, **headers).status_code == 200
        rest(gateway, "shop_order", {"count": 1}, traceparent="bad")
    assert server.seen == [headers, headers, {}]  # type: ignore[attr-defined]


def test_calls_are_noted_with_the_server_that_they_went_to() -> None:
    lines: list[Any] = []
    with gateway_of(shop(), gateway={"metrics": True}) as gateway, client_of(gateway) as client:
        gateway.calls._write = lines.append
        client.call_tool("shop_order", count=1)
        with pytest.raises(Exception, match="Unknown tool"):
            client.call_tool("nobody_knows")
        found = [(each.name, each.server, each.outcome) for each in gateway.calls.recent() if each.name]
        assert found == [("nobody_knows", "", "error -32602"), ("shop_order", "shop", "ok")]
        assert [each["server"] for each in lines if each["name"] == "shop_order"] == ["shop"]
        pytest.importorskip("prometheus_client")
        local = {"REMOTE_ADDR": "127.0.0.1"}
        text = Browser(gateway.wsgi).get("/metrics", environ_overrides=local).text
        assert (
            'minimcp_gateway_requests_total{method="tools/call",name="shop_order",outcome="ok",server="shop"} 1.0'
            in text
        )
        assert 'minimcp_gateway_server_state{server="shop",state="up"} 1.0' in text
        assert 'minimcp_gateway_replica_state{replica="shop",server="shop",state="closed"} 1.0' in text


def test_the_status_of_a_gateway_is_what_it_is() -> None:
    entries = {"files": {"prefix": "fs"}}
    with gateway_of(shop(), Server("files"), entries=entries) as gateway, client_of(gateway) as client:
        client.call_tool("shop_order", count=1)
        gateway.settle()
        local = {"REMOTE_ADDR": "127.0.0.1"}
        found = Browser(gateway.wsgi).get("/status.json", environ_overrides=local).json
        assert [(each["name"], each["state"], each["prefix"]) for each in found["servers"]] == [
            ("shop", "up", "shop"),
            ("files", "up", "fs"),
        ]
        assert [(each["name"], each["server"], each["who"]) for each in found["tools"]] == [
            (f"shop_{name}", "shop", ["everybody"]) for name in ("order", "ask", "hang")
        ]
        assert [each["name"] for each in found["calls"] if each["name"]] == ["shop_order"]
        assert found["summary"]["calls"] == 1
        assert Browser(gateway.wsgi).get("/readyz").status_code == 200


def test_rules_hold_on_the_status_page_too() -> None:
    keys = {name: {"key": f"key-of-{name}-0123456789", "roles": [name]} for name in ("admin", "staff", "guest")}
    options = {
        "auth": {"keys": keys},
        "rules": [
            {"allow": "*:*", "roles": ["admin"]},
            {"allow": "tools:*_order", "servers": ["shop"], "roles": ["staff"]},
        ],
        "statusRoles": ["admin"],
    }
    with gateway_of(shop(), gateway=options) as gateway:
        gateway.settle()

        def status(name: str) -> Any:
            headers = {"X-API-Key": keys[name]["key"]}
            return Browser(gateway.wsgi).get("/status.json", headers=headers).json

        assert {each["name"]: each["who"] for each in status("admin")["tools"]} == {
            "shop_order": ["admin", "staff"],
            "shop_ask": ["admin"],
            "shop_hang": ["admin"],
        }
        assert [each["name"] for each in status("staff")["tools"]] == ["shop_order"]
        assert status("staff")["servers"] == [{"name": "shop", "state": "up", "stale": False}]
        assert status("guest")["tools"] == status("guest")["servers"] == []


def test_a_legacy_client_has_its_stream_where_the_page_is() -> None:
    server = shop()
    with gateway_of(server) as gateway:
        assert b"<title>Gateway" in Browser(gateway.wsgi).get("/", headers={"Accept": "text/html"}).data
        answer = Browser(gateway.wsgi).get("/", headers={"Accept": "text/event-stream"})
        assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")
        with Client(gateway.wsgi, mode="legacy") as client:
            assert client.call_tool("shop_order", count=1).data == {"ordered": 1}
