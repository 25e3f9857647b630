"""Tools that may run as tasks, and what a server uses of the extension that runs them, `minimcp.extensions.tasks`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Protocol

from ..protocol import headers
from .catalog import Entry

if TYPE_CHECKING:
    from .context import Context

Message = dict[str, Any]


class Background(Protocol):
    """The part of the tasks extension that a server, its tools and their contexts use."""

    def start(self) -> None:
        """Go on with the tasks that are kept, on a thread of its own."""

    def takes(self, ctx: Context, required: bool = False) -> bool:
        """Say whether this call becomes a task: its client declares the extension, and it is in none yet.

        :raises MissingCapability: when it has to become one, and the client does not declare the extension.
        """
        ...

    def add(self, ctx: Context, arguments: Message, idempotent: bool) -> Message:
        """Make a task of the call of a tool, and return the result that tells the client so."""
        ...

    def hand_over(self, ctx: Context, work: Callable[..., object], args: tuple[object, ...], named: Message) -> object:
        """Make a task of a function with its arguments; where there can be none, call it and return its result."""
        ...

    def accept(self, ctx: Context, wanted: Message) -> tuple[Message, Collection[str]]:
        """Return the members about tasks of a listen filter that are honoured, and the topics that they stand for.

        :raises McpError: when the filter is refused.
        """
        ...

    def notification(self, ctx: Context, topic: str, tag: Message) -> Message | None:
        """Return the notification of a topic as the task is now, with `tag` as its `_meta`, or None for none."""
        ...


class TaskEntry(Entry):
    """A tool whose calls become tasks where the client can follow them.

    :ivar required: whether a client that cannot is refused; others get the result in the answer.
    :ivar idempotent: whether its body may run again after its process has died in the middle.
    """

    required = False
    idempotent = False

    def run(self, ctx: Context, arguments: Message) -> Any:
        """Validate the arguments, then make a task of the call, or call the function. Spec: EXT-015, EXT-019

        :raises InvalidArguments: when an argument does not fit.
        :raises MissingCapability: when the tool needs a client with the tasks extension, and this is none.
        """
        tasks = ctx._engine.tasks
        if tasks is None or not tasks.takes(ctx, self.required):
            return super().run(ctx, arguments)
        self.validate(arguments)
        if self.headers:
            headers.check_integers(arguments, self.headers)
        self.bind(arguments)
        return tasks.add(ctx, arguments, self.idempotent)
