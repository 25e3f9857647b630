"""Extensions: the interface of `Server.use`, and how their methods and notifications join those of a server."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING, Any, Optional, Protocol

from ..protocol import spec
from ..protocol.errors import InternalError
from ..protocol.revisions import check_extension

if TYPE_CHECKING:
    from .context import Context
    from .engine import Engine

log = logging.getLogger("minimcp")

Message = dict[str, Any]


class Extension(Protocol):
    """The argument of `Server.use`: an object with `identifier`, and optionally these attributes.

    - `settings`: what is advertised of it.
    - `methods`: its method rows, `{method: spec.Method(handler, ...)}`, or just `{method: handler}`. A handler
      `f(ctx, params)` returns the result; one whose row `streams` is a generator that yields notifications first,
      and None every few seconds while it waits. A row for one of the protocol's methods takes that one's place.
    - `notifications`: `{method: f(engine, session, params)}`; `session.principal` is who sent it.
    - `result_types`: values of `resultType` that its results and those of tools may have.
    - `eras`: where its methods, notifications and result types exist, by default `("modern",)`, or also `"legacy"`.
    - `setup(server)` is called at the end.

    A handler learns with `ctx.extension(identifier)` whether the client supports it too.
    """

    @property
    def identifier(self) -> str:
        """The name under which both sides advertise it, such as "com.example/parcels"."""
        ...


def install(engine: Engine, extension: Extension) -> None:
    """Add the rows, notifications and result types of an extension to an engine; see `Extension`."""
    check_extension(extension.identifier)
    engine.extensions[extension.identifier] = getattr(extension, "settings", {})
    eras = getattr(extension, "eras", ("modern",))
    # Settings alone, such as a list of media types, say the same in each era. Spec: EXT-013
    bare = not any(hasattr(extension, part) for part in ("methods", "notifications", "result_types"))
    for era in engine.in_force if bare else eras:
        engine.in_force[era].add(extension.identifier)
    for era in eras:
        for method, row in getattr(extension, "methods", {}).items():
            if not isinstance(row, spec.Method):
                row = spec.METHODS.get(method, spec.Method())._replace(handler=row)
            if row.streams and row.handler is not None and method not in spec.METHODS:
                row = row._replace(handler=_bounded(row.handler))
            engine.methods[era][method] = row._replace(interactive=True)
        for method, handler in getattr(extension, "notifications", {}).items():
            engine.notifications[era][method] = _logged(method, handler)
    engine.result_types.update(dict.fromkeys(getattr(extension, "result_types", ()), extension.identifier))


def _bounded(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the long-lived handler of an extension, so that its stream ends at the age at which streams end.

    It looks at the time whenever the handler yields; where there is no room for a stream, the handler is not run.
    """

    def run(ctx: Context, params: Message) -> Generator[Optional[Message], None, Any]:
        with closing(handler(ctx, params)) as stream:
            while ctx._deadline is None or time.monotonic() < ctx._deadline:
                try:
                    emitted = next(stream)
                except StopIteration as end:
                    return end.value
                yield emitted
        problem = InternalError("This stream cannot be held open any longer; send the request again")
        problem.http = (503, [("Retry-After", "10")])
        raise problem

    return run


def _logged(method: str, handler: Callable[..., None]) -> Callable[..., None]:
    """Wrap the handler of a notification: its failure is logged, since a notification has no answer."""

    def run(*arguments: Any) -> None:
        try:
            handler(*arguments)
        except Exception:
            log.exception("%s failed", method)

    return run
