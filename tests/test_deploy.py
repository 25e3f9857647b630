"""The example `examples/deploy`, as it is shown: nginx in front of gunicorn with four workers, and Redis between these.

The servers are those of the system, started on loopback.
"""

from __future__ import annotations

import configparser
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import minimcp
from tests.embedded import wait_until
from tests.helpers import Process, free_port, stopped
from tests.processes import Client, Redis, message_of, rest_of

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "examples/deploy"
PATH = os.environ.get("PATH", "") + ":/usr/sbin"
SECRET = "a-secret-of-this-test-only-0123456789"


def replaced(text: str, *pairs: tuple[str, str]) -> str:
    """A text with other addresses and files; each must be there."""
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


class Site:
    """The running example.

    :param server: the folder of the `server.py` that gunicorn serves, with the example's own settings.
    :param more: what else is in its environment.
    :ivar url: the endpoint behind nginx.
    :ivar env: the settings of its processes.
    """

    def __init__(self, folder: Path, redis: Redis, server: Path = DEPLOY, **more: str) -> None:
        nginx = shutil.which("nginx", path=PATH)
        if nginx is None:
            pytest.skip("nginx is not installed")
        for name in ("gunicorn", "celery"):
            pytest.importorskip(name, reason=f"{name} is not installed")
        self.redis, self.port, behind = redis, free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}/mcp"
        self.env = env = {
            "PYTHONPATH": str(ROOT),
            "MCP_BIND": f"127.0.0.1:{behind}",
            "MCP_REDIS": redis.url,
            "MCP_URL": self.url,
            "MCP_BOARD": str(folder / "board.db"),
            "MINIMCP_SECRET": SECRET,
            **more,
        }
        command = [sys.executable, "-m", "gunicorn", "-c", str(DEPLOY / "gunicorn.conf.py"), "server:app"]
        self.gunicorn = Process(command, cwd=str(server), **env)
        config = replaced(
            (DEPLOY / "nginx.conf").read_text(),
            ("127.0.0.1:8000;", f"127.0.0.1:{behind};"),
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.port};"),
            ("board.example;", "127.0.0.1;"),
        )
        config = re.sub(r"ssl_certificate.*;", "", config)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        main = f"daemon off; master_process off; pid {folder}/pid; error_log stderr notice;\n"
        main += "worker_rlimit_nofile 4096; events { worker_connections 1024; }\n"
        (folder / "nginx.conf").write_text(f"{main}http {{\naccess_log off;\n{places}{config}\n}}\n")
        self.nginx = Process([nginx, "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")])
        try:
            self.nginx.wait_for("using the .* event method")
            wait_until(lambda: len(self.workers()) == 4, 30)
            wait_until(lambda: self.get("/readyz") == (200, {"ready": True, "redis": True}), 30)
        except BaseException:
            self.close()
            raise AssertionError("\n".join([*self.gunicorn.lines, *self.nginx.lines])) from None

    def workers(self) -> set[int]:
        """The processes that have begun to serve, and have not ended."""
        begun, ended = set(), set()
        for line in self.gunicorn.lines:
            found = re.search(r"Booting worker with pid: (\d+)|Worker exiting \(pid: (\d+)\)", line)
            if found:
                (begun if found[1] else ended).add(int(found[1] or found[2]))
        return begun - ended

    def get(self, path: str) -> tuple[int, Any]:
        """The status and the body of a page."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        try:
            connection.request("GET", path)
            with connection.getresponse() as response:
                body = response.read()
                return response.status, json.loads(body) if body.startswith(b"{") else body
        finally:
            connection.close()

    def client(self, **options: Any) -> minimcp.Client:
        """A client of it."""
        return minimcp.Client(self.url, **{"timeout": 30, "elicit": lambda question: {"sure": True}, **options})

    def close(self) -> None:
        """Stop everything."""
        self.nginx.__exit__()
        self.gunicorn.__exit__()


@pytest.fixture(scope="module")
def site(tmp_path_factory: Any) -> Iterator[Site]:
    with Redis(DEPLOY / "redis.conf") as redis:
        site = Site(tmp_path_factory.mktemp("deployed"), redis)
        try:
            yield site
        finally:
            site.close()


def test_health_and_readiness_are_served(site: Site) -> None:
    assert site.get("/healthz") == (200, b"ok\n")
    for _ in range(8):
        wait_until(lambda: site.get("/readyz") == (200, {"ready": True, "redis": True}))
    assert site.get("/nothing")[0] == 404


@pytest.mark.parametrize("mode", ["modern", "legacy"])
def test_calls_questions_notices_and_progress_need_no_worker_of_their_own(site: Site, mode: str) -> None:
    with site.client(mode=mode) as client, client.listen(uris=["board://notes"]) as changes:
        seen: set[str] = set()
        last = ""
        for number in range(40):
            # The system may give every connection to the same worker, as long as that one comes first.
            others_turn = stopped(int(last.split()[-1])) if number % 10 == 5 else contextlib.nullcontext()
            with others_turn:
                last = client.call_tool("add", {"text": f"note {number}"}).text
            seen.add(last)
            assert changes.receive(timeout=30)["params"]["uri"] == "board://notes"
        assert len(seen) > 1, seen
        assert "note 39" in client.read_resource("board://notes").text
        steps: list[Any] = []
        assert client.call_tool("count", {"to": 3, "pause_s": 0.01}, progress=steps.append).text == "Counted to 3"
        assert len(steps) == 3
        for _ in range(6):
            assert client.call_tool("clear", {}).text == "Cleared"
        assert client.read_resource("board://notes").text == ""


def test_a_legacy_client_of_any_make_does_all_of_it_through_one_address(site: Site) -> None:
    client = Client([site.url], elicitation={}).begin()
    assert client.request("resources/subscribe", uri="board://notes")["result"] == {}
    for _ in range(8):
        with client.listen() as (_, listening), client.call("clear") as (_, event):
            listening(), event()
            asked = message_of(event())
            answer = {"action": "accept", "content": {"sure": True}}
            assert client.send({"jsonrpc": "2.0", "id": asked["id"], "result": answer})[0] == 202
            assert message_of(event())["result"]["content"] == [{"type": "text", "text": "Cleared"}]
            assert message_of(listening())["params"] == {"uri": "board://notes"}
        with client.call("count", to=100) as (_, event):
            event(), event()
            cancel = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}
            assert client.send(cancel)[0] == 202
            assert len(rest_of(event)) < 50
        with client.call("count", to=3, pause_s=0) as (_, event):
            events = list(iter(event, None))
        with client.listen(last=events[1]["id"]) as (_, event):
            assert [each["data"] for each in iter(event, None) if each["data"]] == [each["data"] for each in events[2:]]
    assert client.send(None, method="DELETE")[0] == 204
    for _ in range(8):
        assert client.send({"jsonrpc": "2.0", "id": 1, "method": "ping"})[0] == 404


def test_a_reload_ends_streams_by_the_protocol_and_lets_calls_finish(site: Site) -> None:
    before = site.workers()
    legacy = Client([site.url]).begin()
    assert legacy.request("resources/subscribe", uri="board://notes")["result"] == {}
    with site.client(mode="modern") as client, client.listen(uris=["board://notes"]) as changes:
        running = [client.start_tool("count", {"to": 20, "pause_s": 0.1}) for _ in range(3)]
        with legacy.listen() as (_, listening), legacy.call("count", to=20, pause_s=0.1) as (_, event):
            last, _, _ = listening()["id"], event(), event()
            began = time.monotonic()
            site.gunicorn.child.send_signal(signal.SIGHUP)
            assert changes.receive(timeout=20) is None
            while listening() is not None:
                pass
            # Long before a stream would have ended by itself, and before gunicorn had ended it after 30 s.
            assert time.monotonic() - began < 25
            # What happens while the client is on its way to another worker is told there.
            legacy.request("tools/call", name="add", arguments={"text": "meanwhile"})
            with legacy.listen(last=last) as (_, again):
                again()
                while message_of(again()).get("params") != {"uri": "board://notes"}:
                    pass
            assert rest_of(event)[-1]["result"]["content"][0]["text"] == "Counted to 20"
        assert [call.result().text for call in running] == ["Counted to 20"] * 3
    wait_until(lambda: len(site.workers()) == 4 and not site.workers() & before, 40)
    assert legacy.request("ping")["result"] == {}
    assert not [line for line in site.gunicorn.lines if "SIGKILL" in line or "Traceback" in line]


WORKER = ["-A", "server:jobs", "worker", "--concurrency", "2"]


def test_celery_does_what_takes_long(site: Site) -> None:
    command = [sys.executable, "-m", "celery", *WORKER, "--loglevel", "INFO"]
    with site.client(tasks=True) as client:
        client.call_tool("clear", {})
        for text in ("Buy milk", "Call the plumber", "Water the plants"):
            client.call_tool("add", {"text": text})
        # Before there is a worker it waits.
        early = client.start_tool("digest", {"pause_s": 0})
        wait_until(lambda: early.task_id is not None, 20)
        with Process(command, cwd=str(DEPLOY), **site.env) as worker:
            assert early.result().data == {"notes": 3, "words": 8}
            late = client.start_tool("digest", {"pause_s": 0.5})
            got = re.compile(r"Task minimcp\.run_task\.board\[.*\] received").search
            wait_until(lambda: sum(map(bool, map(got, worker.lines))) == 2, 20)
            # It stops when it has done what it does.
            worker.child.terminate()
            assert late.result().data == {"notes": 3, "words": 8}
            assert worker.child.wait(60) == 0
    with site.client() as plain:
        # A client that knows no tasks waits for the call itself.
        assert plain.call_tool("digest", {"pause_s": 0}).data == {"notes": 3, "words": 8}


def unit_of(name: str) -> Any:
    """The unit of a service."""
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((DEPLOY / "systemd" / name).read_text())
    return unit


def test_the_files_name_each_other_and_say_what_they_should() -> None:
    unit, worker = unit_of("board.service"), unit_of("board-worker.service")
    assert worker["Service"]["ExecStart"].endswith(" ".join(["celery", *WORKER]))
    assert unit["Service"]["ExecStart"].endswith("gunicorn -c gunicorn.conf.py server:app")
    settings: dict[str, Any] = {}
    exec((DEPLOY / "gunicorn.conf.py").read_text(), settings)
    source = (DEPLOY / "server.py").read_text()
    patience_s = float(re.search(r"PATIENCE_S = ([\d.]+)", source)[1])  # type: ignore[index]
    streams = int(re.search(r'"foreign_streams": (\d+)', source)[1])  # type: ignore[index]
    stop_s = int(unit["Service"]["TimeoutStopSec"])
    compose = (DEPLOY / "compose.yaml").read_text()
    assert patience_s < settings["graceful_timeout"] < stop_s
    assert f"stop_grace_period: {stop_s}s" in compose
    assert f"stop_grace_period: {worker['Service']['TimeoutStopSec']}s" in compose
    assert json.dumps(["celery", *WORKER]) in compose
    assert streams < settings["threads"] == settings["worker_connections"]
    for file in re.findall(r"- \./([\w.]+):", compose):
        assert (DEPLOY / file).is_file() or file == "tls"
    copied = re.search(r"COPY (.*) \./", (DEPLOY / "Dockerfile").read_text())
    assert copied is not None and all((DEPLOY / file).is_file() for file in copied[1].split())
    assert not set(re.findall(r"MCP_[A-Z]+", compose)) - set(re.findall(r"MCP_[A-Z]+", source)) - {"MCP_SECRET"}


@pytest.mark.parametrize(("name", "program"), [("board.service", "gunicorn"), ("board-worker.service", "celery")])
def test_systemd_takes_the_unit(tmp_path: Path, name: str, program: str) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    unit = replaced(
        (DEPLOY / "systemd" / name).read_text(),
        (f"/opt/board/venv/bin/{program}", sys.executable),
        ("User=board\n", ""),
    )
    (tmp_path / name).write_text(unit)
    done = subprocess.run([analyze, "verify", str(tmp_path / name)], capture_output=True, text=True)
    wrong = [line for line in done.stderr.splitlines() if name in line and "man" not in line]
    assert not wrong, wrong


def test_docker_takes_the_compose_file() -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("docker compose is not installed")
    env = {**os.environ, "MINIMCP_SECRET": SECRET}
    command = ["docker", "compose", "-f", str(DEPLOY / "compose.yaml"), "config", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
