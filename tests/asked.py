"""Tools that ask, and clients of both eras that answer."""

from __future__ import annotations

from minimcp import Server
from tests.helpers import Legacy, modern

ALL = {"elicitation": {"form": {}, "url": {}}, "sampling": {"tools": {}, "context": {}}, "roots": {}}


def serving(handler, **options):
    """A server with one tool that asks."""
    server = Server("s", secret="0123456789abcdef", **options)
    server.tool(handler, "tool")
    return server


def call(server, capabilities=None, principal=None, **params):
    """The reply of a client that can be asked anything."""
    message = modern("tools/call", name="tool", capabilities=ALL if capabilities is None else capabilities, **params)
    return server.handle(message, principal=principal)


def question(handler):
    """The first question of a tool, as a modern client gets it."""
    reply = call(serving(handler))["result"]
    assert reply["resultType"] == "input_required"
    return reply["inputRequests"]["q1"]


def accept(**content):
    """An accepted form."""
    return {"action": "accept", "content": content}


class Answering(Legacy):
    """A legacy client that answers every question with the next of its answers."""

    def __init__(self, server, answers, version="2025-11-25", **capabilities):
        super().__init__(server, version, **capabilities)
        self.answers = list(answers)

        def hear(message):
            self.asked.append(message)
            if "id" in message and self.answers:
                reply = {"jsonrpc": "2.0", "id": message["id"], **self.answers.pop(0)}
                assert server.handle(reply, session=self.session) is None

        self.asked = []
        self.hear = hear

    def call(self):
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "tool"}}
        return self.server.handle(message, self.hear, self.session)["result"]
