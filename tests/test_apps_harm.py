"""Pages in a browser that mean harm, and the official kit of pages: shown by a host that has our client behind it."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from minimcp import Server
from minimcp.protocol.content import Raw
from tests.app_host import HERE, AppHost, showing, texts
from tests.browser import Browser, browser
from tests.embedded import embedded, wait_until
from tests.test_apps_example import ARGUMENTS, planner
from tests.test_peers import ROOT, node, peer_file

PAGE = "ui://test/page.html"
KIT = ("node", "node_modules", "@modelcontextprotocol", "ext-apps", "dist", "src")


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as found:
        yield found


def part(name: str, **words: str) -> str:
    """A file of `tests/apps`, with `{{NAME}}` replaced."""
    found = (HERE / name).read_text("utf-8")
    for word, text in words.items():
        found = found.replace("{{" + word + "}}", text)
    return found


GREET = part("greet.js")


@contextlib.contextmanager
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """Another site, and the paths that were asked for there."""
    paths: list[str] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        paths.append(environ["PATH_INFO"])
        headers = [("Content-Type", "text/plain"), ("Content-Length", "2"), ("Access-Control-Allow-Origin", "*")]
        start_response("200 OK", headers)
        return [b"ok"]

    with embedded(app) as listening:
        yield f"http://127.0.0.1:{listening.port}", paths


def serving_page(html: str, **ui: Any) -> Server:
    server = Server("s")

    @server.tool(ui=server.page(PAGE, html, ui=ui or None))
    def show() -> str:
        return "shown"

    @server.tool(ui={"visibility": ["model"]})
    def secret() -> str:
        return "secret"

    return server


def test_a_page_that_means_harm_reaches_nothing(window: Browser) -> None:
    """Spec: EXT-105 to EXT-109, EXT-117"""
    logged: list[Any] = []
    with elsewhere() as (site, paths):
        options = {"handlers": {"notifications/message": logged.append, "ui/open-link": logged.append}}
        html = part("harm.html", greet=GREET, site=site)
        arguments = {"x": "</script><img src=x onerror=alert(1)>"}
        with showing(window, serving_page(html), "show", arguments, **options) as host:
            assert host.page.html == html
            host.wait("notifications/message")
            window.enter()
            window.wait("document.getElementById('frame').style.height === '2000px'")
            tried = dict(logged[0]["data"])
            denied = ("document of the host", "document of the sandbox", "storage", "top", "sandbox", "fetch", "eval")
            assert [each for each in denied if tried[each] != "no"] == []
            assert tried["popup"] == "null" and tried["socket"] == "no"
            # The host is as it was, and shows the words of others as words.
            assert window.run("return [document.title, document.querySelectorAll('img, iframe').length]") == ["Host", 1]
            assert window.run("return document.getElementById('said').textContent").endswith('onerror=alert(1)>"}')
            heard = [(each.get("id"), each.get("method")) for each in host.heard]
            assert (7, "tools/call") not in heard and not [each for each in heard if "sandbox-" in str(each[1])]
            told = {each["id"]: each["error"]["code"] for each in host.told if "error" in each}
            assert told == {8: -32602, 9: -32602} and len(logged) == 1
        assert paths == []


WAYS_OUT = [
    "location.href = URL",
    "document.head.innerHTML = '<meta http-equiv=refresh content=\\'0; url=' + URL + '\\'>'",
]


@pytest.mark.parametrize("way", WAYS_OUT)
def test_a_page_does_not_leave_its_frame(window: Browser, way: str) -> None:
    with elsewhere() as (site, paths):
        script = f"{GREET} const URL = '{site}/gone'; greet().then(() => {{ {way}; }});"
        page = serving_page(f"<!doctype html><head></head><script>{script}</script>")
        with showing(window, page, "show", {}):
            window.enter("#frame")
            window.wait("window.violated === 'frame-src'")
            assert paths == []


def test_a_page_loads_from_the_domains_that_it_declares_and_from_no_others(window: Browser) -> None:
    """Spec: EXT-107"""
    logged: list[Any] = []
    with elsewhere() as (site, paths), elsewhere() as (other, others):
        script = f"""
        const load = (url) => fetch(url).then((answer) => answer.text(), () => "no");
        greet().then(async () => {{
          const found = [await load("{site}/a"), await load("{other}/b")];
          post({{method: "notifications/message", params: {{level: "info", data: found}}}});
        }});"""
        server = serving_page(f"<!doctype html><script>{GREET}{script}</script>", csp={"connectDomains": [site]})
        with showing(window, server, "show", {}, handlers={"notifications/message": logged.append}) as host:
            host.wait("notifications/message")
        assert logged[0]["data"] == ["ok", "no"] and paths == ["/a"] and others == []


def test_a_name_of_a_tool_is_words_to_the_host(window: Browser) -> None:
    name = '"><script>document.title = "owned"</script><img src=x onerror=alert(1)>/../..'
    server = serving_page(f"<!doctype html><script>{GREET} greet()</script>")
    tools = server.engine.registry.tools
    entry = tools["show"]
    tools[name] = entry
    entry.definition = {**entry.definition, "name": name}
    entry.function = lambda: Raw(content=[])
    with showing(window, server, name, {}) as host:
        window.enter()
        assert window.run("return [document.title, document.querySelectorAll('img').length]") == ["Host", 0]
        assert window.run("return document.getElementById('said').textContent") == name + " {}"
        host.call()
        assert host.page.uri == PAGE


# The official packages


def test_what_is_said_fits_the_official_schema(window: Browser) -> None:
    import jsonschema

    with open(peer_file(*KIT, "generated", "schema.json"), encoding="utf-8") as opened:
        schema = json.load(opened)
    schema["$defs"].setdefault("__schema0", True)  # which it names, but does not have
    sent: list[Any] = []
    context = {"locale": "en-GB", "availableDisplayModes": ["inline"]}
    options: dict[str, Any] = {"handlers": {"ui/message": sent.append}, "context": context}
    with showing(window, planner(), "plan_meeting", ARGUMENTS, **options) as host:
        host.call()
        window.wait("!document.getElementById('use').disabled")
        window.click("#use")
        window.wait("!document.getElementById('said').hidden")
        host.tell(host.view.change(theme="dark"), "dark")
        window.wait("document.documentElement.style.colorScheme === 'dark'")
        window.click("#done")
        assert host.view.closed.wait(20)
        shapes = {
            shape["properties"]["method"]["const"]: name
            for name, shape in schema["$defs"].items()
            if isinstance(shape, dict) and "const" in shape.get("properties", {}).get("method", {})
        }
        shapes["ui/notifications/sandbox-resource-ready"] = "McpUiSandboxResourceReadyNotification"
        seen = set()
        for message in [*host.heard, *host.told]:
            method = message.get("method", "")
            if method in shapes:
                seen.add(method)
                said = {"method": method, "params": message.get("params", {})}
                shape = {**schema, "$ref": f"#/$defs/{shapes[method]}"}
                jsonschema.Draft202012Validator(shape).validate(said)
        greeting = next(each["result"] for each in host.told if each.get("id") == 1 and "result" in each)
        # Its two sides are closed against each other there, so that no value fits.
        assert greeting["hostContext"].pop("containerDimensions") == {"maxHeight": 2000}
        jsonschema.Draft202012Validator({**schema, "$ref": "#/$defs/McpUiInitializeResult"}).validate(greeting)
        assert seen >= {
            *("ui/initialize", "ui/notifications/initialized", "ui/notifications/size-changed", "ui/message"),
            *("ui/notifications/tool-input", "ui/notifications/tool-result", "ui/notifications/request-teardown"),
            *("ui/resource-teardown", "ui/notifications/host-context-changed"),
        }


def test_a_page_made_with_the_official_kit_is_shown(window: Browser) -> None:
    with open(peer_file(*KIT, "app-with-deps.js"), encoding="utf-8") as opened:
        kit = opened.read()
    exported = re.search(r"[{,](\w+) as App[,}]", kit)
    assert exported is not None
    asked: list[Any] = []
    methods = ("ui/message", "ui/open-link", "ui/update-model-context", "notifications/message")
    handlers = dict.fromkeys((*methods, "ui/request-display-mode"), asked.append)
    context = {"availableDisplayModes": ["inline", "fullscreen"]}
    server = serving_page(part("kit.html", App=exported[1], kit=kit.replace("</script", "<\\/script")))
    with showing(window, server, "show", {}, handlers=handlers, context=context) as host:
        # Its frame would go as soon as it has answered, with all that it found.
        host.view.closed.set = lambda: None  # type: ignore[method-assign]
        host.call()
        window.wait("found.some(([name]) => name === 'teardown')")
        said = window.run("return found")
        found = {name: value for name, *value in said}
        assert "problem" not in found, found
        assert found["input"] == [{}] and found["result"] == [[{"type": "text", "text": "shown"}]]
        assert found["host"] == ["light", "minimcp"]
        calls = [value for name, *value in said if name == "call"]
        assert calls == [[[{"type": "text", "text": "shown"}]], [["refused", -32602]]]
        assert found["mode"] == ["fullscreen"] and found["message"] == [{}] and found["link"] == [{}]
        assert len(asked) == 5
        wait_until(lambda: {"id": "teardown", "jsonrpc": "2.0", "result": {}} in host.heard)


class Bridge:
    """The official bridge of a host, in a process of its own, in place of our view.

    :ivar said: what it says of the page.
    """

    def __init__(self, host: AppHost) -> None:
        command = [*node(), str(ROOT / "tests" / "peers" / "app_bridge.mjs"), peer_file("node")]
        peer_file(*KIT, "app-bridge.js")
        self.host, self.closed = host, threading.Event()
        self.said: dict[str, Any] = {}
        self._changed = threading.Condition()  # guards said
        self.child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        self.wait("ready")

    def _read(self) -> None:
        assert self.child.stdout is not None
        for line in self.child.stdout:
            found = json.loads(line)
            if "post" in found:
                self.host.tell([found["post"]])
            elif "call" in found:
                called = self.host.client.call_tool(found["call"]["name"], found["call"]["arguments"])
                self.write(answer=dict(called))
            else:
                with self._changed:
                    self.said[found["said"][0]] = found["said"][1]
                    self._changed.notify_all()

    def wait(self, what: str) -> Any:
        with self._changed:
            assert self._changed.wait_for(lambda: what in self.said, 20), self.said
            return self.said[what]

    def write(self, **line: Any) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps(line) + "\n")
        self.child.stdin.flush()

    def receive(self, message: Any) -> list[Any]:
        self.write(message=message)
        return []

    def end(self) -> None:
        assert self.child.stdin is not None and self.child.stdout is not None
        self.child.stdin.close()
        self.reader.join(20)
        self.child.stdout.close()
        assert self.child.wait(20) == 0


def test_the_example_is_shown_by_the_official_bridge(window: Browser) -> None:
    bridges: list[Bridge] = []

    def bridged(host: AppHost) -> Any:
        bridges.append(Bridge(host))
        return bridges[0]

    try:
        with showing(window, planner(), "plan_meeting", ARGUMENTS, make_view=bridged) as host:
            (bridge,) = bridges
            bridge.wait("initialized")
            bridge.write(input=ARGUMENTS)
            bridge.write(result=dict(host.client.call_tool("plan_meeting", ARGUMENTS)))
            window.wait("!document.getElementById('use').disabled")
            assert texts(window, ".time") == ["13:00", "07:00", "20:00"]
            window.type("#city", "kath")
            window.wait("document.querySelectorAll('#found button').length === 1")
            window.click("#found button")
            window.wait("document.querySelectorAll('#rows li').length === 4")
            window.click("#use")
            assert bridge.wait("message")["content"][0]["text"].startswith(
                "Let us meet on Tuesday 28 July: 13:00 in Oslo"
            )
            bridge.write(theme="dark")
            window.wait("document.documentElement.style.colorScheme === 'dark'")
            window.click("#done")
            assert bridge.wait("torn down") == {}
            assert bridge.said["size"].keys() == {"width", "height"} and "problem" not in bridge.said
    finally:
        for each in bridges:
            each.end()
