"""The record of a task, and the interfaces of what keeps records and of what carries the hint to run one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, NamedTuple, Optional, Protocol

from ...engines.errors import MinimcpError
from ...protocol import wire
from ...protocol.principal import Principal, key_of

Message = dict[str, Any]

UNFINISHED = ("queued", "working", "input_required")
ENDED = ("completed", "failed", "cancelled")


class TaskRecord(NamedTuple):
    """A task as it is kept; the truth about it, whoever runs it.

    :ivar status: a status of the protocol, or "queued" before a worker has claimed it.
    :ivar version: counts the changes, so that of two that happen at once one fails.
    :ivar owner: the process that runs it, or that alone can run it; "" for none.
    :ivar principal: who made it, as text.
    :ivar expires: the time after which it may be deleted, in seconds since 1970; None for never.
    :ivar request: the part that never changes: `params`, `principal`, `key`, `idempotent`, and `work` for a function.
    :ivar state: `runs`, `message`, the open `questions` and the `answers`, each with the mark of its question, and the
        keys `issued` so far.
    :ivar outcome: `{"result": ...}` or `{"error": ...}` at the end.
    """

    id: str
    status: str
    version: int
    owner: str
    principal: str
    created: float
    updated: float
    expires: Optional[float]
    request: Message
    state: Message
    outcome: Optional[Message]


class UnusableStore(MinimcpError):
    """The store cannot keep tasks, or cannot be reached at the moment; the message says why, and what to do.

    :ivar passing: whether it may be back by itself.
    """

    passing = False


class TaskStore(Protocol):
    """The interface of what keeps the records; any thread calls it, and so does a child of a fork.

    :ivar lasting: whether records outlive the process, so that others may go on with them.
    """

    @property
    def lasting(self) -> bool: ...

    def add(self, record: TaskRecord) -> None:
        """Keep a new record; it can be got at once, by every process."""

    def get(self, id: str, whole: bool = False) -> TaskRecord | None:
        """Return a record, or None; its `request`, which may be large, is {} unless `whole`."""

    def replace(self, record: TaskRecord) -> bool:
        """Put a record in the place of the one with the version just before its own; say whether there was that one.

        Its id, principal, creation and `request` stay as they are.
        """
        ...

    def remove(self, id: str) -> None:
        """Forget a record."""

    def queued(self, limit: int) -> Sequence[str]:
        """Return the ids of queued records without an owner, the oldest first."""
        ...

    def owned(self, owner: str) -> dict[str, int]:
        """Return the ids of the unfinished records of an owner, each with its version."""
        ...

    def owners(self) -> dict[str, int]:
        """Return the owners of unfinished records, each with the number of its heartbeats so far."""
        ...

    def beat(self, owner: str) -> None:
        """Count a heartbeat of an owner."""

    def expired(self, now: float, limit: int) -> Sequence[str]:
        """Return ids of records that have ended, or are queued, whose time is over."""
        ...

    def find(self, principal: str | None, statuses: Sequence[str], limit: int) -> Sequence[TaskRecord]:
        """Return the newest records with one of these statuses, the newest first, without `request`.

        :param principal: who made them; None for everybody.
        """
        ...

    def count(self, principal: str, most: int) -> tuple[int, int, int]:
        """Count the unfinished records of a principal, the unfinished ones and all of them, each up to `most`."""
        ...

    def close(self) -> None:
        """Let go of what is open in this process."""


class Carrier(Protocol):
    """The interface of what carries the hint "run the task with this id" to a worker, which calls `Tasks.run(id)`.

    It may lose hints, double them and change their order: a lost one is sent again, and of two only one can claim.
    Where it has a method `attach(server, tasks)`, that is called with the name of the server and its tasks.

    :ivar patience_s: how long a task may stay queued before its hint is sent again.
    """

    @property
    def patience_s(self) -> float: ...

    def send(self, id: str) -> None:
        """Pass a hint on, without waiting for the task."""

    def room(self, queued: int) -> int:
        """Return how many hints may be sent again at this moment.

        :param queued: how many tasks are queued, up to a few hundred.
        """
        ...


def describe(record: TaskRecord, poll_ms: int) -> Message:
    """Return a task as the protocol describes it in full. Spec: EXT-029"""
    ended = record.status in ENDED
    task: Message = {
        "taskId": record.id,
        "status": "working" if record.status == "queued" else record.status,
        "createdAt": _text(record.created),
        "lastUpdatedAt": _text(record.updated),
        "ttlMs": None if record.expires is None else round((record.expires - record.created) * 1000),
    }
    if not ended:
        task["pollIntervalMs"] = poll_ms
    if record.state.get("message"):
        task["statusMessage"] = record.state["message"]
    if record.status == "input_required":
        task["inputRequests"] = {key: question for key, (_, question) in record.state["questions"].items()}
    if ended and record.outcome is not None:
        task.update(record.outcome)
    return task


def principal_text(principal: Principal | None) -> str:
    """Return a text that is the same for the same principal, and another one for every other."""
    return wire.dump_text(key_of(principal))


def _text(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
