"""Pins of definitions: what a server first said of a tool or prompt holds until somebody approves a change.

A server that is trusted once could describe its tools in another way later, to the models that read the descriptions.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, Optional, Union

from ..engines.fork import PerProcess
from ..engines.oauth.tokens import write_private
from ..engines.open_files import FileLock

log = logging.getLogger("minimcp")

Message = dict[str, Any]
# Digests of the members of a definition, by their names.
Print = dict[str, str]
# By server, kind and name: {"pinned": Print or None, "pending"?: Print, "since"?: when that was first seen}.
Pinned = dict[str, dict[str, dict[str, Message]]]

MOST = 10_000
_MEMBERS = ("name", "title", "description", "inputSchema", "outputSchema", "annotations", "arguments")
_CHARACTERS = 32
_UNREAD = (-1, -1, -1)


class Pins:
    """Remembers the tools and prompts of servers, and judges what they list later.

    The first list of a server is trusted. A definition that has changed since is told to the log and to `report`; in
    mode "warn" it is listed all the same, in mode "block" it is not, until it is approved or as it was. Threads and
    processes may share the file; on Windows, where there is no lock between processes, one process alone.

    :param path: a JSON file, made for its owner alone; None for memory.
    :param mode: "warn" or "block".
    :param new: "allow" pins what a known server did not list before; "block", for mode "block", has it approved first.
    :param report: takes each change, also an approval, as a dict that an audit log can take.
    :raises ValueError: for another mode, and for a file that others can write, or that holds something else.
    """

    def __init__(
        self,
        path: Union[str, os.PathLike[str], None] = None,
        mode: str = "warn",
        *,
        new: str = "allow",
        report: Optional[Callable[[Message], object]] = None,
    ) -> None:
        if mode not in ("warn", "block"):
            raise ValueError(f'mode is "warn" or "block", not {mode!r}')
        if new not in ("allow", "block") or (new == "block" and mode != "block"):
            raise ValueError(f'new is "allow", or in mode "block" also "block", not {new!r}')
        self._path = None if path is None else Path(os.path.abspath(os.path.expanduser(os.fspath(path))))
        self._blocks = mode == "block"
        self._blocks_new = new == "block"
        self._report = report
        # Guards everything below, and is held while the file is changed.
        self._lock = PerProcess(threading.Lock)
        self._pinned: Pinned = {}
        self._revision = 0
        self._seen = _UNREAD
        self._told: set[tuple[str, str, str, str]] = set()
        if self._path is not None and not self._path.parent.is_dir():
            raise ValueError(f"There is no folder {self._path.parent}, where the pins would be kept")
        with self._lock():
            self._read()

    def judge(self, server: str, definitions: Iterable[Message], kind: str = "tools") -> list[Message]:
        """Return those of a server's definitions that may be listed, in their order.

        :param definitions: all of one kind, as the server sent them.
        :param kind: "tools" or "prompts".
        """
        listed = [(each, digests(each)) for each in definitions]
        prints: dict[str, Print] = {}
        for item, found in listed:
            if found is not None:
                prints.setdefault(item["name"], found)
        with self._lock():
            self._refresh()
            judged = self._judge(server, kind, prints)
            if judged.pinned is not None:
                judged = self._change(lambda: self._judge(server, kind, prints))
            events = [event for event in judged.events if self._is_untold(event)]
        for event in events:
            self._tell(event)
        # Of two with one name the first one is judged; another that differs is no better than a change.
        return [
            item
            for item, found in listed
            if found is not None
            and item["name"] in judged.allowed
            and (not self._blocks or found == prints[item["name"]])
        ]

    def _judge(self, server: str, kind: str, prints: dict[str, Print]) -> _Judged:
        """Compare what a server lists with what is pinned."""
        known = self._pinned.get(server, {})
        first = kind not in known
        pins = {name: dict(pin) for name, pin in known.get(kind, {}).items()}
        allowed, events, altered = set(), [], first
        for name, found in prints.items():
            pin = pins.get(name)
            if pin is None and len(pins) >= MOST:
                events.append(_event("not pinned", server, kind, name, found, self._blocks))
                allowed.update([] if self._blocks else [name])
                continue
            if pin is None:
                trusted = first or not self._blocks_new
                pins[name] = pin = {"pinned": found} if trusted else {"pinned": None, **_pending(found)}
                altered = True
                if not first:
                    events.append(_event("new", server, kind, name, found, not trusted))
            elif pin["pinned"] != found:
                if pin.get("pending") != found:
                    pin.update(_pending(found))
                    altered = True
                what = "changed" if pin["pinned"] is not None else "new"
                events.append(_event(what, server, kind, name, found, self._blocks, _differing(pin)))
            elif "pending" in pin:
                # It is as it was.
                del pin["pending"], pin["since"]
                altered = True
            if pin["pinned"] == found or (not self._blocks):
                allowed.add(name)
        return _Judged(allowed, events, {**self._pinned, server: {**known, kind: pins}} if altered else None)

    @property
    def changes(self) -> list[Message]:
        """The changes that wait for approval, or in mode "warn" for somebody to look at them, the oldest first.

        Each has `server`, `kind`, `name`, `change` ("changed" or "new"), the `members` that differ, `since` (s since
        1970), `blocked`, and the `fingerprint` by which `approve` knows it.
        """
        with self._lock():
            self._refresh()
            pinned = self._pinned
        found = [
            {
                "server": server,
                "kind": kind,
                "name": name,
                "change": "new" if pin["pinned"] is None else "changed",
                "members": _differing(pin),
                "since": pin["since"],
                "blocked": self._blocks,
                "fingerprint": _short(pin["pending"]),
            }
            for server, kinds in pinned.items()
            for kind, pins in kinds.items()
            for name, pin in pins.items()
            if "pending" in pin
        ]
        return sorted(found, key=lambda each: float(str(each["since"])))

    @property
    def revision(self) -> int:
        """A number that grows with every change, also by another process: what may be listed can be another then."""
        with self._lock():
            self._refresh()
            return self._revision

    def approve(self, server: str, name: Optional[str] = None, fingerprint: Optional[str] = None) -> list[str]:
        """Pin a server's changed and new definitions as they were last seen, and return their names.

        :param name: only the tools and prompts of this name.
        :param fingerprint: that of the change that was looked at; a later one is not approved.
        :raises ValueError: when there is nothing to approve.
        :raises OSError: when the file cannot be written.
        """
        approved: list[tuple[str, str, Print]] = []

        def change() -> _Judged:
            approved.clear()
            kinds = {kind: dict(pins) for kind, pins in self._pinned.get(server, {}).items()}
            for kind, pins in kinds.items():
                for each, pin in pins.items():
                    found = pin.get("pending")
                    if found is None or (name is not None and each != name):
                        continue
                    if fingerprint is None or _short(found) == fingerprint:
                        pins[each] = {"pinned": found}
                        approved.append((kind, each, found))
            return _Judged(set(), [], {**self._pinned, server: kinds} if approved else None)

        with self._lock():
            self._change(change, must=True)
            known = server in self._pinned
        if not approved:
            what = f"{server!r}" if name is None else f"{name!r} of {server!r}"
            raise ValueError(
                f"Nothing of {what} waits for approval" + ("" if known else "; no server of this name was listed yet")
            )
        for kind, each, found in approved:
            self._tell(_event("approved", server, kind, each, found, False))
        return [each for _, each, _ in approved]

    def _change(self, change: Callable[[], _Judged], must: bool = False) -> _Judged:
        """Change the pins as the file has them now, and write them; the lock is held.

        :param must: whether a file that cannot be read or written is an error; otherwise memory has to do.
        """
        try:
            with contextlib.nullcontext() if self._path is None else FileLock(self._path):
                if self._seen != self._stat():
                    self._read()
                judged = change()
                if self._path is not None and judged.pinned is not None:
                    write_private(self._path, {"pins": judged.pinned})
                    self._seen = self._stat()
                self._put(judged.pinned)
        except (OSError, ValueError) as problem:
            if must:
                raise
            log.error("The pins could not be written to %s: %s", self._path, problem)
            judged = change()
            self._put(judged.pinned)
        return judged

    def _refresh(self) -> None:
        """Read the file again if it has changed; the lock is held."""
        try:
            if self._seen != self._stat():
                self._read()
        except (OSError, ValueError) as problem:
            log.error("What was pinned before still holds: %s", problem)

    def _stat(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self._path) if self._path is not None else None
        except FileNotFoundError:
            found = None
        return _UNREAD if found is None else (found.st_ino, found.st_mtime_ns, found.st_size)

    def _read(self) -> None:
        if self._path is None:
            return
        seen = self._stat()
        if seen == _UNREAD:
            # Not written yet; or somebody took it away, and what is known is written again with the next change.
            self._seen = seen
            return
        with open(self._path, "rb") as file:
            found = os.fstat(file.fileno())
            if os.name == "posix" and (found.st_mode & 0o022 or found.st_uid != os.geteuid()):
                raise ValueError(f"Others can write {self._path}, so its pins hold nothing: make it yours, chmod 600")
            raw = file.read()
        try:
            pinned = json.loads(raw)["pins"]
            fine = all(_is_pin(pin) for kinds in pinned.values() for pins in kinds.values() for pin in pins.values())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            fine = False
        if not fine:
            raise ValueError(f"{self._path} is not a file of pins; name another file, or remove it")
        self._put(pinned)
        self._seen = seen

    def _put(self, pinned: Optional[Pinned]) -> None:
        if pinned is not None:
            self._pinned = pinned
            self._revision += 1

    def _is_untold(self, event: Message) -> bool:
        """Say whether this process has not told of a change yet; the lock is held."""
        key = (event["server"], event["kind"], event["name"], event["fingerprint"])
        if key in self._told:
            return False
        if len(self._told) >= MOST:
            self._told.clear()
        self._told.add(key)
        return True

    def _tell(self, event: Message) -> None:
        said = "is blocked" if event["blocked"] else "is listed"
        members = f" in {', '.join(event['members'])}" if event["members"] else ""
        log.log(
            logging.INFO if event["event"].endswith("approved") else logging.WARNING,
            "%s of %s: %.100r, %s%s; it %s",
            *(event["kind"], event["server"], event["name"], event["event"], members, said),
        )
        if self._report is not None:
            self._report({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), **event})


def approve(path: Union[str, os.PathLike[str]], target: str) -> list[str]:
    """Approve in a file of pins, for those who write "SERVER" or "SERVER:NAME", and return the names.

    :raises ValueError: when there is nothing to approve.
    """
    pins = Pins(path)
    server, _, name = target.partition(":")
    if target in {each["server"] for each in pins.changes}:
        server, name = target, ""
    return pins.approve(server, name or None)


class _Judged(NamedTuple):
    """The names that may be listed, what there is to tell, and all pins as they are now, None for no change."""

    allowed: set[str]
    events: list[Message]
    pinned: Optional[Pinned]


def _is_pin(pin: Message) -> bool:
    prints = [pin["pinned"], pin.get("pending")]
    return all(isinstance(each, (dict, type(None))) for each in prints) and ("pending" in pin) == ("since" in pin)


def digests(definition: Any) -> Optional[Print]:
    """Return the digests of the members that say what a tool or prompt does; None for what has no name."""
    if not isinstance(definition, dict) or not isinstance(definition.get("name"), str):
        return None
    meta = definition.get("_meta")
    parts = {name: definition[name] for name in _MEMBERS if name in definition}
    if isinstance(meta, dict):
        parts.update({f"_meta.{name}": meta[name] for name in meta if name == "ui" or name.startswith("ui/")})
    try:
        return {name: _digest(value) for name, value in parts.items()}
    except (RecursionError, ValueError):
        return None


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:_CHARACTERS]


def _short(found: Print) -> str:
    return _digest(found)[:12]


def _pending(found: Print) -> Message:
    return {"pending": found, "since": round(time.time(), 3)}


def _differing(pin: Message) -> list[str]:
    """Return the names of the members that differ, of a definition that is pinned."""
    before, now = pin["pinned"], pin["pending"]
    return [] if before is None else sorted(name for name in {*before, *now} if before.get(name) != now.get(name))


def _event(
    what: str, server: str, kind: str, name: str, found: Print, blocked: bool, members: Iterable[str] = ()
) -> Message:
    return {
        "event": f"definition {what}",
        "server": server,
        "kind": kind,
        "name": name,
        "members": list(members),
        "blocked": blocked,
        "fingerprint": _short(found),
    }
