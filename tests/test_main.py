"""The command line: `python -m minimcp run FILE[:OBJECT] [--http PORT]`."""

from __future__ import annotations

import http.client
import ssl
import subprocess
import sys

import pytest

from minimcp import Client
from minimcp.__main__ import load, main
from tests.embedded import embedded
from tests.helpers import Process, modern, post
from tests.transports import ROOT, Stdio

ONE = "from minimcp import Server\nserver = Server('one', '1')\nserver.tool(lambda: 'x', 't')\n"
TWO = ONE + "other = Server('two', '1')\n"


@pytest.fixture
def file(tmp_path, request):
    path = tmp_path / "my_server.py"
    path.write_text(request.param)
    before = list(sys.path)
    yield str(path)
    sys.path[:] = before
    sys.modules.pop("my_server", None)


def given(text):
    return pytest.mark.parametrize("file", [text], indirect=True, ids=[""])


@given(ONE)
def test_a_file_with_one_server_needs_no_name(file):
    assert load(file).engine.identity["name"] == "one"
    assert load(file + ":server").engine.identity["name"] == "one"


@given(TWO)
def test_of_several_servers_one_is_named(file):
    assert load(file + ":other").engine.identity["name"] == "two"
    with pytest.raises(
        ValueError, match=r"has several Servers; write .*my_server\.py:other or .*my_server\.py:server$"
    ):
        load(file)
    with pytest.raises(ValueError, match="no Server named 'nothing'"):
        load(file + ":nothing")


@pytest.mark.parametrize("word", ["run", "run_http"])
@given(ONE)
def test_a_file_that_serves_by_itself_is_loaded_up_to_there(file, word):
    with open(file, "a") as text:
        text.write(f"try:\n    server.{word}()\nexcept Exception:\n    raise\nserver.tool(lambda: 'y', 'never')\n")
    server = load(file)
    with Client(server) as client, Client(file) as other:
        assert [tool["name"] for tool in client.list_tools()] == [tool["name"] for tool in other.list_tools()] == ["t"]
    with embedded(server.wsgi) as listening:
        assert post(listening.url + "/mcp", modern("tools/call", name="t"))[0] == 200


@given("x = 1\n")
def test_a_file_without_a_server_is_told_what_is_missing(file, capsys):
    before = subprocess.run(
        [sys.executable, "-m", "minimcp", "run", file],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=120,
    )
    assert before.returncode == 2 and before.stdout == b""
    assert b"a module-level minimcp.Server" in before.stderr and b"Traceback" not in before.stderr


def test_a_file_that_is_not_there_is_one_line(capsys):
    assert main(["run", "nowhere.py", "--http", "0"]) == 2
    assert capsys.readouterr().err == "minimcp: There is no file 'nowhere.py'\n"


@given(TWO)
def test_a_named_server_runs_over_stdio(file):
    with Stdio("-m", "minimcp", "run", file + ":other") as talk:
        talk.send(modern("server/discover"))
        identity = talk.receive()["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]
        assert identity == {"name": "two", "version": "1"}


@given(ONE.replace("'1')", "'1', auth='public')"))
def test_what_is_printed_works_also_when_it_listens_to_everyone_for_a_host_of_its_own(file):
    words = [
        sys.executable,
        "-m",
        "minimcp",
        "run",
        file,
        "--http",
        "0",
        "--host",
        "0.0.0.0",
        "--allow-host",
        "MCP.example",
        "--public",
    ]
    with Process(words, cwd=str(ROOT)) as process:
        url = process.wait_for(r"one is listening on (http://127\.0\.0\.1:\d+/mcp)").group(1)
        for host, expected in ((None, 200), ("mcp.example", 200), ("mcp.example:1", 200), ("evil.example", 403)):
            status, _ = post(url, modern("tools/call", name="t"), **({"Host": host} if host else {}))
            assert status == expected
        assert process.terminate() == 0


@given(ONE)
def test_over_http_it_prints_where_it_listens_and_ends_on_a_signal(file):
    with Process([sys.executable, "-m", "minimcp", "run", file, "--http", "0"], cwd=str(ROOT)) as process:
        url = process.wait_for(r"one is listening on (http://127\.0\.0\.1:\d+/mcp)").group(1)
        process.wait_for("Stop the server with Ctrl-C")
        status, reply = post(url, modern("tools/call", name="t"))
        assert status == 200 and reply["result"]["content"][0]["text"] == "x"
        assert process.terminate() == 0
        assert not any("Traceback" in line for line in process.lines)


@given(ONE)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_a_server_that_does_not_ask_who_is_calling_stays_on_this_machine(file, host, capsys):
    assert main(["run", file, "--http", "0", "--host", host]) == 1
    assert capsys.readouterr().err == (
        f"minimcp: {host} can be reached from other machines and the server does not ask who is calling: give it "
        'Server(auth=...), or, if everybody may call, auth="public" (on a command line: --public)\n'
    )


@given(ONE.replace("'1')", "'1', auth=lambda request: request.token or None)"))
@pytest.mark.parametrize("more", [[], ["--public"]])
def test_a_server_that_asks_who_is_calling_is_served_to_everyone_and_goes_on_asking(file, more):
    words = [sys.executable, "-m", "minimcp", "run", file, "--http", "0", "--host", "0.0.0.0", *more]
    with Process(words, cwd=str(ROOT)) as process:
        url = process.wait_for(r"one is listening on (http://127\.0\.0\.1:\d+/mcp)").group(1)
        assert post(url, modern("tools/call", name="t"))[0] == 401
        assert post(url, modern("tools/call", name="t"), Authorization="Bearer ann")[0] == 200
        assert process.terminate() == 0
        assert not any("Everyone who can reach" in line for line in process.lines)


@given(ONE)
def test_it_is_served_over_tls_with_certificates_of_clients(file, tmp_path):
    pytest.importorskip("cryptography")
    from tests.certificates import Authority

    authority = Authority(tmp_path)
    cert, key = authority.server()
    words = [sys.executable, "-m", "minimcp", "run", file, "--http", "0"]
    words += ["--tls-cert", cert, "--tls-key", key, "--tls-ca", authority.ca]
    with Process(words, cwd=str(ROOT)) as process:
        port = process.wait_for(r"one is listening on https://127\.0\.0\.1:(\d+)/mcp").group(1)
        context = ssl.create_default_context(cafile=authority.ca)
        connection = http.client.HTTPSConnection("localhost", int(port), timeout=60, context=context)
        with pytest.raises((OSError, http.client.HTTPException)):
            connection.request("GET", "/mcp")
            connection.getresponse()
        connection.close()
        context.load_cert_chain(*authority.issue("ann", {"CN": "ann"}))
        connection = http.client.HTTPSConnection("localhost", int(port), timeout=60, context=context)
        connection.request("GET", "/mcp")
        assert connection.getresponse().status == 405
        connection.close()
        assert process.terminate() == 0


@pytest.mark.parametrize(
    "words, problem",
    [
        (["--tls-cert", "c", "--tls-key", "k"], "--tls-cert goes with --http PORT"),
        (["--public"], "--public goes with --http PORT"),
        (["--http", "0", "--tls-cert", "c"], "TLS needs --tls-cert FILE and --tls-key FILE"),
        (["--http", "0", "--tls-key", "k"], "TLS needs --tls-cert FILE and --tls-key FILE"),
        (["--http", "0", "--tls-ca", "a"], "TLS needs --tls-cert FILE and --tls-key FILE"),
    ],
)
def test_options_that_would_protect_or_open_nothing_are_wrong_usage(words, problem, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", "server.py", *words])
    assert caught.value.code == 2 and problem in capsys.readouterr().err


@given(ONE)
def test_a_certificate_that_cannot_be_used_is_one_line(file, tmp_path, capsys):
    gone = str(tmp_path / "gone.pem")
    assert main(["run", file, "--http", "0", "--tls-cert", gone, "--tls-key", gone]) == 1
    said = capsys.readouterr().err
    assert said.startswith("minimcp: TLS cannot be served with") and said.count("\n") == 1 and "No such file" in said
