"""Load on one server from a process of its own: `python hammer.py JOB`, a JSON object; prints one of figures.

All clients live on one thread, each with a connection of its own and one call under way, and every call echoes another
text. The requests are made before the clock starts, and it starts when every client has had an answer. The job has
`port` and `path`, or `command` for a server over stdio, of which the clients share one; `method`, `tool`, `headers`,
`modern`, `clients`, `seconds` or `calls`, `warm`, how many answers a client has before that, and `log`, a file that
gets a line for each call with its outcome.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import time
from typing import Any, Dict, List, Optional, Tuple

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "hammer", "version": "1.0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "hammer", "version": "1.0"}}
ID, TEXT = "918273645", "777777777"
WARM = 3
ANSWER_S = 30.0


def body_of(job: Dict[str, Any]) -> Tuple[bytes, ...]:
    """The parts of a request around its id and, for a call, its text, both nine digits long."""
    call = job["method"] == "tools/call"
    params: Dict[str, Any] = {"name": job["tool"], "arguments": {"text": TEXT}} if call else {}
    if job["modern"]:
        params["_meta"] = META
    text = json.dumps({"jsonrpc": "2.0", "id": int(ID), "method": job["method"], "params": params})
    head, tail = text.split(ID)
    return tuple(part.encode() for part in (head, *tail.split(TEXT)))


def head_of(job: Dict[str, Any], session: Optional[str]) -> bytes:
    """The request line and the headers, all but the length."""
    lines = [f"POST {job['path']} HTTP/1.1", f"Host: 127.0.0.1:{job['port']}", "Content-Type: application/json"]
    lines.append("Accept: application/json, text/event-stream")
    if job["modern"]:
        lines += ["MCP-Protocol-Version: 2026-07-28", f"Mcp-Method: {job['method']}"]
        lines += [f"Mcp-Name: {job['tool']}"] if job["method"] == "tools/call" else []
    elif session is not None:
        lines += ["MCP-Protocol-Version: 2025-11-25", f"Mcp-Session-Id: {session}"]
    lines += [f"{name}: {value}" for name, value in job.get("headers", {}).items()]
    return "\r\n".join(lines).encode()


def whole(data: bytes) -> bool:
    """Say whether a response is there to its end."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return False
    head = data[:end].lower()
    at = head.find(b"content-length:")
    if at >= 0:
        return len(data) >= end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
    if b"transfer-encoding: chunked" in head:
        return data.endswith(b"\r\n0\r\n\r\n")
    return True


class Caller:
    """One client: its connection, its session if it has one, and the call under way."""

    def __init__(self, job: Dict[str, Any], number: int) -> None:
        self._job = job
        self._base = 100_000_000 + number * 1_000_000
        self._parts = body_of(job)
        self.connection: Optional[socket.socket] = None
        self._head = b""
        self.data = b""
        self.count = 0
        self.text = b""
        self.begun = 0.0

    def connect(self) -> None:
        """Open the connection."""
        self.connection = socket.create_connection(("127.0.0.1", self._job["port"]), timeout=ANSWER_S)
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._head = head_of(self._job, None)

    def open(self) -> None:
        """Connect, and shake hands where the era wants it."""
        self.connect()
        session = None
        if not self._job["modern"]:
            hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": HELLO}
            reply = self._exchange(head_of(self._job, None), hello)
            lines = reply.partition(b"\r\n\r\n")[0].split(b"\r\n")
            found = [line.partition(b":")[2].strip() for line in lines if line.lower().startswith(b"mcp-session-id:")]
            session = found[0].decode() if found else ""
            head = head_of(self._job, session or None)
            self._exchange(head, {"jsonrpc": "2.0", "method": "notifications/initialized"})
        self._head = head_of(self._job, session or None)

    def _exchange(self, head: bytes, message: Dict[str, Any]) -> bytes:
        assert self.connection is not None
        body = json.dumps(message).encode()
        self.connection.sendall(b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        data = self._read()
        if not data.startswith((b"HTTP/1.1 200", b"HTTP/1.1 202")):
            raise RuntimeError(f"handshake answered {data[:60]!r} {data[-200:]!r}")
        return data

    def _read(self) -> bytes:
        assert self.connection is not None
        data = b""
        until = time.monotonic() + ANSWER_S
        while not whole(data):
            # What keeps a stream alive is no answer.
            if time.monotonic() > until:
                raise RuntimeError(f"no answer within {ANSWER_S:.0f} s")
            more = self.connection.recv(1 << 18)
            if not more:
                raise RuntimeError(f"the connection was closed after {data[:100]!r}")
            data += more
        return data

    def answer(self) -> bytes:
        """Send the next request and return the response."""
        self.send()
        return self._read()

    def body(self) -> bytes:
        """The next request, with an id and a text that no other has."""
        self.count += 1
        self.text = b"%09d" % (self._base + self.count)
        if len(self._parts) == 2:
            return self._parts[0] + self.text + self._parts[1]
        return b"%b%b%b%b%b" % (self._parts[0], self.text, self._parts[1], self.text, self._parts[2])

    def send(self) -> None:
        """Send the next request."""
        assert self.connection is not None
        body = self.body()
        self.data = b""
        self.begun = time.perf_counter()
        self.connection.sendall(b"%b\r\nContent-Length: %d\r\n\r\n%b" % (self._head, len(body), body))

    def fault(self, data: bytes) -> Optional[str]:
        """What is wrong with a response, None for nothing."""
        if data.startswith(b"HTTP/") and not data.startswith(b"HTTP/1.1 200"):
            return data[9:12].decode(errors="replace")
        if b'"error":' in data or b'"isError":true' in data or b'"isError": true' in data:
            return "error"
        # Whatever else is wrong, an answer that belongs to another call is a fault of its own.
        wanted = self.text if len(self._parts) == 3 else b'"tools"'
        return None if wanted in data else "not the answer to this call"


class Tally:
    """The time of every answer, the faults by kind, and the log."""

    def __init__(self, log: Optional[str]) -> None:
        self.times: List[float] = []
        self.at: List[float] = []
        self.faults: Dict[str, int] = {}
        self.first_fault = b""
        self._log = None if log is None else open(log, "a", encoding="ascii")  # noqa: SIM115

    def add(self, caller: Caller, now: float, fault: Optional[str], data: bytes = b"") -> None:
        """Take note of how a call ended."""
        if fault is None:
            self.times.append(now - caller.begun)
            self.at.append(now)
        else:
            self.first_fault = self.first_fault or data[-300:]
            self.faults[fault] = self.faults.get(fault, 0) + 1
        if self._log is not None:
            self._log.write(f"{caller.text.decode()} {now:.6f} {fault or 'ok'}\n")
            self._log.flush()

    def report(self, passed: float) -> Dict[str, Any]:
        """All figures; times in milliseconds."""
        ordered = sorted(self.times)

        def at(part: float) -> Optional[float]:
            return ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000 if ordered else None

        gaps = [after - before for before, after in zip(self.at, self.at[1:])]
        return {
            "calls": len(ordered),
            "rate": len(ordered) / passed,
            "p50": at(0.5),
            "p99": at(0.99),
            "longest": at(1.0),
            "gap": max(gaps) * 1000 if gaps else None,
            "faults": self.faults,
            "first_fault": self.first_fault.decode(errors="replace"),
        }


def over_http(job: Dict[str, Any], tally: Tally) -> float:
    """Run the job over HTTP and return how long it took."""
    callers = [Caller(job, number) for number in range(job["clients"])]
    poller = select.poll()
    by_file: Dict[int, Caller] = {}
    lives: List[Caller] = []
    for caller in callers:
        caller.open()
        for _ in range(job.get("warm", WARM)):
            data = caller.answer()
            fault = caller.fault(data)
            if fault is not None:
                raise RuntimeError(f"{fault}: {data[-300:]!r}")
        _watch(poller, by_file, caller)
        lives.append(caller)
    begin = time.perf_counter()
    end = begin + job.get("seconds", 1e9)
    left = job.get("calls", 1 << 60)
    print("begun", flush=True)
    running = 0
    for caller in callers:
        if left > 0:
            left, running = left - 1, running + 1
            caller.send()
    while running:
        ready = poller.poll(ANSWER_S * 1000)
        if not ready:
            raise RuntimeError(f"{running} calls had no answer within {ANSWER_S:.0f} s")
        for number, _ in ready:
            caller = by_file[number]
            assert caller.connection is not None
            try:
                data = caller.connection.recv(1 << 18)
            except OSError:
                data = b""
            caller.data = caller.data + data if caller.data else data
            if data and not whole(caller.data):
                continue
            now = time.perf_counter()
            fault = caller.fault(caller.data) if data else "the connection broke"
            tally.add(caller, now, fault, caller.data)
            if fault is not None:
                # What is refused at once would otherwise keep a processor busy.
                time.sleep(0.002)
            if now >= end or left <= 0:
                running -= 1
                continue
            left -= 1
            if not data:
                _reconnect(poller, by_file, caller, number)
            caller.send()
    return time.perf_counter() - begin


def _watch(poller: Any, by_file: Dict[int, Caller], caller: Caller) -> None:
    assert caller.connection is not None
    by_file[caller.connection.fileno()] = caller
    poller.register(caller.connection.fileno(), select.POLLIN)


def _reconnect(poller: Any, by_file: Dict[int, Caller], caller: Caller, number: int) -> None:
    poller.unregister(number)
    del by_file[number]
    assert caller.connection is not None
    caller.connection.close()
    until = time.monotonic() + ANSWER_S
    while True:
        try:
            caller.open()
            break
        except (OSError, RuntimeError):
            if time.monotonic() > until:
                raise
            time.sleep(0.02)
    _watch(poller, by_file, caller)


def over_stdio(job: Dict[str, Any], tally: Tally) -> float:
    """Run the job over the pipes of one server and return how long it took."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    child: Any = subprocess.Popen(job["command"], env={**os.environ, **job["env"]}, bufsize=0, **pipes)
    into, out = child.stdin.fileno(), child.stdout.fileno()
    callers = [Caller(job, number) for number in range(job["clients"])]
    waiting: Dict[int, Caller] = {}
    rest = b""

    def send(caller: Caller) -> None:
        line = caller.body() + b"\n"
        waiting[int(caller.text)] = caller
        caller.begun = time.perf_counter()
        os.write(into, line)

    def answers() -> List[Tuple[Caller, bytes]]:
        nonlocal rest
        data = os.read(out, 1 << 18)
        if not data:
            raise RuntimeError("the server ended")
        *lines, rest = (rest + data).split(b"\n")
        return [(waiting.pop(json.loads(line)["id"]), line) for line in lines]

    try:
        for _ in range(WARM):
            for caller in callers:
                send(caller)
            while waiting:
                for caller, line in answers():
                    if caller.fault(line) is not None:
                        raise RuntimeError(f"{caller.fault(line)}: {line[-300:]!r}")
        begin = time.perf_counter()
        end = begin + job["seconds"]
        print("begun", flush=True)
        for caller in callers:
            send(caller)
        while waiting:
            for caller, line in answers():
                now = time.perf_counter()
                tally.add(caller, now, caller.fault(line), line)
                if now < end:
                    send(caller)
        return time.perf_counter() - begin
    finally:
        child.stdin.close()
        child.stdout.close()
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    taken = Tally(given.get("log"))
    try:
        print(json.dumps(taken.report((over_stdio if "command" in given else over_http)(given, taken))))
    except (OSError, RuntimeError) as trouble:
        sys.exit(f"{type(trouble).__name__}: {trouble}")
