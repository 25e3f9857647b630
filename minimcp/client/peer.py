"""What negotiation found out about a server, and what an era is to the client."""

from __future__ import annotations

from typing import Any, Optional

from ..engines.errors import ProtocolError
from ..protocol import spec
from .errors import RemoteError

Message = dict[str, Any]


class Era:
    """How the client speaks in one era; there are two, `modern.ERA` and `legacy.ERA`.

    :ivar absent: methods of the other era, and what to use instead.
    :ivar empty_cursor_ends: whether a `nextCursor` of "" is the end of a list. Spec: FEAT-117
    :ivar caches: whether results say for how long they may be kept.
    :ivar answers: whether a request of the server may be answered.
    """

    name = ""
    absent: dict[str, str] = {}
    empty_cursor_ends = False
    caches = False
    answers = True

    def dress(self, conn: Any, message: Message, version: str, meta: Message | None, progress: bool) -> None:
        """Complete a request's params.

        :param conn: the `Connection` that sends it.
        :param progress: whether to ask for progress notifications, under the request's own id.
        """
        raise NotImplementedError

    def headers(self, conn: Any, message: Message) -> dict[str, str]:
        """The HTTP headers that go with a message, beside those of the transport itself."""
        return {}

    def outcome(self, method: str, result: Message, tasks: bool) -> str:
        """Say what a result is: "complete", "input_required" or "task".

        :raises ProtocolError: when it is none of these, or not allowed for this method.
        """
        return "complete"


class Peer:
    """A server as negotiation found it.

    :ivar info: what it calls itself; unverified, never to decide anything by. Spec: BASE-047
    :ivar capabilities: its ServerCapabilities, or None when it did not say.
    :ivar greeting: the result of `server/discover` or `initialize`, {} when there was none.
    """

    def __init__(self, era: Era, version: str, greeting: Message) -> None:
        self.era = era
        self.version = version
        self.greeting = greeting
        info = greeting.get("serverInfo")
        if not isinstance(info, dict):
            meta = greeting.get("_meta")
            info = meta.get(spec.META_SERVER) if isinstance(meta, dict) else None
        self.info: Message = info if isinstance(info, dict) else {}
        capabilities = greeting.get("capabilities")
        self.capabilities: Optional[Message] = capabilities if isinstance(capabilities, dict) else None
        instructions = greeting.get("instructions")
        self.instructions = instructions if isinstance(instructions, str) else None

    @property
    def name(self) -> str:
        """What to call the server in messages to people."""
        return str(self.info.get("title") or self.info.get("name") or "the server")

    def offers(self, *path: str) -> bool:
        """Say whether the server declared a capability, such as `("resources", "subscribe")`; unknown counts as yes."""
        found: Any = self.capabilities
        if found is None:
            return True
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return found is not None and found is not False

    def extension(self, name: str) -> bool:
        """Say whether the server declared an extension."""
        extensions = (self.capabilities or {}).get("extensions")
        return isinstance(extensions, dict) and name in extensions

    def need(self, method: str, *path: str) -> None:
        """Refuse to use what the server did not declare. Spec: BASE-108

        :raises ProtocolError: naming the method.
        """
        if method in self.era.absent:
            raise ProtocolError(f"{method} does not exist in {self.version}: {self.era.absent[method]}")
        if path and not self.offers(*path):
            raise ProtocolError(f"{self.name} does not offer {'.'.join(path)}, so {method} cannot be used")


def result_of(response: Message) -> Message:
    """The result in a response.

    :raises RemoteError: when it is an error.
    :raises ProtocolError: when it is neither.
    """
    problem = response.get("error")
    if problem is not None:
        code = problem.get("code") if isinstance(problem, dict) else None
        if isinstance(code, bool) or not isinstance(code, int):
            raise ProtocolError("The server answered with an error that has no integer code")
        raise RemoteError(code, str(problem.get("message", "")), problem.get("data"))
    result = response.get("result")
    if not isinstance(result, dict):
        raise ProtocolError("The server answered with a result that is not an object")
    return result
