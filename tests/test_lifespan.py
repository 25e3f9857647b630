"""What a server keeps open while it serves: `Server(lifespan=...)` and `ctx.app`."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading

import pytest

from minimcp import Client, Context, Server
from minimcp.__main__ import main
from tests.embedded import embedded, wait_until
from tests.helpers import Process, modern, problem
from tests.transports import ROOT


class Pool:
    """Counts how often it was opened and closed."""

    def __init__(self):
        self.said = []

    @contextlib.contextmanager
    def around(self, server):
        self.said.append(f"open {server.engine.identity['name']}")
        try:
            yield f"pool {len(self.said)}"
        finally:
            self.said.append("close")


def serving(lifespan, **options):
    server = Server("s", lifespan=lifespan, **options)

    @server.tool(task=True)
    def look(ctx: Context) -> str:
        return ctx.app

    return server


def test_it_is_entered_once_and_exited_when_the_server_is_closed():
    pool = Pool()
    server = serving(pool.around)
    assert pool.said == []
    with Client(server) as client:
        threads = [threading.Thread(target=client.call_tool, args=("look",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        assert client.call_tool("look").text == "pool 1" and pool.said == ["open s"]
        server.close()
        assert pool.said == ["open s", "close"]
        assert client.call_tool("look").text == "pool 3"
    server.close()
    server.close()
    assert pool.said == ["open s", "close", "open s", "close"]


def test_a_task_has_it_too():
    pool = Pool()
    server = serving(pool.around)
    with Client(server, tasks=True) as client:
        assert client.call_tool("look").text == "pool 1"
    server.tasks.close()
    server.close()


def test_it_is_there_where_the_server_is_mounted_over_http():
    pool = Pool()
    server = serving(pool.around)
    with embedded(server.wsgi) as listening, Client(f"{listening.url}/mcp") as client:
        assert client.call_tool("look").text == "pool 1"
    server.close()
    assert pool.said == ["open s", "close"]


def test_a_mounted_server_has_its_own():
    outer, inner, bare = Pool(), Pool(), Server("bare")
    server = serving(outer.around)
    team = Server("team", lifespan=inner.around)

    @team.tool
    def inside(ctx: Context) -> str:
        return f"team {ctx.app}"

    @bare.tool
    def without(ctx: Context) -> str:
        return ctx.app

    server.mount("team", team)
    server.mount("bare", bare)
    with Client(server) as client:
        assert client.call_tool("team_inside").text == "team pool 1"
        assert client.call_tool("look").text == "pool 1"
        assert client.call_tool("bare_without").text == (
            "The tool bare_without failed: RuntimeError: This server keeps nothing open: ctx.app is what "
            "Server(lifespan=...) yields"
        )
    server.close()
    assert (outer.said, inner.said) == (["open s", "close"], ["open team", "close"])


SERVING = """
import contextlib, sys
from minimcp import Context, Server

@contextlib.contextmanager
def opened(server):
    print("opened", file=sys.stderr, flush=True)
    try:
        yield {"rows": 3}
    finally:
        print("closed", file=sys.stderr, flush=True)

server = Server("s", lifespan=opened)

@server.tool
def rows(ctx: Context) -> int:
    print("called", file=sys.stderr, flush=True)
    return ctx.app["rows"]

if __name__ == "__main__":
    server.run()
"""


@pytest.mark.parametrize("way", ["run", "file"])
def test_over_stdio_it_is_entered_before_the_first_message(tmp_path, way):
    path, said = tmp_path / "f.py", []
    path.write_text(SERVING)
    command = [sys.executable, *(["-m", "minimcp", "run"] if way == "run" else []), str(path)]
    with Client(command, env={"PYTHONPATH": str(ROOT)}, stderr=said.append) as client:
        assert client.call_tool("rows").data == 3
    # The last line may still be on its way to here when the client is closed.
    wait_until(lambda: len(said) >= 3)
    assert [line.strip() for line in said] == ["opened", "called", "closed"]


def test_over_http_it_is_exited_when_the_server_stops(tmp_path):
    (tmp_path / "f.py").write_text(SERVING)
    command = [sys.executable, "-m", "minimcp", "run", "f.py", "--http", "0"]
    with Process(command, cwd=str(tmp_path), PYTHONPATH=str(ROOT)) as process:
        url = process.wait_for(r"s is listening on (\S+);").group(1)
        with Client(url) as client:
            assert client.call_tool("rows").data == 3
        assert process.terminate() == 0
        process.wait_for("^closed$")
        assert [line for line in process.lines if re.fullmatch("opened|called|closed", line)] == [
            "opened",
            "called",
            "closed",
        ]


def test_a_program_that_ends_exits_it(tmp_path):
    (tmp_path / "f.py").write_text(
        SERVING.replace("server.run()", "from minimcp import Client; Client(server).call_tool('rows')")
    )
    done = subprocess.run(
        [sys.executable, "f.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True
    )
    assert done.stderr.decode().split() == ["opened", "called", "closed"]


FORKING = """
import contextlib, gc, os, sys
from minimcp import Context, Server
from tests.helpers import modern

@contextlib.contextmanager
def opened(server):
    mine = os.getpid()
    os.write(1, b"opened ")
    try:
        yield mine
    finally:
        os.write(1, b"closed " if os.getpid() == mine else b"WRONG ")

server = Server("s", lifespan=opened)

@server.tool
def mine(ctx: Context) -> bool:
    return ctx.app == os.getpid()

def call():
    result = server.handle(modern("tools/call", name="mine"))["result"]
    os.write(1, str(result["structuredContent"]).encode() + b" ")

call()
child = os.fork()
call()
gc.collect()
if child:
    os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_each_process_of_a_fork_has_its_own():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=60,
    )
    words = done.stdout.decode().split()
    assert sorted(words) == sorted(["opened", "opened", *["True"] * 3, "closed", "closed"]), done.stderr


def test_one_that_fails_is_told_with_the_authors_own_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "f.py").write_text(SERVING.replace('print("opened", file=sys.stderr, flush=True)', "1 / 0"))
    assert main(["list", "f.py"]) == 1
    err = capsys.readouterr().err
    assert re.match(r"minimcp: \S*f\.py, line 7: ZeroDivisionError: division by zero\n", err), err
    assert "1 / 0" in err and "minimcp/" not in err.partition("exited with code")[0].replace(str(tmp_path), "")


def test_one_that_fails_in_the_first_call_is_told_in_its_answer(caplog):
    @contextlib.contextmanager
    def broken(server):
        raise OSError("no database")
        yield

    server = serving(broken, debug=True)
    for _ in range(2):
        told = problem(server, "tools/call", name="look")
        assert told["message"] == "Internal error: OSError: no database"


async def coroutine(server): ...


@contextlib.asynccontextmanager
async def asynchronous(server):
    yield


def generator(server):
    yield


PLAIN = "lifespan= is a plain context manager: write def with @contextmanager, and yield once"


@pytest.mark.parametrize(
    ("lifespan", "text"),
    [
        (coroutine, PLAIN),
        (asynchronous, PLAIN),
        (generator, "lifespan= is a context manager: write @contextmanager above generator"),
        (
            5,
            "lifespan= is a function f(server) that returns a context manager, since each process enters one of its "
            "own, not 5",
        ),
    ],
)
def test_what_cannot_be_entered_is_refused(lifespan, text):
    with pytest.raises(TypeError) as caught:
        Server("s", lifespan=lifespan)
    assert str(caught.value) == text


def test_a_function_that_makes_none_is_told_so():
    server = serving(lambda server: 5, debug=True)
    told = server.handle(modern("tools/call", name="look"))["error"]["message"]
    assert told == (
        "Internal error: TypeError: lifespan= returns a context manager, as @contextmanager makes one, not 5"
    )
