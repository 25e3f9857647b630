"""The cursors of list pages: the kind of the list and the place of the last item, perhaps within a template."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from ..protocol.errors import InvalidParams

# The number of an item that is all there is at its place: it stands behind all the others.
WHOLE = 2**31


def write_cursor(kind: str, order: int, number: int = WHOLE) -> str:
    """Return the cursor of the page behind an item.

    :param order: the place of the item, `Entry.order`.
    :param number: that of the resource among those that a template lists.
    """
    place = [kind, order] if number == WHOLE else [kind, order, number]
    return base64.urlsafe_b64encode(json.dumps(place).encode("ascii")).decode("ascii")


def read_cursor(kind: str, cursor: Any) -> int:
    """Return the place that a cursor points at.

    :raises InvalidParams: for a cursor that was not given out for this kind of list. Spec: FEAT-119
    """
    return read_place(kind, cursor)[0]


def read_place(kind: str, cursor: Any) -> tuple[int, int]:
    """Return the place and the number that a cursor points at.

    :raises InvalidParams: for a cursor that was not given out for this kind of list. Spec: FEAT-119
    """
    try:
        if isinstance(cursor, str) and len(cursor) < 100:
            found, order, *rest = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
            number = rest[0] if rest else WHOLE
            if found == kind and type(order) is int and type(number) is int and len(rest) < 2:
                return order, number
    except (binascii.Error, ValueError, TypeError):
        pass
    raise InvalidParams("This cursor was not given out by this server; start again without one")
