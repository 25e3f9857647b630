"""The client of this checkout."""

from __future__ import annotations

import threading
import time
from typing import List

import task

from minimcp import Client, ClientError

with Client(task.URL or task.TARGET) as client:
    if task.JOB == "huge":
        try:
            task.report(size=len(client.call_tool("huge", {}, timeout=task.HUGE_S, progress=lambda step: None).text))
        except ClientError as error:
            task.report(error=f"{type(error).__name__}: {error}"[:120])
    else:
        task.check(client.call_tool("add", task.NUMBERS).text)
    if task.JOB == "first":
        task.report(first=True)
    elif task.JOB == "calls":
        for _ in range(task.WARM_UP):
            client.call_tool("add", task.NUMBERS)
        begin = time.perf_counter()
        for _ in range(task.COUNT):
            task.check(client.call_tool("add", task.NUMBERS).text)
        task.report_calls(begin, client.protocol_version)
    elif task.JOB == "shared":
        errors: List[Exception] = []

        def several() -> None:
            for _ in range(task.COUNT):
                try:
                    task.check(client.call_tool("add", task.NUMBERS).text)
                except Exception as error:
                    errors.append(error)

        threads = [threading.Thread(target=several) for _ in range(task.SHARERS)]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        task.report_shared(begin, len(errors))
