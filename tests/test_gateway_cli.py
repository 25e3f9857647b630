"""The commands `gateway` and `bridge`: what they print, what they exit with, and what they serve."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import minimcp
from minimcp import Client, Server
from minimcp.__main__ import main
from minimcp.cli import explanation
from minimcp.cli.bridge import entry_of
from minimcp.cli.parser import parsers
from minimcp.client import targets
from minimcp.gateway import config
from tests.authority import Authority, Browser, Resource
from tests.helpers import Process, free_port, serving
from tests.terminal import Pty

ROOT = Path(__file__).resolve().parent.parent
HELLO = ROOT / "examples/hello.py"
KEY = "a-key-of-at-least-16"
HERE = {"command": sys.executable, "args": ["-m", "minimcp", "run", str(HELLO)], "env": {"PYTHONPATH": str(ROOT)}}
RULES = [
    {"allow": "tools:hello_c*", "roles": ["staff"]},
    {"allow": "tools:hello_now", "arguments": {"zone": "UTC"}},
    {"deny": "tools:hello_weekday"},
]


@pytest.fixture
def write(tmp_path):
    def make(servers, file="gateway.json", **gateway):
        path = tmp_path / file
        # A busy machine may take its time to start a server.
        path.write_text(json.dumps({"mcpServers": servers, "gateway": {"listTimeout": 60, **gateway}}))
        return str(path)

    return make


def run(capsys, *words):
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


# Reading alone


def test_check_says_that_there_is_no_error(capsys, write):
    file = write({"a": {"command": "no-such-command"}}, log=False)
    said = "1 server, no authentication, so that only this machine is served; no error"
    assert run(capsys, "gateway", file, "--check") == (0, f"{file}: {said}\n", "")
    file = write(
        {"a": {"command": "x"}, "b": {"url": "http://h/", "disabled": True, "envFile": ".env"}},
        auth=[{"keys": {"ada": KEY}}, "public"],
        rules=RULES,
        endpoints={"one": {}},
        rates=[{"tools": "*", "limit": "5/minute"}],
    )
    code, out, err = run(capsys, "gateway", "--check", file)
    said = "2 servers (1 disabled), 3 rules, 1 rate, 1 endpoint, callers by keys, public; no error"
    assert (code, out) == (0, f"{file}: {said}\n")
    assert err == f"minimcp: {file}: The server 'b': envFile is not read; name its variables in env\n"


def test_check_says_what_is_wrong(capsys, write, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2-is-secret")
    file = write({"a": {"command": "x", "prefx": "${SECRET}"}})
    said = f"minimcp: {file}: The server 'a': has no option 'prefx'; did you mean 'prefix'?\n"
    assert run(capsys, "gateway", file, "--check") == (2, "", said)
    # The same without --check, before anything is served.
    assert run(capsys, "gateway", file) == (2, "", said)
    assert run(capsys, "gateway", "/no/such.json", "--check") == (2, "", "minimcp: There is no file '/no/such.json'\n")


def test_diff_names_what_would_change_and_shows_no_value(capsys, write):
    old = write({"a": {"command": "x"}, "b": {"command": "x", "env": {"K": "hunter2"}}, "c": {"command": "x"}})
    new = write(
        {"b": {"command": "x", "env": {"K": "s3cret"}, "timeout": 5}, "c": {"command": "x"}, "d": {"url": "http://h/"}},
        file="other.json",
        port=9,
        secret="x" * 16,
    )
    assert run(capsys, "gateway", old, "--diff", new) == (
        0,
        "+ added   'd'\n- removed 'a'\n~ changed 'b': entries, timeout_s\n= kept    'c'\n"
        "~ option  port\n~ option  secret\n",
        "",
    )
    assert run(capsys, "gateway", old, "--diff", "/no/such.json")[0] == 2


def test_diff_tells_of_a_variable(capsys, write, tmp_path):
    (tmp_path / "token").write_text("one")
    file = write({"a": {"url": "https://h/", "headers": {"A": "${file:token}"}}})
    before = config.read(file)
    (tmp_path / "token").write_text("two")
    after = config.read(file)
    assert config.diff(before, after)["changed"] == ["a"]
    from minimcp.cli.gateway_command import _fields

    assert _fields(before, after, "a") == ": what its variables stand for"


@pytest.mark.parametrize(
    "words",
    [["gateway"], ["gateway", "f", "--stdio", "--http", "1"], ["gateway", "f", "--check", "--diff", "g"]]
    + [["gateway", "f", "--http", "x"], ["gateway", "f", "--explain", "a"], ["bridge"], ["bridge", "x", "--public"]],
)
def test_wrong_usage_is_told(capsys, words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2 and " --help tells more)" in capsys.readouterr().err


# Explaining


@pytest.mark.parametrize(
    ("text", "caller"),
    [
        ("-", None),
        ("ada", ("ada", ("read",), ("staff",))),
        ("ada role:admin,scope:write", ("ada", ("read", "write"), ("staff", "admin"))),
        ("eve role:staff", ("eve", (), ("staff",))),
        ("role:a  role:b", ("somebody", (), ("a", "b"))),
        ("https://i.example/ada role:x", ("https://i.example/ada", (), ("x",))),
    ],
)
def test_a_caller_is_a_key_or_words(text, caller):
    keys = {"ada": {"key": KEY, "roles": ["staff"], "scopes": ["read"]}}
    found = explanation.caller(text, {"auth": [("keys", {"source": keys})]})
    assert caller == (None if found is None else (found.id, found.scopes, found.roles))


def test_a_caller_who_is_none_is_refused(tmp_path):
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"ada": {"hash": "sha256:" + "0" * 64, "roles": ["staff"]}}))
    file.chmod(0o600)
    keys = {"auth": [("keys", {"source": str(file)})]}
    assert explanation.caller("ada", keys).roles == ("staff",)
    with pytest.raises(ValueError, match="There is no key named 'ad'; there is ada"):
        explanation.caller("ad", keys)
    for text in ("ada eve", "", "  ", ","):
        with pytest.raises(ValueError, match="write - or an id"):
            explanation.caller(text, keys)
    # Others may come by other ways.
    assert explanation.caller("ad", {"auth": [*keys["auth"], "public"]}).id == "ad"
    assert explanation.caller("ad", {"auth": None}).id == "ad"


def test_explain_says_why_something_is_visible_or_not(capsys, write, tmp_path):
    audit = tmp_path / "audit.jsonl"
    file = write(
        {"hello": HERE}, rules=RULES, auth={"keys": {"ada": {"key": KEY, "roles": ["staff"]}}}, audit=str(audit)
    )
    of = "of the server 'hello'"
    for who, name, code, lines in (
        (
            "ada",
            "hello_count",
            0,
            ["ada, with the roles staff", f"the tool hello_count {of}: visible and callable"]
            + ["  tools:hello_count is allowed by {'allow': ['tools:hello_c*'], 'roles': ['staff']}"],
        ),
        (
            "-",
            "hello_count",
            1,
            ["a caller without a credential", f"the tool hello_count {of}: neither visible nor callable"]
            + ["  no rule allows tools:hello_count to an anonymous caller"],
        ),
        (
            "ada",
            "hello_weekday",
            1,
            ["ada, with the roles staff", f"the tool hello_weekday {of}: neither visible nor callable"]
            + ["  tools:hello_weekday is denied by {'deny': ['tools:hello_weekday']}"],
        ),
        (
            "-",
            "hello_now",
            0,
            [
                "a caller without a credential",
                f"the tool hello_now {of}: visible, and callable with some arguments alone",
            ]
            + ["  no rule allows tools:hello_now to an anonymous caller"],
        ),
        (
            "scope:x",
            "hello_cuont\x1b",
            1,
            ["somebody, with the scopes x", "nothing is named 'hello_cuont\\\\u001b'; there is hello_count, hello_now"],
        ),
    ):
        found, out, err = run(capsys, "gateway", file, "--explain", who, name)
        assert (found, out.splitlines(), err) == (code, lines, "")
    assert not audit.exists()


def test_explain_says_why_something_may_be_missing(capsys, write):
    nowhere = {"url": f"http://127.0.0.1:{free_port()}/mcp"}
    file = write({"hello": {**HERE, "tools": {"deny": ["n*"]}}, "down": nowhere, "off": {**nowhere, "disabled": True}})
    code, out, _ = run(capsys, "gateway", file, "--explain", "-", "hello_now")
    lines = out.splitlines()
    assert code == 1 and lines[1].startswith("nothing is named 'hello_now'")
    assert lines[2] == "  the option tools of the server 'hello' leaves out tools of this name"
    assert lines[3].startswith("  the server 'down' is not there: No connection to http://127.0.0.1:")
    assert lines[4:] == ["  the server 'off' is disabled"]
    code, out, _ = run(capsys, "gateway", file, "--explain", "-", "hello_count")
    assert code == 0 and out.endswith("  there are no rules, so that every caller may use everything\n")


def test_explain_knows_prompts_and_resources(capsys, write, tmp_path):
    path = tmp_path / "server.py"
    path.write_text(
        "from minimcp import Server\nserver = Server('s')\n"
        "server.prompt(lambda: 'x', 'p')\nserver.resource('note://a')(lambda: 'x')\n"
        "@server.resource('row://{id}')\ndef row(id: str) -> str:\n    return id\n"
    )
    command = {"command": sys.executable, "args": ["-m", "minimcp", "run", str(path)], "env": {"PYTHONPATH": str(ROOT)}}
    file = write({"s": command}, rules=[{"allow": ["prompts:*", "resources:s+row://1"]}])
    for name, code, said in (
        ("s_p", 0, "the prompt s_p of the server 's': visible and callable"),
        ("s+note://a", 1, "the resource s+note://a of the server 's': neither visible nor callable"),
        ("s+row://1", 0, "the resource s+row://1: visible and callable"),
        ("s+row://2", 1, "the resource s+row://2: neither visible nor callable"),
    ):
        found, out, _ = run(capsys, "gateway", file, "--explain", "-", name)
        assert (found, out.splitlines()[1]) == (code, said)


# Serving


def minimcp_command(*words):
    return [sys.executable, "-m", "minimcp", *words]


# What a bridge gives its server until it answers without it is less than a busy machine may need to start one.
PATIENT = """
import sys
from minimcp.cli.main import main
from minimcp.gateway import gateway, gateway_options
gateway._GREETING_S = 60.0
known = gateway_options._OPTIONS
known["listTimeout"] = known["listTimeout"]._replace(default=60.0)
sys.exit(main(sys.argv[1:]))
"""


def bridge_command(*words):
    return [sys.executable, "-c", PATIENT, "bridge", *words]


def over_stdio(*words, **options):
    return Client(minimcp_command(*words), env={"PYTHONPATH": str(ROOT)}, **options)


def over_bridge(*words, **options):
    return Client(bridge_command(*words), env={"PYTHONPATH": str(ROOT)}, **options)


def test_a_gateway_serves_over_http_where_its_file_says(write):
    port = free_port()
    file = write({"hello": HERE}, name="front", port=port, path="/all/mcp")
    with Process(minimcp_command("gateway", file), cwd=str(ROOT)) as process:
        url = process.wait_for(r"^front for 1 server is listening on (\S+); try it: minimcp list \S+$")[1]
        assert url == f"http://127.0.0.1:{port}/all/mcp"
        with Client(url) as client:
            assert client.call_tool("hello_count", text="one two").data["words"] == 2
            assert client.server_info["name"] == "front"
        assert process.terminate() == 0


def test_the_port_and_host_of_the_command_come_first(write):
    file = write({}, port=free_port(), host="192.0.2.1")
    command = minimcp_command("gateway", file, "--http", "0", "--host", "127.0.0.1", "--no-reload")
    with Process(command, cwd=str(ROOT)) as process:
        url = process.wait_for(r"is listening on (\S+);")[1]
        assert url.startswith("http://127.0.0.1:") and not url.startswith(
            f"http://127.0.0.1:{json.loads(Path(file).read_text())['gateway']['port']}/"
        )
        with Client(url) as client:
            assert client.list_tools() == []


def test_beyond_loopback_a_gateway_without_authentication_is_not_served(capsys, write):
    code, out, err = run(capsys, "gateway", write({}), "--host", "0.0.0.0", "--http", "0", "--no-reload")
    assert (code, out) == (1, "") and "0.0.0.0 can be reached from other machines" in err


def test_a_port_that_is_taken_is_told(capsys, write):
    with serving(Server("s").wsgi) as url:
        port = url.rpartition(":")[2]
        code, out, err = run(capsys, "gateway", write({}), "--http", port, "--no-reload")
    assert (code, out) == (1, "") and err.startswith("minimcp: ") and "in use" in err


def test_a_gateway_serves_over_stdio_and_ends_with_its_client(write):
    with over_stdio("gateway", write({"hello": HERE}), "--stdio", mode="legacy") as client:
        assert client.call_tool("hello_count", text="one two").data["words"] == 2


def test_an_error_in_the_file_is_told_over_stdio_too(write):
    with pytest.raises(minimcp.ConnectionLost, match="There is no file '/no/such.json'"):
        over_stdio("gateway", "/no/such.json", "--stdio").open()


def test_every_request_and_message_can_be_shown(write):
    command = minimcp_command("gateway", write({"hello": HERE}), "--http", "0", "-v", "--trace")
    with Process(command, cwd=str(ROOT)) as process:
        with Client(process.wait_for(r"is listening on (\S+);")[1]) as client:
            client.call_tool("hello_count", text="one")
        process.wait_for(r"^\d\d:\d\d:\d\d tools/call hello_count: done, \d+ ms")
        process.wait_for(r'"method": ?"tools/call"')


@pytest.mark.skipif(os.name != "posix", reason="no terminals here")
def test_at_a_terminal_a_gateway_over_stdio_says_that_it_waits(write):
    file = write({}, name="front")
    with Pty("-m", "minimcp", "gateway", file, "--stdio") as terminal:
        terminal.wait_for("front waits for MCP messages on standard input")


# The bridge


def options_of(*words):
    at = words.index("--") if "--" in words else len(words)
    _, known = parsers(at == len(words))
    options = known["bridge"].parse_intermixed_args(list(words[:at]))
    if at < len(words):
        options.target = list(words[at + 1 :])
    return options


@pytest.mark.parametrize(
    ("words", "entry", "name"),
    [
        (["https://h:5/mcp?a=${x}"], {"url": "https://h:5/mcp?a=$${x}"}, "h:5"),
        (
            ["https://u:hunter2@h/mcp", "--header", "A:1", "--header", "B:${y}"],
            {"url": "https://u:hunter2@h/mcp", "headers": {"A": "1", "B": "$${y}"}},
            "h",
        ),
        (["--", "/bin/some", "-x", "${A}"], {"command": "/bin/some", "args": ["-x", "$${A}"]}, "some"),
        (
            ["--env", "A=${b}", "--sandbox", "memory=1G", "--", "some"],
            {"command": "some", "args": [], "env": {"A": "$${b}"}, "sandbox": {"memory": "1G"}},
            "some",
        ),
    ],
)
def test_a_target_of_a_bridge_is_an_entry(words, entry, name):
    assert entry_of(options_of(*words)) == (entry, name)


def test_a_target_of_a_bridge_may_be_a_file(tmp_path):
    entry, name = entry_of(options_of(str(HELLO)))
    assert name == "hello.py" and entry["args"] == ["-m", "minimcp", "run", str(HELLO)]
    assert targets.read(entry, None, {}).is_process
    (tmp_path / "k").write_text("hunter2")
    file = tmp_path / "mcp.json"
    file.write_text(
        json.dumps({"mcpServers": {"a": {"command": "x", "env": {"K": "${file:k}"}}, "b": {"url": "http://h/"}}})
    )
    assert entry_of(options_of(str(file), "--server", "a")) == (
        {"command": "x", "env": {"K": f"${{file:{tmp_path}/k}}"}},
        "a",
    )
    assert entry_of(options_of(str(file), "--server", "b", "--header", "A:1")) == (
        {"url": "http://h/", "headers": {"A": "1"}},
        "b",
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["localhost:8000"], "if it is a URL, write http://localhost:8000/mcp"),
        (["ftp://h/"], "begins with http:// or https://, not with ftp://"),
        (["no/such.json"], "There is no file 'no/such.json'"),
        (["no/such.py"], "There is no file 'no/such.py'"),
        (["https://h/", "--env", "A=1"], "--env does not apply to this target"),
        (["https://h/", "--sandbox", "memory=1G"], "--sandbox does not apply to this target"),
        (["some-command", "--header", "A: 1"], "--header does not apply to this target"),
        (["some-command", "--login"], "--login is for HTTP"),
        (["some-command", "--header", "hunter2"], "write --header 'NAME: VALUE'"),
        (["https://h/", "--server", "x"], "it is for an mcpServers file"),
        (["--"], "a command must follow --"),
    ],
)
def test_a_bridge_to_nowhere_is_refused(capsys, words, said):
    code, out, err = run(capsys, "bridge", "--http", "0", *words)
    assert code == 2 and out == "" and said in err and "hunter2" not in err


@pytest.mark.parametrize("mode", ["legacy", "modern"])
def test_a_bridge_from_stdio_to_http_keeps_names_and_uris(mode):
    server, asked = Server("far", instructions="Be brief."), []

    @server.tool
    def whoami(text: str) -> str:
        return text

    server.resource("note://a")(lambda: "text")
    server.prompt(lambda: "x", "greet")

    def app(environ, start_response):
        asked.append(environ.get("HTTP_X_KEY"))
        return server.wsgi(environ, start_response)

    with serving(app) as url:
        with over_bridge(f"{url}/mcp", "--header", "X-Key: ${HOME}", mode=mode) as client:
            assert [tool["name"] for tool in client.list_tools()] == ["whoami"]
            assert client.call_tool("whoami", {"text": "hi"}).text == "hi"
            assert client.read_resource("note://a").text == "text"
            assert [prompt["name"] for prompt in client.list_prompts()] == ["greet"]
            assert client.instructions == "Be brief."
    assert set(asked) == {"${HOME}"}
    server.close()


def test_a_bridge_from_http_to_stdio_and_back():
    command = bridge_command("--http", "0", "--env", f"PYTHONPATH={ROOT}", "--", *minimcp_command("run", str(HELLO)))
    with Process(command, cwd=str(ROOT)) as process:
        url = process.wait_for(r"is listening on (\S+);")[1]
        with Client(url, mode="legacy") as client:
            assert client.call_tool("count", text="one two").data["words"] == 2
        with over_bridge(url) as client:
            assert client.call_tool("count", text="one two three").data["words"] == 3
        children = Path(f"/proc/{process.child.pid}/task/{process.child.pid}/children")
        assert process.terminate() == 0
        assert not children.exists()


def test_a_bridge_signs_in_with_a_browser(monkeypatch, tmp_path):
    server, browser, tokens = Server("guarded"), Browser(), tmp_path / "tokens.json"
    server.tool(lambda: "42", "secret")
    monkeypatch.setattr("webbrowser.open", browser.open)
    found = []

    def use(made, *_):
        # In place of serving it until a signal.
        with made, Client(made) as client:
            found.append(client.call_tool("secret").text)
        return 0

    monkeypatch.setattr("minimcp.cli.bridge.serve", use)
    with Authority() as authority, Resource(authority) as site:

        def page(seen):
            answer = site.answer(seen)
            return (200, server.handle(seen.form), {}) if answer[0] == 200 else answer

        site.pages["/mcp"] = page
        for _ in range(2):
            assert main(["bridge", site.endpoint, "--http", "0", f"--login={tokens}"]) == 0
    assert found == ["42", "42"] and len(browser.opened) == 1 and tokens.exists()


@pytest.mark.skipif(os.name != "posix", reason="no signals here")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_gateway_that_is_stopped_leaves_no_process_behind(write, number):
    with Process(
        minimcp_command("gateway", write({"hello": {**HERE, "replicas": 2}}), "--http", "0"), cwd=str(ROOT)
    ) as process:
        with Client(process.wait_for(r"is listening on (\S+);")[1]) as client:
            client.call_tool("hello_count", text="one")
        children = Path(f"/proc/{process.child.pid}/task").glob("*/children")
        pids = {int(pid) for path in children for pid in re.findall(r"\d+", path.read_text())}
        os.kill(process.child.pid, number)
        process.child.wait(60)
        assert pids and not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_the_command_line_starts_without_the_gateway():
    code = (
        "import sys, minimcp.__main__ as m; m.main(['help']); "
        "print([name for name in sys.modules if name.startswith('minimcp.gateway')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, timeout=30
    )
    assert done.stdout.splitlines()[-1] == "[]"
