"""MCP Apps: tools with pages on the wire, what a host reads of them, and what a page and its host say to each other."""

from __future__ import annotations

import base64
import logging
from typing import Any

import pytest

from minimcp import Client, Context, ProtocolError, Raw, Server
from minimcp.client.tool_page import for_model
from minimcp.extensions.apps import Apps, shows_pages
from minimcp.protocol import app_pages
from tests.gateways import client_of, gateway_of
from tests.helpers import Legacy, modern, problem, result

UI = "io.modelcontextprotocol/ui"
MIME = "text/html;profile=mcp-app"
HTML = "<!doctype html><title>Clock</title><p>Ø"
PAGE = "ui://clock/page.html"
HOST = {"extensions": {UI: {"mimeTypes": [MIME]}}}
NOTHING = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'none'; media-src 'self' data:; connect-src 'none'; frame-src 'none'; object-src 'none'; "
    "base-uri 'self'; form-action 'none'"
)
BOTH = pytest.mark.parametrize("mode", ["2025-11-25", "2026-07-28"])


def clock(**ui: Any) -> Server:
    """A server with a page, the tool that it is for, one that only the page may call, and one that only a model may."""
    server = Server("clock")
    server.page(PAGE, HTML, ui=ui or None)

    @server.tool(ui=PAGE)
    def now(zone: str = "UTC") -> dict[str, Any]:
        """Say what time it is."""
        return {"zone": zone, "time": "12:00"}

    @server.tool(ui={"resourceUri": PAGE, "visibility": ["app"]})
    def zones(beginning: str = "") -> str:
        """List zones."""
        return "Europe/Oslo"

    @server.tool(ui={"visibility": ["model"]})
    def wind_up() -> str:
        """Wind up the clock."""
        return "done"

    return server


# Tools and pages on the wire


@BOTH
def test_a_tool_names_its_page_and_the_page_has_its_settings(mode: str) -> None:
    """Spec: EXT-094 to EXT-098"""
    ui = {
        "csp": {"connectDomains": ["https://api.example", "wss://api.example:8443"], "resourceDomains": []},
        "permissions": {"camera": {}, "clipboardWrite": {}},
        "domain": "a904794854a047f6.example.com",
        "prefersBorder": False,
    }
    server = clock(**ui)
    if mode == "2026-07-28":
        ask = lambda method, **params: result(server, method, **params)  # noqa: E731
        capabilities = ask("server/discover")["capabilities"]
    else:
        session = Legacy(server, mode)
        ask, capabilities = session.result, session.hello["capabilities"]
    assert capabilities["extensions"] == {UI: {}}
    assert [tool.get("_meta") for tool in ask("tools/list")["tools"]] == [
        {"ui": {"resourceUri": "ui://clock/page.html"}},
        {"ui": {"resourceUri": "ui://clock/page.html", "visibility": ["app"]}},
        {"ui": {"visibility": ["model"]}},
    ]
    listed = {"name": "page.html", "uri": "ui://clock/page.html", "mimeType": MIME, "_meta": {"ui": ui}}
    assert ask("resources/list")["resources"] == [listed]
    read = {"uri": "ui://clock/page.html", "mimeType": MIME, "text": HTML, "_meta": {"ui": ui}}
    assert ask("resources/read", uri=PAGE)["contents"] == [read]


@BOTH
@pytest.mark.parametrize("extensions", [{}, {UI: {"mimeTypes": [MIME]}}])
def test_the_answer_is_the_same_text_for_clients_with_and_without_pages(mode: str, extensions: Any) -> None:
    """Spec: EXT-101"""
    with Client(clock(), mode=mode, extensions=extensions) as client:
        found = client.call_tool("now", zone="Oslo")
        assert found["content"] == [{"type": "text", "text": '{"zone":"Oslo","time":"12:00"}'}]
        assert found.data == {"zone": "Oslo", "time": "12:00"}


def test_settings_of_a_page_are_left_out_where_there_are_none() -> None:
    (contents,) = result(clock(), "resources/read", uri=PAGE)["contents"]
    assert contents == {"uri": PAGE, "mimeType": MIME, "text": HTML}


def test_what_else_meta_has_stays_beside_the_page_and_the_deprecated_key_is_not_written() -> None:
    """Spec: EXT-099"""
    server = Server("s")
    server.tool(lambda: "x", "t", ui=server.page(PAGE, HTML, meta={"com.example/a": 1}), meta={"com.example/b": 2})
    (tool,) = result(server, "tools/list")["tools"]
    assert tool["_meta"] == {"com.example/b": 2, "ui": {"resourceUri": PAGE}}
    (page,) = result(server, "resources/list")["resources"]
    assert page["_meta"] == {"com.example/a": 1}


def test_servers_without_pages_do_not_speak_the_extension() -> None:
    """Spec: EXT-008"""
    server = Server("s")
    server.tool(lambda: "x", "t")
    assert "extensions" not in result(server, "server/discover")["capabilities"]
    server.use(Apps())
    assert result(server, "server/discover")["capabilities"]["extensions"] == {UI: {}}


def test_a_tool_with_a_page_may_be_a_task() -> None:
    server = clock()
    server.tool(lambda: "x", "long", task=True, ui=PAGE)
    with Client(server, tasks=True) as client:
        assert client.call_tool("long").text == "x"
        tool = next(each for each in client.list_tools() if each["name"] == "long")
        assert tool["_meta"] == {"ui": {"resourceUri": PAGE}}


# Mistakes are told at registration


HOSTILE_URIS = [
    *("https://clock.example/page.html", "UI://clock/page.html", "ui://", "ui:clock", "page.html", "", 5),
    *("ui://clock/{page}", 'ui://clock/"><script>alert(1)</script>', "ui://clock/'onload=x", "ui://clock/a b"),
    *("ui://clock/../other", "ui://../etc", "ui://clock/%2e%2E/x", "ui://clock/./x", "ui://clock\\x", "ui://clock/\nx"),
    "ui://" + "x" * 3000,
]


@pytest.mark.parametrize("uri", HOSTILE_URIS)
def test_the_uri_of_a_page_leads_nowhere_else(uri: Any) -> None:
    server = Server("s")
    with pytest.raises(ValueError, match=r"is not the URI of a page; write it like ui://clock/page\.html"):
        server.tool(lambda: "x", "t", ui={"resourceUri": uri})
    if isinstance(uri, str) and "{" not in uri:
        with pytest.raises(ValueError):
            server.page(uri, HTML, ui={})
    assert not server.engine.registry.tools and not server.engine.registry.resources


@pytest.mark.parametrize(
    "ui, words",
    [
        ({"uri": PAGE}, "t: ui= has no 'uri'; there are resourceUri, visibility"),
        ({"csp": {}}, "t: ui= has no 'csp'; there are resourceUri, visibility; that is for the page: server.page"),
        ({"visibility": []}, 't: visibility is a list of "model" and "app", not []'),
        ({"visibility": "app"}, 't: visibility is a list of "model" and "app", not \'app\''),
        ({"visibility": ["app", "host"]}, 't: visibility is a list of "model" and "app"'),
        ({"visibility": [["app"]]}, 't: visibility is a list of "model" and "app"'),
        ([PAGE], "t: ui= is a dict with resourceUri, visibility, not"),
    ],
)
def test_a_wrong_link_of_a_tool_is_refused(ui: Any, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        Server("s").tool(lambda: "x", "t", ui=ui)
    assert words in str(caught.value)


HOSTILE_ORIGINS = [
    *("https://a.example; script-src *", "https://a.example script-src", "https://a.example;", "https://a.example\n"),
    *(
        "*",
        "https:",
        "https://*",
        "https://*.com",
        "'unsafe-eval'",
        "'self'",
        "data:",
        "blob:",
        "a.example",
        "//a.example",
    ),
    *(
        "https://a.example/path",
        "https://a.example?x",
        "https://a.example#x",
        "https://user@a.example",
        "ftp://a.example",
    ),
    *(
        "https://a.example,b.example",
        "https://a..example",
        "https://-a.example",
        "https://ä.example",
        "https://a.*.example",
    ),
    *(
        "https://a.example:0",
        "https://a.example:99999",
        "https://a.example:",
        "javascript://a.example",
        "",
        None,
        7,
        ["x"],
    ),
    *("https://" + "a" * 64 + ".example", "https://" + "a." * 200 + "example", "https://a.example\u2028"),
]


@pytest.mark.parametrize("origin", HOSTILE_ORIGINS)
def test_a_domain_that_could_be_read_as_more_is_refused(origin: Any) -> None:
    for member in ("connectDomains", "resourceDomains", "frameDomains", "baseUriDomains"):
        with pytest.raises(ValueError, match=f"in {member} is no domain; write domains like https://api.example"):
            Server("s").page(PAGE, HTML, ui={"csp": {member: ["https://good.example", origin]}})
    assert app_pages.is_origin(origin) is False


GOOD_ORIGINS = [
    *("https://a.example", "http://localhost:3000", "wss://a.example", "ws://127.0.0.1:*", "https://*.a.example"),
    *("https://A.Example/", "https://a_b.c-d.example:8443", "https://*.a.b.example:443"),
]


@pytest.mark.parametrize("origin", GOOD_ORIGINS)
def test_a_domain_is_an_origin(origin: str) -> None:
    server = Server("s")
    server.page(PAGE, HTML, ui={"csp": {"connectDomains": [origin]}})
    (contents,) = result(server, "resources/read", uri=PAGE)["contents"]
    assert contents["_meta"]["ui"]["csp"] == {"connectDomains": [origin]}


@pytest.mark.parametrize(
    "ui, words",
    [
        ({"csp": {"connectDomains": "https://a.example"}}, "connectDomains is no list"),
        ({"csp": {"connectDomains": ["https://a.example"] * 101}}, "connectDomains has more than 100 domains"),
        ({"csp": {"scriptDomains": []}}, "csp has no 'scriptDomains'; there are connectDomains, resourceDomains"),
        ({"csp": "default-src *"}, "csp is a dict with connectDomains"),
        ({"permissions": {"usb": {}}}, "permissions has no 'usb'; there are camera, microphone, geolocation"),
        ({"permissions": ["camera"]}, "permissions is a dict with camera"),
        ({"prefersBorder": "yes"}, "prefersBorder is True or False, not 'yes'"),
        ({"domain": "a b"}, "domain is an origin as a host's documentation names it, not 'a b'"),
        ({"border": True}, "ui= has no 'border'; there are csp, permissions, domain, prefersBorder"),
    ],
)
def test_wrong_settings_of_a_page_are_refused(ui: Any, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        Server("s").page(PAGE, HTML, ui=ui)
    assert str(caught.value).startswith("ui://clock/page.html: ") and words in str(caught.value)


def test_a_page_is_described_once_and_ui_is_for_pages() -> None:
    server = Server("s")
    for meta in ({"ui": {"resourceUri": PAGE}}, {"ui/resourceUri": PAGE}):
        with pytest.raises(ValueError, match="ui= and meta= both describe a page"):
            server.tool(lambda: "x", "t", ui=PAGE, meta=meta)
    with pytest.raises(ValueError, match="both describe a page"):
        server.page(PAGE, HTML, ui={"prefersBorder": True}, meta={"ui": {}})
    with pytest.raises(ValueError, match="is no page of MCP Apps, which ui= is for; their URIs begin with ui://"):
        server.resource("config://app", ui={})(lambda: "x")
    with pytest.raises(TypeError, match=r"@server.tool has no option uii; did you mean ui\?"):
        server.tool(lambda: "x", "t", uii=PAGE)  # type: ignore[call-overload]


def test_the_scheme_of_pages_is_for_nothing_else() -> None:
    """Spec: EXT-118"""
    server = Server("s")
    for media_type in ("text/html", "text/uri-list", "application/json"):
        with pytest.raises(ValueError, match="ui:// is for pages of MCP Apps; leave out mime_type=, or write another"):
            server.resource("ui://clock/data", mime_type=media_type)(lambda: HTML)
    server.resource("ui://clock/data", mime_type='text/html; profile="mcp-app"')(lambda: HTML)
    (listed,) = result(server, "resources/list")["resources"]
    assert listed["mimeType"] == MIME


# The text of a page


@pytest.mark.parametrize(
    "html",
    [
        "<p>x",
        "<html><body>x",
        "<!-- <!doctype html> --><p>x",
        "<!doctype htm><p>",
        "<!doctype svg>",
        "x <!doctype html>",
    ],
)
def test_a_page_is_a_whole_document(html: str, caplog: Any) -> None:
    """Spec: EXT-095"""
    server = Server("s")
    with pytest.raises(ValueError, match="a page is a whole HTML document: begin it with <!doctype html>"):
        server.page(PAGE, html)
    server.resource(PAGE)(lambda: html)
    assert problem(server, "resources/read", uri=PAGE)["code"] == -32603
    assert "begin it with <!doctype html>" in caplog.text


@pytest.mark.parametrize(
    "html",
    [
        "<!DOCTYPE HTML>",
        "\ufeff<!doctype html>x",
        "\n <!-- made - by -- hand -->\n<!doctype  html >",
        '<!doctype html SYSTEM "about:legacy-compat">',
    ],
)
def test_a_document_begins_in_one_of_several_ways(html: str) -> None:
    server = Server("s")
    server.page(PAGE, html)
    assert result(server, "resources/read", uri=PAGE)["contents"][0]["text"] == html


def test_a_file_is_read_each_time_and_checked_at_registration(tmp_path: Any, caplog: Any) -> None:
    server, file = Server("s"), tmp_path / "page.html"
    with pytest.raises(FileNotFoundError):
        server.page(PAGE, file)
    file.write_text("<p>x")
    with pytest.raises(ValueError, match="whole HTML document"):
        server.page(PAGE, file)
    file.write_text(HTML, "utf-8")
    assert server.page(PAGE, file, title="Clock") == PAGE
    (listed,) = result(server, "resources/list")["resources"]
    assert listed == {"name": "page.html", "title": "Clock", "uri": PAGE, "mimeType": MIME}
    assert result(server, "resources/read", uri=PAGE)["contents"][0]["text"] == HTML
    file.write_text(HTML + "!", "utf-8")
    assert result(server, "resources/read", uri=PAGE)["contents"][0]["text"] == HTML + "!"
    file.unlink()
    gone = problem(server, "resources/read", uri=PAGE)
    assert gone["code"] == -32603 and str(tmp_path) not in gone["message"]
    with pytest.raises(ValueError, match=r"'page.html' is no HTML; a file is given as its Path: Path\('page.html'\)"):
        server.page(PAGE, "page.html")


def test_a_page_that_no_host_would_take_is_refused(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(app_pages, "MAX_PAGE_BYTES", 40)
    file = tmp_path / "page.html"
    file.write_text("<!doctype html>" + "ø" * 13, "utf-8")
    with pytest.raises(ValueError, match="a page has at most 40 bytes"):
        Server("s").page(PAGE, file)
    file.write_text("<!doctype html>" + "x" * 25, "utf-8")
    Server("s").page(PAGE, file)


def test_a_function_makes_a_page_and_a_template_many() -> None:
    server = Server("s")

    @server.resource("ui://clock/{city}", ui={"prefersBorder": True})
    def page(city: str) -> Any:
        """The clock of a city."""
        if city == "Nowhere":
            return None
        if city == "Raw":
            return Raw(contents=[{"uri": "ui://clock/Raw", "mimeType": MIME, "text": "<p>as it is"}])
        if city == "Data":
            return {"city": city}
        return f"<!doctype html><p>{city}".encode()

    (listed,) = result(server, "resources/templates/list")["resourceTemplates"]
    assert listed["mimeType"] == MIME and listed["_meta"] == {"ui": {"prefersBorder": True}}
    (contents,) = result(server, "resources/read", uri="ui://clock/Oslo")["contents"]
    assert contents == {
        "uri": "ui://clock/Oslo",
        "mimeType": MIME,
        "text": "<!doctype html><p>Oslo",
        "_meta": {"ui": {"prefersBorder": True}},
    }
    assert problem(server, "resources/read", uri="ui://clock/Nowhere")["code"] == -32602
    assert Legacy(server).problem("resources/read", uri="ui://clock/Nowhere")["code"] == -32002
    assert result(server, "resources/read", uri="ui://clock/Raw")["contents"][0]["text"] == "<p>as it is"
    assert problem(server, "resources/read", uri="ui://clock/Data")["code"] == -32603
    # A name never leaves its place.
    for uri in ("ui://clock/..", "ui://clock/%2e%2e%2fetc", "ui://clock/a/b", "ui://clock/%00"):
        assert problem(server, "resources/read", uri=uri)["code"] == -32602


# The link between both


def test_a_tool_whose_page_is_missing_is_told_when_the_server_first_serves(caplog: Any) -> None:
    """Spec: EXT-097"""
    server = clock()
    server.resource("ui://cities/{name}")(lambda name: HTML)
    server.tool(lambda: "x", "near", ui="ui://clock/pag.html")
    server.tool(lambda: "x", "far", ui="ui://else/where")
    server.tool(lambda: "x", "of_a_template", ui="ui://cities/oslo")
    server.tool(lambda: "x", "by_hand", meta={"ui": {"resourceUri": "ui://by/hand"}})
    assert not caplog.records
    for _ in range(2):
        result(server, "tools/list")
    assert [record.getMessage() for record in caplog.records] == [
        "the tool 'near' names the page ui://clock/pag.html, which is not there; did you mean ui://clock/page.html?",
        "the tool 'far' names the page ui://else/where, which is not there; "
        'register it: server.page("ui://else/where", html)',
        "the tool 'by_hand' names the page ui://by/hand, which is not there; "
        'register it: server.page("ui://by/hand", html)',
    ]
    caplog.clear()
    server.tool(lambda: "x", "later", ui=PAGE)
    server.tool(lambda: "x", "too_early", ui="ui://else/where")
    assert [record.getMessage()[:20] for record in caplog.records] == ["the tool 'too_early'"]


@pytest.mark.parametrize(
    "settings, rendered",
    [
        ({"mimeTypes": [MIME]}, True),
        ({"mimeTypes": ["text/plain", 'TEXT/HTML; profile="mcp-app"']}, True),
        ({"mimeTypes": []}, False),
        ({"mimeTypes": ["text/html"]}, False),
        ({"mimeTypes": MIME}, False),
        ({"mimeTypes": [None, {}]}, False),
        ({"mimeTypes": {MIME: True}}, False),
        ({}, False),
        (None, False),
        ([MIME], False),
    ],
)
def test_a_tool_knows_whether_its_pages_are_shown(settings: Any, rendered: bool) -> None:
    """Spec: EXT-092, EXT-093, EXT-012"""
    server = clock()

    @server.tool
    def shown(ctx: Context) -> str:
        return str(shows_pages(ctx))

    capabilities = {"extensions": {UI: settings}}
    found = result(server, "tools/call", name="shown", capabilities=capabilities)
    assert found["content"][0]["text"] == str(rendered)
    assert result(server, "tools/call", name="shown")["content"][0]["text"] == "False"
    for version in ("2024-11-05", "2025-11-25"):
        found = Legacy(server, version, **capabilities).result("tools/call", name="shown")
        assert found["content"][0]["text"] == str(rendered)


# What a host reads


@BOTH
def test_a_host_declares_the_media_type_of_pages(mode: str) -> None:
    """Spec: EXT-092"""
    sent: list[Any] = []
    server = clock()

    @server.tool
    def shown(ctx: Context) -> str:
        return str(shows_pages(ctx))

    with Client(server, mode=mode, apps=True, trace=sent.append) as client:
        assert client.call_tool("shown").text == "True"
        assert client.settings.extensions == {UI: {"mimeTypes": ["text/html;profile=mcp-app"]}}
    with Client(server, mode=mode) as client:
        assert client.call_tool("shown").text == "False"
    assert '"io.modelcontextprotocol/ui": {"mimeTypes": ["text/html;profile=mcp-app"]}' in str(sent).replace("'", '"')


@BOTH
def test_a_host_gets_the_page_with_its_policy_and_permissions(mode: str) -> None:
    """Spec: EXT-103, EXT-107, EXT-108"""
    csp = {
        "connectDomains": ["https://api.example", "wss://live.example"],
        "resourceDomains": ["https://*.cdn.example"],
        "frameDomains": ["https://video.example"],
        "baseUriDomains": ["https://cdn.example"],
    }
    permissions = {"camera": {}, "clipboardWrite": {}}
    with Client(clock(csp=csp, permissions=permissions, prefersBorder=True), mode=mode, apps=True) as client:
        page = client.app("now")
        assert page is not None
        assert (page.uri, page.html, page.tool["name"]) == (PAGE, HTML, "now")
        assert page.policy == (
            "default-src 'none'; script-src 'self' 'unsafe-inline' https://*.cdn.example; "
            "style-src 'self' 'unsafe-inline' https://*.cdn.example; img-src 'self' data: https://*.cdn.example; "
            "font-src 'self' https://*.cdn.example; media-src 'self' data: https://*.cdn.example; "
            "connect-src https://api.example wss://live.example; frame-src https://video.example; object-src 'none'; "
            "base-uri https://cdn.example; form-action 'none'"
        )
        assert page.allow == "camera; clipboard-write"
        assert page.domains == [
            *("https://*.cdn.example", "https://api.example", "https://cdn.example", "https://video.example"),
            "wss://live.example",
        ]
        assert page.resource_ready == {"html": HTML, "csp": csp, "permissions": permissions}
        assert page.ui["prefersBorder"] is True


def test_a_page_that_declares_nothing_may_load_nothing(caplog: Any) -> None:
    """Spec: EXT-107, EXT-108, EXT-117"""
    caplog.set_level(logging.INFO, "minimcp")
    with Client(clock(), apps=True) as client:
        page = client.app("now")
        assert page is not None and page.policy == NOTHING
        assert (page.allow, page.domains, page.resource_ready) == ("", [], {"html": HTML})
        assert client.app("wind_up") is None
        with pytest.raises(ProtocolError, match=r"There is no tool 'nov'; did you mean now\?"):
            client.app("nov")
    assert f"the page ui://clock/page.html of now has the policy {NOTHING}" in caplog.text


def strange(contents: Any, meta: Any = None, listed: Any = None) -> Server:
    """A server whose page and links are what no checked one would be."""
    server = Server("s")
    server.tool(lambda: "x", "t", meta={"ui": {"resourceUri": PAGE}} if meta is None else meta)
    server.resource("page://x")(lambda: Raw(contents=contents))
    entry = server.engine.registry.resources.pop("page://x")
    entry.definition = {"uri": PAGE, "name": "page", **({"_meta": listed} if listed else {})}
    server.engine.registry.resources[PAGE] = entry
    return server


GOOD = {"uri": PAGE, "mimeType": MIME, "text": HTML}


@pytest.mark.parametrize(
    "contents, words",
    [
        ([], "is not text/html;profile=mcp-app"),
        ([{**GOOD, "mimeType": "text/html"}], "is not text/html;profile=mcp-app"),
        ([{**GOOD, "mimeType": "text/uri-list", "text": "https://evil.example"}], "is not text/html;profile=mcp-app"),
        ([{**GOOD, "text": "<p>x"}], "begin it with <!doctype html>"),
        ([{"uri": PAGE, "mimeType": MIME, "blob": "?"}], "The page cannot be shown"),
        (
            [{"uri": PAGE, "mimeType": MIME, "blob": base64.b64encode(b"<!doctype html>\xff").decode()}],
            "cannot be shown",
        ),
        (
            [{"uri": PAGE, "mimeType": MIME, "blob": base64.b64encode(b"<p>x").decode()}],
            "begin it with <!doctype html>",
        ),
        ([{"uri": PAGE, "mimeType": MIME}], "begin it with <!doctype html>"),
        ([{**GOOD, "text": ["<!doctype html>"]}], "its text is no text"),
        (["x", None, 5], "is not text/html;profile=mcp-app"),
        ("x", "is not text/html;profile=mcp-app"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_host_does_not_show_what_is_no_page(contents: Any, words: str, monkeypatch: Any) -> None:
    from tests import official

    with Client(strange(contents), apps=True) as client:
        with pytest.raises(ProtocolError) as caught:
            client.app("t")
        assert words in str(caught.value)
    official.violations.clear()  # of the server, which is none of ours


def test_a_host_bounds_the_size_of_a_page(monkeypatch: Any) -> None:
    monkeypatch.setattr(app_pages, "MAX_PAGE_BYTES", 20)
    with (
        Client(strange([GOOD]), apps=True) as client,
        pytest.raises(ProtocolError, match="a page has at most 20 bytes"),
    ):
        client.app("t")


def test_a_host_reads_a_blob_the_deprecated_key_and_the_first_page_among_others() -> None:
    blob = {"uri": PAGE, "mimeType": 'text/html; profile="mcp-app"', "blob": base64.b64encode(HTML.encode()).decode()}
    other = {"uri": PAGE, "mimeType": "text/plain", "text": "x"}
    with Client(strange([other, blob], {"ui/resourceUri": PAGE}), apps=True) as client:
        page = client.app("t")
        assert page is not None and page.html == HTML and page.uri == PAGE
    with Client(strange([GOOD], {"ui": {"resourceUri": PAGE}, "ui/resourceUri": "ui://other"}), apps=True) as client:
        page = client.app("t")
        assert page is not None and page.uri == PAGE


@pytest.mark.parametrize("uri", [*HOSTILE_URIS, None, {"a": 1}, "file:///etc/passwd", "javascript:alert(1)"])
def test_a_host_reads_nothing_from_a_uri_that_is_no_pages(uri: Any) -> None:
    with Client(
        strange([GOOD], {"ui": {"resourceUri": uri}, "ui/resourceUri": PAGE if uri is None else None})
    ) as client:
        assert client.app("t") is None
    with Client(strange([GOOD], {"ui": "x"})) as client:
        assert client.app("t") is None


def test_settings_of_the_contents_count_before_those_of_the_list() -> None:
    listed = {"ui": {"csp": {"connectDomains": ["https://listed.example"]}, "permissions": {"camera": {}}}}
    own = {"ui": {"csp": {"connectDomains": ["https://own.example"]}}}
    with Client(strange([{**GOOD, "_meta": own}], listed=listed), apps=True) as client:
        page = client.app("t")
        assert page is not None and (page.domains, page.allow) == (["https://own.example"], "")
    with Client(strange([GOOD], listed=listed), apps=True) as client:
        page = client.app("t")
        assert page is not None and (page.domains, page.allow) == (["https://listed.example"], "camera")


def test_a_host_leaves_out_what_is_no_domain(caplog: Any) -> None:
    """Spec: EXT-107"""
    for member in ("connectDomains", "resourceDomains", "frameDomains", "baseUriDomains"):
        ui = {
            "csp": {member: [*HOSTILE_ORIGINS, "https://good.example"]},
            "permissions": {"usb": {}, "camera; usb": {}},
        }
        with Client(strange([{**GOOD, "_meta": {"ui": ui}}]), apps=True) as client:
            page = client.app("t")
            assert page is not None and page.domains == ["https://good.example"] and page.allow == ""
            assert page.policy.count(";") == NOTHING.count(";")
            assert set(page.policy.replace("; ", " ").split()) - set(NOTHING.replace("; ", " ").split()) == {
                "https://good.example"
            }
    assert (
        f"the page {PAGE}: 'https://a.example; script-src *' in connectDomains is no domain, and is left" in caplog.text
    )
    many = {"ui": {"csp": {"connectDomains": [f"https://a{n}.example" for n in range(5000)], "frameDomains": "*"}}}
    with Client(strange([{**GOOD, "_meta": many}]), apps=True) as client:
        page = client.app("t")
        assert page is not None and len(page.domains) == 100 and len(page.policy) < 3000
    for csp in ("default-src *", [], None, {"connectDomains": {"a": 1}}):
        with Client(strange([{**GOOD, "_meta": {"ui": {"csp": csp}}}]), apps=True) as client:
            page = client.app("t")
            assert page is not None and page.policy.replace("font-src 'self'", "font-src 'none'") == NOTHING


def test_a_model_sees_the_tools_that_are_for_it() -> None:
    """Spec: EXT-098, EXT-104"""
    with Client(clock(), apps=True) as client:
        assert [tool["name"] for tool in for_model(client.list_tools())] == ["now", "wind_up"]
    found = {}
    for number, visibility in enumerate([None, ["model"], ["app", "model"], ["app"], [], "model", {"model": 1}, 5]):
        tool = {"name": str(number), "_meta": {"ui": {"visibility": visibility}}}
        found[number] = (for_model([tool]) == [tool], "app" in app_pages.audiences(tool))
    assert [found[number] for number in range(4)] == [(True, True), (True, False), (True, True), (False, True)]
    # One that makes no sense is for nobody.
    assert {found[number] for number in range(4, 8)} == {(False, False)}


# Behind a gateway


def test_a_server_behind_a_gateway_knows_whether_its_pages_are_shown() -> None:
    server = clock()

    @server.tool
    def shown(ctx: Context) -> str:
        return str(shows_pages(ctx))

    with gateway_of(server) as gateway:
        for apps in (True, False):
            with client_of(gateway, apps=apps) as client:
                assert client.call_tool("clock_shown").text == str(apps)


def test_the_calls_of_a_page_are_messages_like_any_other() -> None:
    server = clock()
    called = modern("tools/call", name="zones", arguments={}, capabilities=HOST)
    assert server.handle(called)["result"]["content"][0]["text"] == "Europe/Oslo"


# Within another server


def test_an_app_works_within_another_server(caplog: Any) -> None:
    inner, outer = clock(csp={"connectDomains": ["https://a.example"]}), Server("outer")
    inner.tool(lambda: "x", "far", ui="ui://else/where")

    @inner.tool
    def shown(ctx: Context) -> str:
        return str(shows_pages(ctx))

    outer.mount("shop", inner)
    with Client(outer, apps=True) as client:
        page = client.app("shop_now")
        assert page is not None and (page.uri, page.html) == ("ui://shop+clock/page.html", HTML)
        assert page.domains == ["https://a.example"] and UI in client.capabilities["extensions"]
        assert client.call_tool("shop_shown").text == "True"
    assert caplog.text.count("the tool 'far' names the page ui://else/where, which is not there") == 1
