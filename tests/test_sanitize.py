"""The filter of what leaves: hidden text, secrets and sizes, in every kind of result, error and log message."""

from __future__ import annotations

import re
from typing import Any

import pytest

from minimcp import Client, Context, McpError, RemoteError, Sanitizer, Server, ToolError, image

HIDDEN = "safe\u202eevil\u200b\U000e0041\U000e0042\x1b[31m\ufeff"
CLEAN = "safeevil[31m"
KEY = "ghp_" + "a1B2" * 9


def filtered(**options: Any) -> Server:
    server = Server("s", sanitize=Sanitizer(**options))

    @server.tool
    def say(kind: str, ctx: Context) -> Any:
        if kind == "log":
            ctx.log("info", {"text": HIDDEN, "key": KEY})
            ctx.progress(1, 1, HIDDEN)
        if kind == "fail":
            raise ToolError(f"{HIDDEN} {KEY}")
        if kind == "error":
            raise McpError(HIDDEN, {"key": KEY}, code=-1)
        if kind == "data":
            return {"key": KEY, "list": [HIDDEN], "number": 5}
        if kind == "image":
            return image(b"\x89PNG" + b"x" * 50, "image/png")
        return "x" * 5000 if kind == "long" else f"{HIDDEN} {KEY}"

    server.resource("a://b")(lambda: f"{HIDDEN} {KEY}")
    server.prompt(lambda: f"{HIDDEN} {KEY}", "p")
    return server


def test_hidden_characters_and_secrets_leave_nowhere() -> None:
    logs: list[Any] = []
    with Client(filtered(), on_log=logs.append, log_level="info") as client:
        assert client.call_tool("say", kind="text").text == f"{CLEAN} [redacted]"
        assert client.call_tool("say", kind="data").data == {"key": "[redacted]", "list": [CLEAN], "number": 5}
        assert client.call_tool("say", kind="fail").text == f"{CLEAN} [redacted]"
        client.call_tool("say", kind="log")
        with pytest.raises(RemoteError) as caught:
            client.call_tool("say", kind="error")
        assert (caught.value.message, caught.value.data) == (CLEAN, {"key": "[redacted]"})
        assert client.read_resource("a://b").text == f"{CLEAN} [redacted]"
        assert client.get_prompt("p")["messages"][0]["content"]["text"] == f"{CLEAN} [redacted]"
    assert logs[0]["data"] == {"text": CLEAN, "key": "[redacted]"}


def test_binary_data_is_left_alone() -> None:
    with Client(filtered()) as client:
        found = client.call_tool("say", kind="image")["content"][0]
    assert found["type"] == "image" and found["data"].startswith("iVBOR")


@pytest.mark.parametrize("mode", ["modern", "2025-06-18"])
def test_a_result_that_is_too_large_fails_with_its_size(mode: str) -> None:
    with Client(filtered(max_bytes=1000), mode=mode) as client:
        result = client.call_tool("say", kind="long")
        assert result.is_error and re.match(
            r"The result has \d+ bytes, and at most 1000 are sent; ask for less", result.text
        )
        assert client.call_tool("say", kind="text").text


def test_each_part_is_a_choice() -> None:
    with Client(filtered(hidden=False, secrets=False, patterns=[r"evil"])) as client:
        assert client.call_tool("say", kind="text").text == f"{HIDDEN.replace('evil', '[redacted]')} {KEY}"


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "tab\tand\nline\r\n",
        "naïve café",
        "日本語",
        "👩‍👩‍👧 👍🏽 🏳️‍🌈",
        "क्‍ष",
        "می‌خواهم",
        "a-b_c",
        "-32602",
        "sk-short",
        "ghp_short",
    ],
)
def test_text_that_hides_nothing_stays_as_it_is(text: str) -> None:
    assert Sanitizer().text(text) == text


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-" + "a" * 40,
        "github_pat_" + "a" * 40,
        "xoxb-1234567890-abcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "AIza" + "a" * 35,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_secrets_of_well_known_forms(secret: str) -> None:
    assert Sanitizer().text(f"a {secret} b") == "a [redacted] b"
