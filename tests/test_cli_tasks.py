"""Tasks on the command line: a call that is followed to its end, one that is left, and coming back to it."""

from __future__ import annotations

import re
import signal
import sys
import threading

import pytest

from minimcp import Context, Server
from minimcp.__main__ import main
from tests.embedded import embedded, wait_until
from tests.terminal import Pty


class Site:
    """A server with tools that are tasks, which go on when the test says so."""

    def __init__(self):
        self.begun, self.go_on, self.cancelled = threading.Event(), threading.Event(), threading.Event()
        self.server = Server("s")

        @self.server.tool(task="required")
        def build(ctx: Context, size: int = 1) -> str:
            ctx.on_cancel(self.cancelled.set)
            ctx.progress(1, 2, "half of it")
            self.begun.set()
            assert self.go_on.wait(60)
            ctx.check()
            return f"built {size}"

        @self.server.tool(task=True)
        def ask(ctx: Context) -> str:
            return str(dict(ctx.elicit("Go on?", {"sure": bool})))

        @self.server.tool(task=True)
        def fail() -> str:
            raise ValueError("no bricks")

        @self.server.tool
        def quick() -> str:
            return "at once"


@pytest.fixture
def site():
    made = Site()
    with embedded(made.server.wsgi) as listening:
        made.url = f"{listening.url}/mcp"
        try:
            yield made
        finally:
            made.go_on.set()
            made.server.tasks.close()


def said(capsys, *words, code=0):
    assert main(list(words)) == code
    return capsys.readouterr()


def test_a_tool_that_is_a_task_is_called_like_any_other(site, capsys):
    site.go_on.set()
    assert said(capsys, "call", site.url, "build", "size=3") == ("built 3\n", "")
    assert said(capsys, "call", site.url, "ask", "--answer", "sure=yes") == ("{'sure': True}\n", "")
    told = 'minimcp: The tool fail failed; the logger "minimcp" of the server has the details\n'
    assert said(capsys, "call", site.url, "fail", code=3).err.endswith(told)


def test_a_task_is_left_and_come_back_to(site, capsys):
    out, err = said(capsys, "call", site.url, "build", "size=2", "--detach")
    id = out.strip()
    assert err == f"minimcp: the task goes on; to come back to it: minimcp task {site.url} {id}\n"
    wait_until(lambda: "statusMessage" in site.server.tasks.get(id))
    assert said(capsys, "task", site.url, id, "--status") == ("working: half of it (1 of 2)\n", "")
    assert '"status": "working"' in said(capsys, "task", site.url, id, "--status", "--json").out
    site.go_on.set()
    assert said(capsys, "task", site.url, id) == ("built 2\n", "")
    assert said(capsys, "task", site.url, id, "--status").out.startswith("completed")


def test_a_task_is_cancelled_by_its_id(site, capsys):
    id = said(capsys, "call", site.url, "build", "--detach").out.strip()
    assert site.begun.wait(20)
    assert said(capsys, "task", site.url, id, "--cancel").out.startswith("cancelled")
    assert site.cancelled.wait(20)
    assert said(capsys, "task", site.url, id, code=1) == ("", "minimcp: The server cancelled the task\n")


def test_a_call_that_is_no_task_cannot_be_left_and_a_server_may_have_none(site, capsys):
    assert said(capsys, "call", site.url, "quick", "--detach") == ("at once\n", "")
    unknown = (
        "minimcp: Unknown task: it was never made, its time is over, or it belongs to another principal (-32602)\n"
    )
    assert said(capsys, "task", site.url, "x", code=1) == ("", unknown)
    with embedded(Server("plain").wsgi) as listening:
        told = "minimcp: plain does not offer tasks\n"
        assert said(capsys, "task", f"{listening.url}/mcp", "x", code=1) == ("", told)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGINT for one process")
def test_ctrl_c_cancels_a_task_that_was_called_and_leaves_one_that_was_come_back_to(site, capsys):
    id = said(capsys, "call", site.url, "build", "--detach").out.strip()
    assert site.begun.wait(20)
    with Pty("-m", "minimcp", "task", site.url, id) as terminal:
        terminal.wait_for("half of it")
        terminal.child.send_signal(signal.SIGINT)
        terminal.wait_for("minimcp: the task goes on; --cancel ends it\r\n")
        assert terminal.child.wait(20) == 130
    assert said(capsys, "task", site.url, id, "--status").out == "working: half of it (1 of 2)\n"
    site.go_on.set()
    assert said(capsys, "task", site.url, id).out == "built 1\n"
    site.go_on.clear()
    with Pty("-m", "minimcp", "call", site.url, "build") as terminal:
        terminal.wait_for("half of it")
        terminal.child.send_signal(signal.SIGINT)
        assert terminal.child.wait(20) == 130
    assert site.cancelled.wait(20)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_the_status_of_a_task_is_shown_on_a_terminal(site):
    with Pty("-m", "minimcp", "call", site.url, "build") as terminal:
        terminal.wait_for("half of it")
        site.go_on.set()
        assert terminal.child.wait(20) == 0
        assert terminal.child.stdout.read() == b"built 1\n"
    assert not re.search("Traceback", terminal.seen)
