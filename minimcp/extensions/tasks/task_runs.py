"""A task while its body runs: the call that is made of its record, its questions and its status messages."""

from __future__ import annotations

import inspect
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Optional

from ...engines.schema.converters import resolve
from ...protocol import spec, wire
from ...protocol.errors import Cancelled, InvalidParams
from ...protocol.principal import Principal
from ...server import methods, modern
from ...server.asking import Question, check_declared, read
from ...server.context import Context
from ...server.dispatcher import Call
from ...server.seal import digest
from ...server.session import Session
from .task_records import ENDED, Message, TaskRecord

if TYPE_CHECKING:
    from ...server.engine import Engine
    from .task_work import TaskWork

log = logging.getLogger("minimcp")

# Between two writes of a status message; of those in between the newest is written by the next beat.
_TOLD_S = 0.25
_LOOK_S = 1.0
_LEVELS = {"debug": 10, "info": 20, "notice": 20, "warning": 30, "error": 40, "critical": 50}


class TaskRun:
    """A task whose body runs in this process, and the strategy that carries its questions: on the record.

    :ivar until: the time on the monotonic clock at which its time is over.
    :ivar done: whether the body has ended.
    :ivar waits: whether the body waits for an answer.
    """

    def __init__(self, work: TaskWork, id: str) -> None:
        self.id = id
        self.runs = 0
        self.until: Optional[float] = None
        self.done = self.waits = False
        self._work = work
        self._lock = threading.Lock()  # guards _call and _stopped
        self._call: Optional[Call] = None
        self._stopped = False
        self._changed = threading.Event()
        self._key: Optional[str] = None
        self._told_at = 0.0
        self._message: Optional[str] = None  # the newest that is not written yet

    def begin(self, record: TaskRecord, call: Call) -> None:
        """Take the record as it was claimed, and the call that is about to run."""
        self.runs, self._key = record.state["runs"], record.request.get("key")
        if record.expires is not None:
            # By this clock, so that a step of the other one ends no task that runs.
            self.until = time.monotonic() + record.expires - time.time()
        with self._lock:
            self._call, stopped = call, self._stopped
        if stopped:
            call.cancel("the task has ended")

    def look(self) -> None:
        """Have the body look at its record again, since that has changed."""
        self._changed.set()

    def stop(self) -> None:
        """Cancel the body, whose task has ended."""
        with self._lock:
            self._stopped, call = True, self._call
        if call is not None and not self.done and not call.ctx.cancelled.is_set():
            call.cancel("the task has ended")
        self._changed.set()

    # What the body emits

    def send(self, message: Message) -> None:
        """Take a notification of the body: progress becomes the status message, a log message goes to the log.

        A task sends neither on the wire. Spec: EXT-060
        """
        params = message["params"]
        if message["method"] == "notifications/message":
            log.log(_LEVELS.get(params["level"], 50), "task %s: %.2000s", self.id, params["data"])
        elif message["method"] == "notifications/progress":
            self._message = _progress_text(params)
            if time.monotonic() - self._told_at >= _TOLD_S:
                self.tell()

    def tell(self) -> None:
        """Write the newest status message, if there is one that is not written."""
        text, self._message = self._message, None
        if text is None or self.done:
            return
        self._told_at = time.monotonic()
        try:
            self._work.change(self.id, lambda record: self.ours(record, state={**record.state, "message": text}))
        except Exception:
            log.warning("the status message of task %s could not be kept", self.id, exc_info=True)

    def ours(self, record: TaskRecord, **changes: Any) -> TaskRecord | None:
        """Return a record with changes, if it is still this run's."""
        if record.owner != self._work.owner or record.state["runs"] != self.runs:
            return None
        return record._replace(**changes)

    # What the body asks

    def ask(self, ctx: Context, questions: dict[str, Question], named: bool) -> dict[str, Any]:
        """Put questions on the record and wait for the answers to all of them.

        :raises MissingCapability: when the request did not declare what a question needs.
        :raises ToolError: when too many tasks wait already.
        :raises Cancelled: when the task has ended.
        """
        check_declared(ctx, questions)
        asked: dict[str, str] = {}
        answers: dict[str, Any] = {}

        def put(record: TaskRecord) -> TaskRecord | None:
            asked.clear()
            answers.clear()
            state = record.state
            earlier = dict(state["answers"].values()) if self.runs > 1 else {}
            issued, open_now = set(state["issued"]), dict(state["questions"])
            for key, question in questions.items():
                mark = digest([key, question])
                if mark in earlier:
                    # A run before this one has asked; nobody is asked again.
                    answers[key] = earlier[mark]
                    continue
                asked[key] = _unused(key, issued)
                issued.add(asked[key])
                open_now[asked[key]] = [mark, question]
            if not asked:
                return None
            state = {**state, "questions": open_now, "issued": sorted(issued)}
            return self.ours(record, status="input_required", state=state)

        self._changed.clear()
        if self._work.change(self.id, put) is None and asked:
            raise Cancelled
        if asked:
            with self._work.parked():
                self.waits = True
                self._work.keeper().note_wait()
                try:
                    record = self._wait(ctx, set(asked.values()))
                finally:
                    self.waits = False
            answers.update({key: record.state["answers"][name][1] for key, name in asked.items()})
        return {key: read(question, answers[key]) for key, question in questions.items()}

    def _wait(self, ctx: Context, keys: set[str]) -> TaskRecord:
        """Return the record once none of these questions is open any more."""
        while True:
            ctx.check()
            try:
                record = self._work.store.get(self.id)
            except Exception:
                log.warning("the record of task %s could not be read; trying again", self.id, exc_info=True)
            else:
                if record is None or record.status in ENDED or self.ours(record) is None:
                    raise Cancelled
                if keys.isdisjoint(record.state["questions"]):
                    return record
            self._changed.wait(_LOOK_S)
            self._changed.clear()

    def key(self) -> str:
        """Return a string that is the same in all runs of the task, and in the rounds of the call before it."""
        return self._key or digest(["key", self.id])


def _unused(key: str, issued: set[str]) -> str:
    """Return a key that was never used in this task. Spec: EXT-040"""
    name, number = key, 1
    while name in issued:
        number += 1
        name = f"{key}-{number}"
    return name


def _progress_text(params: Message) -> str:
    part = f"{params['progress']:g}"
    if params.get("total") is not None:
        part += f" of {params['total']:g}"
    return f"{params['message']} ({part})" if params.get("message") else part


# The call of a body


def make_call(engine: Engine, record: TaskRecord, run: TaskRun, function: Callable[[Context], object] | None) -> Call:
    """Make the call of a task of its record; whoever made the task was let in then.

    :param function: runs in place of the tool.
    """
    params = record.request["params"]
    meta = {**params["_meta"], "progressToken": record.id, spec.META_LOG_LEVEL: "debug"}
    message = wire.request(record.id, "tools/call", {**params, "_meta": meta})
    fields, session = record.request["principal"], None
    if record.request.get("local"):
        session = Session()
        session.local = True
    ctx = Context(engine, modern.ERA, message, session, None if fields is None else Principal(**fields), None)
    modern.read_envelope(ctx)
    ctx._row = engine.methods["modern"]["tools/call"]
    ctx._entry = engine.catalog.find(ctx)
    ctx._strategy = run
    work = record.request.get("work")
    if function is None and work is not None:
        function = _find_function(ctx, work)
    return Call(ctx, handler=partial(_run_body, function))


def _run_body(function: Callable[[Context], object] | None, ctx: Context, params: Message) -> Message:
    """Run the tool or the function; its failures are results and errors as in any other call."""
    entry = ctx._entry
    if entry is None:
        raise InvalidParams(f"Unknown tool: {methods.shorten(str(params.get('name')))}")
    try:
        value = entry.run(ctx, params["arguments"]) if function is None else function(ctx)
        return methods.tool_result(ctx, entry, value)
    except Exception as error:
        return methods.tool_failure(ctx, entry.definition["name"], error)


def principal_fields(principal: Principal | None) -> Message | None:
    """Return a principal as JSON; claims that JSON cannot say are left out."""
    if principal is None:
        return None
    fields: Message = {"id": principal.id, "issuer": principal.issuer, "scopes": list(principal.scopes)}
    fields.update(roles=list(principal.roles), via=principal.via, expires=principal.expires)
    claims = dict(principal.claims)
    return {**fields, "claims": claims if _is_plain(claims) else {}}


def call_function(work: Callable[..., object], args: tuple[object, ...], named: Message, ctx: Context) -> object:
    """Call a function, whose parameter that is annotated Context gets `ctx`."""
    name = _context_parameter(work)
    if name is None:
        return work(*args, **named)
    place = list(inspect.signature(work).parameters).index(name)
    if place < len(args):
        return work(*args[:place], ctx, *args[place:], **named)
    return work(*args, **{**named, name: ctx})


def _context_parameter(work: Callable[..., object]) -> str | None:
    plain = inspect.unwrap(work)
    while isinstance(plain, partial):
        plain = plain.func
    plain = getattr(plain, "__func__", plain) if inspect.isroutine(plain) else type(plain).__call__
    try:
        hints = resolve(plain, Context)
        known = inspect.signature(work).parameters
    except (TypeError, ValueError):
        return None
    return next((name for name, hint in hints.items() if hint is Context and name in known), None)


def refer(tool: Callable[..., object], work: Callable[..., object], args: tuple[object, ...], named: Message) -> Any:
    """Return a reference by which another process finds a function and its arguments, or None if none can.

    It has to stand at the top of the tool's own module, and its arguments have to be JSON.
    """
    name, known = getattr(work, "__name__", ""), getattr(inspect.unwrap(tool), "__globals__", {})
    if known.get(name) is not work or not _is_plain([list(args), named]):
        return None
    return {"name": name, "args": list(args), "named": named}


def _find_function(ctx: Context, work: Message) -> Callable[[Context], object]:
    """Find the function of a reference: one of the tool's own module, and no other.

    :raises InvalidParams: when there is none any more.
    """
    known = getattr(inspect.unwrap(ctx._entry.function), "__globals__", {}) if ctx._entry is not None else {}
    function = known.get(work["name"])
    if function is None or getattr(inspect.unwrap(function), "__globals__", None) is not known:
        raise InvalidParams(f"There is no function {work['name']} in this process any more")
    return partial(call_function, function, tuple(work["args"]), work["named"])


def _is_plain(value: Any) -> bool:
    """Say whether a value comes back from JSON as the same one."""
    if isinstance(value, dict):
        return type(value) is dict and all(type(key) is str for key in value) and all(map(_is_plain, value.values()))
    if isinstance(value, list):
        return type(value) is list and all(map(_is_plain, value))
    return value is None or type(value) in (str, int, bool) or (type(value) is float and abs(value) < float("inf"))
