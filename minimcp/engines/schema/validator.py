"""JSON Schema validation: of schemas at registration and of values at each call, bounded and without network.

Dialects: 2020-12 (also when `$schema` is absent), 2019-09, draft 7, draft 6 and draft 4.
Spec: FEAT-017, FEAT-048 to FEAT-056, FEAT-227
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .. import bounds
from ..errors import InvalidArguments
from . import fast_check
from .dialects import DRAFT_4, dialect_of
from .dialects import NotSupported as NotSupported
from .effort import Effort, TooMuch

if TYPE_CHECKING:
    from .judge import Judge

MAX_DEPTH = 64
MAX_NODES = 10_000
MAX_TEXT = 2_000_000  # characters of all strings of one schema

_TOO_LARGE = f"{{}} is too large: at most {MAX_NODES} values and {MAX_TEXT} characters"
_BROKEN = {
    "depth": f"{{}} is nested deeper than {MAX_DEPTH} levels, or contains itself",
    "values": _TOO_LARGE,
    "text": _TOO_LARGE,
    "keys": "{}: the keys of a JSON object are strings",
}


class Undecided(InvalidArguments):
    """Nothing can be judged by the schema, or not this value; the message says why."""


def check_schema(schema: Any, what: str = "inputSchema", foreign: bool = False) -> None:
    """Check that a schema is a valid, bounded, self-contained schema of a supported dialect.

    :param what: how the messages call the schema; `foreign` as in `Validator`.
    :raises ValueError: with a sentence that says what is wrong, `NotSupported` when nothing could be judged by it.
        Spec: FEAT-048 to FEAT-056
    """
    _check_size(schema, what)
    Validator(schema, what, foreign).prepare()


def check_input_schema(schema: Any, what: str = "inputSchema") -> None:
    """Check a schema as `check_schema` does, and that its root has `"type": "object"`. Spec: FEAT-017"""
    check_schema(schema, what)
    if schema.get("type") != "object":
        raise ValueError(f'{what} must have "type": "object" at its root')


class Validator:
    """Validates values by one schema; threads may share it.

    A value that the fast check accepts costs about a microsecond. All others are judged keyword by keyword, after
    the schema itself has been checked, within `MAX_SECONDS` for both. A string too long to be searched for its
    pattern in that time counts as invalid.

    :param what: how messages call the schema.
    :param foreign: whether the schema comes from another program. Then null and empty values of keywords count as
        absent, patterns that Python does not understand, and longer texts than a few thousand characters, are not
        judged, and the time is that which passes for the caller.
    :raises ValueError: when its dialect is unknown, or a foreign one is no JSON object or too large.
    """

    __slots__ = ("schema", "_what", "_foreign", "_dialect", "_accepts", "_judged")

    def __init__(self, schema: dict[str, Any], what: str = "the schema", foreign: bool = False) -> None:
        if foreign:
            _check_size(schema, what)
        self.schema = schema
        self._what = what
        self._foreign = foreign
        self._dialect = dialect_of(schema, what, foreign)
        self._accepts = _fast_check(schema, self._dialect)
        self._judged: Judge | None = None

    def prepare(self) -> None:
        """Check the schema now, so that its author learns of it.

        :raises ValueError: when it is not valid.
        """
        if self._accepts is None:
            try:
                self._judge(self._begin())
            except RecursionError:
                raise NotSupported(f"{self._what} is nested too deeply to be checked here") from None

    def check(self, value: Any) -> None:
        """Return when the value is valid.

        :raises InvalidArguments: when it is not; the message (below 1 KB) names the place and what was due.
            `Undecided` when nothing can be judged by the schema, or not this value.
        """
        try:
            if self._accepts is not None and self._accepts(value):
                return
            effort = self._begin()
            problems = self._judge(effort).problems(value, effort)
        except TooMuch as reason:
            raise InvalidArguments(str(reason)) from None
        except RecursionError:
            deep = "The value is nested too deeply, or its schema refers to itself without end"
            raise InvalidArguments(deep) from None
        except ValueError as error:
            kind = Undecided if isinstance(error, NotSupported) else InvalidArguments
            raise kind(f"The schema cannot be used: {error}"[:900]) from None
        if problems:
            raise InvalidArguments("; ".join(problems)[:900])

    def is_valid(self, value: Any) -> bool:
        """Return whether a value is valid."""
        try:
            self.check(value)
        except InvalidArguments:
            return False
        return True

    def _begin(self) -> Effort:
        """Return the effort of one check, once all is loaded: on a busy machine that takes longer than a check."""
        if self._judged is None:
            from .judge import load

            load(self._dialect)
        return Effort(self._foreign)

    def _judge(self, effort: Effort) -> Judge:
        """Return the judge by the schema; threads that come here at once make the same."""
        if self._judged is None:
            from .judge import Judge

            try:
                self._judged = Judge(self.schema, self._dialect, self._what, self._foreign, effort)
            except TooMuch:
                raise NotSupported(f"{self._what} takes too long to check: simplify it") from None
        return self._judged


def _check_size(schema: Any, what: str) -> None:
    if not isinstance(schema, dict):
        raise ValueError(f"{what} must be a JSON object (a dict), not {type(schema).__name__}")
    broken = bounds.exceeded(schema, MAX_DEPTH, MAX_NODES, MAX_TEXT)
    if broken is not None:
        raise NotSupported(_BROKEN[broken].format(what))


def _fast_check(schema: dict[str, Any], dialect: str) -> Callable[[Any], bool] | None:
    if dialect == DRAFT_4:
        return None  # 5.0 is not an integer there
    try:
        return fast_check.accepts(schema)
    except fast_check.Unsupported:
        return None
