"""`examples/apps` in a browser: its page, shown by a host with our client, and its server behind it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

from minimcp import Server
from tests.app_host import VIEW, showing, texts
from tests.browser import Browser, browser
from tests.gateways import gateway_of
from tests.helpers import modern
from tests.transports import ROOT, Stdio

FILE = ROOT / "examples" / "apps" / "planner.py"
ARGUMENTS = {"cities": ["Oslo", "new york", "Tokyo"], "day": "2026-07-28"}


def planner() -> Server:
    """The example's server, loaded anew."""
    spec = importlib.util.spec_from_file_location("planner_example", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server: Server = module.server
    return server


@pytest.fixture(scope="module")
def window() -> Iterator[Browser]:
    with browser() as found:
        yield found


# The example


def test_the_planner_answers_a_host_without_pages_in_words() -> None:
    """Spec: EXT-101"""
    with Stdio(str(FILE)) as talk:

        def call(name: str, **arguments: Any) -> Any:
            talk.send(modern("tools/call", name=name, arguments=arguments))
            return talk.receive()["result"]

        found = call("plan_meeting", **ARGUMENTS)
        words = "Possible for everybody: Tuesday 28 July 2026, Oslo 13:00, New York 07:00, Tokyo 20:00."
        assert found["content"] == [{"type": "text", "text": words}]
        assert found["structuredContent"]["best"] == [13] and found["structuredContent"]["comfort"] == 1
        lost = call("plan_meeting", cities=["Oslo", "Tokio"])
        assert lost["isError"] is True
        assert lost["content"][0]["text"] == "No time zone is named after 'Tokio'. Near it: Tokyo, Tomsk, Kirov."
        assert call("find_city", beginning="osl")["structuredContent"] == {"cities": ["Oslo"]}
        talk.send(modern("resources/read", uri="ui://planner/page.html"))
        (page,) = talk.receive()["result"]["contents"]
        assert page["mimeType"] == "text/html;profile=mcp-app" and page["_meta"] == {"ui": {"prefersBorder": True}}
        assert "://" not in page["text"].replace("ui://", "")  # nothing from elsewhere


def test_a_person_plans_a_meeting_on_the_page(window: Browser) -> None:
    """Spec: EXT-106, EXT-109, EXT-110, EXT-112, EXT-113"""
    sent: list[Any] = []
    with showing(window, planner(), "plan_meeting", ARGUMENTS, handlers={"ui/message": sent.append}) as host:
        assert host.told == [] or [each.get("id") for each in host.told] == [1]  # the greeting alone
        host.tell(host.view.input(ARGUMENTS))
        # The arguments are there before the result.
        window.wait("document.querySelectorAll('#rows.waits li').length === 3")
        assert texts(window, ".city") == ["Oslo", "new york", "Tokyo"]
        assert window.run("return document.getElementById('use').disabled") is True
        host.tell(host.view.result(host.client.call_tool("plan_meeting", ARGUMENTS)))
        window.wait("!document.getElementById('use').disabled")
        assert texts(window, "#day, #verdict") == ["Tuesday 28 July", "13:00–14:00 is possible"]
        assert texts(window, ".city") == ["Oslo", "New York", "Tokyo"]
        assert texts(window, ".gap") == ["", "6 h behind", "7 h ahead"]
        assert texts(window, ".time") == ["13:00", "07:00", "20:00"]

        # A city is found by a tool that only the page may call, and added by the tool that a model calls, too.
        window.type("#city", "kath")
        window.wait("document.querySelectorAll('#found button').length === 1")
        assert texts(window, "#found button") == ["Kathmandu"]
        window.click("#found button")
        window.wait("document.querySelectorAll('#rows li').length === 4")
        assert texts(window, ".time") == ["13:00", "07:00", "20:00", "16:45"]
        assert texts(window, ".gap")[3] == "3¾ h ahead"
        calls = [each["params"] for each in host.heard if each.get("method") == "tools/call"]
        assert calls[-1] == {
            "name": "plan_meeting",
            "arguments": {"cities": ["Oslo", "New York", "Tokyo", "Kathmandu"], "day": "2026-07-28"},
        }
        assert {each["name"] for each in calls[:-1]} == {"find_city"}

        # By keyboard and by pointer.
        window.run("document.getElementById('hour').focus()")
        window.type("#hour", "\ue014\ue014")  # to the right, twice
        assert texts(window, ".time") == ["15:00", "09:00", "22:00", "18:45"]
        assert window.run("return document.getElementById('hour').getAttribute('aria-valuetext')").startswith(
            "15:00 in Oslo; 09:00 in New York"
        )
        window.run(
            "const sky = document.querySelector('.sky'), box = sky.getBoundingClientRect();"
            "document.getElementById('rows').setPointerCapture = () => {};"
            "const at = {bubbles: true, clientX: box.left + box.width * 23.5 / 24};"
            "sky.dispatchEvent(new PointerEvent('pointerdown', at))"
        )
        assert texts(window, ".time") == ["23:00", "17:00", "day after06:00", "day after02:45"]
        window.click("#after")
        window.wait("document.getElementById('day').textContent === 'Wednesday 29 July'")
        window.click(".remove")
        window.wait("document.querySelectorAll('#rows li').length === 3")
        assert texts(window, ".city") == ["New York", "Tokyo", "Kathmandu"]

        window.click("#use")
        window.wait("!document.getElementById('said').hidden")
        (message,) = sent
        assert message["role"] == "user" and message["content"][0]["text"].startswith(
            "Let us meet on Wednesday 29 July: "
        )

        # The page asks to go, its host lets it end, and removes its frame.
        window.click("#done")
        host.wait("ui/notifications/request-teardown")
        assert host.view.closed.wait(20)
        window.enter()
        window.wait("!document.getElementById('frame')")
        assert [each["method"] for each in host.told if "id" in each and "method" in each] == ["ui/resource-teardown"]
        assert window.log() == []


def test_the_page_says_what_went_wrong(window: Browser) -> None:
    with showing(window, planner(), "plan_meeting", {"cities": ["Oslo", "Tokio"]}) as host:
        host.call()
        window.wait("!document.getElementById('said').hidden")
        assert texts(window, "#said") == ["No time zone is named after 'Tokio'. Near it: Tokyo, Tomsk, Kirov."]
        assert window.run("return document.getElementById('use').hidden") is True  # this host takes no messages
        assert texts(window, "#verdict") == [""]
    with showing(window, planner(), "plan_meeting", ARGUMENTS) as host:
        host.tell(host.view.input(ARGUMENTS) + host.view.cancelled("the user"))
        window.wait("document.getElementById('verdict').textContent === 'The comparison was cancelled.'")


@pytest.mark.parametrize("width", [320, 360, 412, 720, 1200])
def test_the_page_fits(window: Browser, width: int) -> None:
    arguments = {"cities": ["Oslo", "ComodRivadavia", "Dar es Salaam", "Kathmandu"]}
    with showing(window, planner(), "plan_meeting", {**arguments, "day": "2026-07-28"}) as host:
        window.enter()
        window.look(width, 900)
        window.enter(*VIEW)
        host.call()
        window.wait("document.querySelectorAll('#rows:not(.waits) li').length === 4")
        assert window.run("return document.documentElement.scrollWidth <= window.innerWidth")
        clipped = (
            "[...document.querySelectorAll('.time, button')].filter((each) => each.scrollWidth > each.clientWidth + 1)"
        )
        assert window.run(f"return {clipped}.length") == 0
        # The frame is as high as the page, so that there is no second scroll bar.
        window.wait("window.innerHeight === Math.ceil(document.body.getBoundingClientRect().height)")


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_wears_the_theme_of_its_host(window: Browser, theme: str) -> None:
    with showing(window, planner(), "plan_meeting", ARGUMENTS, context={"theme": theme}) as host:
        host.call()
        window.wait("document.querySelectorAll('#rows:not(.waits) li').length === 3")
        style = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
        page = luminance(window.run(style, "body", "backgroundColor"))
        assert page > 0.9 if theme == "light" else page < 0.02
        for selector in ("#day", "#verdict", ".gap", ".time", "#done"):
            words = luminance(window.run(style, selector, "color"))
            contrast = (max(page, words) + 0.05) / (min(page, words) + 0.05)
            assert contrast >= 4.5, (selector, contrast)
        # The other theme, and colours of the host's own.
        variables = {"--color-background-primary": "rgb(1, 2, 3)", "--color-text-primary": "rgb(250, 251, 252)"}
        host.tell(host.view.change(theme="dark", styles={"variables": variables}), "dark")
        window.wait("getComputedStyle(document.body).backgroundColor === 'rgb(1, 2, 3)'")
        assert window.run(style, "body", "color") == "rgb(250, 251, 252)"
        assert window.run("return document.documentElement.style.colorScheme") == "dark"


def test_the_page_works_behind_a_gateway(window: Browser) -> None:
    with gateway_of(planner()) as gateway, showing(window, gateway, "planner_plan_meeting", ARGUMENTS) as host:
        assert host.page.uri == "ui://planner+planner/page.html"
        host.call()
        window.wait("document.querySelectorAll('#rows:not(.waits) li').length === 3")
        window.type("#city", "kath")
        window.wait("document.querySelectorAll('#found button').length === 1")
        window.click("#found button")
        window.wait("document.querySelectorAll('#rows li').length === 4")
        called = [each["params"]["name"] for each in host.heard if each.get("method") == "tools/call"]
        assert called[-1] == "planner_plan_meeting" and called[0] == "planner_find_city"
        assert window.log() == []
