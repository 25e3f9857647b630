"""The reading path: the files that a call passes from bytes to tool and back, their length, and its depth."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import minimcp
from minimcp import Server
from minimcp.protocol import wire
from minimcp.transports.stdio import StdioLoop
from tests.embedded import embedded
from tests.helpers import modern, post

HOME = Path(minimcp.__file__).parent
# What the README tells a learner to read, in this order.
PATH = [
    "protocol/spec.py",
    "protocol/wire.py",
    "protocol/errors.py",
    "server/catalog.py",
    "server/registry.py",
    "server/methods.py",
    "server/dispatcher.py",
    "server/modern.py",
    "server/engine.py",
    "server/server.py",
]
# Understood without being opened: engines, the ways in, and the builders of headers and content blocks.
BESIDE = ("engines/", "transports/", "protocol/headers.py", "protocol/content.py")


def inside(code):
    path = Path(code.co_filename)
    return path.relative_to(HOME).as_posix() if HOME in path.parents else None


class Depth:
    """A tool that counts the frames of the library above it."""

    def __init__(self):
        self.server = Server("s")
        self.frames = []
        self.server.tool(self.add, "add")

    def add(self, a: int, b: int) -> int:
        frame, found = sys._getframe(1), []
        while frame is not None:
            if inside(frame.f_code):
                found.append(f"{inside(frame.f_code)}:{frame.f_code.co_name}")
            frame = frame.f_back
        self.frames.append(found)
        return a + b


CALL = modern("tools/call", name="add", arguments={"a": 1, "b": 2})


def test_five_frames_stand_between_handle_and_the_tool():
    depth = Depth()
    assert depth.server.handle(CALL)["result"]["structuredContent"] == 3
    assert len(depth.frames[0]) <= 5, depth.frames[0]


def over_stdio(server, line):
    """What a server writes for one line."""
    (theirs, ours), (out, back) = os.pipe(), os.pipe()
    loop = StdioLoop(server.engine, theirs, back)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        os.write(ours, line)
        os.close(ours)
        thread.join(10)
        return os.read(out, 65536)
    finally:
        loop.close()
        for fd in (theirs, out, back):
            os.close(fd)


def test_seven_frames_stand_between_a_line_and_the_tool():
    depth = Depth()
    reply = json.loads(over_stdio(depth.server, wire.dumps(CALL) + b"\n"))
    assert reply["result"]["structuredContent"] == 3
    # The thread's own function is the first of them.
    assert len(depth.frames[0]) <= 7, depth.frames[0]


def test_nine_frames_stand_between_a_connection_and_the_tool():
    depth = Depth()
    with embedded(depth.server.wsgi) as listening:
        status, reply = post(listening.url + "/mcp", CALL)
    assert status == 200 and reply["result"]["structuredContent"] == 3
    assert len(depth.frames[0]) <= 9, depth.frames[0]


def passed(work):
    """The files of the library whose functions run during some work, on any thread."""
    found = set()

    def note(frame, event, arg):
        if event == "call":
            found.add(inside(frame.f_code))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return {path for path in found - {None} if not path.startswith(BESIDE)}


def plain():
    server = Server("s")

    @server.tool
    def add(a: int, b: int) -> int:
        return a + b

    return server


def test_a_call_passes_no_file_that_is_not_on_the_path():
    server, said = plain(), []
    line = wire.dumps(CALL)
    server.handle(CALL)

    def work():
        said.append(wire.encode(server.handle(wire.loads(line))))

    found = passed(work)
    assert json.loads(said[0])["result"]["structuredContent"] == 3
    assert found and found <= set(PATH), found - set(PATH)


def test_a_call_over_http_passes_no_other_file():
    server, status = plain(), []
    with embedded(server.wsgi) as listening:
        url = listening.url + "/mcp"
        post(url, CALL)
        found = passed(lambda: status.append(post(url, CALL)[0]))
    assert status == [200] and found <= set(PATH), found - set(PATH)


def test_the_path_is_read_in_one_sitting():
    lengths = {path: len((HOME / path).read_text(encoding="utf-8").splitlines()) for path in PATH}
    assert sum(lengths.values()) <= 1650, lengths


def test_the_readme_names_it():
    readme = HOME / "README.md"
    names = ", ".join(Path(path).stem for path in PATH)
    assert f"Read `{names}` in this order" in readme.read_text(encoding="utf-8")
