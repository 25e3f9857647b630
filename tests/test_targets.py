"""What a client can be pointed at."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

import minimcp
from minimcp import Client, Server, clients, consent
from minimcp.client import targets, variables
from tests.helpers import serving

ROOT = Path(__file__).resolve().parent.parent
FILE = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from minimcp import Server

server = Server("from-a-file", "1")

@server.tool
def add(a: int, b: int) -> int:
    return a + b

@server.tool
def die() -> None:
    import os
    os._exit(3)

if __name__ == "__main__":
    server.run()
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a server.py"
    path.write_text(FILE, encoding="utf-8")
    return path


def name(target, **options):
    with Client(target, **options) as client:
        assert client.call_tool("add", a=1, b=2).text == "3"
        return client.server_info["name"]


def test_a_command_is_a_list_or_a_string_and_a_python_file_is_one_too(file):
    assert name([sys.executable, file]) == "from-a-file"
    assert name((sys.executable, str(file))) == "from-a-file"
    assert name(f"{sys.executable} '{file}'") == "from-a-file"
    assert name(file) == "from-a-file"
    assert name(str(file)) == "from-a-file"


def test_an_entry_and_a_file_of_the_form_hosts_use(file, tmp_path):
    entry = {"command": sys.executable, "args": [str(file)]}
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"one": entry, "two": {"url": "http://127.0.0.1:1/mcp"}}}))
    assert name(entry) == "from-a-file"
    assert name({"mcpServers": {"only": entry}}) == "from-a-file"
    assert name(config, server="one") == name(str(config), server="one") == "from-a-file"
    with pytest.raises(ValueError, match="server= one of 'one', 'two'"):
        Client(config)
    with pytest.raises(ValueError, match="'one', 'two'"):
        Client(config, server="three")
    both = clients(config, timeout=5)
    assert list(both) == ["one", "two"] and both["two"].state == "new"
    with both["one"] as client:
        assert client.server_info["name"] == "from-a-file"
    with pytest.raises(ValueError, match="mcpServers"):
        clients({"one": entry})
    with pytest.raises(ValueError, match="'wrong': This is not a server entry"):
        clients({"mcpServers": {"one": entry, "wrong": {}}})


def test_variables_in_an_entry_come_from_the_environment(monkeypatch, file):
    monkeypatch.setenv("SERVER_FILE", str(file))
    entry = {"command": "${PYTHON:-" + sys.executable + "}", "args": ["${SERVER_FILE}"]}
    assert name(entry) == "from-a-file"
    with pytest.raises(ValueError, match="NOT_SET_ANYWHERE, which is not set"):
        Client({"url": "https://example.com/${NOT_SET_ANYWHERE}"})


def test_a_variable_may_be_the_contents_of_a_file(monkeypatch, file, tmp_path):
    (tmp_path / "python").write_text(f"  {sys.executable}\n\n", encoding="utf-8")
    entry = {"command": f"${{file:{tmp_path}/python}}", "args": [str(file)]}
    assert name(entry) == "from-a-file"
    monkeypatch.setenv("PLACE", "env ${file:never.twice}")
    for text, value in (
        ("${env:PLACE}", "env ${file:never.twice}"),
        ("${env:NOT_SET_ANYWHERE:-here}${NOT_SET_ANYWHERE:-}", "here"),
        ("$${PLACE} $$${PLACE} $${file:a} $PLACE $$ ${", "${PLACE} $${PLACE} ${file:a} $PLACE $$ ${"),
    ):
        assert variables.expand(text) == value
        assert variables.expand(variables.verbatim(text)) == text


def test_a_file_that_a_configuration_refers_to_is_found_beside_it(monkeypatch, file, tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text("s3cret", encoding="utf-8")
    entry = {"command": sys.executable, "args": [str(file)], "env": {"KEY": "-${file:secrets/key}-", "A": "$${file:x}"}}
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": {"one": entry}}))
    (made,) = clients(path).values()
    for client in (made, Client(path)):
        assert client.target.transports[0]()._child_args[1] == {"KEY": "-s3cret-", "A": "${file:x}"}
    monkeypatch.chdir(tmp_path / "secrets")
    assert Client({"command": "x", "env": {"KEY": "${file:key}"}}).target.transports[0]()._child_args[1] == {
        "KEY": "s3cret"
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_file_that_cannot_be_a_secret_is_refused_and_never_shown(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"s3cret" * 20_000)
    (tmp_path / "binary").write_bytes(b"s3cret\xff")
    for file, said in (
        ("pipe", "it is no file"),
        (".", "it is no file"),
        ("large", "more than 65536 bytes"),
        ("binary", "not UTF-8"),
        ("none", "No such file"),
        ("nul\0", "cannot be read"),
    ):
        with pytest.raises(ValueError, match=f"^headers.Key needs the file .*{said}") as caught:
            Client({"url": "https://example.com/", "headers": {"Key": f"${{file:{tmp_path}/{file}}}"}})
        assert "s3cret" not in str(caught.value)


def test_urls_try_streamable_http_first_and_entries_may_say_which():
    assert len(targets.read("https://example.com/mcp", None, {}).transports) == 2
    assert len(targets.read("HTTP://example.com/mcp", None, {}).transports) == 2
    assert len(targets.read({"url": "https://example.com/sse", "type": "sse"}, None, {}).transports) == 1
    assert len(targets.read({"url": "https://example.com/mcp", "type": "http"}, None, {}).transports) == 2


def test_headers_and_variables_of_entry_and_client_come_together(file):
    server, seen = Server("s"), []

    def app(environ, start_response):
        seen.append((environ.get("HTTP_X_A"), environ.get("HTTP_X_B")))
        return server.wsgi(environ, start_response)

    with serving(app) as url:
        entry = {"url": f"{url}/", "headers": {"X-A": "1", "X-B": "1"}}
        with Client(entry, headers={"X-B": "2"}) as client:
            client.list_tools()
    assert set(seen) == {("1", "2")}
    program = "import os, sys; sys.stderr.write(os.environ['A'] + os.environ['B']); sys.exit(3)"
    entry = {"command": sys.executable, "args": ["-c", program], "env": {"A": "1", "B": "1"}}
    with pytest.raises(minimcp.ConnectionLost, match="12"):
        Client(entry, env={"B": "2"}).open()


def test_a_folder_to_run_in(tmp_path, file):
    entry = {"command": sys.executable, "args": [file.name], "cwd": str(tmp_path)}
    assert name(entry) == "from-a-file"
    assert name([sys.executable, file.name], cwd=str(tmp_path)) == "from-a-file"


def test_a_server_and_a_wsgi_callable_need_no_transport():
    server = Server("here")
    server.tool(lambda a, b: a + b, "add", input_schema={"type": "object"})
    assert name(server) == "here"
    assert name(server.wsgi) == "here"


@pytest.mark.parametrize("target", [None, 5, b"x"])
def test_what_is_no_target_is_a_type_error(target):
    with pytest.raises(TypeError, match="a URL, a command"):
        Client(target)


@pytest.mark.parametrize("target", ["", "  ", {}, {"command": 1}, {"command": "x", "args": "y"}, {"mcpServers": []}])
def test_what_makes_no_sense_is_a_value_error(target):
    with pytest.raises(ValueError):
        Client(target)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
@pytest.mark.parametrize("restart", [False, True])
def test_after_a_fork_a_process_is_not_used_by_both(file, restart):
    with Client(file, restart=restart) as client:
        parent = client.call_tool("add", a=1, b=1).text
        receiving, sending = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                with os.fdopen(sending, "w") as answer:
                    try:
                        answer.write(client.call_tool("add", a=2, b=2).text)
                    except minimcp.UsedAfterFork as error:
                        answer.write(f"{error.retry}: {error}")
                client.close()
            finally:
                os._exit(0)
        os.close(sending)
        with os.fdopen(receiving) as answer:
            said = answer.read()
        os.waitpid(pid, 0)
        assert parent == "2" and client.call_tool("add", a=3, b=3).text == "6"
    assert said == "4" if restart else said.startswith("always: ") and "restart=True" in said


def test_a_server_that_died_is_started_anew_only_by_choice(file):
    for restart in (False, True):
        with Client(file, restart=restart) as client:
            with pytest.raises(minimcp.ConnectionLost, match="3"):
                client.call_tool("die", {}, timeout=5)
            if restart:
                assert client.call_tool("add", a=1, b=2).text == "3"
            else:
                assert client.state == "lost"
                with pytest.raises(minimcp.ConnectionLost):
                    client.call_tool("add", a=1, b=2)
                client.close()
                with client.open():
                    assert client.call_tool("add", a=1, b=2).text == "3"


# Configurations as people write them


def test_a_file_may_have_what_hosts_allow_beside_json(monkeypatch, file, tmp_path):
    monkeypatch.setenv("THE_FILE", str(file))
    text = """// of this machine
    {
        "mcpServers": {
            "one": { /* the only, */ /*
            one */
                "command": EXECUTABLE, // "not" a string,]
                "args": ["${env:THE_FILE}",],
                "env": {"A": 1, "B": true, "C": "// no, comment }", "D": null, "E": 0.5,},
            }, // ,
        },
    }""".replace("EXECUTABLE", json.dumps(sys.executable))
    for number, encoding in enumerate(("utf-8", "utf-8-sig", "utf-16")):
        path = tmp_path / f"{number}.json"
        path.write_text(text, encoding=encoding)
        assert name(path) == "from-a-file"
        (made,) = clients(path).values()
        env = made.target.transports[0]()._child_args[1]
        assert env == {"A": "1", "B": "true", "C": "// no, comment }", "E": "0.5"}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"command": "x", "env": {"PORT": [1]}}, "env.PORT must be a string, not list"),
        ({"command": "x", "env": ["PORT=1"]}, "env must be an object of strings"),
        ({"command": "x", "args": ["a", {}]}, r"args\[1\] must be a string, not dict"),
        ({"command": "x", "args": [None]}, r"args\[0\] must be a string, not NoneType"),
        ({"command": "x", "cwd": ["y"]}, "cwd must be a string, not list"),
        ({"url": "http://h/", "headers": "X: 1"}, "headers must be an object of strings"),
        ({"url": "http://h/", "headers": {"X": {}}}, "headers.X must be a string, not dict"),
        ({"url": "http://h/${input:api-key}"}, r"url has \$\{input:api-key\}, which is not known"),
        ({"url": "http://h/", "headers": {"X": "${command:who.am.i}"}}, r"headers.X has \$\{command:who.am.i\}"),
        ({"command": "${workspaceFolder}/run"}, "command needs the environment variable workspaceFolder,"),
        ({"command": "x", "args": ["${env:NOT_SET_ANYWHERE}"]}, r"args\[0\] .* NOT_SET_ANYWHERE, which is not set"),
    ],
)
def test_an_error_in_a_file_names_file_entry_and_key(tmp_path, entry, said):
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"servers": {"bad": entry}}))
    for make in (Client, clients):
        with pytest.raises(ValueError, match=f"mcp.json: The server 'bad': {said}"):
            make(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "mcp.json"
    for text, said in (
        (b"{nonsense", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"mcpServers": {}} /* open', "is not JSON"),
        (b'{"' + b'\\"' * 1_000_000, "is not JSON"),
        (b"{" + b"/* " * 1_000_000, "is not JSON"),
        (b"{," + b"/**/ " * 500_000, "is not JSON"),
        (b" " * (4 * 1024 * 1024) + b"{}", "it has more than 4194304 bytes"),
        (b'{"mcpServers": {"one": {}, "two": {}, "one": {}}}', "The key 'one' stands twice in one object"),
        (b"[]", "has the form"),
        (b'{"mcpServers": 5}', "has the form"),
    ):
        path.write_bytes(text)
        for make in (Client, clients):
            with pytest.raises(ValueError, match=f"mcp.json: .*{said}"):
                make(str(path))
    path.write_text('{"mcpServers": {}}')
    with pytest.raises(ValueError, match="There are no servers"):
        Client(path)


def test_a_file_that_is_not_there_is_no_command(tmp_path):
    for target in ("nowhere/mcp.json", tmp_path / "a b.json", tmp_path / "a.py", "no such.json", "Nowhere.JSON"):
        with pytest.raises(ValueError, match="There is no file"):
            Client(target)
    # A file that a command is given is the command's.
    assert Client(f"{sys.executable} server.py nowhere.json").target.name == sys.executable


def test_what_looks_like_a_variable_of_a_shell_is_left_to_it():
    entry = {"command": "sh", "args": ["-c", "echo ${x%.*} $HOME $(id)"]}
    assert Client(entry).target.transports[0]()._child_args[0] == ["sh", "-c", "echo ${x%.*} $HOME $(id)"]


# Options that do not apply


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        (["x"], {"auth": ("a", "b")}, "auth= .*credentials by env="),
        (["x"], {"headers": {"Authorization": "Bearer x"}}, "headers= .*credentials by env="),
        ({"command": "x"}, {"session": object()}, "session="),
        ("http://h/", {"env": {"A": "1"}}, "env="),
        ({"url": "http://h/"}, {"cwd": "/"}, "cwd="),
        ("http://h/", {"stderr": print}, "stderr="),
        (Server("s"), {"headers": {"A": "1"}}, "headers="),
        (Server("s").wsgi, {"env": {"A": "1"}}, "env="),
        (Server("s").wsgi, {"session": object()}, "session="),
    ],
)
def test_an_option_that_does_not_apply_is_refused(target, options, said):
    with pytest.raises(ValueError, match=said):
        Client(target, **options)


def test_options_for_all_entries_go_where_they_apply():
    config = {"mcpServers": {"web": {"url": "http://h/"}, "local": {"command": "x"}}}
    made = clients(config, headers={"A": "1"}, auth=("a", "b"), env={"B": "2"}, timeout=5)
    assert made["web"].target.transports[0]().pool._connections().fields["a"] == ("A", "1")
    assert made["local"].target.transports[0]()._child_args[1] == {"B": "2"}


def test_a_limit_of_a_line_goes_to_a_process(file):
    client = Client(file, limits={"line_bytes": 100, "body_bytes": 5})
    with pytest.raises(minimcp.ProtocolError, match="a line of more than 100 bytes"):
        client.list_tools()


# What is shown of a target


SECRETS = ("hunter2", "s3cret")


@pytest.mark.parametrize(
    "target",
    [
        "https://ada:hunter2@example.com/mcp?api_key=s3cret#s3cret",
        {"url": "https://ada:hunter2@example.com/mcp?api_key=s3cret"},
        "https://hunter2@example.com/mcp",
        ["x", "--api-key", "s3cret", "--token=hunter2"],
        ["x", "https://ada:hunter2@example.com/?key=s3cret"],
        ["docker", "run", "-e", "GITHUB_PAT=s3cret", "--env=PAT=hunter2", "image"],
        ["mcp-remote", "https://example.com", "--header", "X-Thing: s3cret"],
    ],
)
def test_secrets_of_a_target_are_not_shown(target):
    client = Client(target)
    asked = []
    consent.ask(lambda proposal: asked.append(proposal) or True, {"name": "t"}, {}, False, client.target)
    shown = [repr(client), str(client.target.name), repr(asked), consent._describe(asked[0], None, None)]
    assert not [(secret, text) for secret in SECRETS for text in shown if secret in text]
    assert asked[0]["server"].startswith(("https://", "stdio:"))


def test_an_approval_for_good_is_for_one_server_of_several_that_look_alike():
    answers = iter(["always\n", "n\n"])
    source = type("Source", (), {"readline": lambda self: next(answers)})()
    approve = consent.terminal(input=source, output=io.StringIO())
    one, other = (Client(f"https://example.com/mcp?tenant={name}").target for name in "ab")
    consent.ask(approve, {"name": "t"}, {}, False, one)
    consent.ask(approve, {"name": "t"}, {}, False, one)
    with pytest.raises(minimcp.NotApproved):
        consent.ask(approve, {"name": "t"}, {}, False, other)
