"""API keys: made, kept as hashes, and verified. Spec: AUTH-005, AUTH-008, AUTH-012"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
import threading
import time
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Optional, Protocol, Union

from ..engines.fork import PerProcess
from ..engines.oauth.tokens import write_private
from ..protocol.errors import Unauthorized
from ..protocol.principal import Principal
from .claims import seconds
from .verifier import AuthRequest

log = logging.getLogger("minimcp")

# What is shorter can be guessed: keys are not salted or stretched, since each request would pay for it.
_SHORTEST = 16
_LONGEST = 4096
_NOTED_S = 60.0
_MEMBERS = frozenset({"key", "hash", "roles", "scopes", "expires"})

Entry = dict[str, Any]


class KeySource(Protocol):
    """An object that holds keys, such as a table of a database."""

    def find(self, digest: str) -> Optional[Mapping[str, Any]]:
        """Return `{"name", "roles"?, "scopes"?, "expires"?}` of the key with this `hash_key` value, or None."""


class Keys:
    """Verifies API keys, in `Authorization: Bearer KEY` or in `X-API-Key: KEY`.

    Each key has a name, which is the principal's id, and optionally roles, scopes and an expiry. A file is read again
    when it changes; `python -m minimcp token` makes one.

    :param source: `{name: key}`, `{name: {"key" or "hash", "roles"?, "scopes"?, "expires"?}}`, the path of a JSON file
        of the second form, which only its owner can read, or a `KeySource`. `expires` is an ISO 8601 time or seconds
        since 1970.
    :param issuer: the issuer of the principals.
    :param scopes: the scopes that every request needs.
    :ivar last_used: the time of the last use by name, in seconds since 1970; for a file also kept in `FILE.used`,
        which is written at most once a minute.
    :raises ValueError: for a short key, a member that is not known, or a file that others can read.
    """

    def __init__(
        self,
        source: Union[Mapping[str, Any], str, os.PathLike[str], KeySource],
        *,
        issuer: str = "",
        scopes: tuple[str, ...] = (),
    ) -> None:
        self.scopes = scopes
        self.last_used: dict[str, float] = {}
        self._issuer = issuer
        # The principals of known keys, each with the entry that it was made of; no more than there are keys.
        self._made: dict[str, tuple[Mapping[str, Any], Principal]] = {}
        self._source: KeySource
        if isinstance(source, (str, os.PathLike)):
            self._source = _FileSource(Path(source).expanduser(), self.last_used)
        elif isinstance(source, Mapping):
            self._source = _DictSource(source)
        else:
            self._source = source

    def verify(self, request: AuthRequest) -> Principal | None:
        """Return the principal of a known key, None for no key or one that is not known.

        :raises Unauthorized: for a key that has expired, or two different ones.
        """
        key = request.environ.get("HTTP_X_API_KEY", "")
        if key and request.token and not hmac.compare_digest(key.encode(), request.token.encode()):
            raise Unauthorized("The request has two different credentials")
        key = key or (request.token if request.scheme == "bearer" else "")
        if not key or len(key) > _LONGEST:
            return None
        digest = hash_key(key)
        found = self._source.find(digest)
        if found is None:
            return None
        entry, principal = self._made.get(digest, (None, None))
        if principal is None or entry is not found:
            granted, ends = (found.get("scopes", ()), found.get("roles", ())), _expiry(found.get("expires"))
            principal = Principal(found["name"], self._issuer, *granted, via="key", expires=ends)
            self._made[digest] = found, principal
        now = time.time()
        if principal.expires is not None and now >= principal.expires:
            raise Unauthorized("The key has expired")
        self.last_used[principal.id] = now
        return principal


def hash_key(key: str) -> str:
    """Return the form in which a key is kept; a random key of 256 bits needs no salt."""
    return "sha256:" + hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


class _DictSource:
    def __init__(self, keys: Mapping[str, Any]) -> None:
        self._entries: dict[str, Entry] = {}
        for name, value in keys.items():
            entry = {"key": value} if isinstance(value, str) else dict(value)
            unknown = set(entry) - _MEMBERS
            if unknown:
                raise ValueError(f"The key {name!r} has {sorted(unknown)}; a key may have {sorted(_MEMBERS)}")
            key, digest = entry.pop("key", None), entry.pop("hash", None)
            if (key is None) == (digest is None):
                raise ValueError(f"The key {name!r} needs either its text as 'key' or its 'hash'")
            if key is not None and len(key) < _SHORTEST:
                raise ValueError(
                    f"The key {name!r} is shorter than {_SHORTEST} characters; python -m minimcp token makes one"
                )
            for member in ("roles", "scopes"):
                if isinstance(entry.get(member, ()), str):
                    raise ValueError(f"The {member} of the key {name!r} are a list")
            _expiry(entry.get("expires"))
            found = self._entries.setdefault(digest or hash_key(key), {**entry, "name": name})
            if found["name"] != name:
                raise ValueError(f"The keys {found['name']!r} and {name!r} are the same")

    def find(self, digest: str) -> Entry | None:
        return self._entries.get(digest)


class _FileSource:
    """The keys of a file, read again when it has changed; its lock guards the reading, and the notes of use."""

    def __init__(self, path: Path, used: dict[str, float]) -> None:
        self._path = path
        self._used = used
        self._noted = time.monotonic()
        self._lock = PerProcess(threading.Lock)
        self._seen: Any = None
        self._keys = _DictSource({})
        self._refresh()

    def find(self, digest: str) -> Entry | None:
        self._refresh()
        if time.monotonic() - self._noted > _NOTED_S:
            self._note()
        return self._keys.find(digest)

    def _refresh(self) -> None:
        found = os.stat(self._path)
        seen = (found.st_ino, found.st_mtime_ns, found.st_size)
        if seen != self._seen:
            with self._lock():
                self._keys = _DictSource(read_file(self._path))
                self._seen = seen

    def _note(self) -> None:
        with self._lock():
            self._noted = time.monotonic()
            try:
                write_private(Path(f"{self._path}.used"), dict(self._used))
            except OSError as problem:
                log.warning("the last use of keys was not noted: %s", problem)


def read_file(path: Path) -> dict[str, Entry]:
    """Read a file of keys.

    :raises ValueError: when others than its owner can read it, or it is not a JSON object of objects.
    """
    with open(path, "rb") as file:
        if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
            raise ValueError(f"Others can read {path}, which holds keys: chmod 600 {path}")
        try:
            found = json.loads(file.read())
        except ValueError:
            raise ValueError(f"{path} is not JSON") from None
    if not isinstance(found, dict) or not all(isinstance(entry, dict) for entry in found.values()):
        raise ValueError(f"{path} is not a file of keys: it maps each name to an object")
    return found


def make_key(
    path: Path, name: str, roles: list[str] | None = None, scopes: list[str] | None = None, days: float | None = None
) -> str:
    """Add a new key to a file, which is made if there is none, and return it: it can never be shown again.

    :raises ValueError: when the name is taken.
    """
    entries = read_file(path) if path.exists() else {}
    if name in entries:
        raise ValueError(f"There is a key named {name!r} already; revoke it first")
    key = "mcp_" + secrets.token_urlsafe(32)
    entry: Entry = {"hash": hash_key(key), "roles": roles or [], "scopes": scopes or []}
    if days is not None:
        moment = datetime.fromtimestamp(time.time() + days * 86400, timezone.utc)
        entry["expires"] = moment.isoformat(timespec="seconds")
    write_private(path, {**entries, name: entry})
    return key


def revoke_key(path: Path, name: str) -> None:
    """Take a key out of a file.

    :raises ValueError: when it has none of this name.
    """
    entries = read_file(path)
    if entries.pop(name, None) is None:
        raise ValueError(f"{path} has no key named {name!r}")
    write_private(path, entries)


def _expiry(value: Any) -> float | None:
    """Return an expiry in seconds since 1970, None for never.

    :raises ValueError: when it is neither a number nor an ISO 8601 time.
    """
    if value is None:
        return None
    found = seconds(value)
    if found is not None:
        return found
    try:
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(f"expires is an ISO 8601 time such as 2027-01-31, not {value!r}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
