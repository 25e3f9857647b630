"""The routes by which a gateway is watched: who sees what, health and readiness, and the page in a browser."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
from importlib import resources
from typing import Any

import pytest
from werkzeug.test import Client

from minimcp.auth import Keys, Rules
from minimcp.gateway.web import install_web
from minimcp.monitoring.calls import Calls
from minimcp.protocol.errors import McpError
from minimcp.protocol.principal import Principal
from tests.browser import browser
from tests.embedded import embedded
from tests.gateway_double import SNAPSHOT, Double
from tests.helpers import modern

KEYS = {name: f"key-of-{name}-0123456789" for name in ("ann", "bob", "eve")}
USERS = {
    "ann": {"key": KEYS["ann"], "roles": ["admin"]},
    "bob": {"key": KEYS["bob"], "roles": ["staff"]},
    "eve": {"key": KEYS["eve"]},
}
RULES = Rules({"allow": "*:*", "roles": ["admin"]}, {"allow": "tools:sum_*", "roles": ["staff"]})
HOSTILE = "<img src=x onerror=alert(1)>\u202e\u200b</script><script>alert(2)</script>"


def watched(options: Any = None, **server_options: Any) -> tuple[Double, Calls]:
    """A gateway of two servers with two tools, and what is noted of its calls."""
    calls = Calls()
    gateway = Double("desk", "1.2", around_request=calls, **server_options)
    for name, origin in (("sum_add", "sum"), ("notes_find", "notes")):

        def work(code: int = 0) -> str:
            """Does something."""
            if code:
                raise McpError("no", code=code)
            return "x"

        gateway.tool(work, name, description=f"The tool {name}.")
        gateway.engine.registry.tools[name].origin = origin
    gateway.resource("note://{id}")(lambda id: id)
    gateway.engine.registry.resourceTemplates["note://{id}"].origin = "notes"
    install_web(gateway, calls, **(options or {}))
    return gateway, calls


def ruled(**options: Any) -> tuple[Double, Calls]:
    return watched({"status_roles": ["admin"], **options}, auth=Keys(USERS), policy=RULES)


def call(gateway: Double, name: str, principal: str | None = None, **arguments: Any) -> None:
    gateway.handle(modern("tools/call", name=name, arguments=arguments), principal=principal and Principal(principal))


def get(gateway: Double, path: str, user: str | None = None, **options: Any) -> Any:
    headers = {"Authorization": f"Bearer {KEYS[user]}"} if user else {}
    options.setdefault("environ_overrides", {"REMOTE_ADDR": "127.0.0.1"})
    return Client(gateway.wsgi).get(path, headers={**headers, **options.pop("headers", {})}, **options)


# Who sees what


def test_whoever_has_a_role_for_it_sees_everything() -> None:
    gateway, _ = ruled()
    call(gateway, "sum_add", "bob")
    call(gateway, "notes_find", "ann")
    found = get(gateway, "/status.json", "ann").json
    assert (found["name"], found["version"], found["uptimeS"]) == ("desk", "1.2", 4021.5)
    assert (found["caller"], found["everything"]) == ("ann", True)
    assert found["servers"] == SNAPSHOT["servers"]
    assert (found["sessions"], found["parked"], found["running"], found["moreTools"]) == (4, 1, 0, 0)
    assert found["tools"] == [
        {"name": "sum_add", "server": "sum", "description": "The tool sum_add.", "who": ["admin", "staff"]},
        {"name": "notes_find", "server": "notes", "description": "The tool notes_find.", "who": ["admin"]},
    ]
    assert [(each["principal"], each["name"], each["server"], each["outcome"]) for each in found["calls"]] == [
        ("ann", "notes_find", "notes", "denied"),
        ("bob", "sum_add", "sum", "denied"),
    ]
    assert len(found["series"]["slots"]) == 60 and found["summary"]["calls"] == 2


def test_others_see_what_is_theirs() -> None:
    gateway, _ = ruled()
    bob = Principal("bob", roles=["staff"])
    for name in ("sum_add", "notes_find", "no_such"):
        gateway.handle(modern("tools/call", name=name, arguments={}), principal=bob)
    call(gateway, "sum_add", "ann")
    found = get(gateway, "/status.json", "bob").json
    assert found["servers"] == [{"name": "sum", "state": "up", "stale": False}]
    assert found["tools"] == [{"name": "sum_add", "server": "sum", "description": "The tool sum_add."}]
    # What is hidden from a caller looks like what is not there.
    assert [(each["name"], each["server"], each["outcome"]) for each in found["calls"]] == [
        ("no_such", "", "error -32602"),
        ("notes_find", "", "error -32602"),
        ("sum_add", "sum", "ok"),
    ]
    assert found["summary"]["calls"] == 3 and not {"sessions", "parked", "running", "collisions"} & set(found)
    text = json.dumps(found)
    assert "10.0.0" not in text and "secret-path" not in text and "ann" not in text


def test_a_caller_whom_no_rule_allows_anything_sees_no_names() -> None:
    gateway, _ = ruled()
    call(gateway, "sum_add", "ann")
    found = get(gateway, "/status.json", "eve").json
    assert (found["servers"], found["tools"], found["calls"]) == ([], [], [])


def test_a_server_is_seen_by_whoever_may_read_something_of_it() -> None:
    gateway, _ = watched({"status_roles": ["admin"]}, auth=Keys(USERS), policy=Rules({"allow": "resources:note://*"}))
    assert [each["name"] for each in get(gateway, "/status.json", "eve").json["servers"]] == ["notes"]


def test_nobody_sees_anything_without_a_credential() -> None:
    gateway, calls = ruled(metrics=True)
    for path in ("/status.json", "/metrics"):
        answer = get(gateway, path)
        assert answer.status_code == 401 and answer.headers["WWW-Authenticate"] == "Bearer"
        assert get(gateway, path, headers={"X-API-Key": "no-such-key-0123456789"}).status_code == 401
    assert calls.recent() == []


@pytest.mark.parametrize(
    "environ, everything",
    [
        ({"REMOTE_ADDR": "127.0.0.1"}, True),
        ({"REMOTE_ADDR": "::1"}, True),
        ({"REMOTE_ADDR": "192.0.2.1"}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "192.0.2.1"}, False),
        ({"REMOTE_ADDR": "127.0.0.1", "HTTP_FORWARDED": "for=192.0.2.1"}, False),
    ],
)
def test_where_nobody_is_asked_who_they_are_it_is_those_on_this_machine(environ: Any, everything: bool) -> None:
    gateway, _ = watched({"metrics": True})
    call(gateway, "sum_add")
    answer = get(gateway, "/status.json", environ_overrides=environ)
    assert answer.status_code == 200 and answer.json["everything"] is everything
    assert len(answer.json["calls"]) == everything
    assert get(gateway, "/metrics", environ_overrides=environ).status_code == (200 if everything else 403)


def test_where_everybody_may_call_nobody_sees_everything_unless_it_says_so() -> None:
    for roles, everything in (((), False), (("*",), True)):
        gateway, _ = watched({"status_roles": roles}, auth="public")
        found = get(gateway, "/status.json", environ_overrides={"REMOTE_ADDR": "127.0.0.1"}).json
        assert found["everything"] is everything


def test_metrics_are_off_unless_configured_and_for_those_who_see_everything() -> None:
    assert get(ruled()[0], "/metrics", "ann").status_code == 404
    gateway, _ = ruled(metrics=True)
    answer = get(gateway, "/metrics", "ann")
    assert answer.status_code == 200 and answer.headers["Content-Type"].startswith("text/plain; version=")
    assert b"minimcp_gateway_uptime_seconds 4021.5\n" in answer.data
    assert get(gateway, "/metrics", "bob").status_code == 403


def test_the_page_can_be_left_out() -> None:
    gateway, _ = watched({"status": False})
    assert get(gateway, "/status.json").status_code == 404
    assert b"endpoint of an MCP server" in get(gateway, "/", headers={"Accept": "text/html"}).data
    assert get(gateway, "/healthz").status_code == 200


def test_who_may_see_a_tool_is_told_without_rules_too() -> None:
    gateway, _ = watched()
    gateway.tool(lambda: "x", "special", roles=["admin"], scopes=["mail"])
    gateway.tool(lambda: "x", "own", allow=lambda ctx: True)
    found = {each["name"]: each["who"] for each in get(gateway, "/status.json").json["tools"]}
    # Nobody has the role here, so that nobody sees the tool.
    assert found == {"sum_add": ["everybody"], "notes_find": ["everybody"], "own": ["its own rule"]}
    other, _ = watched({"status_roles": ["admin"]}, auth=Keys(USERS), policy=lambda ctx, entry: True)
    other.tool(lambda: "x", "special", roles=["admin"])
    found = {each["name"]: each["who"] for each in get(other, "/status.json", "ann").json["tools"]}
    assert found["special"] == ["admin", "the gateway's policy"]


def test_long_lists_and_texts_are_cut(monkeypatch: Any) -> None:
    monkeypatch.setattr("minimcp.gateway.web._MOST_TOOLS", 3)
    gateway, _ = watched()
    for number in range(4):
        gateway.tool(lambda: "x", f"t{number}", description="d" * 5000)
    found = get(gateway, "/status.json").json
    assert (len(found["tools"]), found["moreTools"]) == (3, 3)
    assert len(found["tools"][2]["description"]) == 301


def test_tools_that_a_reader_has_are_not_sent_again() -> None:
    gateway, _ = ruled()
    first = get(gateway, "/status.json", "ann").json
    again = get(gateway, f"/status.json?tools={first['toolsId']}", "ann").json
    assert (again["tools"], again["toolsId"]) == (None, first["toolsId"])
    # Those of another caller are others.
    assert len(get(gateway, f"/status.json?tools={first['toolsId']}", "bob").json["tools"]) == 1
    gateway.engine.policy = Rules({"allow": "*:*", "roles": ["admin", "other"]})
    changed = get(gateway, f"/status.json?tools={first['toolsId']}", "ann").json
    assert [each["who"] for each in changed["tools"]] == [["admin or other"]] * 2
    entry = gateway.engine.registry.tools["sum_add"]
    entry.definition = {**entry.definition, "description": "Another."}
    assert get(gateway, "/status.json", "ann").json["tools"][0]["description"] == "Another."


# Health and readiness


def test_health_is_that_of_the_process() -> None:
    answer = get(ruled()[0], "/healthz")
    assert (answer.status_code, answer.json) == (200, {"status": "ok"})


def with_states(gateway: Double, *states: tuple[str, bool]) -> None:
    servers = copy.deepcopy(SNAPSHOT["servers"][: len(states)])
    for server, (state, stale) in zip(servers, states):
        server.update(state=state, stale=stale)
    gateway.state = {**SNAPSHOT, "servers": servers}


@pytest.mark.parametrize(
    "states, problems",
    [
        ([("up", False), ("up", False)], {}),
        ([("up", False), ("down", True)], {}),
        ([("up", False), ("starting", True)], {}),
        ([("up", False), ("disabled", False)], {}),
        ([], {}),
        ([("up", False), ("down", False)], {"files": "it does not answer"}),
        ([("starting", False), ("down", False)], {"sum": "it has not answered yet", "files": "it does not answer"}),
    ],
)
def test_readiness_says_which_server_is_not_ready_and_why(states: Any, problems: Any) -> None:
    gateway, _ = ruled()
    with_states(gateway, *states)
    answer = get(gateway, "/readyz")
    if problems:
        assert (answer.status_code, answer.json) == (503, {"status": "not ready", "servers": problems})
        assert answer.headers["Retry-After"] == "5"
    else:
        assert (answer.status_code, answer.json) == (200, {"status": "ready"})
    assert "secret-path" not in answer.text


def test_readiness_reflects_real_calls() -> None:
    gateway, _ = watched()
    with_states(gateway, ("up", False))
    for _ in range(4):
        call(gateway, "sum_add", code=-32603)
    call(gateway, "sum_add", code=-32602)
    assert get(gateway, "/readyz").status_code == 200
    call(gateway, "sum_add", code=-32603)
    answer = get(gateway, "/readyz")
    assert (answer.status_code, answer.json["servers"]) == (503, {"sum": "its last 5 calls have failed"})
    call(gateway, "sum_add")
    assert get(gateway, "/readyz").status_code == 200


# The page


def test_the_page_may_run_nothing_but_its_own_script() -> None:
    gateway, _ = ruled()
    answer = get(gateway, "/")
    assert answer.status_code == 200 and answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert get(gateway, "/status").data == answer.data
    policy = dict(each.strip().split(" ", 1) for each in answer.headers["Content-Security-Policy"].split(";"))
    for tag, directive in ((b"script", "script-src"), (b"style", "style-src")):
        [inside] = re.findall(rb"<%s>(.*?)</%s>" % (tag, tag), answer.data, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside).digest()).decode()
        assert policy[directive] == f"'sha256-{digest}'"
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert policy["connect-src"] == "'self'" and policy["require-trusted-types-for"] == "'script'"


@pytest.mark.parametrize("path", ["/", "/status.json", "/healthz", "/readyz", "/metrics"])
def test_nothing_is_kept_or_taken_for_something_else(path: str) -> None:
    gateway, _ = watched({"metrics": True})
    headers = get(gateway, path).headers
    assert headers["Cache-Control"] == "no-store" and headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin" and headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}],
)
def test_pages_of_others_may_not_read_the_status(headers: dict[str, str]) -> None:
    gateway, _ = watched({"metrics": True})
    for path in ("/status.json", "/metrics"):
        assert get(gateway, path, headers=headers).status_code == 403


def test_the_file_of_the_page_is_plain_and_complete() -> None:
    text = resources.files("minimcp.gateway").joinpath("status.html").read_text("utf-8")
    # No address but the name space of SVG, nothing that makes markup of text, no handler in an attribute.
    assert set(re.findall(r"https?://[^\s\"')]+", text)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)
    assert not re.search(r"<[a-z][^>]*\s(?:on[a-z]+|style)=", text)
    assert len(re.findall(r"<script", text)) == 1 and "desk" not in text


@pytest.fixture(scope="module")
def window() -> Any:
    with browser() as found:
        yield found


def full() -> tuple[Double, Calls]:
    gateway, calls = watched()
    for number in range(30):
        call(gateway, "sum_add", "ann", code=-32603 if number % 10 == 3 else 0)
    call(gateway, HOSTILE, HOSTILE)
    state = copy.deepcopy(SNAPSHOT)
    state["servers"][1].update(name=HOSTILE, error=HOSTILE, prefix=HOSTILE)
    state["servers"][0]["replicas"][1].update(name=HOSTILE, where=HOSTILE, error=HOSTILE, different=HOSTILE)
    gateway.state = {**state, "name": HOSTILE}
    gateway.tool(lambda: "x", "plain", description=HOSTILE)
    entry = gateway.engine.registry.tools["plain"]
    entry.definition = {**entry.definition, "name": HOSTILE}
    entry.origin = HOSTILE
    return gateway, calls


@pytest.mark.parametrize("width, scheme", [(1200, "light"), (1200, "dark"), (360, "light")])
def test_the_page_shows_everything_as_text(window: Any, width: int, scheme: str) -> None:
    gateway, _ = full()
    with embedded(gateway.wsgi) as listening:
        window.look(width, 800, scheme)
        window.open(listening.url + "/")
        window.wait("document.querySelectorAll('#tools li').length")
        shown = window.run("return document.body.innerText")
        # Characters that hide or reorder others are shown as what they are.
        assert shown.count("<img src=x onerror=alert(1)>\\u{202e}\\u{200b}</script>") >= 8
        assert "\u202e" not in shown and "\u200b" not in shown
        assert window.run("return document.querySelectorAll('img, script').length") == 1
        assert "open, 13" in shown and "The last list it gave is served." in shown and "disabled" in shown
        assert "sum and notes both have 'add'" in shown
        assert window.run("return document.documentElement.scrollWidth <= innerWidth")
        beyond = (
            "[...document.querySelectorAll('#app *')].filter((e) => e.getBoundingClientRect().right > innerWidth + 1)"
        )
        assert window.run(f"return {beyond}.map((e) => e.className)") == []
        background = window.run("return getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(16, 17, 19)" if scheme == "dark" else "rgb(250, 250, 249)")
        assert window.run("return document.querySelectorAll('#chart .bar').length") >= 1
        hosts = window.run("return performance.getEntriesByType('resource').map((e) => new URL(e.name).host)")
        assert set(hosts) == {f"127.0.0.1:{listening.port}"}
        window.open("about:blank")
        assert window.log() == []


def test_the_page_is_live_and_can_be_paused(window: Any) -> None:
    gateway, _ = watched()
    with embedded(gateway.wsgi) as listening:
        window.look(1000, 800)
        window.open(listening.url + "/")
        window.wait("document.querySelector('#calls').innerText.includes('No calls yet')")
        call(gateway, "sum_add")
        window.wait("document.querySelectorAll('#calls tbody tr').length === 1")
        window.click("#pause")
        assert window.run("return document.querySelector('#pause').getAttribute('aria-pressed')") == "true"
        call(gateway, "sum_add")
        window.click("#pause")
        window.wait("document.querySelectorAll('#calls tbody tr').length === 2")
        call(gateway, "sum_add", code=-32603)
        window.wait("document.querySelectorAll('#calls tbody tr').length === 3")
        window.click("#failed")
        assert window.run("return document.querySelector('#calls tbody').innerText").count("sum_add") == 1
        window.type("#filter", "notes")
        assert window.run("return [...document.querySelectorAll('#tools code')].map((e) => e.innerText)") == [
            "notes_find"
        ]
        # By the keyboard: the chart says what is under its cursor.
        window.type("#chart", "\ue012\ue012")
        assert "call" in window.run("return document.querySelector('#point').innerText")
    window.wait("!document.querySelector('#notice').hidden")
    assert "does not answer" in window.run("return document.querySelector('#notice').innerText")
    window.open("about:blank")
    window.log()


def test_a_key_is_asked_for_and_stays_in_the_window(window: Any) -> None:
    gateway, _ = ruled()
    paths: list[Any] = []
    app = gateway.wsgi

    def noting(environ: Any, start_response: Any) -> Any:
        paths.append((environ["PATH_INFO"], environ.get("QUERY_STRING"), environ.get("HTTP_AUTHORIZATION")))
        return app(environ, start_response)

    with embedded(noting) as listening:
        window.look(1000, 800)
        window.open(listening.url + "/")
        window.wait("!document.querySelector('#sign-in').hidden")
        assert window.run("return document.activeElement.id") == "key"
        window.type("#key", "no such key\ue007")
        window.wait("document.querySelector('#wrong').innerText.includes('no spaces')")
        window.type("#key", "no-such-key-0123456789\ue007")
        window.wait("document.querySelector('#wrong').innerText.includes('does not know this key')")
        window.type("#key", KEYS["bob"] + "\ue007")
        window.wait("document.querySelectorAll('#tools li').length === 1")
        assert "seen by\u00a0bob" in window.run("return document.querySelector('#facts').innerText")
        assert "your own calls" in window.run("return document.querySelector('#footer').innerText")
        known = get(gateway, "/status.json", "bob").json["toolsId"]
        window.wait("performance.getEntriesByType('resource').some((each) => each.name.includes('?tools='))")
        assert window.run("return document.querySelectorAll('#tools li').length") == 1
        # It survives a reload of this window, and nothing else.
        window.open(listening.url + "/")
        window.wait("document.querySelectorAll('#tools li').length === 1")
        assert window.run("return [document.cookie, localStorage.length]") == ["", 0]
        window.click("#leave")
        window.wait("!document.querySelector('#sign-in').hidden")
        assert window.run("return sessionStorage.length") == 0
        assert window.run("return document.querySelector('#app').textContent").count("sum") == 0
        assert KEYS["bob"] not in "".join(path + query for path, query, _ in paths)
        assert ("/status.json", "", f"Bearer {KEYS['bob']}") in paths
        assert {query for path, query, _ in paths if path == "/status.json" and query} == {f"tools={known}"}
        window.open("about:blank")
    window.log()
