"""Mistakes of an author, one on each line that says so; `test_user_types` has type checkers find exactly these."""

from __future__ import annotations

from minimcp import Client, Context, Server

server = Server("mistaken", polcy=None)  # mistake
server = Server("mistaken", policy=lambda ctx: True)  # mistake
server = Server("mistaken", trace=5)  # mistake
server.use(object())  # mistake


@server.tool(titel="Add")  # mistake
def add(a: int, b: int) -> int:
    return a + b


def f(a: int) -> str:
    return str(a)


server.tool(f, "f", titel="F")  # mistake
server.tool(f, "f", title=5)  # mistake
server.tool("f")  # mistake
server.tool(f, annotations={"readonlyHint": True})  # mistake
server.tool(f, mime_type="text/plain")  # mistake
server.tool(f, allow=lambda ctx: ctx.pincipal is None)  # mistake
server.prompt(f, titel="F")  # mistake
server.prompt(titel="F")(f)  # mistake
server.prompt(f, annotations={})  # mistake
server.resource("f://{a}", mimetype="text/plain")(f)  # mistake
server.resource("f://{a}", cache_scope="shared")(f)  # mistake
server.resource(f)  # mistake
server.tool(title="F")(f)("one")  # mistake
server.tool(f)("one")  # mistake
server.resource("f://{a}")(f)("one")  # mistake


@server.completion("f", "a")  # mistake
def names(value: int) -> list[str]:
    return [str(value)]


@server.tool
def asks(ctx: Context) -> str:
    ctx.progess(1)  # mistake
    return "asked"


with Client(server, timout=5) as client:  # mistake
    print(client.call_tool("add", a=1, b=2).txt)  # mistake
    print(client.list_tools()[0]["nam"])  # mistake
