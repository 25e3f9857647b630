"""Extensions: negotiated by each request, with methods, capabilities and result types of their own."""

from __future__ import annotations

import pytest

from minimcp import Context, Server
from tests.helpers import Legacy, modern, result

ID = "com.example/parcels"


class Parcels:
    """An extension as an application would write it: no file of the library knows of it."""

    identifier = ID
    settings = {"max": 5}
    name_params = {"parcels/track": "number"}
    result_types = ("parcel",)

    def __init__(self):
        self.methods = {"parcels/track": self.track}
        self.server = None

    def setup(self, server):
        self.server = server

    def track(self, ctx: Context, params: dict) -> dict:
        return {"where": f"parcel {params['number']} is near", "client": ctx.extension(ID)}


@pytest.fixture
def server():
    server = Server("s")
    server.use(Parcels())

    @server.tool
    def send(ctx: Context) -> dict:
        if ctx.extension(ID) is None:
            return {"content": [{"type": "text", "text": "sent"}]}
        return {"resultType": "parcel", "number": 7}

    return server


BOTH = {"extensions": {ID: {"colour": "red"}}}


def test_an_extension_is_advertised_to_both_eras(server):
    assert result(server, "server/discover")["capabilities"]["extensions"] == {ID: {"max": 5}}
    assert Legacy(server).hello["capabilities"]["extensions"] == {ID: {"max": 5}}


def test_its_methods_are_served_and_know_the_clients_settings(server):
    found = result(server, "parcels/track", number="7", capabilities=BOTH)
    assert found["where"] == "parcel 7 is near" and found["client"] == {"colour": "red"}
    assert found["resultType"] == "complete"
    assert result(server, "parcels/track", number="7")["client"] is None


def test_its_methods_do_not_exist_in_the_older_era(server):
    assert Legacy(server).problem("parcels/track", number="7")["code"] == -32601


def test_its_result_types_go_only_to_those_who_declared_it(server):
    found = result(server, "tools/call", name="send", capabilities=BOTH)
    assert found["resultType"] == "parcel" and found["number"] == 7
    plain = result(server, "tools/call", name="send")
    assert plain["resultType"] == "complete" and plain["content"][0]["text"] == "sent"
    other = result(server, "tools/call", name="send", capabilities={"extensions": {"com.example/other": {}}})
    assert other["resultType"] == "complete"
    assert result(server, "tools/call", name="send", capabilities={"extensions": []})["resultType"] == "complete"


def test_its_names_are_mirrored_in_a_header(server):
    sent = {"mcp-protocol-version": "2026-07-28", "mcp-method": "parcels/track", "mcp-name": "8"}
    message = modern("parcels/track", number="7")
    reply = server.call(message, get_header=lambda name: sent.get(name.lower())).run()
    assert reply["error"]["code"] == -32020
    sent["mcp-name"] = "7"
    assert "result" in server.call(message, get_header=lambda name: sent.get(name.lower())).run()


def test_an_extension_may_be_as_little_as_a_name():
    class Bare:
        identifier = "com.example/bare"

    server = Server("s")
    server.use(Bare())
    assert result(server, "server/discover")["capabilities"] == {"extensions": {"com.example/bare": {}}}
