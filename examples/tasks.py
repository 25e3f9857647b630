"""Tasks: work that goes on after its call was answered, while the client is away, and after a crash.

A client that follows tasks, such as `Client(target, tasks=True)`, gets an id at once and fetches the result later; any
other client waits for it. The tools are plain functions: progress, questions and cancellation work as in a call. With
TASKS_FILE=tasks.db the tasks are kept in that file: those that were queued when the process died run after its next
start, and those in the middle say that they were interrupted.
"""

import os

from minimcp import Context, Server, Tasks

server = Server("tasks", "1.0")
server.use(Tasks(os.environ.get("TASKS_FILE", ":memory:")))
sent: list[str] = []


@server.tool(task=True, idempotent=True)
def count_primes(below: int, ctx: Context) -> int:
    """Count the primes below a number. It changes nothing, so that after a crash it may simply run again."""
    found = 0
    for number in range(2, below):
        found += all(number % divisor for divisor in range(2, int(number**0.5) + 1))
        if number % 1000 == 0:
            # The status message of the task; it also ends the work of a task that was cancelled.
            ctx.progress(number, below, "counting")
    return found


@server.tool(task="required")
def send_letters(names: list[str], ctx: Context) -> str:
    """Send a letter to each person, once somebody has agreed; the answer may come tomorrow."""
    answer = ctx.elicit(f"Send {len(names)} letters?", {"agree": bool})
    if not answer or not answer["agree"]:
        return "Nothing was sent."
    for done, name in enumerate(names, 1):
        ctx.check()
        sent.append(name)
        ctx.progress(done, len(names), f"wrote to {name}")
    return f"Sent {len(names)} letters."


@server.tool
def report(year: int, ctx: Context) -> str:
    """Return the report of a year: an old one at once, the newest one as a task that writes it."""
    if year < 2026:
        return f"The report of {year} is in the archive."
    return ctx.task(write_report, year)


def write_report(year: int, ctx: Context) -> str:
    """Write a report; a function at the top of the module goes on after a restart, too."""
    ctx.progress(1, 2, "collecting")
    ctx.progress(2, 2, "writing")
    return f"The report of {year} is new."


if __name__ == "__main__":
    server.run()
