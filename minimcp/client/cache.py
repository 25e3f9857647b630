"""Cache of results: fresh for their `ttlMs`, dropped when a notification says that they changed.

Spec: FEAT-121 to FEAT-138, 26:server/utilities/caching
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from typing import Any, Optional

from ..engines.fork import PerProcess

Message = dict[str, Any]

MOST_ENTRIES = 1000
LONGEST_S = 86_400.0

# The methods whose kept results a notification makes stale.
_STALE = {
    "notifications/tools/list_changed": ("tools/list",),
    "notifications/prompts/list_changed": ("prompts/list",),
    "notifications/resources/list_changed": ("resources/list", "resources/templates/list"),
}


class Cache:
    """Results by server, method, params and credentials; beyond `MOST_ENTRIES` the longest unused are dropped.

    One cache may serve many clients and threads: results that a server marks "public" are shared by all of them, others
    only by clients with the same credentials. Spec: FEAT-135, FEAT-136
    """

    def __init__(self) -> None:
        self._lock = PerProcess(threading.Lock)  # guards _entries
        self._entries: OrderedDict[tuple[str, str, str, str], tuple[float, str]] = OrderedDict()

    def get(self, server: str, method: str, params: Message, identity: str) -> Optional[Message]:
        """Return a fresh result, or None.

        :param server: names the server among all that share this cache.
        :param identity: a fingerprint of the credentials the request would be sent with.
        """
        call = _canonical(params)
        with self._lock():
            for scope in (identity, "public"):
                key = (server, method, call, scope)
                found = self._entries.get(key)
                if found is None:
                    continue
                if found[0] > time.monotonic():
                    self._entries.move_to_end(key)
                    # Kept as text, so that a caller that changes its result changes nobody else's.
                    return json.loads(found[1])  # type: ignore[no-any-return]
                del self._entries[key]
        return None

    def put(self, server: str, method: str, params: Message, identity: str, result: Message) -> None:
        """Keep a result for its `ttlMs`; 0, none or nonsense keeps nothing. Spec: FEAT-130, FEAT-131"""
        ttl_ms = result.get("ttlMs")
        if isinstance(ttl_ms, bool) or not isinstance(ttl_ms, (int, float)) or ttl_ms <= 0:
            return
        scope = "public" if result.get("cacheScope") == "public" else identity
        until = time.monotonic() + min(ttl_ms / 1000, LONGEST_S)
        with self._lock():
            self._entries[(server, method, _canonical(params), scope)] = (until, json.dumps(result))
            while len(self._entries) > MOST_ENTRIES:
                self._entries.popitem(last=False)

    def changed(self, server: str, notification: Message) -> None:
        """Drop the results that a notification of the server makes stale. Spec: FEAT-137"""
        method = notification["method"]
        stale = _STALE.get(method, ())
        params = notification.get("params")
        uri = None
        if method == "notifications/resources/updated" and isinstance(params, dict):
            uri = params.get("uri")
        read = _canonical({"uri": uri})
        with self._lock():
            for key in [key for key in self._entries if key[0] == server]:
                if key[1] in stale or (uri is not None and key[1] == "resources/read" and key[2] == read):
                    del self._entries[key]

    def clear(self) -> None:
        """Drop everything."""
        with self._lock():
            self._entries.clear()


def _canonical(params: Message) -> str:
    return json.dumps(params, sort_keys=True)
