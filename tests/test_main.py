"""The command line: `python -m minimcp run FILE[:OBJECT] [--http PORT]`."""

from __future__ import annotations

import subprocess
import sys

import pytest

from minimcp.__main__ import load, main
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
    with pytest.raises(ValueError, match="one of other, server"):
        load(file)
    with pytest.raises(ValueError, match="no Server named 'nothing'"):
        load(file + ":nothing")


@given("x = 1\n")
def test_a_file_without_a_server_is_told_what_is_missing(file, capsys):
    before = subprocess.run(
        [sys.executable, "-m", "minimcp", "run", file],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
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
