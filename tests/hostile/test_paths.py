"""T150 to T156: URIs, templates and paths."""

from __future__ import annotations

import base64
import json
import os
import pathlib
import time
from types import SimpleNamespace
from typing import Any

import pytest

from minimcp import Server
from minimcp.server import uris
from minimcp.server.uris import Template, safe_join
from tests.helpers import modern
from tests.hostile.support import Gate, Http, attacked

ESCAPES = [
    "../etc/passwd",
    "..",
    "a/../../b",
    "/etc/passwd",
    "//etc/passwd",
    "..\\..\\x",
    "\\\\server\\share",
    "C:\\x",
    "c:x",
    "a\0b",
    "a/..",
]


def sentinel(text: str) -> str:
    return "=?base64?" + base64.b64encode(text.encode()).decode() + "?="


@pytest.mark.parametrize("path", ESCAPES, ids=lambda path: f"T150-{path!r}")
def test_a_path_that_leaves_its_root_is_refused(tmp_path: pathlib.Path, path: str) -> None:
    with pytest.raises(ValueError, match="not below its root") as refused:
        safe_join(tmp_path, path)
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize(
    "name",
    ["%2e%2e", "..%2f..%2fetc", "a%2fb", "%2e", "a%00b", "%ff", "a%5cb", "%c0%ae%c0%ae", "..", ".", "a/b", ""],
    ids=lambda name: f"T150-{name}",
)
def test_a_template_variable_is_one_segment_however_it_is_written(http: Http, name: str) -> None:
    reply = http.call(modern("resources/read", 1, uri=f"note://{name}"))
    assert (reply.status, reply.code) == (400, -32602)


def test_percent_encoding_is_undone_once_T150(http: Http) -> None:
    reply = http.call(modern("resources/read", 1, uri="note://%252e%252e"))
    assert reply.message["result"]["contents"][0]["text"] == "%2e%2e"


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "://",
        "x" * 100_000,
        "note://" + "x" * 100_000,
        "javascript:alert(1)",
        "note://a\r\nb",
        "note://a b",
        "http://[::1",
        "note://\u0000",
        "note://\ud800",
        "config://app/../app",
        "CONFIG://app",
        "config://app\0",
        "file:///etc/passwd",
        5,
        None,
        [],
        {},
        True,
    ],
    ids=lambda uri: "T151-" + json.dumps(uri)[:24],
)
def test_an_odd_uri_is_no_resource(http: Http, gate: Gate, uri: Any) -> None:
    message = modern("resources/read", 1, uri=uri)
    if isinstance(uri, str) and len(uri) > 5000:
        # No header is that long, so that the message could not even be sent over HTTP; the server refuses it itself.
        error = attacked(gate).handle(message)["error"]
        assert error["code"] == -32602
        assert len(json.dumps(error)) < 1000
        return
    headers = {} if not isinstance(uri, str) else {"Mcp_Name": sentinel(uri.replace("\ud800", "?"))}
    if not isinstance(uri, str) or not uri:
        headers["Mcp_Name"] = "" if uri == "" else "x"
    reply = http.call(message, **headers)
    assert reply.status == 400
    assert reply.code in ((-32602,) if uri != "note://\ud800" else (-32602, -32020))


def test_a_uri_longer_than_a_header_is_refused_T151(http: Http) -> None:
    reply = http.call(modern("resources/read", 1, uri="note://" + "x" * 100_000))
    assert reply.status in (400, 431)


def test_matching_a_template_takes_one_pass_whatever_the_uri_holds_T151() -> None:
    template = Template("a://{x}-{y}-{z}-{+path}/end{?q,r}")
    began = time.thread_time()
    for uri in ("a://" + "-" * 8000, "a://" + "x-" * 4000, "a://1-2-3-" + "/" * 8000, "a://1-2-3-4/end?" + "&" * 8000):
        template.match(uri)
    assert time.thread_time() - began < 0.5


def test_a_link_out_of_the_root_is_refused_T152(tmp_path: pathlib.Path) -> None:
    """The row's race, a rename between `safe_join` and the opening, is left to the handler: it opens a real path."""
    root = tmp_path / "a"
    beside = tmp_path / "ab"
    root.mkdir()
    beside.mkdir()
    (beside / "secret").write_text("x")
    (root / "inside").write_text("y")
    (root / "link").symlink_to(beside)
    (root / "file").symlink_to(beside / "secret")
    (root / "loop").symlink_to(root / "loop")
    (root / "fine").symlink_to(root / "inside")
    for path in ("link", "link/secret", "file", "../ab/secret", str(beside / "secret")):
        with pytest.raises(ValueError, match="not below its root"):
            safe_join(root, path)
    assert safe_join(root, "fine") == os.path.realpath(root / "inside")
    assert safe_join(root, "inside") == os.path.realpath(root / "inside")
    safe_join(root, "loop/x")


def test_a_root_that_is_itself_a_link_is_its_target_T152(tmp_path: pathlib.Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_text("x")
    (tmp_path / "root").symlink_to(tmp_path / "real")
    assert safe_join(tmp_path / "root", "x") == os.path.realpath(tmp_path / "real" / "x")


@pytest.mark.parametrize("path", ["a//b", "./a", "a/./b", "", "."], ids=lambda path: f"T153-{path!r}")
def test_an_odd_but_harmless_path_stays_below_its_root(tmp_path: pathlib.Path, path: str) -> None:
    joined = safe_join(tmp_path, path)
    assert os.path.commonpath([joined, os.path.realpath(tmp_path)]) == os.path.realpath(tmp_path)


@pytest.mark.parametrize(
    "path", ["CON", "NUL.txt", "a/NUL", "nul.", "nul ", "com1", "LPT9.x", "a/aux/b", "COM\u00b9", "conin$"]
)
def test_device_names_are_refused_where_they_are_devices_T154(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    assert safe_join(tmp_path, path)
    monkeypatch.setattr(uris, "os", SimpleNamespace(name="nt", path=os.path, PathLike=os.PathLike))
    with pytest.raises(ValueError, match="not below its root"):
        safe_join(tmp_path, path)


def test_what_is_unknown_is_an_error_and_never_a_result_T155(http: Http) -> None:
    for message in (
        modern("resources/read", 1, uri="config://nothing"),
        modern("prompts/get", 1, name="nothing"),
        modern("tools/call", 1, name="nothing", arguments={}),
        modern(
            "completion/complete", 1, ref={"type": "ref/prompt", "name": "nothing"}, argument={"name": "a", "value": ""}
        ),
    ):
        reply = http.call(message)
        # No completion was registered, so that method does not exist here.
        expected = (404, -32601) if message["method"] == "completion/complete" else (400, -32602)
        assert (reply.status, reply.code, reply.message["id"]) == (*expected, 1)


def test_an_unknown_resource_in_a_session_is_minus_32002_T155(http: Http) -> None:
    """2026-07-28 forbids the code; until then it is the one to use."""
    id = http.initialize()
    read = {"jsonrpc": "2.0", "id": 2, "method": "resources/read", "params": {"uri": "config://nothing"}}
    assert http.legacy(id, read).code == -32002


def test_a_template_value_cannot_change_the_path_or_host_of_a_url_made_with_it_T156(host: Any) -> None:
    """Whoever puts a value into a URL has to quote it; `{name}` leaves nothing in it that quoting would keep."""
    from urllib.parse import quote, urlsplit

    server = Server("proxy", "1")

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    @server.resource("item://{id}")
    def item(id: str) -> str:
        return "https://upstream.example/items/" + quote(id, safe="")

    http = host(server)
    for value in ("a?b=c", "a%23b", "a@evil.example", "%3Fx", "a;b", "%40evil.example"):
        reply = http.call(modern("resources/read", 1, uri=f"item://{value}"))
        made = urlsplit(reply.message["result"]["contents"][0]["text"])
        assert (made.hostname, made.query, made.fragment) == ("upstream.example", "", "")
        assert made.path.startswith("/items/") and made.path.count("/") == 2
    for value in ("..%2fadmin", "..", "%2e%2e", "a%2f..%2fb"):
        assert http.call(modern("resources/read", 1, uri=f"item://{value}")).code == -32602
