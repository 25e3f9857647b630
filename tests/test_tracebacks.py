"""Tracebacks of a client's errors: the frames of the caller, and none of the library's way to the wire."""

from __future__ import annotations

import inspect
import logging
import os
import traceback

import pytest

from minimcp import Client, ClientError, Server
from minimcp.client import tracebacks

HERE = os.path.abspath(__file__)


@pytest.fixture
def server():
    server = Server("s")

    @server.tool
    def fail() -> str:
        raise ValueError("broken")

    @server.prompt
    def review(title: str) -> str:
        return title

    return server


def files(error: BaseException) -> list[str]:
    """The files of the frames, the caller's own first, without those of the tests' own checks of every request."""
    found = [os.path.abspath(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    return [file for file in found if os.path.basename(file) != "emitted.py"]


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.call_tool("none"),
        lambda client: client.call_tool("fail", {}, check=True),
        lambda client: client.start_tool("none").result(),
        lambda client: client.read_resource("a://b"),
        lambda client: client.get_prompt("review"),
        lambda client: client.complete("title", "x", prompt="review"),
        lambda client: client.request("nothing/here"),
        lambda client: Client("http://127.0.0.1:1/mcp").open(),
        lambda client: Client("http://127.0.0.1:1/mcp").list_tools(),
        lambda client: Client("http://127.0.0.1:1/mcp").list_resources(),
        lambda client: Client("http://127.0.0.1:1/mcp").list_resource_templates(),
        lambda client: Client("http://127.0.0.1:1/mcp").list_prompts(),
    ],
    ids=range(12),
)
def test_an_error_shows_the_callers_frames_and_one_of_the_library(server, call):
    with Client(server) as client, pytest.raises(ClientError) as caught:
        call(client)
    assert files(caught.value) == [HERE, HERE, os.path.abspath(tracebacks.__file__)]


def test_frames_of_a_callback_stay(server):
    @server.tool
    def work(ctx_: int = 0) -> str:
        return ""

    with Client(server) as other, pytest.raises(ClientError) as caught:

        def approve(proposal):
            other.call_tool("none")
            return True

        Client(server, approve=approve).call_tool("work")
    own = os.path.abspath(tracebacks.__file__)
    assert files(caught.value) == [HERE, own, HERE]


def test_with_the_log_at_debug_nothing_is_left_out(server, caplog):
    with caplog.at_level(logging.DEBUG, "minimcp"), Client(server) as client, pytest.raises(ClientError) as caught:
        client.call_tool("none")
    assert len(files(caught.value)) > 5


def test_the_methods_keep_their_signatures_and_texts():
    assert list(inspect.signature(Client.call_tool).parameters) == ["self", "name", "arguments", "others", "more"]
    assert Client.call_tool.__doc__.startswith("Call a tool")
