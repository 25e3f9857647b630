"""The command line of a client: list, call, read and prompt, and what is asked in the terminal meanwhile."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from minimcp import Server
from minimcp.__main__ import main
from minimcp.cli import arguments, questions, show
from minimcp.cli.commands import target_of
from minimcp.client.answers import Question
from minimcp.engines.schema import text
from tests.authority import Authority, Browser, Resource
from tests.helpers import serving
from tests.terminal import Pty
from tests.transcripts.server import build

ROOT = Path(__file__).resolve().parent.parent

TOYS = """
from __future__ import annotations
from typing import Union
from minimcp import Context, Server, image
toys = Server("toys", "2", title="Toy\\x1b[31m box", instructions="Play.")

@toys.tool
def echo(value: Union[int, list[str], dict, None] = None, on: bool = False) -> str:
    return f"{value!r} {on}"

@toys.tool
def fail() -> str:
    raise ValueError("broken")

@toys.tool
def order(ctx: Context) -> str:
    ctx.progress(1, 4, "asking")
    return str(ctx.elicit("How many?", {"n": {"type": "integer", "minimum": 1}, "wrap": bool}))

@toys.tool
def picture() -> list:
    return [image(b"12345678", "image/png")]

@toys.resource("toys://bytes", mime_type="application/octet-stream")
def raw() -> bytes:
    return bytes(range(256))

@toys.resource("toys://text")
def note() -> str:
    return "a\\x1bb"
"""


@pytest.fixture
def toys(tmp_path, monkeypatch):
    path = tmp_path / "toys.py"
    path.write_text(TOYS)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return str(path)


@pytest.fixture(scope="module")
def library():
    server = build()
    with serving(server.wsgi) as url:
        yield f"{url}/mcp"
        server.close()


def test_list_shows_what_a_server_offers(capsys, library):
    assert main(["list", library]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[:2] == ["City library 1.0 (2026-07-28)", "Look a book up before you lend it."]
    assert "  lookup(title: string, shelf: integer 1.. = 1)  - Look up" in lines
    assert "      Say how many copies stand on a shelf." in lines
    assert "  library://rules  text/plain" in lines
    assert "  library://books/{isbn}  application/json" in lines
    assert "  review(title, tone?)  - Review" in lines


def test_list_as_json_has_the_lists_as_they_came(capsys, library):
    assert main(["list", library, "--json", "--mode", "2025-06-18"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["protocolVersion"] == "2025-06-18" and found["serverInfo"]["name"] == "library"
    assert found["instructions"] == "Look a book up before you lend it." and "tools" in found["capabilities"]
    assert {"lookup", "show"} <= {tool["name"] for tool in found["tools"]}
    assert found["resources"][0]["uri"] == "library://rules"
    assert found["resourceTemplates"][0]["uriTemplate"] == "library://books/{isbn}"
    assert found["prompts"][0]["arguments"][0]["name"] == "title"


def test_call_prints_the_text_of_the_result(capsys, library):
    assert main(["call", library, "lookup", "title=abc", "shelf=2"]) == 0
    assert capsys.readouterr().out == '{"copies":6}\n'
    assert main(["call", "--json", library, "lookup", "--timeout", "20", "title=abc"]) == 0
    assert json.loads(capsys.readouterr().out)["structuredContent"] == {"copies": 3}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["value=3"], "3 False"),
        (["value:=3", "on=true"], "3 True"),
        (["value=a", "value=b,c"], "['a', 'b,c'] False"),
        (['value=["a"]'], "['a'] False"),
        (['value={"a": 1}'], "{'a': 1} False"),
        (["value=null"], "None False"),
        (["--arguments", '{"value": 7, "on": true}'], "7 True"),
        (["--arguments", '{"value": 7}', "on=True"], "7 True"),
    ],
)
def test_arguments_are_typed_by_the_schema(capsys, toys, words, said):
    assert main(["call", toys, "echo", *words]) == 0
    assert capsys.readouterr().out == said + "\n"


def test_arguments_come_from_standard_input_too(capsys, toys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO('{"value": [ "x" ]}'))
    assert main(["call", toys, "echo", "-", "on=true"]) == 0
    assert capsys.readouterr().out == "['x'] True\n"


def test_a_tool_that_fails_is_exit_code_3(capsys, library):
    assert main(["call", library, "fail", "how=told"]) == 3
    out, err = capsys.readouterr()
    assert out == "" and err == "minimcp: the tool fail failed: This book is lent out.\n"
    assert main(["call", library, "fail", "how=told", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["isError"] is True


def test_read_writes_text_and_bytes_as_they_are(toys):
    for uri, expected in (("toys://bytes", bytes(range(256))), ("toys://text", b"a\x1bb")):
        done = subprocess.run(
            [sys.executable, "-m", "minimcp", "read", toys, uri], cwd=ROOT, capture_output=True, timeout=30
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, b"")


def test_read_as_json_and_what_is_not_there(capsys, toys):
    assert main(["read", toys, "toys://text", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["contents"][0]["text"] == "a\x1bb"
    assert main(["read", toys, "toys://no"]) == 1
    assert capsys.readouterr().err == (
        "minimcp: Resource not found (-32602): toys://no; the server lists toys://bytes, toys://text\n"
    )


def test_prompt_shows_its_messages(capsys, library):
    assert main(["prompt", library, "review", "title=Emma", "tone=harsh"]) == 0
    assert capsys.readouterr().out == "user: Write a harsh review of Emma.\nuser: [link to library://rules]\n"
    assert main(["prompt", library, "review", "title=Emma", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["messages"][0]["role"] == "user"


def test_what_is_no_text_is_named(capsys, toys):
    assert main(["call", toys, "picture"]) == 0
    assert capsys.readouterr().out == "[image image/png, about 9 bytes; -o FILE writes them]\n"


def test_a_command_follows_two_hyphens(capsys, toys):
    command = ["--", sys.executable, "-m", "minimcp", "run", toys]
    assert main(["call", "echo", "value=1", "--env", f"PYTHONPATH={ROOT}", *command]) == 0
    assert capsys.readouterr().out == "1 False\n"
    assert main(["list", "--env", f"PYTHONPATH={ROOT}", *command]) == 0
    assert capsys.readouterr().out.startswith("Toy\\u001b[31m box 2 (2026-07-28)\n")


def test_a_command_may_be_one_word_in_quotes(capsys, toys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert main(["call", f"{sys.executable} -m minimcp run {toys}", "echo"]) == 0
    assert capsys.readouterr().out == "None False\n"


def test_a_server_is_picked_from_a_file(capsys, toys, tmp_path):
    entry = {"command": sys.executable, "args": ["-m", "minimcp", "run", toys], "env": {"PYTHONPATH": str(ROOT)}}
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"one": entry, "two": {"url": "http://127.0.0.1:1/mcp"}}}))
    assert main(["call", str(config), "echo", "--server", "one"]) == 0
    assert capsys.readouterr().out == "None False\n"
    assert main(["read", str(config), "toys://text"]) == 2
    assert capsys.readouterr().err == f"minimcp: {config}: Say which server: --server one of 'one', 'two'\n"
    assert main(["list", str(config), "--server", "three"]) == 2
    assert capsys.readouterr().err == f"minimcp: {config}: There is no server 'three'; there are 'one', 'two'\n"
    assert main(["list", str(config)]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("== one\nToy") and out.endswith("\n\n== two\n") and "127.0.0.1:1" in err
    assert main(["list", str(config), "--json"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert [*found] == ["one", "two"] and found["one"]["serverInfo"]["name"] == "toys"
    assert err == f"minimcp: two: {found['two']['error']}\n"
    config.write_text('{"mcpServers": {}}')
    assert main(["list", str(config)]) == 2
    assert capsys.readouterr().err == f"minimcp: {config}: There are no servers in it\n"


def test_over_http_with_headers(capsys):
    from minimcp import Server

    seen = []
    server = Server("s", "1")
    server.tool(lambda: "x", "t")

    def app(environ, start_response):
        seen.append(environ.get("HTTP_X_KEY"))
        return server.wsgi(environ, start_response)

    with serving(app) as url:
        assert main(["call", f"{url}/mcp", "t", "--header", "X-Key: 1:2"]) == 0
        server.close()
    assert capsys.readouterr().out == "x\n" and set(seen) == {"1:2"}


def test_a_server_that_wants_authorization_is_one_line_too(capsys):
    def closed(environ, start_response):
        start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer")])
        return [b""]

    with serving(closed) as url:
        assert main(["list", url + "/mcp"]) == 1
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "401" in err and "--login, or --header 'Authorization: Bearer TOKEN'" in err


def test_signing_in_with_a_browser_and_keeping_the_tokens(capsys, monkeypatch, tmp_path):
    server, browser, tokens = Server("guarded"), Browser(), tmp_path / "tokens.json"
    server.tool(lambda: "42", "secret", description="Tell a secret.")
    monkeypatch.setattr("webbrowser.open", browser.open)
    with Authority() as authority, Resource(authority) as site:

        def page(seen):
            answer = site.answer(seen)
            return (200, server.handle(seen.form), {}) if answer[0] == 200 else answer

        site.pages["/mcp"] = page
        for _ in range(2):
            assert main(["call", site.endpoint, "secret", f"--login={tokens}"]) == 0
        assert capsys.readouterr().out == "42\n42\n" and len(browser.opened) == 1
        assert main(["call", site.endpoint, "secret", "--login"]) == 0
        assert f"To sign in, visit {browser.opened[1]}" in capsys.readouterr().err


def test_trace_goes_to_standard_error_or_a_file(capsys, toys, tmp_path):
    assert main(["call", "--trace", toys, "echo"]) == 0
    out, err = capsys.readouterr()
    assert out == "None False\n"
    assert [json.loads(line)["direction"] for line in err.splitlines()] == ["sent", "received"] * 3
    assert main(["list", f"--trace={tmp_path / 'trace'}", toys]) == 0
    assert capsys.readouterr().err == ""
    assert len((tmp_path / "trace").read_text().splitlines()) == 8


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["list", "nowhere.py"], 2, "There is no file 'nowhere.py'"),
        (["list", "nowhere.json"], 2, "There is no file 'nowhere.json'"),
        (["list", "a-program-that-is-not-there"], 1, "not found"),
        (["list", "http://127.0.0.1:1/mcp"], 1, "127.0.0.1"),
        (["list", "--"], 2, "a command must follow --"),
        (["call", "LIBRARY", "lokup", "title=x"], 2, "the server lists no tool 'lokup'; there is lookup"),
        (["call", "LIBRARY", "lookup", "title"], 2, "an argument is KEY=VALUE or KEY:=JSON, not 'title'"),
        (["call", "LIBRARY", "lookup", "=x"], 2, "an argument is KEY=VALUE"),
        (["call", "LIBRARY", "lookup", "title:={"], 2, "title is not JSON"),
        (["call", "LIBRARY", "lookup", "title=a", "title=b"], 2, "title is given twice"),
        (["call", "LIBRARY", "lookup", "shelf=many"], 2, "shelf must be of type integer, not 'many'"),
        (["call", "LIBRARY", "lookup", "--arguments", "[]"], 2, "the arguments must be a JSON object"),
        (["list", "LIBRARY", "--header", "secret"], 2, "write --header 'NAME: VALUE'"),
        (["list", "LIBRARY", "--env", "secret"], 2, "write --env NAME=VALUE"),
        (["list", "LIBRARY", "--trace=/no/such/folder/x"], 1, "No such file"),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_code(capsys, library, words, code, said):
    assert main([library if word == "LIBRARY" else word for word in words]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("minimcp: ") and said in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lisst"], "minimcp: there is no command 'lisst'; did you mean list? (minimcp --help tells more)"),
        (["help", "cal"], "minimcp: there is no command 'cal'; did you mean call? (minimcp --help tells more)"),
        (
            ["server.py"],
            "minimcp: there is no command 'server.py'; a command comes first, as in: minimcp list server.py "
            "(minimcp --help tells more)",
        ),
        (["list"], "minimcp list: TARGET is missing (minimcp list --help tells more)"),
        (
            ["list", "x", "y"],
            "minimcp list: 'y' is too much; a target of several words is quoted, or stands at the end after -- "
            "(minimcp list --help tells more)",
        ),
        (
            ["list", "x", "--timout", "3"],
            "minimcp list: --timout is no option; did you mean --timeout? (minimcp list --help tells more)",
        ),
        (
            ["list", "x", "--timeout", "soon"],
            "minimcp list: --timeout: 'soon' is not a number of seconds (minimcp list --help tells more)",
        ),
        (
            ["run", "x", "--allow-host", "h"],
            "minimcp run: --allow-host goes with --http PORT (minimcp run --help tells more)",
        ),
        (
            ["run", "x", "--http", "0", "--path", "mcp"],
            "minimcp run: --path: 'mcp' is not the path of a URL, such as /mcp (minimcp run --help tells more)",
        ),
        (
            ["token", "ann", "--", "x"],
            "minimcp token: token takes no words after -- (minimcp token --help tells more)",
        ),
    ],
)
def test_what_makes_no_sense_is_one_line_and_exit_code_2(capsys, words, said):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err == said + "\n"


def test_help_names_commands_and_exit_codes(capsys):
    for words in (["--help"], ["call", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
        assert "exit codes: 0 done" in capsys.readouterr().out


def test_verbose_shows_what_the_server_says_beside(capsys, tmp_path):
    path = tmp_path / "loud.py"
    path.write_text(
        "import sys\nfrom minimcp import Context, Server\ns = Server('s', '1')\nprint('here', file=sys.stderr)\n"
        "@s.tool\ndef t(ctx: Context) -> str:\n    ctx.log('warning', 'hot\\x1b')\n    return 'x'\n"
    )
    assert main(["call", str(path), "t"]) == 0
    assert capsys.readouterr() == ("x\n", "here\n")
    assert main(["call", str(path), "t", "-v"]) == 0
    out, err = capsys.readouterr()
    assert out == "x\n" and "warning: hot\\u001b\n" in err and "here\n" in err


def test_a_reader_that_has_seen_enough_is_no_traceback(library):
    command = [sys.executable, "-m", "minimcp", "list", library]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE, timeout=30)
    os.close(write)
    assert done.returncode == 1 and done.stderr == b""


def test_references_and_unions_in_a_schema_type_arguments():
    schema = {
        "$defs": {
            "N": {"anyOf": [{"type": "integer"}, {"$ref": "#/$defs/N"}, {"type": "null"}]},
            "a/b": {"enum": [1, "x"]},
        },
        "properties": {
            "n": {"$ref": "#/$defs/N"},
            "e": {"$ref": "#/$defs/a~1b"},
            "c": {"const": True},
            "l": {"type": "array", "items": {"type": "number"}},
            "any": {},
            "remote": {"$ref": "https://host/schema"},
            "s": {"type": ["string", "null"]},
            "f": {"type": "number"},
        },
    }
    words = ["n=5", "c=true", "l=1", "l=2.5", "any=[1]", "remote=x", "s=5", "f=1e3", "more=a=b", 'odd:="q"']
    found = {
        "n": 5,
        "c": True,
        "l": [1, 2.5],
        "any": [1],
        "remote": "x",
        "s": "5",
        "f": 1000.0,
        "more": "a=b",
        "odd": "q",
    }
    assert arguments.arguments(words, schema) == found
    assert arguments.arguments(["n=null", "any=text"], schema) == {"n": None, "any": "text"}
    for wrong in ("f=nan", "f=inf", "any:=NaN", "n=x", "f="):
        with pytest.raises(ValueError):
            arguments.arguments([wrong], schema)
    for odd in (7, [], {"properties": 7}, {"properties": {"a": 7}}, {"properties": {"a": {"type": 7, "anyOf": 7}}}):
        assert arguments.arguments(["a=b"], odd if isinstance(odd, dict) else {"properties": odd}) == {"a": "b"}


def test_a_schema_that_grows_without_end_is_given_up():
    branch = {}
    branch["anyOf"] = [{"anyOf": [branch, {"type": "string"}] * 50} for _ in range(50)]
    assert text.allowed(branch, branch) == {"string"}


def test_the_bar_shows_shares_messages_and_nothing_that_plays_tricks():
    stream = io.StringIO()
    bar = show.Bar(stream)
    bar({"progress": 1, "total": 4, "message": "a\x1b\nb"})
    bar({"progress": 9, "total": 4})
    bar({"progress": 3.5})
    bar.clear()
    bar.clear()
    first, second, third, *_ = stream.getvalue().split("\r")[1:]
    assert first == "[#######.......................]  25% a\\u001b\\nb"
    assert second.rstrip() == "[##############################] 100%" and len(second) == len(first)
    assert third.rstrip() == "3.5" and stream.getvalue().endswith("\r")
    with bar.hidden():
        before = stream.getvalue()
        bar({"progress": 1})
        assert stream.getvalue() == before
    for total in (0, "x", None, float("nan"), 10**400, -1, True):
        bar({"progress": 10**399, "total": total})


# What a server asks in between


def ask(answers, **params):
    shown = io.StringIO()
    terminal = questions.Terminal("python server.py", io.StringIO(answers), shown)
    return terminal(Question({"message": "Please", **params}, "Shop\x1b")), shown.getvalue()


def form(**properties):
    return {"requestedSchema": {"type": "object", "properties": properties, "required": list(properties)[:1]}}


def test_a_form_is_asked_field_by_field_with_defaults_and_choices():
    fields = form(
        name={"type": "string", "title": "Your name", "minLength": 2},
        count={"type": "integer", "minimum": 1, "maximum": 5, "default": 3},
        wrap={"type": "boolean", "default": False},
        color={"type": "string", "enum": ["red", "green"]},
        size={"type": "string", "oneOf": [{"const": "s", "title": "Small"}, {"const": "l", "title": "Large"}]},
        extras={"type": "array", "items": {"type": "string", "enum": ["bow", "card"]}, "minItems": 1},
    )
    result, shown = ask("\n\nx\nEmma\n9\n4\nperhaps\ny\n3\n2\nLarge\n1, card\ny\n", **fields)
    assert result == {
        "action": "accept",
        "content": {"name": "Emma", "count": 4, "wrap": True, "color": "green", "size": "l", "extras": ["bow", "card"]},
    }
    assert shown.startswith("\nShop\\u001b (python server.py) asks: Please\nAnswer? [Y]es, [d]ecline, [c]ancel: ")
    assert "Your name\n" in shown and "count (optional)\n" in shown and "integer from 1 to 5 [3]: " in shown
    assert "This field is required." in shown and "    2. green\n" in shown and "    2. Large (l)\n" in shown


def test_a_flood_of_choices_is_cut_but_each_can_be_chosen():
    names = [f"n{number}" for number in range(5000)]
    result, shown = ask("\n4000\ny\n", **form(a={"type": "string", "enum": names}))
    assert result["content"] == {"a": "n3999"} and "    ... and 4900 more\n" in shown and "n100" not in shown


def test_what_is_left_out_takes_its_default_or_stays_out():
    fields = form(a={"type": "string", "default": "x"}, b={"type": "number"}, c={"type": "boolean", "default": True})
    result, _ = ask("y\n\n\n\ny\n", **fields)
    assert result == {"action": "accept", "content": {"a": "x", "c": True}}


@pytest.mark.parametrize("typed, action", [("\n", "accept"), ("d\n", "decline"), ("c\n", "cancel")])
def test_a_form_without_fields_is_one_question(typed, action):
    result, shown = ask(typed, **form())
    assert result["action"] == action and shown.endswith("asks: Please\nAnswer? [Y]es, [d]ecline, [c]ancel: ")


def test_a_form_can_be_edited_before_it_is_sent():
    result, shown = ask("y\nold\ne\nnew\nnonsense\ny\n", **form(a={"type": "string"}))
    assert result == {"action": "accept", "content": {"a": "new"}} and "text [old]: " in shown


@pytest.mark.parametrize(
    ("answers", "action"),
    [
        ("d\n", "decline"),
        ("c\n", "cancel"),
        ("", "cancel"),
        ("y\n", "cancel"),
        ("y\nx\nd\n", "decline"),
        ("y\nx\nc\n", "cancel"),
    ],
)
def test_a_form_can_be_declined_and_cancelled(answers, action):
    assert ask(answers, **form(a={"type": "string"}))[0] == {"action": action}


@pytest.fixture
def opened(monkeypatch):
    found = []
    monkeypatch.setattr("webbrowser.open", lambda url: found.append(url) or True)
    return found


def test_a_page_is_shown_whole_with_its_host_and_opened_only_with_consent(opened):
    url = "https://pay.example/x?" + "q" * 3000
    result, shown = ask("o\n", mode="url", url=url)
    assert result == {"action": "accept"} and opened == [url]
    assert f"the page: {url}\n" in shown and "its host: pay.example\n" in shown and "Warning" not in shown


@pytest.mark.parametrize(
    ("answers", "action"), [("m\n", "accept"), ("d\n", "decline"), ("c\n", "cancel"), ("", "cancel"), ("\n", "cancel")]
)
def test_without_consent_no_page_is_opened(opened, answers, action):
    assert ask(answers, mode="url", url="https://pay.example/")[0] == {"action": action}
    assert opened == []


@pytest.mark.parametrize(
    ("url", "warning"),
    [
        ("https://xn--pypal-4ve.com/", "letters that can look like others"),
        ("https://p\u0430ypal.com/", "letters that can look like others"),
        ("https://paypal.com@evil.example/", 'the part before "@" is not the host name'),
        ("http://pay.example/", "not encrypted"),
    ],
)
def test_a_suspicious_page_is_warned_about(opened, url, warning):
    assert warning in ask("d\n", mode="url", url=url)[1]
    assert "Warning" not in ask("d\n", mode="url", url="http://localhost:8000/")[1]


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "javascript:alert(1)", "https://", "no url", "http://[", "\x1b[2J"]
)
def test_what_is_no_page_is_declined_without_asking(opened, url):
    result, shown = ask("o\n", mode="url", url=url)
    assert result == {"action": "decline"} and opened == [] and "\x1b" not in shown


def test_where_there_is_no_browser_it_says_so(monkeypatch):
    def broken(url):
        raise OSError("no display")

    monkeypatch.setattr("webbrowser.open", broken)
    result, shown = ask("o\n", mode="url", url="https://pay.example/")
    assert result == {"action": "accept"} and "open the page yourself" in shown


def test_without_a_terminal_no_questions_can_be_asked(capsys, toys):
    assert main(["call", toys, "order"]) == 1
    told = "minimcp: the server asks: How many?; answer with --answer n=integer from 1 --answer wrap=yes|no\n"
    assert capsys.readouterr().err == told
    assert main(["call", toys, "order", "--answer", "n=2", "--answer", "wrap=yes"]) == 0
    assert capsys.readouterr().out == "{'n': 2, 'wrap': True}\n"
    assert main(["call", toys, "order", "--answer", "n=0", "--answer", "wrap=yes"]) == 1
    told = 'minimcp: the server asks: How many?; --answer n=0 does not fit: "n" must be at least 1, not 0\n'
    assert capsys.readouterr().err == told


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize("mode", ["2025-11-25", "2026-07-28"])
def test_questions_are_asked_on_the_terminal_while_a_tool_runs(toys, mode):
    with Pty("-m", "minimcp", "call", toys, "order", "--mode", mode) as terminal:
        if mode == "2026-07-28":  # a legacy server asks on another thread, which may come first
            terminal.wait_for("[#######.......................]  25% asking")
        terminal.wait_for("asks: How many?")
        terminal.wait_for("Answer? [Y]es")
        terminal.type("\n")
        terminal.wait_for("integer from 1: ")
        terminal.type("0\n")
        terminal.wait_for("integer from 1: ")
        terminal.type("12\n")
        terminal.wait_for("y or n: ")
        terminal.type("y\n")
        terminal.wait_for("Send it? ")
        terminal.type("y\n")
        assert terminal.child.stdout.read() == b"{'n': 12, 'wrap': True}\n"
        assert terminal.child.wait(20) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_ctrl_c_ends_it_without_a_traceback(toys):
    with Pty("-m", "minimcp", "call", toys, "order") as terminal:
        terminal.wait_for("Answer? [Y]es")
        terminal.child.send_signal(2)
        assert terminal.child.wait(20) == 130
        assert "Traceback" not in terminal.seen


EVIL = "\x1b]52;c;ZXZpbA==\x07 \x1b[31m \u202e"


def test_what_a_server_says_cannot_steer_the_terminal(capsys, tmp_path):
    program = tmp_path / "evil.py"
    program.write_text(
        f"""
import json, sys
EVIL = {EVIL!r}
print(EVIL, file=sys.stderr, flush=True)
for line in sys.stdin:
    message = json.loads(line)
    if message["method"] == "initialize":
        offered = {{"logging": {{}}, "tools": {{}}}}
        result = {{"protocolVersion": "2025-11-25", "capabilities": offered, "serverInfo": {{}}}}
    elif message["method"] == "tools/list":
        result = {{"tools": [{{"name": EVIL}}, {{"name": "t", "description": EVIL, "inputSchema": {{}}}}]}}
    elif "id" in message:
        error = {{"code": -32603, "message": EVIL}}
        print(json.dumps({{"jsonrpc": "2.0", "id": message["id"], "error": error}}), flush=True)
        continue
    else:
        continue
    print(json.dumps({{"jsonrpc": "2.0", "id": message["id"], "result": result}}), flush=True)
"""
    )
    assert main(["list", "-v", "--mode", "legacy", "--", sys.executable, "-X", "utf8", str(program)]) == 0
    shown = capsys.readouterr()
    for said in (shown.err, shown.out):
        assert not set(said) & {"\x1b", "\x07", "\u202e"}
    assert "does not set its log level" in shown.err and "\\u001b]52" in shown.err


def test_a_question_names_the_target_without_its_secrets():
    assert target_of("https://ada:hunter2@h/mcp?key=hunter2") == (
        "https://ada:hunter2@h/mcp?key=hunter2",
        "https://h/mcp",
    )
    command = ["x", "--api-key", "hunter2"]
    assert target_of(command) == (command, "x --api-key ...")
