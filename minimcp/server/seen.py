"""The lists as one caller sees them: a client is told of the changes that it can see, and of no others."""

from __future__ import annotations

import copy
import itertools
import logging
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from .context import Context
from .registered import LISTS, fingerprint

if TYPE_CHECKING:
    from .dispatcher import Era
    from .engine import Engine
    from .session import Session

log = logging.getLogger("minimcp")

_KINDS = {topic: tuple(kind for kind in LISTS if LISTS[kind] == topic) for topic in set(LISTS.values())}
_MOST_PAGES = 1000


class _Mark(NamedTuple):
    """The fingerprint of a list; None where it could not be made, so that its reader is told of every change.

    :ivar ruled: whether rules decide what is in it.
    """

    number: int
    ruled: bool = True
    lists: Optional[tuple[Optional[bytes], ...]] = None


class ListContext(Context):
    """The context that a request for a list would have in a session; over HTTP it lacks the request itself.

    :ivar missed: whether a rule has looked at the request, so that its answer says nothing about a real one.
    """

    __slots__ = ("missed",)

    def __init__(self, engine: Engine, era: Era, session: Session, topic: str) -> None:
        super().__init__(engine, era, {"method": f"{topic}/list"}, session, session.principal, None)
        self.missed = False
        era.read_envelope(self)

    @property
    def request(self) -> Any:
        """None, as in any request in memory and over stdio."""
        self.missed = self.session.transport in ("http", "sse")
        return None

    @request.setter
    def request(self, request: Any) -> None:
        pass


class SeenLists:
    """The fingerprints of the lists that one caller sees, from now on.

    :param ctx: a request of the caller.
    :param topics: of "tools", "resources" and "prompts".
    """

    def __init__(self, ctx: Context, topics: Iterable[str]) -> None:
        self._lock = threading.Lock()  # guards _marks
        self._numbers = itertools.count()
        self._marks = {topic: _mark(ctx, topic, next(self._numbers)) for topic in topics}

    def changed(self, ctx: Context, topic: str) -> bool:
        """Say whether a list that was changed looks different to the caller than at the last time.

        Where no rule has a say it does, whatever has changed. The rules run on this thread.
        """
        mark = _mark(ctx, topic, next(self._numbers))
        with self._lock:
            old = self._marks.get(topic, _Mark(-1))
            if mark.number < old.number:
                # A later change is being told of, too, and its fingerprint is the one to go on from.
                return True
            self._marks[topic] = mark
        return not (mark.ruled or old.ruled) or mark.lists is None or mark.lists != old.lists


def _mark(ctx: Context, topic: str, number: int) -> _Mark:
    # Of its own, since a list notes in it whether it is the caller's alone.
    ctx = copy.copy(ctx)
    ctx.private = False
    if isinstance(ctx, ListContext):
        ctx.missed = False
    try:
        lists = [_seen(ctx, kind) for kind in _KINDS[topic]]
    except Exception:
        log.debug("the rules of who sees the %s failed, so that all their changes are told", topic, exc_info=True)
        return _Mark(number)
    unknown = None in lists or (isinstance(ctx, ListContext) and ctx.missed)
    return _Mark(number) if unknown else _Mark(number, ctx.private, tuple(lists))


def _seen(ctx: Context, kind: str) -> bytes | None:
    catalog = ctx._engine.catalog
    seen: Callable[[Context, str], bytes | None] | None = getattr(catalog, "seen", None)
    if seen is not None:
        return seen(ctx, kind)
    found, cursor = [], None
    for _ in range(_MOST_PAGES):
        definitions, cursor = catalog.page(ctx, kind, cursor, None)
        found += definitions
        if cursor is None:
            return fingerprint(found)
    raise ValueError(f"the list of {kind} does not end")
