"""The interface that transports use of a server: its engine, the calls and the legacy sessions, as typed protocols.

A transport imports nothing of `minimcp.server`; a type checker holds `Engine`, `Call` and `Session` to this file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Optional, Protocol, TypeVar, Union

from . import headers
from .errors import Forbidden, HttpAnswer, McpError
from .principal import Principal

if TYPE_CHECKING:
    from .types import RequestId

Message = dict[str, Any]
# The reply to a message, or the replies to a 2025-03-26 batch.
Reply = Union[Message, list[Message]]
Send = Callable[[Message], None]
Environ = dict[str, Any]
Headers = list[tuple[str, str]]
# The status, the headers and the body of an HTTP response; the body is a list when all of it is there.
Response = tuple[int, Headers, Iterable[bytes]]
Handler = Callable[[Environ], Response]


class ClosableContext(Protocol):
    """The parts of a Context through which a handler closes the stream of its call, and sees whether it is read.

    Spec: TRN-135
    """

    close_stream: Callable[..., None]
    _unread_s: Callable[[], float]


class ServedCall(Protocol):
    """A request or a batch, ready to run once on any thread.

    :ivar interactive: whether its handler may emit or ask before it answers.
    :ivar streams: whether its handler is long-lived, so that `messages` runs it.
    :ivar quick: whether it runs nothing of an author's, so that it may always be answered at once.
    :ivar deadline: the time on the monotonic clock at which a long-lived stream ends; None for never.
    :ivar http: the HTTP status and headers of the error that it was answered with, where that error has them.
    """

    deadline: Optional[float]

    @property
    def id(self) -> RequestId | None: ...

    @property
    def interactive(self) -> bool: ...

    @property
    def streams(self) -> bool: ...

    @property
    def quick(self) -> bool: ...

    @property
    def http(self) -> HttpAnswer | None: ...

    @property
    def contexts(self) -> Sequence[ClosableContext]: ...

    def run(self, send: Send | None = None) -> Reply | None: ...

    def messages(self, send: Send | None = None) -> Generator[Message | None, None, None]: ...

    def cancel(self, reason: str | None = None) -> None: ...


class ServedSession(Protocol):
    """A legacy session, or a connection that is one from beginning to end.

    :ivar peer: the address that opened it, where that is known.
    :ivar transport: "stdio", "http", "sse" or "memory", for the trace.
    :ivar local: whether its client has this process to itself, so that it may see what a handler raised.
    :ivar send: takes messages that belong to no request, or None while they cannot be delivered.
    :ivar note: takes an encoded message under a key, where one that was not read yet is replaced by a newer one.
    :ivar calls: the calls in flight, by request id.
    :ivar on_close: functions to call when the session ends.
    :ivar listening: whether a client reads the session's own stream at this moment.
    :ivar watched: whether changes are passed on to it.
    :ivar away: whether another process has its own stream.
    :ivar tell_all: tells it of a change of everything.
    :ivar end_stream: makes a client that reads the session's own stream come back later.
    :ivar closed: whether it has ended.
    :ivar key: its name among processes.
    """

    id: str
    key: str
    principal: Optional[Principal]
    peer: str
    transport: str
    local: bool
    version: Optional[str]
    send: Optional[Send]
    note: Optional[Callable[[object, bytes], None]]
    on_close: list[Callable[[], None]]
    listening: bool
    watched: bool
    away: bool
    tell_all: Optional[Callable[[], None]]
    end_stream: Optional[Callable[[], None]]
    closed: bool

    @property
    def calls(self) -> Mapping[RequestId, ServedCall]: ...

    def add_call(self, call: ServedCall, limit: float = ...) -> None: ...

    def remove_call(self, call: ServedCall) -> None: ...

    def resolve(self, response: Message) -> bool: ...

    def close(self) -> None: ...


S = TypeVar("S", bound=ServedSession)


class SharedSessions(Protocol):
    """The sessions of a server that has several processes, and the messages between these.

    :ivar takers: what is done with a message of another process, by its "op": `f(session, message)`, without blocking.
    :ivar on_listening: called with each session whose stream is read here, when that may be another process's now.
    :ivar on_leaving: called with each session when this process stops serving.
    """

    takers: dict[str, Callable[[Any, Message], None]]
    on_listening: Optional[Callable[[Any], None]]
    on_leaving: Optional[Callable[[Any], None]]

    @property
    def node(self) -> str: ...

    def key(self, session: Any, id: str) -> str: ...

    def join(self, session: Any, id: str) -> Callable[[], None]: ...

    def claim(self, session: Any) -> str: ...

    def holder(self, session: Any) -> str: ...

    def ask(self, session: Any, op: str, body: Message, node: str, timeout_s: float | None = ...) -> Message | None: ...

    def reply(self, session: Any, message: Message, body: Message) -> None: ...

    def leave_events(self, session: Any, label: str, events: Mapping[str, str]) -> None: ...

    def left_events(self, session: Any, label: str) -> dict[str, str]: ...


class SealedStates(Protocol):
    """The signer of states and session ids; `shared` says whether other processes can verify them."""

    shared: bool


class Authentication(Protocol):
    """The part of a server that finds out who calls; see `minimcp.auth`."""

    def principal(self, environ: Environ) -> Principal | None:
        """Return the caller of a request, before its body is read; raises an McpError to refuse it."""

    def insufficient(self, environ: Environ, scopes: Collection[str]) -> Forbidden:
        """Make the refusal of a caller that lacks scopes."""
        ...

    def metadata(self, environ: Environ) -> Response:
        """Answer a GET of a path with `/.well-known/` in it; raises an McpError where there is nothing."""
        ...


class Served(Protocol[S]):
    """An engine, as transports see it; `S` is its class of sessions."""

    @property
    def limits(self) -> Mapping[str, float]: ...

    @property
    def allowed_hosts(self) -> frozenset[str] | None: ...

    @property
    def allowed_origins(self) -> frozenset[str]: ...

    @property
    def routes(self) -> Mapping[str, Mapping[str, Handler]]: ...

    @property
    def auth(self) -> Authentication | None: ...

    @property
    def public(self) -> bool: ...

    @property
    def identity(self) -> Mapping[str, Any]: ...

    @property
    def sealer(self) -> SealedStates: ...

    @property
    def sharing(self) -> SharedSessions | None: ...

    def start(self) -> None:
        """Do what does not wait for the first message."""

    def call(
        self,
        message: Any,
        *,
        get_header: headers.Get | None = None,
        session: S | None = None,
        principal: Principal | None = None,
        request: Environ | None = None,
    ) -> ServedCall | None: ...

    def refuse(
        self,
        message: Any,
        problem: McpError,
        principal: Principal | None = None,
        request: Environ | None = None,
    ) -> Message: ...

    def open_session(
        self, send: Send | None = None, id: str | None = None, principal: Principal | None = None
    ) -> S: ...

    def keep_session(self, session: S) -> str: ...

    def close_session(self, session: S) -> None: ...

    def add_stream(self, stream: S) -> None: ...

    def remove_stream(self, stream: S) -> None: ...

    def close(self, wait_s: float = ...) -> None: ...
