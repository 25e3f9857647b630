"""Sandboxes: what a bounded server can still do, and what it cannot."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from minimcp import Client, Server, clients
from minimcp.cli.main import main
from minimcp.client.sandbox import Sandbox
from minimcp.client.transports.stdio import StdioTransport
from tests.embedded import wait_until
from tests.helpers import modern

if os.name != "posix":
    pytest.skip("sandboxes are for POSIX systems", allow_module_level=True)

ROOT = Path(__file__).resolve().parent.parent
bubblewrap = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("bwrap") is None, reason="bubblewrap is not installed"
)

SERVER = """
import os, socket, subprocess, sys
from minimcp import Server
server = Server("s", "1")

def attempt(function):
    try:
        return str(function())
    except BaseException as problem:
        return type(problem).__name__

@server.tool
def run(code: str) -> str:
    scope = {"os": os, "socket": socket, "subprocess": subprocess, "sys": sys}
    return attempt(lambda: eval(code, scope))

@server.tool
def spin() -> str:
    while True:
        pass
"""


@contextmanager
def started(tmp_path: Path, sandbox: Sandbox | None, **options: Any) -> Iterator[Any]:
    file = tmp_path / "server.py"
    file.write_text(SERVER)
    env = {"PYTHONPATH": str(ROOT)}
    link = StdioTransport([sys.executable, "-m", "minimcp", "run", str(file)], env, sandbox=sandbox, **options)
    link.open(20)

    def call(code: str) -> str:
        message = modern("tools/call", name="run", arguments={"code": code})
        exchange = link.start(message, {}, 20)
        text: str = exchange.receive(30)["result"]["content"][0]["text"]
        exchange.close()
        return text

    call.link = link  # type: ignore[attr-defined]
    try:
        yield call
    finally:
        link.close()


def test_limits_hold(tmp_path: Path) -> None:
    limits = Sandbox(memory="400M", open_files=40, file_size="1K", cpu_s=100)
    with started(tmp_path, limits) as call:
        assert call("1 + 1") == "2"
        assert call("len(bytearray(600 * 1024 * 1024))") == "MemoryError"
        assert call("[open('/dev/null') for _ in range(100)]") == "OSError"
        target = tmp_path / "large"
        assert call(f"open({str(target)!r}, 'wb', 0).write(b'x' * 100_000)") in ("1024", "OSError")
        assert target.stat().st_size <= 1024
        # What the server starts has the same limits.
        child = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
        assert call(f"subprocess.run([sys.executable, '-c', {child!r}], capture_output=True).stdout") == "b'40\\n'"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux shows this in /proc")
def test_no_program_gets_more_privileges(tmp_path: Path) -> None:
    status = "[line for line in open('/proc/self/status') if 'NoNewPrivs' in line][0].split()[1]"
    with started(tmp_path, Sandbox(open_files=100)) as call:
        assert call(status) == "1"


def test_processor_time_ends_a_server_that_spins(tmp_path: Path) -> None:
    # Enough for a server to start, which takes more of it where the machine is busy.
    with started(tmp_path, Sandbox(cpu_s=3)) as call:
        message = modern("tools/call", name="spin", arguments={})
        exchange = call.link.start(message, {}, 20)
        with pytest.raises(Exception, match="signal|SIGXCPU|SIGKILL|killed"):
            exchange.receive(120)
        exchange.close()


@bubblewrap
def test_only_named_paths_are_seen(tmp_path: Path) -> None:
    shown, kept, hidden = tmp_path / "shown", tmp_path / "kept", tmp_path / "hidden"
    for folder in (shown, kept, hidden):
        folder.mkdir()
        (folder / "file.txt").write_text(folder.name)
    (tmp_path / "server.py").touch()
    sandbox = Sandbox(read_only=[shown, tmp_path / "server.py", ROOT], writable=[kept])
    with started(tmp_path, sandbox) as call:
        assert call(f"open({str(shown / 'file.txt')!r}).read()") == "shown"
        assert call(f"open({str(hidden / 'file.txt')!r}).read()") == "FileNotFoundError"
        assert call(f"open({str(shown / 'new.txt')!r}, 'w')") == "OSError"
        assert call(f"open({str(kept / 'new.txt')!r}, 'w').write('x')") == "1"
        assert call("os.path.exists(os.path.expanduser('~/.ssh')) or os.path.exists('/root/.ssh')") == "False"
        # Processes of others are not to be seen.
        assert int(call("len([name for name in os.listdir('/proc') if name.isdigit()])")) < 10
    assert (kept / "new.txt").read_text() == "x" and not (shown / "new.txt").exists()


@bubblewrap
def test_there_is_no_network_but_its_own_loopback(tmp_path: Path) -> None:
    (tmp_path / "server.py").touch()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        attempt = f"socket.create_connection(('127.0.0.1', {port}), 2).fileno() > 0"
        readable = [tmp_path, ROOT]
        with started(tmp_path, Sandbox(read_only=readable, network="none")) as call:
            assert call(attempt) == "ConnectionRefusedError"
            assert call("socket.create_connection(('192.0.2.1', 80), 2)") in ("OSError", "ConnectionRefusedError")
        with started(tmp_path, Sandbox(read_only=readable, network="host")) as call:
            assert call(attempt) == "True"


@bubblewrap
def test_a_sandboxed_server_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "server.py").touch()
    with started(tmp_path, Sandbox(read_only=[tmp_path, ROOT])) as call:
        # No other process on this machine sleeps for so long.
        seconds = f"1000.{time.time_ns()}"
        code = f"subprocess.Popen(['sleep', '{seconds}'], start_new_session=True).pid > 0"
        assert call(code) == "True"
        child = call.link._connection._child
        assert sleeping(seconds)
    wait_until(lambda: not sleeping(seconds))
    assert child._process.returncode is not None


def sleeping(seconds: str) -> bool:
    """Whether a process on this machine sleeps for a while."""
    for process in Path("/proc").iterdir():
        with suppress(OSError):
            if process.name.isdigit() and seconds.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                return True
    return False


@pytest.mark.parametrize(
    "options, problem",
    [
        ({"memory": "lots"}, "number of bytes"),
        ({"memory": -1}, "above zero"),
        ({"cpu_s": 0}, "above zero"),
        ({"open_files": True}, "above zero"),
        ({"network": "loopback"}, "network="),
        ({"writable": "/tmp"}, "list of paths"),
        ({"read_only": ["/does/not/exist"]}, "does not exist|bubblewrap"),
    ],
)
def test_what_makes_no_sense_is_refused(options: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Sandbox(**options)


def test_without_bubblewrap_it_is_refused_and_never_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name, **_: None)
    for options in ({"network": "none"}, {"writable": []}, {"read_only": ["/"]}):
        with pytest.raises(ValueError, match="need bubblewrap, which is not installed"):
            Sandbox(**options)  # type: ignore[arg-type]


def test_text_and_entries_name_the_same_options() -> None:
    assert Sandbox.parse("memory=512M,cpu_s=5")._limits == {"RLIMIT_CPU": 5, "RLIMIT_AS": 512 * 1024 * 1024}
    assert Sandbox.of({"memory": "1k"})._limits == {"RLIMIT_AS": 1024}
    with pytest.raises(ValueError, match="cannot be understood.*memroy"):
        Sandbox.of({"memroy": 5})
    with pytest.raises(ValueError, match="is not an option"):
        Sandbox.parse("512M")


# Where users ask for one

FILES = "__import__('resource').getrlimit(__import__('resource').RLIMIT_NOFILE)[0]"


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "server.py"
    path.write_text(SERVER)
    return str(path)


def entry(file: str, **more: Any) -> dict[str, Any]:
    words = ["-m", "minimcp", "run", file]
    return {"command": sys.executable, "args": words, "env": {"PYTHONPATH": str(ROOT)}, **more}


def test_a_client_starts_its_server_in_a_sandbox_and_starts_it_again_there(file: str) -> None:
    command = [sys.executable, "-m", "minimcp", "run", file]
    env = {"PYTHONPATH": str(ROOT)}
    with Client(command, env=env, sandbox=Sandbox(open_files=41), restart=True) as client:
        assert client.call_tool("run", code=FILES).text == "41"
        with pytest.raises(Exception, match="ended|exited|closed|lost"):
            client.call_tool("run", code="os._exit(3)")
        assert client.call_tool("run", code=FILES).text == "41"


def test_the_entry_of_a_server_names_its_sandbox(file: str, tmp_path: Path) -> None:
    config = tmp_path / "servers.json"
    config.write_text(json.dumps({"mcpServers": {"s": entry(file, sandbox={"open_files": 42, "memory": "800M"})}}))
    for target in (config, entry(file, sandbox={"open_files": 42})):
        with Client(target) as client:
            assert client.call_tool("run", code=FILES).text == "42"
    with Client(entry(file, sandbox=None), sandbox=Sandbox(open_files=43)) as client:
        assert client.call_tool("run", code=FILES).text == "43"


@bubblewrap
def test_paths_of_an_entry_are_expanded_and_relative_ones_work(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEEN", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    sandbox = {"read_only": ["${SEEN}", str(ROOT)], "network": "none"}
    with Client(entry("server.py", sandbox=sandbox)) as client:
        assert client.call_tool("run", code="os.getcwd()").text == str(tmp_path)
        assert client.call_tool("run", code="open('new', 'w')").text == "OSError"


@pytest.mark.parametrize(
    "more, problem",
    [
        ({"sandbox": []}, "sandbox must be an object"),
        ({"sandbox": "memory=1M"}, "sandbox must be an object"),
        ({"sandbox": True}, "sandbox must be an object"),
        ({"sandbox": {"memroy": "1M"}}, "cannot be understood.*memroy"),
        ({"sandbox": {"memory": "lots"}}, "number of bytes"),
        ({"sandbox": {"memory": [1]}}, "above zero"),
        ({"sandbox": {"read_only": 5}}, "cannot be understood"),
        ({"sandbox": {"read_only": ["${NOT_SET_ANYWHERE}"]}}, r"sandbox.read_only\[0\] needs .*NOT_SET_ANYWHERE"),
        ({"url": "https://a.example/mcp", "sandbox": {}}, "a sandbox is for a process"),
    ],
)
def test_a_sandbox_of_an_entry_that_cannot_be_understood_is_refused(file: str, more: Any, problem: str) -> None:
    with pytest.raises(ValueError, match=f"The server 's': .*{problem}"):
        Client({"mcpServers": {"s": entry(file, **more)}})


def test_two_sandboxes_for_one_server_are_refused(file: str) -> None:
    with pytest.raises(ValueError, match="a sandbox of its own"):
        Client(entry(file, sandbox={"memory": "1G"}), sandbox=Sandbox(memory="2G"))


def test_only_a_process_has_a_sandbox(file: str) -> None:
    for target in (Server("s"), Server("s").wsgi, "https://a.example/mcp", {"url": "https://a.example/mcp"}):
        with pytest.raises(ValueError, match="sandbox= cannot be used for this target: it is for a process"):
            Client(target, sandbox=Sandbox(memory="1G"))
    with pytest.raises(TypeError, match="sandbox= is a Sandbox"):
        Client([sys.executable], sandbox="memory=1G")  # type: ignore[arg-type]
    both = {"mcpServers": {"far": {"url": "https://a.example/mcp"}, "near": entry(file)}}
    found = clients(both, sandbox=Sandbox(memory="1G"))
    assert found["near"].target.key != clients(both)["near"].target.key
    assert found["far"].target.key == "https://a.example/mcp"


def test_servers_in_different_sandboxes_are_different_servers(file: str) -> None:
    keys = {
        Client(entry(file), sandbox=sandbox).target.key
        for sandbox in (None, Sandbox(memory="1G"), Sandbox(memory="2G"), Sandbox(memory="1G"))
    }
    assert len(keys) == 3


def test_the_command_line_has_sandboxes(file: str, tmp_path: Path, monkeypatch: Any, capfd: Any) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    assert main(["call", file, "run", f"code={FILES}", "--sandbox", "open_files=44,memory=800M"]) == 0
    assert capfd.readouterr().out.strip() == "44"
    command = [sys.executable, "-m", "minimcp", "run", file]
    words = ["call", "run", f"code={FILES}", "--sandbox", "open_files=45", "--env", f"PYTHONPATH={ROOT}", "--"]
    assert main([*words, *command]) == 0
    assert capfd.readouterr().out.strip() == "45"
    for words, problem in (
        ([file, "--sandbox", "512M"], "'512M' is not an option of a sandbox such as memory=512M"),
        ([file, "--sandbox", "memroy=1"], "The sandbox cannot be understood"),
        (["https://a.example/mcp", "--sandbox", "memory=1G"], "--sandbox cannot be used for this target"),
    ):
        assert main(["list", *words]) == 2
        assert problem in capfd.readouterr().err


@bubblewrap
def test_the_command_line_runs_a_file_without_a_network(file: str, monkeypatch: Any, capfd: Any) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(Path(file).parent)
    code = "code=socket.create_connection(('192.0.2.1', 80), 2)"
    bounds = f"network=none,read_only=.{os.pathsep}{ROOT}"
    assert main(["call", "server.py", "run", code, "--sandbox", bounds]) == 0
    assert capfd.readouterr().out.strip() in ("OSError", "ConnectionRefusedError")
