"""The attacked server, over a real socket, and the two things that hold after every case."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest

from minimcp import Server
from minimcp.engines.http_server.wsgi_server import serve
from minimcp.transports import workers
from tests.hostile.support import Gate, Http, attacked


@contextlib.contextmanager
def hosting(server: Server, **limits: float) -> Iterator[Http]:
    """Serve a server on a port of its own, with the embedded server and further limits of it."""
    ready: Queue[Any] = Queue()
    limits = {"send_s": 0.5, "idle_s": 15, **limits}
    listening = threading.Thread(
        target=serve, args=(server.wsgi, "127.0.0.1", 0), kwargs={"ready": ready.put, "limits": limits}
    )
    listening.start()
    embedded = ready.get(timeout=10)
    try:
        client = Http(embedded.url)
        # Answered once: all threads it has for itself are there, and none of them is taken for a leak.
        client.send(None, {}, "OPTIONS")
        yield client
    finally:
        server.close()
        embedded.shutdown()
        listening.join(10)


@pytest.fixture(scope="session", autouse=True)
def _workers_that_leave() -> Iterator[None]:
    """Idle worker threads go at once, so that one that stays is a leak."""
    before, workers._IDLE_S = workers._IDLE_S, 0.05
    yield
    workers._IDLE_S = before


@pytest.fixture(scope="module", autouse=True)
def _no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
        assert not thread.is_alive(), f"{thread.name} was left behind"


@pytest.fixture(scope="module")
def gate() -> Gate:
    """What the handlers of the attacked server wait for and have done."""
    return Gate()


@pytest.fixture(scope="module")
def _attacked(gate: Gate, _no_thread_stays: None) -> Iterator[Http]:
    with hosting(attacked(gate, limits={"keepalive_s": 0.2})) as client:
        yield client


@pytest.fixture
def http(_attacked: Http) -> Iterator[Http]:
    """A client of the attacked server, which must be alive after every case."""
    yield _attacked
    _attacked.alive()


@pytest.fixture
def host(_no_thread_stays: None) -> Iterator[Any]:
    """Serves further servers, `host(server, **limits) -> Http`, until the case is over; each must be alive then."""
    with contextlib.ExitStack() as stack:

        def start(server: Server, alive: bool = True, **limits: float) -> Http:
            client = stack.enter_context(hosting(server, **limits))
            if alive:
                stack.callback(client.alive)
            return client

        yield start
