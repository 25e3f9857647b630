"""The options of a client and of one call: `Settings` is made once and read by connections and calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from .answers import Answers
from .cache import Cache
from .targets import Target

if TYPE_CHECKING:
    from ..engines.trace import Recorder

Message = dict[str, Any]
OnMessage = Callable[[Message], Any]

OF_A_CALL = {"check", "max_timeout", "meta", "progress", "timeout"}


class Settings(NamedTuple):
    """The options of a `Client`, under the names of its parameters; times are in seconds.

    :ivar info: the client's own name and version, or None to send none.
    :ivar record: takes every message for the trace, or None.
    """

    target: Target
    mode: str
    discovery: Optional[Message]
    info: Optional[Message]
    answers: Answers
    on_log: Optional[OnMessage]
    log_level: Optional[str]
    on_notification: Optional[OnMessage]
    approve: Optional[Callable[[Any], Any]]
    trusted: bool
    restart: bool
    timeout_s: Optional[float]
    max_timeout_s: Optional[float]
    probe_timeout_s: float
    check: bool
    validate: bool
    cache: Optional[Cache]
    extensions: Message
    record: Optional[Recorder]

    @property
    def own_timeout_s(self) -> float:
        """The time for requests that the client makes for itself, such as `initialize`; never without a limit."""
        return self.timeout_s or 60.0


def split(arguments: Message | None, more: Message) -> tuple[Message, Message]:
    """Split the keywords of a call into arguments and options.

    They are arguments, unless there is a dict of arguments; then they are options.

    :raises TypeError: for an unknown option, and for an argument that can only be meant as an option.
    """
    if arguments is not None:
        unknown = more.keys() - OF_A_CALL
        if unknown:
            raise TypeError(f"There is no option {sorted(unknown)[0]!r}; there are {', '.join(sorted(OF_A_CALL))}")
        return arguments, dict(more)
    for name, value in more.items():
        if callable(value):
            raise TypeError(
                f"{name}= cannot be an argument; options follow a dict of arguments: (name, {{...}}, {name}=...)"
            )
    return more, {}
