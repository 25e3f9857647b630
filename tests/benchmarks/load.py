"""Load over HTTP: `wrk` when it is on PATH, otherwise threads with raw sockets; and idle listen streams."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple

from . import wire

TIMEOUT_S = 15.0
SCRIPT = """
local count = 0
wrk.method = "POST"
%(headers)s
function request()
  count = count + 1
  return wrk.format(nil, "/mcp", nil, [==[%(head)s]==] .. count .. [==[%(tail)s]==])
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("\\nFIGURES %%d %%d %%d %%d %%d\\n", summary.requests, summary.duration,
    latency:percentile(99), e.status, e.connect + e.read + e.write + e.timeout))
end
"""


class Load(NamedTuple):
    """Answers per second and the 99th percentile of the time to one answer in ms."""

    rate: float
    p99_ms: float


def client_name() -> str:
    """Which client makes the load here."""
    return "wrk" if shutil.which("wrk") else "a threaded Python client (install wrk for better figures)"


def run(port: int, request: wire.Request, connections: int, seconds: float) -> Load:
    """Send `request` over and over on kept connections; raises RuntimeError when an answer is no success."""
    if shutil.which("wrk"):
        return _wrk(port, request, connections, seconds)
    return _threads(port, request, connections, seconds)


def run_job(command: List[str], limit_s: float, on_line: Callable[[str], object], **options: Any) -> Dict[str, Any]:
    """Run a program that makes load, and return the figures that it prints last, as JSON.

    :param on_line: is called with every other line that it prints.
    :param options: of the child process.
    :raises RuntimeError: when it fails, or does not end in time.
    """
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )
    watchdog = threading.Timer(limit_s, child.kill)
    watchdog.start()
    assert child.stdout is not None and child.stderr is not None
    said = ""
    try:
        for line in child.stdout:
            if line.startswith("{"):
                said = line
            else:
                on_line(line.strip())
        trouble = child.stderr.read().strip()
        if child.wait() != 0 or not said:
            raise RuntimeError(trouble.splitlines()[-1][:400] if trouble else "the load was broken off")
        found: Dict[str, Any] = json.loads(said)
        return found
    finally:
        watchdog.cancel()
        child.kill()
        child.wait()
        child.stdout.close()
        child.stderr.close()


def _wrk(port: int, request: wire.Request, connections: int, seconds: float) -> Load:
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in request.headers.items())
    script = SCRIPT % {"headers": headers, "head": request.head, "tail": request.tail}
    with tempfile.NamedTemporaryFile("w", suffix=".lua", delete=False) as file:
        file.write(script)
    whole = max(1, round(seconds))
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{whole}s",
        "--timeout",
        f"{TIMEOUT_S:.0f}s",
        "-s",
        file.name,
    ]
    try:
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{port}/mcp"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=whole + 2 * TIMEOUT_S,
        )
    finally:
        os.unlink(file.name)
    figures = [line.split() for line in done.stdout.splitlines() if line.startswith("FIGURES")]
    if not figures:
        raise RuntimeError(f"wrk failed: {done.stdout.strip()[-200:]}")
    answered, duration_us, p99_us, refused, broken = map(int, figures[0][1:])
    if refused or broken or not answered:
        raise RuntimeError(f"{answered} answers, {refused} error statuses, {broken} broken or timed out")
    return Load(answered / duration_us * 1e6, p99_us / 1000)


def head_of(port: int, request: wire.Request) -> bytes:
    """The request line and headers, all but the length of the body."""
    lines = [f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in request.headers.items()]
    return "\r\n".join(lines).encode()


def framed(head: bytes, body: bytes) -> bytes:
    """One whole request."""
    return b"%b\r\nContent-Length: %d\r\n\r\n%b" % (head, len(body), body)


def _read_reply(connection: socket.socket) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, rest = data.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(f"answered {head[:40]!r}")
    low = head.lower()
    if b"transfer-encoding: chunked" in low:
        while not rest.endswith(b"\r\n0\r\n\r\n"):
            rest += _some(connection)
        return
    missing = int(low.split(b"content-length:")[1].split(b"\r\n")[0]) - len(rest)
    while missing > 0:
        missing -= len(_some(connection))


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 18)
    if not data:
        raise RuntimeError("the server closed the connection")
    return data


def _threads(port: int, request: wire.Request, connections: int, seconds: float) -> Load:
    head = head_of(port, request)
    times: List[float] = []
    faults: List[str] = []
    end = time.perf_counter() + seconds

    def one_connection(first: int) -> None:
        mine: List[float] = []
        number = first
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                before = time.perf_counter()
                while before < end:
                    connection.sendall(framed(head, request.body(number)))
                    _read_reply(connection)
                    number += 1
                    after = time.perf_counter()
                    mine.append(after - before)
                    before = after
        except (OSError, RuntimeError) as fault:
            faults.append(str(fault))
        times.extend(mine)

    begin = time.perf_counter()
    threads = [threading.Thread(target=one_connection, args=(n * 10_000_000 + 1,)) for n in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = time.perf_counter() - begin
    if faults or not times:
        raise RuntimeError(faults[0] if faults else "no answers")
    return Load(len(times) / passed, sorted(times)[int(len(times) * 0.99)] * 1000)


def open_streams(port: int, count: int) -> List[socket.socket]:
    """Open `count` listen streams, each acknowledged; raises RuntimeError when one is refused."""
    request = wire.listen()
    head = head_of(port, request)
    streams: List[socket.socket] = []
    try:
        for number in range(count):
            stream = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
            streams.append(stream)
            stream.sendall(framed(head, request.body(number + 1)))
            data = b""
            while b"notifications/subscriptions/acknowledged" not in data:
                if len(data) > 8192 or b"HTTP/1.1 4" in data or b'"error"' in data:
                    status = data.partition(b"\r\n")[0].decode(errors="replace")
                    raise RuntimeError(f"listen stream {number + 1} refused: {status}")
                data += _some(stream)
    except (OSError, RuntimeError) as fault:
        for stream in streams:
            stream.close()
        raise RuntimeError(str(fault)) from fault
    return streams


def memory_kib(pid: int) -> Dict[str, int]:
    """Resident memory now (VmRSS) and at its peak (VmHWM) in KiB; raises RuntimeError without /proc."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
            pairs = [line.split(":", 1) for line in file]
    except OSError:
        raise RuntimeError("a process's memory is read from /proc, which this machine lacks") from None
    return {name: int(value.split()[0]) for name, value in pairs if name in ("VmRSS", "VmHWM")}
