"""The cursors of list pages: the kind of the list and the place of the last item."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any

from ..protocol.errors import InvalidParams


def write_cursor(kind: str, order: int) -> str:
    """Return the cursor of the page behind an item.

    :param order: the place of the item, `Entry.order`.
    """
    return base64.urlsafe_b64encode(json.dumps([kind, order]).encode("ascii")).decode("ascii")


def read_cursor(kind: str, cursor: Any) -> int:
    """Return the place that a cursor points at.

    :raises InvalidParams: for a cursor that was not given out for this kind of list. Spec: FEAT-119
    """
    try:
        if isinstance(cursor, str) and len(cursor) < 100:
            found, order = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
            if found == kind and type(order) is int:
                return order
    except (binascii.Error, ValueError, TypeError):
        pass
    raise InvalidParams("This cursor was not given out by this server; start again without one")
