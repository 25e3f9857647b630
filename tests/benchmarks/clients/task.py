"""What every Python client is told and has to report; imports nothing of an implementation under measurement."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, Awaitable, Callable, List

JOB, COUNT = sys.argv[1], int(sys.argv[2])
TARGET: List[str] = sys.argv[3:]
URL = TARGET[0] if TARGET[0].startswith("http") else None
NUMBERS = {"a": 20, "b": 22}
SHARERS = 8
WARM_UP = 20
HUGE_S = 20.0


def report(**found: Any) -> None:
    """Print what was found."""
    print(json.dumps(found), flush=True)


def check(text: str) -> None:
    """Make sure that an answer is the right one."""
    if text != "42":
        raise RuntimeError(f"wrong answer: {text[:100]!r}")


def report_calls(begin: float, version: str) -> None:
    """Report the job ``calls``, that began then."""
    ms = (time.perf_counter() - begin) * 1000 / COUNT
    with open("/proc/self/status", encoding="ascii") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    report(ms=ms, peak_kib=peak, version=version)


def report_shared(begin: float, errors: int) -> None:
    """Report the job ``shared``, that began then."""
    report(rate=(SHARERS * COUNT - errors) / (time.perf_counter() - begin), errors=errors)


async def drive(call: Callable[[], Awaitable[str]], huge: Callable[[], Awaitable[str]], version: str) -> None:
    """Do the job with a client whose calls are awaited; `call` and `huge` return the text of the answer."""
    import asyncio

    if JOB == "huge":
        try:
            report(size=len(await asyncio.wait_for(huge(), HUGE_S)))
        except BaseException as error:
            report(error=f"{type(error).__name__}: {error}"[:120])
        return
    check(await call())
    if JOB == "first":
        report(first=True)
        return
    for _ in range(WARM_UP):
        await call()
    errors = 0

    async def several() -> None:
        nonlocal errors
        for _ in range(COUNT):
            try:
                check(await call())
            except Exception:
                errors += 1

    begin = time.perf_counter()
    if JOB == "calls":
        for _ in range(COUNT):
            check(await call())
        report_calls(begin, version)
    else:
        await asyncio.gather(*(several() for _ in range(SHARERS)))
        report_shared(begin, errors)
