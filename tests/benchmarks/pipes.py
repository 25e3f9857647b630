"""Drives one stdio server: one call after the other, pipelined with a window, and from spawn to answer."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from typing import Any, Dict, Iterator, List, Optional

from . import wire
from .load import memory_kib

BLOCK = 64
WINDOW = 512
ANSWER_S = 30.0


class StdioServer:
    """A server as a child process; when `modern` is false it gets the handshake of the legacy era first."""

    def __init__(self, command: List[str], env: Dict[str, str], modern: bool = True) -> None:
        begin = time.perf_counter()
        self._child = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        assert self._child.stdin is not None and self._child.stdout is not None
        self._in, self._out = self._child.stdin.fileno(), self._child.stdout.fileno()
        self.modern = modern
        self._request = wire.add(modern=modern)
        self._number = 0
        self._rest = b""
        try:
            with self._bounded():
                if not modern:
                    self._write(json.dumps(wire.INITIALIZE).encode() + b"\n")
                    self._answer_to("init")
                    self._write(json.dumps(wire.INITIALIZED).encode() + b"\n")
                self._write(self._line())
                answer = self._answer_to(self._number)
            self.cold_ms = (time.perf_counter() - begin) * 1000
            text = answer.get("result", {}).get("content", [{}])[0].get("text")
            if text != "42":
                raise RuntimeError(f"wrong answer: {json.dumps(answer)[:200]}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> StdioServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child by end of file, or by force after five seconds."""
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    @contextlib.contextmanager
    def _bounded(self, seconds: float = 0.0) -> Iterator[None]:
        """Kill the child, which ends every read, when a step takes `ANSWER_S` longer than `seconds`."""
        watchdog = threading.Timer(seconds + ANSWER_S, self._child.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield
        finally:
            watchdog.cancel()

    def _line(self) -> bytes:
        self._number += 1
        return self._request.body(self._number) + b"\n"

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._in, view) :]

    def _answer_to(self, ident: Any) -> Dict[str, Any]:
        while True:
            line, end, rest = self._rest.partition(b"\n")
            if not end:
                data = os.read(self._out, 65536)
                if not data:
                    raise RuntimeError(f"the server ended (exit code {self._child.wait(5)})")
                self._rest += data
                continue
            self._rest = rest
            message: Dict[str, Any] = json.loads(line)
            if message.get("id") == ident:
                return message

    def one_by_one(self, seconds: float, calls: Optional[int] = None) -> float:
        """Calls per second when each waits for the answer before; for `seconds` or a number of `calls`."""
        begin = now = time.perf_counter()
        done = 0
        with self._bounded(seconds):
            while (now - begin < seconds) if calls is None else (done < calls):
                self._write(self._line())
                answer = os.read(self._out, 65536)
                while not answer.endswith(b"\n"):
                    more = os.read(self._out, 65536)
                    if not more:
                        raise RuntimeError("the server ended")
                    answer += more
                if b'"42"' not in answer or answer.count(b"\n") != 1:
                    raise RuntimeError(f"unexpected answer: {answer[:200]!r}")
                done += 1
                now = time.perf_counter()
        return done / (now - begin)

    def pipelined(self, seconds: float, calls: Optional[int] = None) -> float:
        """Calls per second with a window of unanswered ones, written in blocks; a thread reads answers."""
        answered, right = 0, 0
        room = threading.Condition()
        faults: List[str] = []
        sent = 0
        finished = threading.Event()

        def read() -> None:
            nonlocal answered, right
            rest = b""
            while not (finished.is_set() and answered >= sent):
                data = rest + os.read(self._out, 1 << 18)
                if data == rest:
                    faults.append("the server ended")
                    break
                whole, end, rest = data.rpartition(b"\n")
                with room:
                    answered += whole.count(b"\n") + len(end)
                    right += whole.count(b'"42"')
                    room.notify()
            with room:
                room.notify()

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        begin = time.perf_counter()
        while (time.perf_counter() - begin < seconds) if calls is None else (sent < calls):
            with room:
                room.wait_for(lambda: sent - answered <= WINDOW - BLOCK or faults, ANSWER_S)  # noqa: B023
            if faults or sent - answered > WINDOW - BLOCK:
                break
            block = b"".join([self._line() for _ in range(BLOCK)])
            sent += BLOCK
            if calls is not None and sent >= calls:
                finished.set()
            self._write(block)
        if not finished.is_set():
            # The reader may wait in a read that nothing will end, so one more call wakes it.
            sent += 1
            finished.set()
            self._write(self._line())
        reader.join(ANSWER_S)
        passed = time.perf_counter() - begin
        if faults or reader.is_alive() or right != answered or answered != sent:
            raise RuntimeError(faults[0] if faults else f"{sent} sent, {answered} answers, {right} of them right")
        return answered / passed

    def peak_mib(self) -> float:
        """Peak resident memory after a fixed number of calls, in MiB.

        The kernel's mark of this program alone: ru_maxrss of a child starts at the size of its parent.
        """
        self.one_by_one(0, calls=1000)
        self.pipelined(0, calls=3008)
        return memory_kib(self._child.pid)["VmHWM"] / 1024
