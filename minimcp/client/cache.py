"""Cache of results: fresh for their `ttlMs`, dropped when a notification says that they changed.

Spec: FEAT-121 to FEAT-138, 26:server/utilities/caching
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Optional, Union

from ..engines.fork import PerProcess

Message = dict[str, Any]

# Server, method, params; and with them for whom: a fingerprint of credentials, or "public".
_Call = tuple[str, str, str]
_Key = tuple[str, str, str, str]
Identity = Union[str, None, Callable[[], Optional[str]]]

MOST_ENTRIES = 1000
MOST_BYTES = 64 * 1024 * 1024
_OVERHEAD = 512  # of an entry beside its texts
LONGEST_S = 86_400.0

# The methods whose kept results a notification makes stale.
_STALE = {
    "notifications/tools/list_changed": ("tools/list",),
    "notifications/prompts/list_changed": ("prompts/list",),
    "notifications/resources/list_changed": ("resources/list", "resources/templates/list"),
}


class Cache:
    """Results by server, method, params and credentials; beyond `MOST_ENTRIES` or `MOST_BYTES` the longest unused go.

    One cache may serve many clients and threads: results that a server marks "public" are shared by all of them, others
    only by clients with the same credentials. Spec: FEAT-135, FEAT-136
    """

    def __init__(self) -> None:
        self._lock = PerProcess(threading.Lock)  # guards everything below
        self._entries: OrderedDict[_Key, tuple[float, str]] = OrderedDict()
        self._private: Counter[_Call] = Counter()  # how many entries of a call are not public
        self._bytes = 0
        self._changes = 0

    @property
    def changes(self) -> int:
        """The number of changes told so far, by any server."""
        return self._changes

    def get(self, server: str, method: str, params: Message, identity: Identity) -> Optional[Message]:
        """Return a fresh result, or None.

        :param server: names the server among all that share this cache.
        :param identity: a fingerprint of the credentials that the request would be sent with, or a function that
            returns it, called where it matters; None when it is not known, for public results alone.
        """
        call = (server, method, _canonical(params))
        with self._lock():
            private = self._private[call] > 0
        if callable(identity):
            # Outside the lock, since credentials may have to be fetched for it.
            identity = identity() if private else None
        with self._lock():
            for scope in ("public",) if identity is None else (identity, "public"):
                found = self._entries.get((*call, scope))
                if found is None:
                    continue
                if found[0] > time.monotonic():
                    self._entries.move_to_end((*call, scope))
                    # Kept as text, so that a caller that changes its result changes nobody else's.
                    return json.loads(found[1])  # type: ignore[no-any-return]
                self._drop((*call, scope))
        return None

    def put(
        self, server: str, method: str, params: Message, identity: str, result: Message, since: Optional[int] = None
    ) -> None:
        """Keep a result for its `ttlMs`; 0, none or nonsense keeps nothing. Spec: FEAT-130, FEAT-131

        :param since: `changes` when it was asked for; one that a change may have overtaken is not kept.
        """
        ttl_ms = result.get("ttlMs")
        if isinstance(ttl_ms, bool) or not isinstance(ttl_ms, (int, float)) or not ttl_ms > 0:
            return
        scope = "public" if result.get("cacheScope") == "public" else identity
        # Compared before it is divided: an integer of JSON may be larger than any float.
        until = time.monotonic() + min(ttl_ms, LONGEST_S * 1000) / 1000
        key, text = (server, method, _canonical(params), scope), json.dumps(result)
        with self._lock():
            if since is not None and since != self._changes:
                return
            self._drop(key)
            self._entries[key] = (until, text)
            self._private[key[:3]] += scope != "public"
            self._bytes += _weight(key, text)
            while len(self._entries) > MOST_ENTRIES or self._bytes > MOST_BYTES:
                self._drop(next(iter(self._entries)))

    def _drop(self, key: _Key) -> None:
        found = self._entries.pop(key, None)
        if found is not None:
            self._bytes -= _weight(key, found[1])
            self._private[key[:3]] -= key[3] != "public"
            if not self._private[key[:3]]:
                del self._private[key[:3]]

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
            self._changes += bool(stale) or uri is not None
            for key in [key for key in self._entries if key[0] == server]:
                if key[1] in stale or (uri is not None and key[1] == "resources/read" and key[2] == read):
                    self._drop(key)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock():
            self._entries.clear()
            self._private.clear()
            self._bytes = 0


def _weight(key: _Key, text: str) -> int:
    return len(text) + len(key[2]) + _OVERHEAD


def _canonical(params: Message) -> str:
    return json.dumps(params, sort_keys=True)
