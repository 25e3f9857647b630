"""What holds in every test: nothing is left running, and all that a server or client emits fits the official schema."""

from __future__ import annotations

import glob
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from minimcp.transports.hangups import hangups  # noqa: E402
from tests import emitted, official  # noqa: E402

_BOUND_S = 20.0
_MOST_IDLE = 100


official.watch_emissions()
emitted.watch()


# Files whose tests start many processes, kill them, or run for long; one interpreter is enough for them.
LONG = {
    *("test_gateway_faults", "test_gateway_matrix", "test_gateway_clients", "test_gateway_servers"),
    *("test_gateway_lies", "test_many_processes", "test_tasks_crash", "test_examples_page", "test_guide"),
    *("test_apps_example", "test_apps_harm", "test_benchmarks", "test_shared_sessions", "test_deploy"),
    *("test_redis_bus", "test_restarts", "test_tasks_redis", "test_worker", "test_words", "test_carriers"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the long tests where MINIMCP_BRIEF is set, as for the oldest Python."""
    if not os.environ.get("MINIMCP_BRIEF"):
        return
    brief = pytest.mark.skip(reason="MINIMCP_BRIEF is set: long tests run on the newest Python alone")
    for item in items:
        path = item.path
        if path.stem in LONG or path.parent.name == "fuzz":
            item.add_marker(brief)


@pytest.fixture(autouse=True)
def _emissions_fit_the_official_schema() -> Iterator[None]:
    official.violations.clear()
    yield
    found, official.violations[:] = list(official.violations), []
    assert not found, "something was emitted that the official schema refuses:\n" + "\n".join(found[:5])


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    threads, children = set(threading.enumerate()), _children()
    yield
    until = time.monotonic() + _BOUND_S
    while True:
        left = [thread for thread in threading.enumerate() if thread not in threads and _is_leak(thread)]
        orphans = _children() - children
        if not (left or orphans):
            break
        if time.monotonic() > until:
            pytest.fail(f"left running: {[thread.name for thread in left]} {sorted(orphans)}")
        if left:
            left[0].join(0.02)
        else:
            threading.Event().wait(0.02)
    idle = sum(thread.name.startswith("minimcp") for thread in threading.enumerate())
    assert idle <= sum(thread.name.startswith("minimcp") for thread in threads) + _MOST_IDLE, "threads pile up"


def _is_leak(thread: threading.Thread) -> bool:
    """A thread that is still at work; one of ours that idles leaves by itself."""
    if not thread.daemon:
        return True
    if not thread.name.startswith("minimcp"):
        return False
    if thread.name == "minimcp-hangups":
        return not hangups().is_idle()
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None:
        if frame.f_code.co_name == "_work" and frame.f_code.co_filename.endswith(("workers.py", "thread_carrier.py")):
            # Inside a job there is a frame between the worker's loop and the wait.
            return not _waits(thread)
        frame = frame.f_back
    return True


def _waits(thread: threading.Thread) -> bool:
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code.co_filename == threading.__file__:
        frame = frame.f_back
    return frame is not None and frame.f_code.co_name == "_work"


def _children() -> set[int]:
    """The process ids of this process's children, finished ones that nobody waited for included."""
    found: set[int] = set()
    for path in glob.glob("/proc/self/task/*/children"):
        try:
            found.update(map(int, Path(path).read_text().split()))
        except OSError:
            pass
    return found
