"""What a notebook shows of lists and of results with pictures: `_repr_html_`."""

from __future__ import annotations

import pytest

from minimcp import Client, Server, audio, image
from minimcp.client.notebook import media, table
from minimcp.client.results import Result, listing

SHOWN = "text-align: left; vertical-align: top"


def cells(shown):
    """The rows of a table, without the markup."""
    plain = shown.replace(f' style="{SHOWN}"', "").replace(f" style='{SHOWN}'", "")
    return [[cell.partition("</t")[0] for cell in row.split("<td>")[1:]] for row in plain.split("<tr>")[2:]]


def server():
    made = Server("s")

    @made.tool
    def add(a: int, b: int = 2) -> int:
        """Add <b>two</b> numbers."""
        return a + b

    @made.tool
    def picture() -> list:
        return ["<script>alert(1)</script>", image(b"png"), audio(b"wav", "audio/wav")]

    made.resource("a://b", mime_type="text/plain")(lambda: "x")
    made.resource("note://{id}", name="note")(lambda id: b"png")
    made.prompt(lambda city, when="now": city, "pack", description="Pack.")
    return made


def test_lists_are_tables():
    with Client(server()) as client:
        assert cells(client.list_tools()._repr_html_()) == [
            ["add", "a: integer<br>b?: integer", "Add &lt;b&gt;two&lt;/b&gt; numbers."],
            ["picture", "", ""],
        ]
        assert cells(client.list_resources()._repr_html_()) == [["a://b", "&lt;lambda&gt;", "text/plain", ""]]
        assert cells(client.list_resource_templates()._repr_html_()) == [["note://{id}", "note", "", ""]]
        assert cells(client.list_prompts()._repr_html_()) == [["pack", "city<br>when?", "Pack."]]
        assert client.list_tools() == [dict(tool) for tool in client.list_tools()]
    assert listing([])._repr_html_() is None


def test_pictures_and_sounds_of_a_result_are_shown():
    with Client(server()) as client:
        assert client.call_tool("picture")._repr_html_() == (
            "<div><pre>&lt;script&gt;alert(1)&lt;/script&gt;</pre>"
            '<img src="data:image/png;base64,cG5n" style="max-width: 100%">'
            '<audio controls src="data:audio/wav;base64,d2F2"></audio></div>'
        )
        assert client.call_tool("add", a=1)._repr_html_() is None
        assert client.read_resource("note://1")._repr_html_() is None


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "data": '"><script>', "mimeType": "image/png"},
        {"type": "image", "data": "AAAA", "mimeType": "text/html"},
        {"type": "image", "data": "AAAA", "mimeType": 'image/png"><script>'},
        {"type": "image", "data": "A" * (9 * 1024 * 1024), "mimeType": "image/png"},
        {"type": "image", "data": 5, "mimeType": "image/png"},
        {"type": "image"},
    ],
)
def test_what_is_no_picture_is_not_shown_as_one(block):
    assert Result(content=[block])._repr_html_() is None


def test_markup_of_a_server_stays_text():
    evil = '<img src=x onerror="alert(1)">'
    shown = table([{"name": evil, "description": evil, "inputSchema": {"properties": {evil: {"type": evil}}}}])
    shown += media([{"type": "text", "text": evil}, {"type": "audio", "data": "AAAA", "mimeType": f'audio/x"{evil}'}])
    shown += media([{"type": "resource_link", "uri": evil}, {"type": "image", "data": "AAAA", "mimeType": "image/png"}])
    assert "onerror" in shown and "<img src=x" not in shown and 'onerror="' not in shown


def test_a_long_list_is_cut():
    rows = cells(table([{"name": f"t{number}"} for number in range(600)]))
    assert len(rows) == 501 and rows[-1] == ["and 100 more", "", ""]
