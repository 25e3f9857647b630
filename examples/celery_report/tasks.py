"""The task, and the clients it shares with all tasks of its process."""

from __future__ import annotations

import os
import pathlib

from celery import Celery, signals

from minimcp import Client

folder = pathlib.Path(os.environ.get("REPORT_QUEUE", "report-queue")).resolve()
(folder / "results").mkdir(parents=True, exist_ok=True)
app = Celery("report", broker="filesystem://", backend=(folder / "results").as_uri())
app.conf.broker_transport_options = {
    "data_folder_in": str(folder),
    "data_folder_out": str(folder),
    "control_folder": str(folder / "control"),
    "polling_interval": 0.1,
}
app.conf.broker_connection_retry_on_startup = False

# A client connects on first use, and that is within a task: a prefork worker imports this file, then forks, and every
# child gets a connection of its own. With restart=True a server that has died since the last task is started again.
calendar = Client(os.environ.get("CALENDAR", "python hello.py"), restart=True)
weather = Client(os.environ.get("WEATHER", "http://127.0.0.1:8000/mcp"), restart=True)


@app.task
def report(city: str, days: int) -> str:
    """Write about the weather of some days, each with its day of the week."""
    lines = [city]
    for day in weather.call_tool("forecast", city=city, days=days).data:
        weekday = calendar.call_tool("weekday", day=day["day"]).text
        lines.append(f"{weekday:9} {day['sky']:5} {day['degrees']} C")
    return "\n".join(lines)


@signals.worker_process_shutdown.connect
@signals.worker_shutdown.connect
def close(**_: object) -> None:
    """Hang up when a prefork child or the worker itself ends, and so end the calendar's process."""
    calendar.close()
    weather.close()
