"""Tracebacks of a client's errors, without the frames between the caller and the wire."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Optional, TypeVar, cast

from ..engines.errors import ClientError

log = logging.getLogger("minimcp")

F = TypeVar("F", bound=Callable[..., Any])

_HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


def short_traceback(method: F) -> F:
    """Let a ClientError leave a method without the library's own frames; those of callbacks stay.

    With the logger "minimcp" at DEBUG nothing is left out.
    """

    @functools.wraps(method)
    def called(*args: Any, **options: Any) -> Any:
        try:
            return method(*args, **options)
        except ClientError as problem:
            if log.isEnabledFor(logging.DEBUG):
                raise
            raise problem.with_traceback(_foreign(problem.__traceback__))

    return cast(F, called)


def _foreign(found: Optional[TracebackType]) -> Optional[TracebackType]:
    """Return the frames of a traceback that are of other code."""
    frames = []
    while found is not None:
        if not found.tb_frame.f_code.co_filename.startswith(_HOME):
            frames.append(found)
        found = found.tb_next
    kept: Optional[TracebackType] = None
    for each in reversed(frames):
        kept = TracebackType(kept, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return kept
