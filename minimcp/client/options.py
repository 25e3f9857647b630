"""The options of a client and of one call: `Settings` is made once and read by connections and calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from ..engines.errors import ProtocolError
from ..engines.schema.values import to_json
from .answers import Answers
from .cache import Cache
from .targets import Target

if TYPE_CHECKING:
    from ..engines.trace import Recorder

Message = dict[str, Any]
OnMessage = Callable[[Message], Any]

_PLAIN = (str, int, float, bool, type(None))
OF_A_CALL = {"check", "max_timeout", "meta", "progress", "timeout"}


class Settings(NamedTuple):
    """The options of a `Client`, under the names of its parameters; times are in seconds.

    :ivar info: the client's own name and version, or None to send none.
    :ivar capabilities: the capabilities to declare in place of those of the callbacks, or None.
    :ivar on_request: answers what a legacy server asks, in place of the callbacks, or None.
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
    capabilities: Optional[Message] = None
    on_request: Optional[Callable[[Message], Message]] = None

    @property
    def own_timeout_s(self) -> float:
        """The time for requests that the client makes for itself, such as `initialize`; never without a limit."""
        return self.timeout_s or 60.0


def check_seconds(name: str, value: object) -> None:
    """Check an option that is a time.

    :raises TypeError: when it is no number.
    :raises ValueError: when no answer could come in it.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}= is a number of seconds, not {value!r}")
    if not value > 0:
        raise ValueError(f"{name}= is a time to wait, more than 0 seconds, not {value!r}")


def check_callback(name: str, value: object) -> None:
    """Check an option that is a function.

    :raises TypeError: when it is none.
    """
    if value is not None and not callable(value):
        raise TypeError(f"{name}= is a function, not {value!r}")


def to_arguments(given: Message) -> Message:
    """Return arguments as JSON has them: dates, enums, dataclasses and models are converted.

    :raises ProtocolError: naming the argument that has no such form.
    """
    if all(type(value) in _PLAIN for value in given.values()):
        return given
    found = {}
    for name, value in given.items():
        try:
            found[name] = _json(value)
        except (TypeError, ValueError, RecursionError) as problem:
            raise ProtocolError(f"The argument {name} cannot be written as JSON: {problem}") from None
    return found


def _json(value: Any) -> Any:
    """Return a value with what it holds converted; bytes and sets, which may be meant in several ways, are refused."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview, set, frozenset)):
        raise TypeError(f"a {type(value).__name__} has no JSON form")
    try:
        return to_json(value)
    except TypeError:
        raise TypeError(f"a {type(value).__name__} has no JSON form") from None


def split(
    method: str, name: str, arguments: Message | None, more: Message, others: Sequence[object] = ()
) -> tuple[Message, Message]:
    """Split the keywords of a call into arguments and options.

    They are arguments, unless there is a dict of arguments; then they are options.

    :param method: the name of the client's method, and `name` that of the tool or prompt, for messages.
    :param others: further positional arguments, which there may not be.
    :raises TypeError: for an unknown option, and for an argument that can only be meant as an option.
    """
    if arguments is not None:
        if not isinstance(arguments, dict) or others:
            what = "prompt" if method == "get_prompt" else "tool"
            raise TypeError(
                f"The arguments of a {what} go by name, or in one dict: "
                f"{method}({name!r}, a=1) or {method}({name!r}, {{'a': 1}})"
            )
        unknown = more.keys() - OF_A_CALL
        if unknown:
            raise TypeError(f"There is no option {sorted(unknown)[0]!r}; there are {', '.join(sorted(OF_A_CALL))}")
        for name in ("timeout", "max_timeout"):
            check_seconds(name, more.get(name))
        return arguments, dict(more)
    for name, value in more.items():
        if callable(value):
            raise TypeError(
                f"{name}= cannot be an argument; options follow a dict of arguments: (name, {{...}}, {name}=...)"
            )
    return more, {}
