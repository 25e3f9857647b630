"""Clients of both eras that call, ask, listen and make tasks, and that write down what became of each of these.

Each call has an id, which the server writes down when it runs it, so that afterwards one is held against the other.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

import minimcp
from minimcp.engines.errors import ClientError, Timeout

MODES = ("modern", "legacy")
KINDS = {"modern": ("note", "steps", "ask", "job"), "legacy": ("note", "steps", "ask")}
# It takes more than a second by itself, so that it is left out of the times of all calls.
LONG = "long_job"
PAUSE_S = 0.04
# Of one watcher, which take turns, so that a notice that comes twice is not taken for that of a later change.
URIS = 8
TOLD_S = 15.0
PHASES = ("before", "restarts")
NOTICES = ("streams", "changes", "told", "ended", "more", "lost")


class Call(NamedTuple):
    """What became of one call: `outcome` is "answered", or how it failed."""

    id: str
    mode: str
    kind: str
    phase: str
    outcome: str
    seconds: float


class Load:
    """All clients, from the making of this to the end of the context.

    :param make: returns a client; its arguments are options.
    :ivar phase: the name under which calls that begin now are counted: "warm", "before" or "restarts".
    """

    def __init__(self, make: Callable[..., minimcp.Client], callers: int = 4, watchers: int = 1) -> None:
        self._make = make
        self._over = threading.Event()
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()  # guards everything below
        self.calls: List[Call] = []
        self.notices: Counter[Tuple[str, str, str]] = Counter()
        self.lost: List[str] = []
        self.phase = "warm"
        works = [partial(self._call, mode, KINDS[mode]) for mode in MODES for _ in range(callers)]
        works += [partial(self._watch, mode) for mode in MODES for _ in range(watchers)]
        works += [partial(self._call, "modern", [LONG]), partial(self._follow, "modern")]
        self._pool = ThreadPoolExecutor(len(works))
        self._running = [self._pool.submit(work) for work in works]

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: Any) -> None:
        self._over.set()
        with self._pool:
            for each in self._running:
                each.result()

    def _client(self, mode: str) -> minimcp.Client:
        return self._make(mode=mode, tasks=mode == "modern", elicit=lambda question: {"sure": True})

    # Calls

    def _call(self, mode: str, kinds: Iterable[str]) -> None:
        """Make calls of these kinds, one after the other."""
        with self._client(mode) as client:
            for kind in itertools.cycle(kinds):
                if self._over.wait(PAUSE_S):
                    return
                self._one(client, mode, kind)

    def _one(self, client: minimcp.Client, mode: str, kind: str, **more: str) -> str:
        """Make one call and return what became of it."""
        id, phase, began = f"{mode}-{kind}-{next(self._numbers)}", self.phase, time.monotonic()
        try:
            result = client.call_tool(kind, {"id": id, **more})
            outcome = "answered" if result.text == id and not result.is_error else f"wrong: {result.text}"
        except ClientError as problem:
            outcome = f"{type(problem).__name__}: {str(problem).replace(id, 'ID')}"
        self._add(Call(id, mode, kind, phase, outcome, time.monotonic() - began))
        return outcome

    def _add(self, call: Call) -> None:
        with self._lock:
            self.calls.append(call)

    # Notices

    def _watch(self, mode: str) -> None:
        """Change a resource and see that the change is told on the stream that watches it, or the stream has ended."""
        uris = [f"load://{mode}-{next(self._numbers)}" for _ in range(URIS)]
        turns = itertools.cycle(uris)
        with self._client(mode) as caller, self._client(mode) as watcher:
            while not self._over.is_set():
                with contextlib.suppress(ClientError), watcher.listen(uris=uris) as stream:
                    self._count(mode, "streams")
                    while not self._over.wait(PAUSE_S):
                        uri = next(turns)
                        if self._one(caller, mode, "change", uri=uri) != "answered":
                            # Whether anything changed is not known, nor whether that was told.
                            break
                        self._count(mode, "changes")
                        if not self._told(stream, mode, uri):
                            break

    def _told(self, stream: Any, mode: str, uri: str) -> bool:
        """Count the notice of a change on a stream, or the end of that, and say whether it goes on."""
        until, notice = time.monotonic() + TOLD_S, None
        try:
            while True:
                notice = stream.receive(timeout=max(0.0, until - time.monotonic()))
                if notice is None or notice["params"]["uri"] == uri:
                    break
                self._count(mode, "more")
        except Timeout:
            with self._lock:
                self.lost.append(f"{mode} {uri}")
            self._count(mode, "lost")
            return False
        except ClientError:
            notice = None
        self._count(mode, "ended" if notice is None else "told")
        return notice is not None

    def _follow(self, mode: str) -> None:
        """Make tasks and see that their end is told on the stream that follows them, or the stream has ended."""
        with self._client(mode) as client:
            while not self._over.wait(PAUSE_S):
                id, phase, began = f"{mode}-job-{next(self._numbers)}", self.phase, time.monotonic()
                try:
                    task = client.start_tool("job", {"id": id}).detach(TOLD_S)
                except ClientError as problem:
                    self._add(Call(id, mode, "job", phase, f"{type(problem).__name__}: {problem}", 0.0))
                    continue
                self._count("task", "changes")
                outcome = self._end_of(client, task)
                try:
                    # Whatever the stream has said.
                    outcome = outcome or client.task(task).result().text
                except ClientError as problem:
                    outcome = f"{type(problem).__name__}: {problem}"
                outcome = "answered" if outcome == id else outcome
                self._add(Call(id, mode, "job", phase, outcome, time.monotonic() - began))

    def _end_of(self, client: minimcp.Client, task: str) -> str:
        """Return the text of the result that a stream tells, "" when it has ended before."""
        until = time.monotonic() + TOLD_S
        try:
            with client.listen(task_ids=[task]) as stream:
                self._count("task", "streams")
                while True:
                    notice = stream.receive(timeout=max(0.1, until - time.monotonic()))
                    if notice is None:
                        break
                    found = notice["params"]
                    if found["status"] in ("completed", "failed", "cancelled"):
                        self._count("task", "told")
                        return text_of(found)
        except Timeout:
            with self._lock:
                self.lost.append(f"task {task}")
            self._count("task", "lost")
            return ""
        except ClientError:
            pass
        self._count("task", "ended")
        return ""

    def _count(self, who: str, what: str) -> None:
        with self._lock:
            self.notices[who, what, self.phase] += 1


def text_of(task: Dict[str, Any]) -> str:
    """The text of a task's result, or of its error."""
    content = task.get("result", {}).get("content")
    return str(content[0]["text"] if content else task.get("error") or task["status"])


class Report:
    """What the clients were told, held against what the server has run."""

    def __init__(self, load: Load, ran: Path) -> None:
        self._executed = executed = Counter(line.split()[0] for line in ran.read_text(encoding="ascii").splitlines())
        ids = Counter(call.id for call in load.calls)
        self.load = load
        self.refused = [call for call in load.calls if call.outcome != "answered"]
        self.answered = answered = [call for call in load.calls if call.outcome == "answered"]
        self.twice = sorted(id for id, count in executed.items() if count > 1)
        self.not_run = sorted(call.id for call in answered if executed[call.id] != 1)
        self.unknown = sorted(id for id in executed if id not in ids)
        self.many_outcomes = sorted(id for id, count in ids.items() if count > 1)
        self.run_all_the_same = sorted(call.id for call in self.refused if executed[call.id])

    def wrong(self) -> List[str]:
        """What must not be."""
        found = {
            "run twice": self.twice,
            "answered but not run": self.not_run,
            "run but not sent": self.unknown,
            "with several outcomes": self.many_outcomes,
            "a notice was lost": self.load.lost,
            "answered wrongly": [f"{call.id} {call.outcome}" for call in self.refused if call.outcome[:5] == "wrong"],
        }
        return [f"{what}: {len(which)}, such as {which[:3]}" for what, which in found.items() if which]

    def rows(self) -> List[List[str]]:
        """The table of calls: each era and kind, what was sent, what became of it, and how long that took, in ms."""
        groups: Dict[Tuple[str, str], List[Call]] = defaultdict(list)
        for call in self.load.calls:
            groups[call.mode, call.kind].append(call)
        rows = [self._row(" ".join(key), calls) for key, calls in sorted(groups.items())]
        return [*rows, self._row("all", self.load.calls)]

    def _row(self, title: str, calls: List[Call]) -> List[str]:
        answered = [call for call in calls if call.outcome == "answered"]
        row = [title, f"{len(calls):,}", f"{len(answered):,}", f"{len(calls) - len(answered):,}"]
        row.append(f"{sum(self._executed[call.id] > 1 for call in calls):,}")
        for phase in PHASES:
            row += [_ms(time_s) for time_s in self.times(phase, answered)]
        ratio = self.slower(answered)
        return [*row, "-" if ratio is None else f"{ratio:.2f}x"]

    def times(self, phase: str, calls: List[Call]) -> Tuple[Optional[float], Optional[float]]:
        """The median and the 99th percentile of the seconds that these calls took, those of all without long ones."""
        mixed = len({call.kind for call in calls}) > 1
        return _at([call.seconds for call in calls if call.phase == phase and not (mixed and call.kind == LONG)])

    def slower(self, calls: List[Call]) -> Optional[float]:
        """How many times as long the 99th percentile of these calls is with restarts."""
        before, after = (self.times(phase, calls)[1] for phase in PHASES)
        return after / before if before and after else None

    def failures(self) -> List[str]:
        """How calls failed, and how often."""
        found = Counter(f"{call.mode} {call.kind}: {call.outcome[:160]}" for call in self.refused)
        return [f"{count} x {what}" for what, count in found.most_common()]

    def notice_rows(self) -> List[List[str]]:
        """The table of notices."""
        rows = []
        for who in (*MODES, "task"):
            counts = [
                sum(count for key, count in self.load.notices.items() if key[:2] == (who, what)) for what in NOTICES
            ]
            rows.append([who, *(f"{count:,}" for count in counts)])
        return rows


def _at(times: List[float]) -> Tuple[Optional[float], Optional[float]]:
    """The median and the 99th percentile."""
    ordered = sorted(times)
    if not ordered:
        return None, None
    return ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]


def _ms(seconds: Optional[float]) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.1f}"
