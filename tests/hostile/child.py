"""A stdio server as a child process, and everything it says."""

from __future__ import annotations

import json
import os
import pathlib
import queue
import signal
import subprocess
import sys
import threading
from typing import Any

from tests.helpers import modern
from tests.hostile.support import clean, message_of

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SERVER = str(ROOT / "tests" / "hostile" / "stdio_server.py")
_BOUND_S = 20


class Child:
    """Starts `python -m minimcp run FILE`; every line it writes is checked and kept until it is asked for.

    :param options: for Popen; `stderr` is dropped unless given.
    :param python: options of the interpreter.
    :param command: what to run instead.
    """

    def __init__(
        self, target: str = SERVER, env: Any = None, python: Any = (), command: Any = None, **options: Any
    ) -> None:
        variables = {**os.environ, "PYTHONPATH": str(ROOT), **(env or {})}
        command = command or [sys.executable, *python, "-m", "minimcp", "run", target]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, **options}
        self.process = subprocess.Popen(command, env=variables, bufsize=0, **pipes)
        self.heard: queue.Queue[Any] = queue.Queue()
        self.raw: list[bytes] = []
        self._unclaimed: list[Any] = []
        self._reader = threading.Thread(target=self._read)
        if self.process.stdout is not None:
            self._reader.start()

    def _read(self) -> None:
        with self.process.stdout as pipe:  # type: ignore[union-attr]
            rest = b""
            while chunk := pipe.read(1 << 16):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self.raw.append(line[:200])
                    try:
                        # Looking through megabytes of payload takes longer than everything else.
                        clean(line if len(line) < 50_000 else line[:5000] + line[-5000:])
                        self.heard.put(message_of(line))
                    except BaseException as error:
                        self.heard.put(error)
        self.heard.put(EOFError(f"the child ended, leaving {rest[:100]!r}"))

    def write(self, data: bytes) -> None:
        """Write bytes to its standard input, all of them."""
        view = memoryview(data)
        while view:
            view = view[self.process.stdin.write(view) :]  # type: ignore[union-attr]

    def send(self, *messages: Any) -> None:
        """Write messages, each on its line, in one go."""
        self.write(b"".join(json.dumps(message, ensure_ascii=True).encode() + b"\n" for message in messages))

    def next(self, timeout_s: float = _BOUND_S) -> Any:
        """The next message it wrote; one that is not a JSON-RPC message fails here."""
        if self._unclaimed:
            return self._unclaimed.pop(0)
        return self._hear(timeout_s)

    def _hear(self, timeout_s: float) -> Any:
        found = self.heard.get(timeout=timeout_s)
        if isinstance(found, BaseException):
            raise found
        return found

    def answer(self, id: Any, timeout_s: float = _BOUND_S) -> Any:
        """The answer with this id; what comes before it is kept."""
        for message in self._unclaimed:
            if "method" not in message and _same(message.get("id"), id):
                self._unclaimed.remove(message)
                return message
        while True:
            message = self._hear(timeout_s)
            if "method" not in message and _same(message.get("id"), id):
                return message
            self._unclaimed.append(message)

    def tool(self, name: str, id: Any = "t", **arguments: Any) -> Any:
        """Call a tool and return its answer."""
        self.send(modern("tools/call", id, name=name, arguments=arguments))
        return self.answer(id)

    def alive(self) -> None:
        """Fail unless the next call is answered, and nothing else was said."""
        answer = self.tool("add", "alive", a=20, b=22)
        assert answer["result"]["content"] == [{"type": "text", "text": "42"}]
        assert self._unclaimed == [], "more was said than anybody asked for"

    def end(self, timeout_s: float = 20) -> int:
        """Close its standard input and return how it exits, within a bound."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        return self.exited(timeout_s)

    def exited(self, timeout_s: float = 20) -> int:
        """Wait for its exit within a bound and return its status."""
        try:
            return self.process.wait(timeout_s)
        finally:
            self.close()

    def signal(self, number: int = signal.SIGTERM) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def close(self) -> None:
        """Leave nothing of it behind."""
        self.process.kill()
        self.process.wait(_BOUND_S)
        for pipe in (self.process.stdin, self.process.stderr):
            if pipe is not None:
                pipe.close()
        if self._reader.ident is not None:
            self._reader.join(_BOUND_S)

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def text(answer: Any) -> str:
    """The text of a tool's answer."""
    return str(answer["result"]["content"][0]["text"])


def _same(found: Any, id: Any) -> bool:
    return type(found) is type(id) and found == id
