"""The methods and notifications of tasks, as clients use them."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...engines.errors import InvalidArguments
from ...protocol import spec, wire
from ...protocol.errors import InvalidParams, MissingCapability
from ...protocol.later import try_later
from ...server import hooks
from ...server.asking import read
from ...server.methods import read_text
from .task_records import ENDED, Message, TaskRecord, UnusableStore, principal_text

if TYPE_CHECKING:
    from ...server.context import Context
    from .task_work import TaskWork

log = logging.getLogger("minimcp")

_UNKNOWN = "Unknown task: it was never made, its time is over, or it belongs to another principal"
_MOST_ID = 64


def check_declared(ctx: Context) -> None:
    """Refuse a request that does not declare the extension. Spec: EXT-050, EXT-058

    :raises MissingCapability: naming it.
    """
    if ctx.extension(spec.TASKS) is None:
        raise MissingCapability("This needs a client with the tasks extension", {"extensions": {spec.TASKS: {}}})


class TaskMethods:
    """The handlers of `tasks/get`, `tasks/update` and `tasks/cancel`, and the source of `notifications/tasks`."""

    def __init__(self, work: TaskWork) -> None:
        self._work = work

    def get(self, ctx: Context, params: Message) -> Message:
        """Answer `tasks/get`. Spec: EXT-021, EXT-029, EXT-047, EXT-050, EXT-054"""
        with self._reaching(ctx):
            return self._work.describe(self._find(ctx, params))

    def update(self, ctx: Context, params: Message) -> Message:
        """Answer `tasks/update`: take answers to open questions, and pass others over. Spec: EXT-036 to EXT-039

        :raises InvalidParams: when an answer does not fit its question, which stays open.
        """
        with self._reaching(ctx):
            return self._answer(ctx, params)

    def _answer(self, ctx: Context, params: Message) -> Message:
        record, responses = self._find(ctx, params), params.get("inputResponses")
        if not isinstance(responses, dict):
            raise InvalidParams("inputResponses must be an object")

        def answered(record: TaskRecord) -> TaskRecord | None:
            state = record.state
            found = {key: each for key, each in state["questions"].items() if key in responses}
            if not found:
                return None
            for key, (_, question) in found.items():
                try:
                    read(question, responses[key])
                except InvalidArguments as error:
                    raise InvalidParams(f"inputResponses[{key!r}] is no answer to what was asked: {error}") from None
            rest = {key: each for key, each in state["questions"].items() if key not in found}
            given = {key: [mark, responses[key]] for key, (mark, _) in found.items()}
            state = {**state, "questions": rest, "answers": {**state["answers"], **given}}
            return record._replace(status="input_required" if rest else "working", state=state)

        self._work.change(record.id, answered)
        return {}

    def cancel(self, ctx: Context, params: Message) -> Message:
        """Answer `tasks/cancel`: the body is told, and whatever it still returns is dropped. Spec: EXT-045, EXT-048"""
        with self._reaching(ctx):
            self._work.cancel(self._find(ctx, params).id)
        return {}

    @contextmanager
    def _reaching(self, ctx: Context) -> Iterator[None]:
        """Say to the client that the store is of no use at the moment, and that it may try again.

        :raises InternalError: then.
        """
        try:
            yield
        except UnusableStore as problem:
            self._work.keeper().complain()
            said = hooks.describe(ctx, "The tasks cannot be reached at the moment", problem)
            raise try_later(said, 1.0, 503, ctx.version) from None

    def _find(self, ctx: Context, params: Message) -> TaskRecord:
        """Return the record of the task that a request is about. Spec: EXT-047, EXT-054

        :raises InvalidParams: for a task that is unknown, or another principal's; nobody learns which.
        """
        check_declared(ctx)
        record = self._visible(ctx, read_text(params, "taskId"))
        if record is None:
            raise InvalidParams(_UNKNOWN)
        return record

    def _visible(self, ctx: Context, id: str) -> TaskRecord | None:
        record = self._work.store.get(id) if len(id) <= _MOST_ID and id.isascii() else None
        if record is None or record.principal != principal_text(ctx.principal):
            return None
        over = record.expires is not None and record.expires <= time.time()
        return None if over and record.status in ENDED else record

    def accept(self, ctx: Context, wanted: Message) -> tuple[Message, Collection[str]]:
        """Return the `taskIds` of a listen filter that are this caller's, and their topics. Spec: EXT-057, EXT-058"""
        ids = wanted.get("taskIds")
        if ids is None:
            return {}, ()
        check_declared(ctx)
        limit = self._work.engine.limits["subscriptions"]
        if not isinstance(ids, list) or len(ids) > limit or not all(isinstance(id, str) for id in ids):
            raise InvalidParams(f"notifications.taskIds must be an array of at most {limit:g} strings")
        with self._reaching(ctx):
            known = [id for id in dict.fromkeys(ids) if self._visible(ctx, id) is not None]
        return {"taskIds": known}, [f"tasks/{id}" for id in known]

    def notification(self, ctx: Context, topic: str, tag: Message) -> Message | None:
        """Return `notifications/tasks` with the task as it is now. Spec: EXT-055, EXT-059"""
        try:
            record = self._visible(ctx, topic.partition("/")[2])
        except Exception:
            log.exception("a change of a task could not be told")
            return None
        if record is None:
            return None
        return wire.notification("notifications/tasks", {**self._work.describe(record), "_meta": tag})
