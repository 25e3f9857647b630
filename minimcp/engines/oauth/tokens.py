"""Tokens and registrations: reading a token endpoint's answer, and keeping it, in memory or in a file.

A store is any `MutableMapping` from strings to dicts, with the keys `issuer <who> <server>`,
`token <who> <issuer> <server>`, `client <issuer>`, `bound <who>`; `who` is the kind of grant and the client id it was
configured with.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Union

from ..errors import AuthorizationError
from ..fork import PerProcess
from ..open_files import FileLock

Token = dict[str, Any]
Store = MutableMapping[str, dict[str, Any]]

_VISIBLE = re.compile(r"[\x21-\x7e]{1,16384}\Z")
_LONGEST_S = 10**10
# A token is renewed this long before it expires, or after nine tenths of a short life.
_EARLY_S = 30


def read_token(reply: dict[str, Any] | None, dpop: bool) -> Token:
    """Check the answer of a token endpoint and return what is kept of it.

    :param dpop: whether the token has to be bound to a key.
    :returns: `{access_token, token_type, expires_at, refresh_token, scope}`; `expires_at` in s since 1970 or None.
    :raises AuthorizationError: when something in it cannot be used; nothing of the token is in the message.
    """
    if reply is None:
        raise AuthorizationError("The token endpoint answered with something that is not a JSON object")
    refresh_token = reply.get("refresh_token") or None
    for name, value in (("access_token", reply.get("access_token")), ("refresh_token", refresh_token)):
        if (value is not None or name == "access_token") and (not isinstance(value, str) or not _VISIBLE.match(value)):
            raise AuthorizationError(f"The token endpoint sent no usable {name}")
    # Without a type it is the usual one; a bound token has to be called one.
    kind = str(reply.get("token_type") or "bearer").lower()
    if kind != ("dpop" if dpop else "bearer"):
        wanted = "a DPoP" if dpop else "a bearer"
        raise AuthorizationError(f"The token endpoint sent a token that is not {wanted} token")
    scope = reply.get("scope")
    return {
        "access_token": reply["access_token"],
        "token_type": kind,
        "expires_at": _expiry(reply.get("expires_in")),
        "refresh_token": refresh_token,
        "scope": scope if isinstance(scope, str) else None,
    }


def _expiry(value: Any) -> float | None:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
        value = int(value)
    if value in (None, "", 0) and value is not False:
        # Nobody issues a token that has expired.
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise AuthorizationError("The token endpoint sent an expires_in that is not a number")
    if not 0 < value < _LONGEST_S:
        raise AuthorizationError("The token endpoint sent an expires_in that makes no sense")
    return time.time() + max(value - _EARLY_S, value * 0.9)


def has_expired(token: Token) -> bool:
    """Say whether a token has expired, or is about to."""
    expires_at = token.get("expires_at")
    return expires_at is not None and time.time() >= expires_at


def write_private(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a file by JSON that only its owner can read."""
    # mkstemp makes a file of mode 0600, and replacing leaves no moment at which the file is half written.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


class FileStore(MutableMapping[str, dict[str, Any]]):
    """A token store in one JSON file that only its owner can read; safe for several threads and processes.

    :param path: the file; it and its folder are made when something is first stored.
    :param holds: names the content in messages.
    :raises AuthorizationError: on use, when there is a file that holds something else; it is left as it is.
    """

    def __init__(self, path: Union[str, os.PathLike[str]], holds: str = "tokens") -> None:
        self._path = Path(path).expanduser()
        self._holds = holds
        self._hold = PerProcess(_Hold)

    def __repr__(self) -> str:
        return f"FileStore({str(self._path)!r})"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other threads and processes from changing the file; a refresh is done within. Reentrant."""
        hold = self._hold()
        with hold.lock, contextlib.ExitStack() as stack:
            if not hold.depth:
                self._make_folder()
                stack.enter_context(FileLock(self._path))
            hold.depth += 1
            try:
                yield
            finally:
                hold.depth -= 1

    def _make_folder(self) -> None:
        """Make the folder and those above it, for the owner alone; `mkdir` asks that of the last one only."""
        missing = [folder for folder in self._path.parents if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o700, exist_ok=True)

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            raw = self._path.read_bytes()
            found = json.loads(raw) if raw.strip() else {}
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not all(map(_is_kept, found.items())):
            raise AuthorizationError(f"{self._path} is not a file of {self._holds}; name another file, or remove it")
        return found

    def _write(self, content: dict[str, dict[str, Any]]) -> None:
        self._make_folder()
        write_private(self._path, content)

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._read()[key]

    def __setitem__(self, key: str, value: dict[str, Any]) -> None:
        with self.locked():
            self._write({**self._read(), key: value})

    def __delitem__(self, key: str) -> None:
        with self.locked():
            content = self._read()
            del content[key]
            self._write(content)

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())


def _is_kept(item: tuple[str, Any]) -> bool:
    return isinstance(item[1], dict) and not any(isinstance(member, dict) for member in item[1].values())


class _Hold:
    """The lock of one process on a file, and how often the thread that holds it is within `locked`."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # guards depth, and read-change-write; the lock file does between processes
        self.depth = 0
