"""Errors that say when to try again."""

from __future__ import annotations

import math
from typing import Any

from . import spec
from .errors import InternalError


def try_later(message: str, retry_after_s: float, status: int, version: str, **data: Any) -> InternalError:
    """Return an error that says when to try again, with that time for programs as `retryAfterMs`.

    :param status: that over HTTP. Legacy clients get 200 instead, since many of them hold any other for a broken
        connection and never read the error.
    :param version: the revision of the client, "" when it is not known.
    """
    problem = InternalError(message, {"retryAfterMs": math.ceil(retry_after_s * 1000), **data})
    if version not in spec.LEGACY_VERSIONS:
        problem.http = (status, [("Retry-After", str(max(1, math.ceil(retry_after_s))))])
    return problem


def seconds(duration_s: float) -> str:
    """Write a duration for a sentence, rounded up."""
    return f"{max(1, math.ceil(duration_s))} s"
