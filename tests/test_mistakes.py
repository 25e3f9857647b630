"""The mistakes of beginners: for each, the whole text that they see."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import enum
import io
import logging
import re
import shlex
import socket
import sqlite3
import struct
import sys
import threading
from pathlib import Path

import pytest

from minimcp import (
    Client,
    ClientError,
    ConnectionLost,
    Context,
    Forbidden,
    RemoteError,
    Server,
    Unauthorized,
    audio,
    image,
)
from minimcp.__main__ import main
from minimcp.auth import Rules
from minimcp.transports.http import HttpApp
from tests.embedded import embedded
from tests.helpers import Process, modern, post
from tests.terminal import Pty
from tests.transports import ROOT

HEAD = "from minimcp import Server\nserver = Server('s')\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def said(capsys, *words: str) -> tuple[int, str]:
    """The exit code of a command, and what it wrote to standard error, without the marks of Python 3.11 and later."""
    code = main(list(words))
    err = capsys.readouterr().err
    err = re.sub(r"(?m)^ +[\^~]+\n", "", err).replace(sys.executable, "PYTHON")
    return code, err.replace(f'File "{Path.cwd().resolve()}/', 'File "')


def lines(*texts: str) -> str:
    return "".join(text + "\n" for text in texts)


GONE = "minimcp: The server PYTHON -m minimcp run f.py exited with code 1"
VARIABLES = "a server gets few variables: --env API_KEY=VALUE gives it"
ASYNC = "TypeError: add is async def: write def, and call blocking code; every call has its own thread"


@pytest.mark.parametrize(
    ("source", "where", "error"),
    [
        (HEAD + "async def add(a: int): ...\nserver.tool(add)\n", "line 4, in <module>\n    server.tool(add)", ASYNC),
        (
            "from minimcp import Server\nserver = Server()\n",
            "line 2, in <module>\n    server = Server()",
            'TypeError: Server needs a name: Server("my-server")',
        ),
        (
            "import nonexistent_module\n",
            "line 1, in <module>\n    import nonexistent_module",
            "ModuleNotFoundError: No module named 'nonexistent_module'",
        ),
        (
            "PORT = int('abc')\n",
            "line 1, in <module>\n    PORT = int('abc')",
            "ValueError: invalid literal for int() with base 10: 'abc'",
        ),
        (
            "import json\njson.loads('[')\n",
            "line 2, in <module>\n    json.loads('[')",
            "JSONDecodeError: Expecting value: line 1 column 2 (char 1)",
        ),
        ("import os\nos.environ['API_KEY']\n", "line 2, in <module>\n    os.environ['API_KEY']", "KeyError: 'API_KEY'"),
    ],
)
def test_a_file_that_does_not_load_is_told_by_its_own_traceback(folder, capsys, monkeypatch, source, where, error):
    monkeypatch.delenv("API_KEY", raising=False)
    (folder / "f.py").write_text(source)
    number = where.split(",")[0]
    full = error.replace("JSONDecodeError", "json.decoder.JSONDecodeError")
    traceback = f'Traceback (most recent call last):\n  File "f.py", {where}\n{full}'
    gone = f"{GONE} ({VARIABLES})" if "environ" in source else GONE
    assert said(capsys, "list", "f.py") == (1, lines(f"minimcp: f.py, {number}: {error}", traceback, gone))


def test_a_syntax_error_names_its_line(folder, capsys):
    (folder / "f.py").write_text("x = 1\nif x:\nprint()\n")
    code, err = said(capsys, "list", "f.py")
    more = " after 'if' statement on line 2" if sys.version_info >= (3, 10) else ""
    told = f"IndentationError: expected an indented block{more}"
    # Where the mark stands differs from Python to Python.
    err = re.sub(r"(?m)^ *\^ *\n", "", err)
    assert code == 1 and err == lines(
        f"minimcp: f.py, line 3: {told}", '  File "f.py", line 3', "    print()", told, GONE
    )


def test_the_traceback_ends_in_the_authors_own_file(folder, capsys):
    (folder / "f.py").write_text("import helper_of_f\n")
    (folder / "helper_of_f.py").write_text("import json\ndef read():\n    return json.loads('')\nread()\n")
    code, err = said(capsys, "list", "f.py")
    helper = Path.cwd().resolve() / "helper_of_f.py"
    assert err == lines(
        f"minimcp: {helper}, line 3: JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
        "Traceback (most recent call last):",
        '  File "f.py", line 1, in <module>',
        "    import helper_of_f",
        '  File "helper_of_f.py", line 4, in <module>',
        "    read()",
        '  File "helper_of_f.py", line 3, in read',
        "    return json.loads('')",
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
        GONE,
    )


BOOM = HEAD + "@server.tool\ndef boom(x: int) -> float:\n    print('dividing')\n    return 1 / x\n"


def test_a_tool_that_raises_is_told_with_what_it_raised(folder, capsys):
    (folder / "f.py").write_text(BOOM)
    code, err = said(capsys, "call", "f.py", "boom", "x=0")
    assert code == 3 and err.splitlines()[0] == "dividing"
    assert err.endswith("minimcp: The tool boom failed: ZeroDivisionError: division by zero\n")
    assert '  File "f.py", line 6, in boom\n    return 1 / x\nZeroDivisionError: division by zero\n' in err


def test_a_client_shows_what_its_server_prints_and_its_last_lines_are_in_the_error(folder, capsys):
    (folder / "f.py").write_text(BOOM)
    with Client([sys.executable, "-m", "minimcp", "run", "f.py"], env={"PYTHONPATH": str(ROOT)}) as client:
        assert client.call_tool("boom", x=1).data == 1.0
        assert client.call_tool("boom", x=0).text == "The tool boom failed: ZeroDivisionError: division by zero"
    assert capsys.readouterr().err.startswith("dividing\ndividing\ntool boom failed\nTraceback")
    with pytest.raises(ConnectionLost) as caught:
        Client([sys.executable, "-c", "import sys; sys.exit('no licence\\nno server')"], stderr=False).open()
    assert str(caught.value).endswith(" exited with code 1. The end of its standard error:\nno licence\nno server")
    assert capsys.readouterr().err == ""


def crashing(**options) -> Server:
    server = Server("s", **options)

    @server.tool
    def boom() -> str:
        raise LookupError("no such row")

    @server.tool
    def wrong() -> int:
        return "x"

    return server


MASKED = 'The tool boom failed; the logger "minimcp" of the server has the details'


def test_only_who_has_the_process_to_itself_is_told_what_was_raised(caplog):
    with Client(crashing()) as client, caplog.at_level(logging.CRITICAL, "minimcp"):
        assert client.call_tool("boom").text == "The tool boom failed: LookupError: no such row"
        told = "The result of wrong does not fit its schema: "
        assert client.call_tool("wrong").text == told + "The value must be an integer, not a string"
    with Client(crashing(debug=False)) as client:
        assert client.call_tool("boom").text == MASKED
    with embedded(crashing().wsgi) as listening:
        reply = post(listening.url + "/mcp", modern("tools/call", name="boom"))[1]
        assert reply["result"]["content"][0]["text"] == MASKED
    reply = crashing().handle(modern("tools/call", name="boom"))
    assert reply["result"]["content"][0]["text"] == MASKED


@pytest.mark.parametrize(("host", "debug"), [("127.0.0.1", True), ("0.0.0.0", False)])
def test_run_over_http_tells_only_this_machine_what_was_raised(folder, monkeypatch, host, debug):
    (folder / "served_here.py").write_text(BOOM)
    served = []
    monkeypatch.setattr(Server, "run_http", lambda server, **options: served.append(server))
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert main(["run", "served_here.py", "--http", "0", "--host", host]) == 0
    assert served[0].engine.debug is debug


on_a_terminal = pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
ADD = HEAD + "@server.tool\ndef add(a: int, b: int) -> int:\n    return a + b\n"


@on_a_terminal
@pytest.mark.parametrize("way", ["run", "file"])
def test_a_server_on_a_terminal_says_what_it_waits_for(folder, way):
    path = folder / "f.py"
    path.write_text(ADD + "if __name__ == '__main__':\n    server.run()\n")
    with Pty(*(["-m", "minimcp", "run"] if way == "run" else []), str(path)) as terminal:
        terminal.wait_for(
            f"s waits for MCP messages on standard input; try it from another terminal: minimcp list {path}\r\n"
        )
        terminal.type("\x04")
        assert terminal.child.wait(20) == 0


@on_a_terminal
def test_an_http_server_says_where_it_listens_and_what_ctrl_c_waits_for(folder):
    path = folder / "f.py"
    path.write_text(
        HEAD + "import sys, threading\n@server.tool\ndef wait() -> str:\n    print('begun', file=sys.stderr)\n"
        "    threading.Event().wait(20)\n    return ''\nserver.run_http(port=0)\n"
    )
    with Pty(str(path)) as terminal:
        terminal.wait_for("s is listening on http://127.0.0.1:")
        url = "http://127.0.0.1:" + terminal.seen.split(";")[0]
        terminal.wait_for(f"; try it: minimcp list {url}\r\n")
        with Client(url, timeout=20) as client:
            call = client.start_tool("wait")
            terminal.wait_for("begun")
            terminal.child.send_signal(2)
            terminal.wait_for("Waiting up to 5 s for tools/call wait; Ctrl-C stops at once.\r\n")
            terminal.child.send_signal(2)
            assert terminal.child.wait(20) == -2
            call.cancel()


def test_run_verbose_shows_every_request(folder):
    (folder / "f.py").write_text(BOOM)
    with Process([sys.executable, "-m", "minimcp", "run", "f.py", "--http", "0", "-v"], cwd=str(folder)) as process:
        url = process.wait_for(r"s is listening on (\S+); try it: minimcp list \1$").group(1)
        for params in (
            {"name": "boom", "arguments": {"x": 1}},
            {"name": "boom", "arguments": {"x": 0}},
            {"name": "bom"},
        ):
            post(url, modern("tools/call", **params))
        for end in (
            r"tools/call boom: done",
            r"tools/call boom: the tool failed",
            r"tools/call bom: error -32602: Unknown tool: bom",
        ):
            process.wait_for(rf"^\d\d:\d\d:\d\d {end}, \d+ ms$")
        assert process.terminate() == 0


def refused(*target, **options) -> str:
    """What a client says of its target, at once or when it opens."""
    with pytest.raises((ValueError, TypeError, ClientError)) as caught:
        Client(*target, **{"stderr": False, **options} if "://" not in str(target) else options).open()
    return str(caught.value)


def test_a_python_file_means_the_same_to_a_client_and_the_command_line(folder, capsys):
    (folder / "f.py").write_text(ADD + "other = Server('other')\n")
    (folder / "alone.py").write_text(ADD)
    (folder / "made.py").write_text(
        "from minimcp import Server\ndef build():\n    return Server('made')\nif __name__ == '__main__':\n"
        "    build().run()\n"
    )
    for target, name in (("f.py:server", "s"), ("f.py:other", "other"), ("alone.py", "s"), ("made.py", "made")):
        with Client(target) as client:
            assert client.server_info["name"] == name
            assert repr(client) == f"<Client of {target!r}: open>"
        assert main(["list", target]) == 0
        assert capsys.readouterr().out.startswith(f"{name} 0 (2026-07-28)\n")
    told = "minimcp: f.py has several Servers; write f.py:other or f.py:server"
    assert refused("f.py").endswith(" exited with code 2. The end of its standard error:\n" + told)
    gone = GONE.replace("code 1", "code 2")
    assert said(capsys, "list", "f.py") == (1, lines(told, gone))
    told = "minimcp: f.py has no Server named 'nobody'; write f.py:other or f.py:server"
    assert said(capsys, "list", "f.py:nobody") == (1, lines(told, gone.replace("f.py", "f.py:nobody")))


LISTED = (
    "A client needs a URL, a command, a Python file, an mcpServers entry or file, a Server or a WSGI callable, not "
)


def takes_three(scope, receive, send): ...


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("nofile.py", "There is no file 'nofile.py'"),
        ("nofile.py:server", "There is no file 'nofile.py'"),
        ("localhost:1/mcp", "There is no command 'localhost:1/mcp'; if it is a URL, write http://localhost:1/mcp"),
        ("127.0.0.1:8000", "There is no command '127.0.0.1:8000'; if it is a URL, write http://127.0.0.1:8000/mcp"),
        ("[::1]:8000", "There is no command '[::1]:8000'; if it is a URL, write http://[::1]:8000/mcp"),
        ("mcp.example/mcp", "There is no command 'mcp.example/mcp'; if it is a URL, write https://mcp.example/mcp"),
        ("ws://localhost/mcp", "The URL of a server begins with http:// or https://, not with ws://"),
        ("pythonx", "The server did not start: the command 'pythonx' was not found on the PATH"),
        ("python3.999", "The server did not start: the command 'python3.999' was not found on the PATH"),
    ],
)
def test_a_target_that_is_none_is_told_as_such(folder, capsys, target, text):
    assert refused(target) == text
    assert said(capsys, "list", target)[1] == f"minimcp: {text}\n"


@pytest.mark.parametrize(
    ("target", "named"),
    [
        (Server, "the class Server"),
        (takes_three, "the function takes_three"),
        (lambda: None, "the function <lambda>"),
        (None, "NoneType"),
        (5, "int"),
    ],
)
def test_what_cannot_be_a_target_is_told_what_can(target, named):
    with pytest.raises(TypeError) as caught:
        Client(target)
    assert str(caught.value) == LISTED + named


def test_a_url_without_its_path_or_with_the_wrong_scheme_is_told_the_right_one(capsys):
    with embedded(HttpApp(crashing().engine, ("/mcp", "/mcp/"))) as listening:
        url = listening.url
        for path in ("", "/", "/mpc"):
            text = f"There is no MCP endpoint at {url}{path} (HTTP 404); most servers have it at {url}/mcp"
            assert refused(url + path) == text
            assert said(capsys, "list", url + path) == (1, f"minimcp: {text}\n")
        secure = url.replace("http:", "https:")
        why = f"the answer is not encrypted; write {url} if it speaks http"
        assert refused(secure + "/mcp") == f"No connection to {secure}: {why}"


def test_http_where_https_is_spoken_is_told_so():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"

        def break_off():
            # A server that gets no TLS hello.
            with contextlib.suppress(OSError):
                while True:
                    talk = listener.accept()[0]
                    talk.recv(65536)
                    talk.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    talk.close()

        thread = threading.Thread(target=break_off)
        thread.start()
        try:
            told = refused(f"http://{address}/mcp")
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
    assert told.startswith("The connection to the server broke: ")
    assert told.endswith(f"; if it speaks https, write https://{address}/mcp")


# What a registration is told


@pytest.fixture
def warned(caplog):
    """The warnings that were logged."""
    caplog.set_level(logging.WARNING, "minimcp")
    return lambda: [record.getMessage() for record in caplog.records]


def test_a_duplicate_name_is_told_with_both_places(warned):
    server = Server("s")
    here = __file__

    @server.tool
    def add(a: int) -> int:
        return a

    first = add.__code__.co_firstlineno

    @server.tool(name="add")
    def another(a: int) -> int:
        return a

    second = another.__code__.co_firstlineno
    server.resource("a://b")(lambda: "x")
    server.resource("a://b")(add_nothing)
    server.prompt(add_nothing)
    server.prompt(add_nothing)
    place = add_nothing.__code__.co_firstlineno
    assert warned()[0] == f"the tool 'add' at {here}, line {second} takes the place of the one at {here}, line {first}"
    assert re.fullmatch(
        rf"the resource 'a://b' at {re.escape(here)}, line {place} takes the place of the one at {re.escape(here)}, "
        r"line \d+",
        warned()[1],
    )
    assert len(warned()) == 2
    # What is replaced while the server serves is replaced on purpose.
    server.handle(modern("tools/list"))
    server.tool(lambda: "x", "add")
    assert len(warned()) == 2


def add_nothing() -> str:
    return ""


class Foo:
    def method(self, a: int) -> int:
        return a


def foo(x: Foo) -> str: ...


def noted(note_id: str) -> str: ...


def many(*args) -> str: ...


def yielding(a: int):
    yield a


def forward(a: Lst[int]) -> str: ...  # noqa: F821


def misused(server, what):
    def bar() -> Foo: ...

    def asks(ctx, a: int) -> str: ...

    def unhinted(a, b=1): ...

    mistakes = {
        "method": lambda: server.tool(Foo.method),
        "template": lambda: server.resource("note://{id}")(noted),
        "positional": lambda: server.tool(many),
        "generator": lambda: server.tool(yielding),
        "forward": lambda: server.tool(forward),
        "hint": lambda: server.tool(foo),
        "return": lambda: server.tool(bar),
        "ctx": lambda: server.tool(asks),
        "name": lambda: server.tool("adder"),
        "lambda": lambda: server.tool(lambda: 1),
        "option": lambda: server.tool(desc="x")(add_nothing),
        "mime": lambda: server.resource("a://b", mime="x")(add_nothing),
        "unknown": lambda: server.prompt(xyzzy=1)(add_nothing),
        "bad name": lambda: server.tool(add_nothing, "my tool!"),
        "bare resource": lambda: server.resource(add_nothing),
        "image": lambda: image("cat.png"),
        "image kind": lambda: image(Path("cat.txt")),
        "no name": lambda: Server(None),
        "nothing": lambda: Server(),
        "settings": lambda: Server("s", port=8000),
        "misspelt": lambda: Server("s", instruction="x"),
        "strange": lambda: Server("s", xyzzy=1),
        "port": lambda: server.run_http(port="8000"),
        "transport": lambda: server.run(transport="http", port=8000),
        "run": lambda: server.run("stdio"),
        "add_tool": lambda: server.add_tool(add_nothing),
        "app": lambda: server.streamable_http_app(),
        "attribute": lambda: server.xyzzy,
    }
    mistakes[what]()


HINTS = (
    "write a basic type, list, dict, Literal, Enum, TypedDict, dataclass or pydantic model, or give a raw JSON Schema"
)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("hint", f"foo: parameter x: the hint Foo has no JSON form: {HINTS}"),
        ("return", f"bar: return hint: the hint Foo has no JSON form: {HINTS}"),
        ("ctx", "asks: ctx would be an argument of the tool: write ctx: Context to receive the Context"),
        ("name", "Write name='adder': the first argument is the function itself"),
        ("lambda", "A lambda has no name of its own: give name="),
        ("option", "@server.tool has no option desc; did you mean description?"),
        ("mime", "@server.resource has no option mime; did you mean mime_type?"),
        (
            "unknown",
            "@server.prompt has no option xyzzy; there are allow, description, icons, meta, roles, scopes, tags, title",
        ),
        ("template", "'note://{id}' and the parameters of noted() differ: id, note_id"),
        (
            "positional",
            "many: arguments arrive by name, so args cannot be positional only or *args: write an ordinary parameter, "
            "like args: list[str]",
        ),
        ("generator", "yielding is a generator: return a list instead of yielding its items"),
        (
            "forward",
            "the type hints of forward cannot be resolved: name 'Lst' is not defined; define or import the name at the "
            "top of the module",
        ),
        (
            "method",
            "Foo.method is a method without its object: register that of an instance, such as "
            "server.tool(Foo().method)",
        ),
        ("bad name", "The tool name 'my tool!' is not 1 to 128 of A-Z a-z 0-9 _ - ."),
        ("bare resource", 'Write the URI: @server.resource("config://app")'),
        ("image", "'cat.png' is no base64; give bytes, or the path of a file: Path('cat.png')"),
        ("image kind", "The name of cat.txt does not say which image it is; give mime_type="),
        ("no name", "The name of a server is a str, not None"),
        ("nothing", 'Server needs a name: Server("my-server")'),
        ("settings", "Server has no option port; how it is served is said later: server.run_http(port=...)"),
        ("misspelt", "Server has no option instruction; did you mean instructions?"),
        ("strange", "Server has no option xyzzy"),
        ("port", "port= is a whole number, not '8000'"),
        ("transport", "run() serves over stdio and takes nothing; over HTTP write server.run_http(port=...)"),
        ("run", "run() serves over stdio and takes nothing; over HTTP write server.run_http(port=...)"),
        ("add_tool", "A server has no add_tool: write server.tool(function)"),
        ("app", "A server has no streamable_http_app: write server.wsgi"),
        ("attribute", "A server has no xyzzy"),
    ],
)
def test_a_registration_is_told_what_to_write(what, text):
    with pytest.raises((TypeError, ValueError, AttributeError)) as caught:
        misused(Server("s"), what)
    assert str(caught.value) == text


def test_parameters_without_hints_are_warned_about_once(warned):
    server = Server("s")
    server.tool(lambda a, b=1: a, "add")
    server.tool(lambda a: a, "same")
    server.tool(lambda a: a, "raw", input_schema={"type": "object"})
    assert warned() == [
        "add: a, b have no type hints, so that anything is accepted",
        "same: a has no type hint, so that anything is accepted",
    ]


def test_an_image_is_read_from_its_path(folder):
    (folder / "cat.jpg").write_bytes(b"\xff\xd8")
    (folder / "cat").write_bytes(b"RIFF")
    assert image(Path("cat.jpg")) == {"type": "image", "data": "/9g=", "mimeType": "image/jpeg"}
    assert audio(Path("cat"), "audio/wav") == {"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav"}
    assert image(b"x") == {"type": "image", "data": "eA==", "mimeType": "image/png"}


def test_a_version_that_is_a_number_goes_out_as_text():
    assert Server("m", 1).engine.identity == {"name": "m", "version": "1"}
    assert repr(Server("m", 1)) == "<Server 'm', version 1>"


# What a caller is told


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Place:
    city: str
    day: datetime.date


def calling(client, what):
    mistakes = {
        "position": lambda: client.call_tool("add", 1, 2),
        "one position": lambda: client.call_tool("add", 1),
        "object": lambda: client.call_tool("add", a=[object()]),
        "progress": lambda: client.call_tool("add", a=1, progress=print),
        "option": lambda: client.call_tool("add", {"a": 1}, timeot=3),
        "time": lambda: client.call_tool("add", {"a": 1}, timeout="3"),
        "no time": lambda: client.call_tool("add", {"a": 1}, timeout=-1),
        "arguments": lambda: client.call_tool("closed", arguments={"value": 1}),
        "content": lambda: client.call_tool("echo", value=1).content,
        "snake case": lambda: client.call_tool("echo", value=1).structured_content,
        "tool": lambda: client.list_tools()[0].name,
        "tool snake case": lambda: client.list_tools()[0].input_schema,
        "tools": lambda: client.list_tools().tools,
        "no member": lambda: client.list_tools()[0].nme,
        "server name": lambda: client.server_info.name,
        "callback": lambda: Client("http://h/", elicit=True),
        "other": lambda: client.call_tool("echo", value=1).contnt,
        "timeout": lambda: Client("http://h/", timeout="5"),
        "no timeout": lambda: Client("http://h/", timeout=0),
        "server": lambda: Client("http://h/", server="x"),
        "token": lambda: Client("http://h/", auth="a b c"),
        "two tokens": lambda: Client("http://h/", auth="a", headers={"authorization": "Bearer b"}),
        "kit": lambda: __import__("minimcp").FastMCP,
    }
    return mistakes[what]()


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (
            "position",
            "The arguments of a tool go by name, or in one dict: call_tool('add', a=1) or call_tool('add', {'a': 1})",
        ),
        (
            "one position",
            "The arguments of a tool go by name, or in one dict: call_tool('add', a=1) or call_tool('add', {'a': 1})",
        ),
        ("object", "The argument a cannot be written as JSON: a object has no JSON form"),
        (
            "progress",
            "progress= cannot be an argument; options follow a dict of arguments: (name, {...}, progress=...)",
        ),
        ("option", "There is no option 'timeot'; there are check, max_timeout, meta, progress, timeout"),
        ("time", "timeout= is a number of seconds, not '3'"),
        ("no time", "timeout= is a time to wait, more than 0 seconds, not -1"),
        ("arguments", "arguments= is no argument of closed; write the dict itself: ('closed', {...})"),
        ("content", "A result is a dict with the specification's names: write result['content']"),
        ("other", "'Result' object has no attribute 'contnt'"),
        ("snake case", "A result is a dict with the specification's names: write result['structuredContent']"),
        ("tool", "This is a dict with the specification's names: write ['name'] in place of .name"),
        (
            "tool snake case",
            "This is a dict with the specification's names: write ['inputSchema'] in place of .input_schema",
        ),
        ("tools", "This is the list itself: leave out .tools"),
        ("no member", "'Item' object has no attribute 'nme'"),
        ("server name", "This is a dict with the specification's names: write ['name'] in place of .name"),
        ("callback", "elicit= is a function, not True"),
        ("timeout", "timeout= is a number of seconds, not '5'"),
        ("no timeout", "timeout= is a time to wait, more than 0 seconds, not 0"),
        (
            "server",
            "server= cannot be used for this target: it is for an mcpServers file, which may have several",
        ),
        (
            "token",
            "auth= is a bearer token, which has no spaces, or a user and a password: auth=(user, password)",
        ),
        ("two tokens", "auth= and headers= both have credentials; give one of them"),
        ("kit", "minimcp has no FastMCP: write `from minimcp import Server`, and server = Server('name')"),
    ],
)
def test_a_caller_is_told_what_to_write(what, text):
    with (
        Client(echoing()) as client,
        pytest.raises((TypeError, ValueError, AttributeError, ImportError, ClientError)) as caught,
    ):
        calling(client, what)
    assert str(caught.value) == text


def echoing() -> Server:
    server = Server("s")
    server.tool(lambda **arguments: arguments["value"], "echo", input_schema={"type": "object"})

    @server.tool
    def closed(value: int) -> int:
        return value

    return server


def test_dates_enums_and_dataclasses_are_converted_in_arguments():
    place = Place("Oslo", datetime.date(2026, 2, 28))
    with Client(echoing()) as client:
        assert client.call_tool("echo", value={"in": [Colour.RED, (place,)]}).data == {
            "in": ["red", [{"city": "Oslo", "day": "2026-02-28"}]]
        }


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda ctx: ctx.info("x"), 'A context has no info: write ctx.log("info", "...")'),
        (lambda ctx: ctx.report_progress(1, 2), "A context has no report_progress: write ctx.progress(done, total)"),
        (lambda ctx: ctx.lifespan_context, "A context has no lifespan_context: write ctx.app"),
        (lambda ctx: ctx.xyzzy, "A context has no xyzzy"),
    ],
)
def test_the_context_of_other_kits_is_told_what_to_write(call, text):
    server = Server("s")

    @server.tool
    def work(ctx: Context) -> str:
        return call(ctx)

    with Client(server) as client:
        assert client.call_tool("work").text == f"The tool work failed: AttributeError: {text}"


def test_what_has_no_json_form_is_told_to_the_caller():
    server = Server("s")
    server.tool(lambda: Foo(), "make")
    with Client(server) as client:
        assert client.call_tool("make").text == (
            "The tool make failed: TypeError: a Foo has no JSON form: return a str, number, list, dict, dataclass or "
            "another type that hints may name"
        )


def test_the_habits_of_asynchronous_kits_are_told_what_to_leave_out():
    async def with_async():
        async with Client(echoing()):
            pass

    async def awaited():
        with Client(echoing()) as client:
            await client.call_tool("echo", value=1)

    async def listed():
        with Client(echoing()) as client:
            await client.list_tools()

    for work, text in (
        (with_async, "This client is synchronous: write `with Client(...) as client:`, without async"),
        (awaited, "The result is there already, since this client is synchronous: leave out await"),
        (listed, "The list is there already, since this client is synchronous: leave out await"),
    ):
        with pytest.raises(TypeError) as caught:
            asyncio.run(work())
        assert str(caught.value) == text


def closed() -> Client:
    client = Client(echoing())
    client.open()
    client.close()
    return client


def answering(answer) -> Client:
    server = Server("s")

    @server.tool
    def wipe(ctx: Context) -> str:
        return str(ctx.elicit("Wipe it?", {"sure": bool}))

    return Client(server, elicit=lambda question: answer)


FORM = "The server's question cannot be answered: "


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: closed().call_tool("echo"), "The client is closed; open() it again to use it"),
        (lambda: answering(True).call_tool("wipe"), FORM + 'The answer does not fit the form: "sure" missing'),
        (lambda: answering({"sur": 1}).call_tool("wipe"), FORM + 'The answer does not fit the form: "sure" missing'),
        (
            lambda: answering(5).call_tool("wipe"),
            FORM + 'elicit= must return a dict of fields, True, False, None, "accept", "decline" or "cancel"',
        ),
    ],
)
def test_a_call_that_cannot_be_made_or_answered_is_told_why(call, text):
    with pytest.raises(ClientError) as caught:
        call()
    assert str(caught.value) == text


def test_arguments_that_do_not_fit_are_told_by_their_names():
    server = Server("s")

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    with Client(server) as client:
        for arguments, text in (
            ({}, '"a", "b" missing'),
            ({"a": 1}, '"b" missing'),
            ({"a": "x", "b": 2}, '"a" must be an integer, not a string'),
            ({"a": 1, "b": 2, "c": 3}, '"c" is unknown; known are "a", "b"'),
        ):
            assert client.call_tool("add", arguments).text == f"Invalid arguments for add: {text}"


def test_what_may_not_be_run_and_who_may_not_call_is_told(folder, capsys):
    (folder / "noexec.sh").write_text("#!/bin/sh\n")
    told = "The server did not start: the command './noexec.sh' is not executable"
    assert refused("./noexec.sh") == told
    assert said(capsys, "list", "./noexec.sh") == (1, f"minimcp: {told}\n")
    with embedded(Server("s", auth=lambda request: None).wsgi) as listening:
        url = f"{listening.url}/mcp"
        none = "The server wants authorization (HTTP 401), and none was given"
        assert refused(url) == none + '; give auth="TOKEN", or auth=OAuth("my program")'
        given = (
            "The server does not accept the authorization that was given (HTTP 401): The credential is not valid here"
        )
        assert refused(url, auth="x") == given
        here = "; here: --login, or --header 'Authorization: Bearer TOKEN'\n"
        give = "; give --login, or --header 'Authorization: Bearer TOKEN'\n"
        assert said(capsys, "list", url) == (1, f"minimcp: {none}{give}")
        assert said(capsys, "list", url, "--header", "Authorization: Bearer x") == (1, f"minimcp: {given}{here}")


PAGE = "<!DOCTYPE html><html><head><title>Not Found &lt;at all&gt;</title><script>x()</script></head><body>..."


@pytest.mark.parametrize(
    ("body", "gist"),
    [
        (PAGE, ": Not Found <at all>"),
        ("<html><body><h1>\n Bad\n Gateway</h1><hr>nginx</body></html>", ": Bad Gateway"),
        ("<p>It is <b>down</b>.</p><!-- no -->", ": It is down ."),
        ("  two\n lines\n", ": two lines"),
        ('{"error": {"code": 1, "message": "not today"}}', ": not today"),
        ('{"error": "x"}', ': {"error": "x"}'),
        ("", ""),
    ],
)
def test_a_page_of_another_server_is_told_by_its_title(capsys, body, gist):
    def app(environ, start_response):
        start_response("500 Oops", [("Content-Type", "text/html"), ("Content-Length", str(len(body)))])
        return [body.encode()]

    with embedded(app) as listening:
        url = f"{listening.url}/mcp"
        assert refused(url) == f"HTTP 500 from {url}{gist}"
        assert said(capsys, "list", url) == (1, f"minimcp: HTTP 500 from {url}{gist}\n")


def test_a_verifier_may_refuse_without_a_word():
    def verify(request):
        raise Unauthorized

    with embedded(Server("s", auth=verify).wsgi) as listening:
        told = "The server does not accept the authorization that was given (HTTP 401): Sign in first"
        assert refused(f"{listening.url}/mcp", auth="x") == told
    assert str(Forbidden()) == "The caller may not do this"


def test_a_string_of_auth_is_a_bearer_token():
    seen = []

    def app(environ, start_response):
        seen.append(environ["HTTP_AUTHORIZATION"])
        return server.wsgi(environ, start_response)

    server = echoing()
    with embedded(app) as listening:
        for target in (listening.url + "/mcp", app):
            for token in ("s3cret", "Bearer s3cret"):
                with Client(target, auth=token) as client:
                    assert client.call_tool("echo", value=1).text == "1"
    assert set(seen) == {"Bearer s3cret"}


# The command line

OFFER = (
    "from __future__ import annotations\nimport dataclasses, datetime, enum\nfrom typing import Annotated, Optional\n"
    + HEAD
    + '''
class Colour(enum.Enum):
    RED = "red"
    PALE = "pale green"

@dataclasses.dataclass
class Address:
    street: str
    zip: Optional[str] = None

@dataclasses.dataclass
class Person:
    name: str
    address: Optional[Address] = None

@server.tool
def paint(colour: Colour, prio: int = 1) -> str:
    """Paint a wall.

    :param colour: of the paint
    """
    return colour.value

@server.tool
def greet(person: Person, tags: list[int]) -> str:
    return person.name

@server.tool(annotations={"readOnlyHint": True})
def days(start: datetime.date, end: datetime.date) -> int:
    return (end - start).days

@server.tool
def picture() -> list:
    return [{"type": "image", "data": "eA==", "mimeType": "image/png"}, "one letter"]
'''
)


@pytest.fixture
def offer(folder):
    (folder / "f.py").write_text(OFFER)


def shown(capsys, *words: str, code: int = 0) -> str:
    assert main(list(words)) == code
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_a_call_can_be_typed_from_a_list(offer, capsys):
    assert shown(capsys, "list", "f.py") == lines(
        "s 0 (2026-07-28)",
        "",
        "Tools",
        '  paint(colour: red|"pale green", prio: integer = 1)',
        "      Paint a wall.",
        "  greet(person: {name: string, address: {street: string, zip: string or null = null} or null = null}, "
        "tags: [integer])",
        "  days(start: date, end: date)",
        "  picture()",
    )


def test_a_tool_is_described_with_a_call_to_copy(offer, capsys):
    assert shown(capsys, "describe", "f.py", "paint") == lines(
        'paint(colour: red|"pale green", prio: integer = 1)',
        "  Paint a wall.",
        "",
        "Arguments",
        '  colour: red|"pale green"  (required)',
        "      of the paint",
        "  prio: integer = 1",
        "",
        "To call it",
        "  minimcp call f.py paint colour=red",
    )
    assert shown(capsys, "describe", "f.py", "days") == lines(
        "days(start: date, end: date)",
        "",
        "Arguments",
        "  start: date  (required)",
        "  end: date  (required)",
        "",
        "Result",
        "  integer",
        "",
        "Hints of the server",
        "  readOnlyHint: True",
        "",
        "To call it",
        "  minimcp call f.py days start=2026-01-31 end=2026-01-31",
    )
    for name in ("paint", "greet", "days", "picture"):
        last = shown(capsys, "describe", "f.py", name).splitlines()[-1]
        shown(capsys, *shlex.split(last)[1:])


def test_bytes_of_a_result_go_to_a_file(offer, folder, capsys):
    assert shown(capsys, "call", "f.py", "picture", "-o", "cat.png") == "one letter\n"
    assert (folder / "cat.png").read_bytes() == b"x"


def test_without_a_command_it_shows_what_people_do(capsys):
    out = shown(capsys)
    for command in ("list", "describe", "call", "read", "run", "run server.py --http 8000"):
        assert f"\n  minimcp {command} " in out
    assert shown(capsys, "help") == out
    assert shown(capsys, "help", "describe").startswith("usage: minimcp describe")


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["call", "f.py"], 2, "say which tool: paint, greet, days, picture"),
        (["call", "f.py", "pant"], 2, "the server lists no tool 'pant'; there is paint"),
        (["call", "f.py", "paint", '{"a": 1}'], 2, "a JSON object of arguments follows an option: --arguments '{...}'"),
        (["run", "nofile.py", "--http", "0"], 2, "There is no file 'nofile.py'"),
        (["run", "notes", "--http", "0"], 2, "There is no file 'notes'"),
        (["list", "f.py", "--timeout", "-1"], 2, "--timeout is a time to wait, more than 0 seconds, not -1.0"),
        (
            ["list", "f.py", "--server", "x"],
            2,
            "--server cannot be used for this target: it is for an mcpServers file, which may have several",
        ),
        (
            ["list", "f.py", "--header", "A: b"],
            2,
            "--header cannot be used for this target: it is for HTTP; a process gets its credentials by --env",
        ),
        (
            ["call", "f.py", "paint", "colour=blue"],
            3,
            "the tool paint failed: Invalid arguments for paint: "
            '"colour" must be one of "red", "pale green", not "blue"',
        ),
        (
            ["call", "f.py", "days", "-o", "x", "start=2026-01-01", "end=2026-01-01"],
            1,
            "The result has no image, sound or other bytes",
        ),
        (["call", "f.py", "picture", "-o", "nowhere/x.png"], 1, "No such file or directory: nowhere/x.png"),
        (
            ["list", "http://127.0.0.1:1/mcp", "--sandbox", "memory=1M"],
            2,
            "--sandbox cannot be used for this target: it is for a process that the client starts",
        ),
        (
            ["call", "f.py", "days", "--answer", "yes"],
            2,
            "write --answer KEY=VALUE, --answer accept or --answer decline",
        ),
    ],
)
def test_a_command_is_told_what_to_write(offer, capsys, words, code, text):
    assert said(capsys, *words) == (code, f"minimcp: {text}\n")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (
            ["call", "f.py", "paint", "--colour", "red"],
            "minimcp call: --colour is no option; an argument is written colour=red (minimcp call --help tells more)",
        ),
        (
            ["run", "f.py", "--http", "abc"],
            "minimcp run: --http: 'abc' is not a port, a number up to 65535 (minimcp run --help tells more)",
        ),
        (
            ["run", "f.py", "--http", "99999999"],
            "minimcp run: --http: '99999999' is not a port, a number up to 65535 (minimcp run --help tells more)",
        ),
        (["call"], "minimcp call: TARGET is missing (minimcp call --help tells more)"),
        (["task", "f.py"], "minimcp task: ID is missing (minimcp task --help tells more)"),
        (
            ["install", "emacs", "f.py"],
            "minimcp install: 'emacs' is no HOST; there are claude-desktop, claude-code, cursor, vscode, json "
            "(minimcp install --help tells more)",
        ),
        (["audit", "log"], "minimcp audit: write verify, not 'log' (minimcp audit --help tells more)"),
        (
            ["list", "python", "f.py"],
            "minimcp list: 'f.py' is too much; a target of several words is quoted, or stands at the end after -- "
            "(minimcp list --help tells more)",
        ),
        (
            ["list", "f.py", "--servr", "x"],
            "minimcp list: --servr is no option; did you mean --server? (minimcp list --help tells more)",
        ),
        (["lst", "f.py"], "minimcp: there is no command 'lst'; did you mean list? (minimcp --help tells more)"),
        (
            ["f.py"],
            "minimcp: there is no command 'f.py'; a command comes first, as in: minimcp list f.py "
            "(minimcp --help tells more)",
        ),
    ],
)
def test_an_option_that_is_none_is_told_what_to_write(offer, capsys, words, text):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2 and capsys.readouterr().err.splitlines()[-1] == text


@on_a_terminal
def test_one_yes_or_no_is_one_prompt_and_a_date_is_checked(folder):
    path = folder / "f.py"
    path.write_text(
        "import datetime\nfrom minimcp import Context, Server\nserver = Server('s')\n@server.tool\n"
        "def wipe(ctx: Context) -> str:\n    return str(ctx.elicit('Wipe it?', {'sure': bool}))\n@server.tool\n"
        "def plan(ctx: Context) -> str:\n    return str(ctx.elicit('When?', {'day': datetime.date}))\n"
    )
    with Pty("-m", "minimcp", "call", str(path), "wipe") as terminal:
        terminal.wait_for("asks: Wipe it?\r\n  sure? [y]es, [n]o, [d]ecline, [c]ancel: ")
        terminal.type("y\n")
        assert terminal.child.stdout.read() == b"{'sure': True}\n"
        assert terminal.child.wait(20) == 0
    with Pty("-m", "minimcp", "call", str(path), "plan") as terminal:
        terminal.wait_for("Answer? [Y]es")
        terminal.type("\n")
        terminal.wait_for("date: ")
        terminal.type("2026-02-30\n")
        terminal.wait_for("a date is written like 2026-01-31\r\n")
        terminal.type("2026-02-28\n")
        terminal.wait_for("Send it? ")
        terminal.type("y\n")
        assert terminal.child.wait(20) == 0


QUESTIONS = (
    "from minimcp import Context, Server\nserver = Server('s')\n@server.tool\n"
    "def empty(ctx: Context) -> str:\n"
    "    return ctx.elicit('Go on?', {'type': 'object', 'properties': {}}).action\n@server.tool\n"
    "def likely(ctx: Context) -> str:\n    return str(dict(ctx.elicit('How many?', {'n': (int, 3)})))\n@server.tool\n"
    "def sure(ctx: Context) -> str:\n    return ctx.elicit('Sure?', {'sure': bool}).action\n@server.tool\n"
    "def page(ctx: Context) -> str:\n    return str(bool(ctx.elicit_url('Pay?', 'http://pay.example/')))\n"
)
YES_NO = "answer with --answer sure=yes|no"


@pytest.mark.parametrize("mode", ["2026-07-28", "2025-11-25"])
def test_a_form_without_fields_is_answered_as_a_whole(capsys, monkeypatch, mode):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    made: dict = {}
    exec(QUESTIONS, made)
    with embedded(made["server"].wsgi) as listening:
        answer_forms(capsys, f"{listening.url}/mcp", mode)


def answer_forms(capsys, url, mode):
    more = ("--mode", mode)
    for words, out in (
        (["empty", "--answer", "accept"], "accept"),
        (["empty", "--answer", "decline"], "decline"),
        (["empty", "--answer", "cancel"], "cancel"),
        (["likely", "--answer", "accept"], "{'n': 3}"),
        (["likely", "--answer", "n=5"], "{'n': 5}"),
        (["sure", "--answer", "decline"], "decline"),
        (["sure", "--answer", "sure=no", "--answer", "decline"], "accept"),
    ):
        assert shown(capsys, "call", url, *words, *more) == f"{out}\n"
    for words, text in (
        (["empty"], "Go on?; answer with --answer accept or --answer decline"),
        (["empty", "--answer", "x=1"], "Go on?; answer with --answer accept or --answer decline; it has no field x"),
        (["likely"], "How many?; answer with --answer accept, --answer n=... or --answer decline"),
        (["sure"], f"Sure?; {YES_NO}"),
        (["sure", "--answer", "accept"], f"Sure?; {YES_NO}"),
        (["sure", "--answer", "sur=yes"], f"Sure?; {YES_NO}; it has no field sur"),
        (["sure", "--answer", "sure=maybe"], "Sure?; --answer sure=maybe does not fit: write yes or no"),
        (["page", "--answer", "accept"], "Pay?; open http://pay.example/ in a browser, or run this on a terminal"),
    ):
        if words[0] == "page" and mode != "2026-07-28":
            continue
        assert main(["call", url, *words, *more]) == 1
        assert capsys.readouterr() == ("", f"minimcp: the server asks: {text}\n")


@on_a_terminal
def test_a_form_without_fields_is_one_prompt(folder):
    path = folder / "f.py"
    path.write_text(QUESTIONS)
    with Pty("-m", "minimcp", "call", str(path), "empty") as terminal:
        terminal.wait_for("asks: Go on?\r\nAnswer? [Y]es, [d]ecline, [c]ancel: ")
        terminal.type("y\n")
        assert terminal.child.wait(20) == 0
        assert terminal.child.stdout.read() == b"accept\n"


def test_a_question_that_nobody_can_answer_is_told_with_the_option_that_would():
    server = Server("s")

    @server.tool
    def wipe(ctx: Context) -> str:
        return str(ctx.elicit("Wipe it?", {"sure": bool}))

    with Client(server) as client, pytest.raises(RemoteError) as caught:
        client.call_tool("wipe")
    assert str(caught.value) == (
        "The client did not declare a capability this call needs (-32021); it asks the client: "
        "give Client(..., elicit=...)"
    )


def test_the_end_of_a_server_is_told_with_what_may_help(folder, monkeypatch):
    (folder / "f.py").write_text(ADD)
    python = str(folder / "python")
    (folder / "python").symlink_to(sys.executable)
    path = {"PYTHONPATH": str(ROOT)}
    assert refused([sys.executable, "f.py"], env=path) == (
        f"The server {sys.executable} f.py exited with code 0 (does f.py call server.run()? Client('f.py') serves it "
        "without) and wrote nothing to standard error"
    )
    command = [python, "-c", "import sys; sys.exit(\"No module named 'minimcp'\")"]
    named = " ".join(shlex.join(command).split())
    assert refused(command) == (
        f"The server {named} exited with code 1 ({python} is {python}, while this program "
        f"runs {sys.executable}). The end of its standard error:\nNo module named 'minimcp'"
    )
    monkeypatch.setenv("API_KEY", "1")
    (folder / "f.py").write_text("import os\n" + ADD + "os.environ['API_KEY']\n")
    assert refused("f.py").startswith(
        f"The server {sys.executable} -m minimcp run f.py exited with code 1 (API_KEY is set here, but a server gets "
        "few variables: env={'API_KEY': ...} gives it). The end of its standard error:\nminimcp: f.py, line 7: KeyError"
    )
    with Client("f.py", env={"API_KEY": "2"}) as client:
        assert client.call_tool("add", a=1, b=2).data == 3


ASKS = (
    "import os\nfrom minimcp import Context, Server\nserver = Server('s')\nKEY = os.environ['API_KEY']\n@server.tool\n"
    "def model(ctx: Context) -> str:\n    return ctx.sample('Hello')\n@server.tool\n"
    "def folders(ctx: Context) -> str:\n    return str(ctx.list_roots())\n"
)


def test_the_command_line_says_in_its_own_words_what_to_give(folder, capsys, monkeypatch):
    (folder / "f.py").write_text(ASKS)
    (folder / "silent.py").write_text(ADD)
    monkeypatch.delenv("API_KEY", raising=False)
    assert said(capsys, "list", "f.py")[1].endswith(f"\n{GONE} ({VARIABLES})\n")
    monkeypatch.setenv("API_KEY", "1")
    assert said(capsys, "list", "f.py")[1].endswith(f"\n{GONE} (API_KEY is set here, but {VARIABLES})\n")
    undeclared = "minimcp: The client did not declare a capability this call needs (-32021); it asks for "
    for tool, text in (("model", "a model, and none is here"), ("folders", "folders, and none are given here")):
        assert said(capsys, "call", "f.py", tool, "--env", "API_KEY=1") == (1, f"{undeclared}{text}\n")
    path = f"PYTHONPATH={ROOT}"
    assert said(capsys, "list", "--env", path, "--", sys.executable, "silent.py") == (
        1,
        "minimcp: The server PYTHON silent.py exited with code 0 (does silent.py call server.run()? "
        "`minimcp list silent.py` serves it without) and wrote nothing to standard error\n",
    )


def test_a_connection_of_a_database_on_another_thread_is_told_what_to_do():
    server = Server("s")
    held, open_, done = [], threading.Event(), threading.Event()

    def hold():
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            held.append(connection)
            open_.set()
            done.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    assert open_.wait(20)

    @server.tool
    def count() -> int:
        return held[0].execute("select 1").fetchone()[0]

    with Client(server) as client:
        told = client.call_tool("count").text
    done.set()
    thread.join(20)
    assert told.startswith("The tool count failed: ProgrammingError: SQLite objects created in a thread can only")
    assert told.endswith(". Functions run on several threads: open a connection in each call")


@pytest.mark.skipif(sys.version_info >= (3, 10), reason="later Pythons know it")
def test_a_union_of_later_pythons_is_told_how_it_is_written_on_old_ones(folder, capsys):
    (folder / "f.py").write_text(HEAD + "def f(a: int | None): ...\n")
    assert said(capsys, "list", "f.py")[1].splitlines()[0] == (
        "minimcp: f.py, line 3: TypeError: unsupported operand type(s) for |: 'type' and 'NoneType'; on old Pythons "
        "write Optional[X] and Union[X, Y] instead of X | Y"
    )


def test_where_nothing_listens_is_told_so():
    assert refused("http://127.0.0.1:1/mcp") == "No connection to http://127.0.0.1:1: nothing listens there"


def test_a_tool_of_a_similar_name_is_named():
    server = Server("s")

    @server.tool
    def search(text: str) -> str:
        return text

    with Client(server) as client:
        with pytest.raises(RemoteError) as caught:
            client.call_tool("serach", text="x")
        assert str(caught.value) == "Unknown tool: serach (-32602); did you mean search?"


def test_a_listed_tool_that_is_refused_is_not_mistaken_for_another():
    rules = Rules({"allow": "*:*"}, {"deny": "tools:read", "arguments": {"path": "/etc/*"}})
    server = Server("s", policy=rules)

    @server.tool
    def read(path: str) -> str:
        return path

    with Client(server) as client, pytest.raises(RemoteError) as caught:
        client.call_tool("read", path="/etc/passwd")
    assert str(caught.value) == (
        "Unknown tool: read (-32602); it is listed, so that the server refuses this call of it, or has just removed it"
    )


def test_an_option_among_the_arguments_is_told_where_it_goes(warned):
    server = Server("s")

    @server.tool
    def search(text: str) -> str:
        return text

    @server.tool
    def wait(timeout: int, **more: int) -> int:
        return timeout + more["check"]

    @server.prompt
    def review(title: str) -> str:
        return title

    with Client(server) as client:
        for call in (client.call_tool, client.start_tool):
            with pytest.raises(TypeError) as caught:
                call("search", text="x", timeout=5)
            assert str(caught.value) == (
                "timeout= is no argument of search; options follow a dict of arguments: ('search', {...}, timeout=...)"
            )
        with pytest.raises(TypeError) as caught:
            client.get_prompt("review", title="x", meta={})
        assert str(caught.value) == (
            "meta= is no argument of review; options follow a dict of arguments: ('review', {...}, meta=...)"
        )
        assert client.call_tool("wait", timeout=5, check=1).data == 6
        assert client.call_tool("search", text="x", other=1).text == (
            'Invalid arguments for search: "other" is unknown; known are "text"'
        )
        assert str(pytest.raises(RemoteError, client.call_tool, "none", timeout=5).value) == (
            "Unknown tool: none (-32602)"
        )
    assert warned() == []


def babbling(count, end=""):
    return [sys.executable, "-c", f"for i in range({count}): print('line', i, flush=True)\ninput(){end}"]


def test_a_program_that_only_babbles_is_given_up(warned):
    command = babbling(100, "\nimport time; time.sleep(60)")
    shown = shlex.join(command)
    assert refused(command) == (
        f"The server {' '.join(shown.split())} wrote 100 lines and none of them is a message: it is no MCP server. The "
        "first is 'line 0'"
    )
    assert len(warned()) == 5 and warned()[4].endswith("b'line 4'; further such lines are not logged")


def test_a_program_that_says_something_else_and_waits_is_told_as_such(warned):
    told = "The server did not answer initialize in {} s"
    more = "; it wrote 1 line and none of them is a message: is it an MCP server? The first is 'line 0'"
    assert refused(babbling(1, "\ninput()"), timeout=6, probe_timeout=0.1) == told.format(6) + more
    assert refused([sys.executable, "-c", "input()\ninput()"], timeout=2, probe_timeout=0.1) == told.format(2)


@pytest.fixture
def shadowed(folder):
    """A folder with a file of the package's own name."""
    (folder / "minimcp.py").write_text(ADD)
    (folder / "f.py").write_text(ADD)
    return folder


def test_a_file_with_the_name_of_this_package_is_told_to_be_renamed(shadowed, capsys, monkeypatch):
    hidden = (
        f"{shadowed.resolve() / 'minimcp.py'} has the name of this package, so that `import minimcp` finds that file: "
        "give it another name"
    )
    for target in ("minimcp.py", "f.py"):
        assert refused(target) == hidden
        assert said(capsys, "list", target) == (2, f"minimcp: {hidden}\n")
    assert said(capsys, "run", "minimcp.py", "--http", "0") == (2, f"minimcp: {hidden}\n")
    told = refused([sys.executable, "minimcp.py"], env={"PYTHONPATH": str(ROOT)})
    assert f" exited with code 1 ({hidden}). The end of its standard error:\nTraceback" in told
    # From elsewhere the other files there are fine.
    monkeypatch.chdir("/")
    with Client(shadowed / "f.py") as client:
        assert client.call_tool("add", a=1, b=2).data == 3


def test_what_is_printed_on_the_wire_is_told_where_it_belongs(folder, warned):
    (folder / "f.py").write_text("print('starting', flush=True)\n" + ADD + "server.run()\n")
    with Client([sys.executable, "f.py"], env={"PYTHONPATH": str(ROOT)}) as client:
        assert client.call_tool("add", a=1, b=2).data == 3
    assert warned() == [
        "the server wrote a line that is no message (Parse error: Expecting value), where print() belongs on standard "
        "error: b'starting'"
    ]
