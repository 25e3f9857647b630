"""The example of a gateway, as it is shown: with the commands of its README, and as a pair behind nginx with Redis."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from minimcp import Client, RemoteError
from tests.embedded import wait_until
from tests.helpers import Process, free_port, whole_lines
from tests.transports import ROOT

pytest.importorskip("limits", reason="limits is not installed")

FOLDER = ROOT / "examples" / "gateway"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
ADA, BOB = "key-of-ada-0123456789", "key-of-bob-0123456789"
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin")
REDIS = shutil.which("redis-server")
LISTENING = r"is listening on (http://\S+/mcp)"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: Any) -> Iterator[Any]:
    """The example, running: its URL, and the folder of what it writes."""
    folder = tmp_path_factory.mktemp("example")
    command = [sys.executable, "-m", "minimcp", "gateway", "examples/gateway/gateway.json", "--http", "0"]
    with Process(command, cwd=str(ROOT), PYTHON=sys.executable, TMPDIR=str(folder)) as process:
        yield ready(process), folder
        assert process.terminate() == 0
    assert not any("Traceback" in line for line in process.lines), "\n".join(process.lines)


def ready(process: Process) -> str:
    """The URL of a gateway, once all its servers have started."""
    url = process.wait_for(LISTENING)[1]
    wait_until(lambda: _answers(url.replace("/mcp", "/readyz")), 60)
    return url


def run(command: str, url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the README against a gateway."""
    words = shlex.split(command.replace(".venv/bin/python", sys.executable).replace("http://127.0.0.1:8000", url))
    env = {**os.environ, "PYTHON": sys.executable, "TMPDIR": str(folder)}
    return subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)


def commands(word: str) -> list[str]:
    """The lines of the README's commands that have a word in them."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", "").splitlines() if word in line]


def test_the_one_command_is_that_of_the_configuration():
    (command,) = [line for line in commands("gateway.json") if "pip install" in line]
    assert command.endswith("-m minimcp gateway examples/gateway/gateway.json")


@pytest.mark.parametrize("name", ["gateway.json", "pair.json"])
def test_the_configurations_have_no_error(name: str, tmp_path: Path):
    env = {**os.environ, "MINIMCP_SECRET": "x" * 32, "PORT": "8001", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "minimcp", "gateway", str(FOLDER / name), "--check"]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "no error" in done.stdout, done.stderr


def test_each_caller_sees_what_the_rules_allow(gateway: Any):
    url, _ = gateway
    with Client(url, auth=ADA) as ada, Client(url, auth=BOB) as bob:
        everything = ["notes_write_note", "notes_find_notes", "orders_place_order", "orders_cancel_order"]
        assert [tool["name"] for tool in ada.list_tools()] == [*everything, "orders_list_orders", "prices_price"]
        assert [tool["name"] for tool in bob.list_tools()] == ["notes_find_notes", "prices_price"]
        assert ada.call_tool("notes_write_note", name="tea", text="Buy tea.").text == "tea is written"
        assert bob.read_resource("notes+note://tea").text == "Buy tea."
        assert bob.complete("name", "t", template="notes+note://{name}")["values"] == ["tea"]
        with pytest.raises(RemoteError) as caught:
            bob.call_tool("notes_write_note", name="tea", text="No.")
        assert caught.value.message == "Unknown tool: notes_write_note"


@pytest.mark.parametrize("mode", ["modern", "legacy"])
def test_an_order_is_confirmed_in_the_middle_of_the_call(gateway: Any, mode: str):
    url, _ = gateway
    asked: list[str] = []

    def elicit(question: Any) -> Any:
        asked.append(question.message)
        return {"confirmed": True}

    steps: list[str] = []
    with Client(url, auth=ADA, mode=mode, elicit=elicit) as ada:
        call = ada.start_tool("orders_place_order", {"article": "tea", "count": 2})
        steps += [step["message"] for step in call]
        assert re.fullmatch(r"Order \d+ is placed\.", call.result().text)
        assert "2 x tea" in ada.call_tool("orders_list_orders").text
    assert asked == ["Order 2 x tea?"] and steps == ["reserved", "packed", "sent"]


def test_an_endpoint_of_its_own_has_other_names_and_fixed_arguments(gateway: Any):
    url, _ = gateway
    asked: list[str] = []

    def elicit(question: Any) -> Any:
        asked.append(question.message)
        return None

    with Client(url.replace("/mcp", "/shop/mcp"), auth=ADA, elicit=elicit) as ada:
        tools = {tool["name"]: tool for tool in ada.list_tools()}
        assert {"price", "buy", "bought"} <= tools.keys()
        assert "count" not in tools["buy"]["inputSchema"]["properties"]
        assert ada.call_tool("buy", article="tea").text == "Nothing was ordered."
    assert asked == ["Order 1 x tea?"]


def test_both_processes_have_work_when_there_is_much(gateway: Any):
    url, _ = gateway
    with Client(url, auth=ADA) as ada:
        calls = [ada.start_tool("prices_price", {"article": f"tea {number}"}) for number in range(8)]
        assert len({call.result().data["process"] for call in calls}) == 2


def test_the_commands_of_the_readme_do_what_it_says(gateway: Any):
    url, folder = gateway
    base = url[: -len("/mcp")]
    listed = [run(command, base, folder) for command in commands(" list ")]
    assert [done.returncode for done in listed] == [0, 0]
    assert "orders_place_order" in listed[0].stdout and "orders_place_order" not in listed[1].stdout
    priced, *ordered = [run(command, base, folder) for command in commands(" call ")]
    assert priced.returncode == 0 and json.loads(priced.stdout)["article"] == "tea"
    # Nobody is there to confirm it.
    told = "minimcp: the server asks: Order 1 x tea?; answer with --answer confirmed=yes|no\n"
    assert [(done.returncode, done.stderr) for done in ordered] == [(1, told)] * 2
    (explained,) = [run(command, base, folder) for command in commands("--explain")]
    assert explained.returncode == 1 and "neither visible nor callable" in explained.stdout
    (posted,) = [run(command, base, folder) for command in commands("curl")] if shutil.which("curl") else [None]
    assert posted is None or json.loads(posted.stdout)["article"] == "tea"


def test_what_was_done_is_in_the_audit_log(gateway: Any):
    url, folder = gateway
    with Client(url, auth=BOB) as bob:
        bob.call_tool("prices_price", article="tea")
    file = folder / "minimcp-example-audit.jsonl"
    lines = [json.loads(line) for line in whole_lines(file)]
    assert ("bob", "prices_price") in [(line["principal"], line.get("name")) for line in lines]
    assert ADA not in file.read_text(encoding="utf-8")
    (command,) = commands(" audit ")
    verified = run(command.replace("${TMPDIR:-/tmp}", str(folder)), url, folder)
    assert verified.returncode == 0 and "intact" in verified.stdout, verified.stderr


def test_the_status_page_is_for_those_with_a_key(gateway: Any):
    base = gateway[0][: -len("/mcp")]
    assert requests.get(base + "/status.json", timeout=20).status_code == 401
    found = requests.get(base + "/status.json", headers={"X-API-Key": ADA}, timeout=20).json()
    assert {each["name"]: len(each["replicas"]) for each in found["servers"]} == {"notes": 1, "orders": 1, "prices": 2}
    assert requests.get(base + "/healthz", timeout=20).status_code == 200


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[str]:
    """Two gateways behind nginx: their URL."""
    if NGINX is None or REDIS is None:
        pytest.skip("nginx or redis-server is not installed")
    pytest.importorskip("redis", reason="the redis package is not installed")
    ports = [free_port() for _ in range(4)]
    redis, front = ports[2:]
    config = (FOLDER / "nginx.conf").read_text(encoding="utf-8")
    for port, used in (("8001", ports[0]), ("8002", ports[1]), ("8080", front)):
        config = config.replace(f":{port};", f":{used};").replace(f"listen {port}", f"listen 127.0.0.1:{used}")
    paths = "".join(
        f"{name}_temp_path {tmp_path}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = (
        f"daemon off; pid {tmp_path}/pid; error_log stderr;\nevents {{}}\nhttp {{ access_log off;\n{paths}{config}}}\n"
    )
    (tmp_path / "nginx.conf").write_text(whole, encoding="utf-8")
    env = {"PYTHON": sys.executable, "MINIMCP_SECRET": "a secret of this test only, 0123456789"}
    # Calls pass uncounted when Redis does not answer at once, as it may not where this machine is busy.
    env.update(REDIS_URL=f"redis://127.0.0.1:{redis}/0?socket_timeout=20", PUBLIC_URL=f"http://127.0.0.1:{front}/mcp")
    with contextlib.ExitStack() as stack:
        store = [REDIS, "--port", str(redis), "--save", "", "--dir", str(tmp_path)]
        stack.enter_context(Process(store)).wait_for("Ready to accept connections")
        for port in ports[:2]:
            command = [sys.executable, "-m", "minimcp", "gateway", "examples/gateway/pair.json", "--http", str(port)]
            process = stack.enter_context(Process(command, cwd=str(ROOT), PORT=str(port), **env))
            ready(process)
        stack.enter_context(Process([NGINX, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]))
        wait_until(lambda: _answers(f"http://127.0.0.1:{front}/healthz"), 60)
        yield f"http://127.0.0.1:{front}/mcp"


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).status_code == 200
    except requests.RequestException:
        return False


def test_two_gateways_behind_nginx_are_one(pair: str):
    asked: list[str] = []

    def elicit(question: Any) -> Any:
        asked.append(question.message)
        return {"confirmed": True}

    with Client(pair, auth=ADA, mode="modern", elicit=elicit) as modern:
        processes = {modern.call_tool("prices_price", article="tea").data["process"] for _ in range(10)}
        assert len(processes) == 2  # each gateway has one
        for _ in range(6):
            # The retry with the answer may reach the other gateway, where the call does not wait.
            assert "is placed" in modern.call_tool("orders_place_order", article="tea").text
    assert asked == ["Order 1 x tea?"] * 6
    with Client(pair, auth=ADA, mode="legacy", elicit=elicit) as legacy:
        orders = [legacy.call_tool("orders_place_order", article="salt").text for _ in range(3)]
        # One session, one process, whichever gateway it was that opened it.
        assert orders == [f"Order {number} is placed." for number in (1, 2, 3)]
    with Client(pair, auth=BOB) as bob:
        outcomes = [_limited(bob) for _ in range(24)]
    assert outcomes.count("ok") == 20 and outcomes[20:] == ["limited"] * 4


def _limited(client: Client) -> str:
    try:
        found = client.call_tool("prices_price", article="tea")
    except RemoteError as problem:
        assert "retryAfterMs" in json.dumps(problem.data), problem
        return "limited"
    return "limited" if found.is_error else "ok"
