"""Records of tasks in SQLite: in a file, which several processes of one machine may share, or in memory."""

from __future__ import annotations

import json
import os
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Optional, Union

from ...engines.fork import PerProcess
from ...protocol import wire
from .task_records import TaskRecord, UnusableStore

if TYPE_CHECKING:
    from sqlite3 import Connection as Database

MEMORY = ":memory:"
_VERSION = 1
_PAUSE_S = 0.02
# Pages of 4 KiB in the log beside the file before they are moved into it, while whoever has written last waits for the
# disk. Many tasks change the same pages, so that moving them later is less work, too.
_LOG_PAGES = 8000
_MADE = """
CREATE TABLE IF NOT EXISTS tasks (
    id TEXT PRIMARY KEY, status TEXT NOT NULL, version INTEGER NOT NULL, owner TEXT NOT NULL, principal TEXT NOT NULL,
    created REAL NOT NULL, updated REAL NOT NULL, expires REAL, request BLOB NOT NULL, state BLOB NOT NULL, outcome BLOB
);
CREATE INDEX IF NOT EXISTS unfinished ON tasks (owner, status, updated)
    WHERE status IN ('queued', 'working', 'input_required');
CREATE INDEX IF NOT EXISTS made ON tasks (principal, created);
CREATE INDEX IF NOT EXISTS ending ON tasks (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS owners (owner TEXT PRIMARY KEY, beats INTEGER NOT NULL);
"""
_BUT_REQUEST = "id, status, version, owner, principal, created, updated, expires, '{}', state, outcome"
_UNFINISHED = "status IN ('queued', 'working', 'input_required')"


class SqliteStore:
    """Keeps records in a file or in memory.

    A record that was written survives the end of the process; after a loss of power the newest may be missing.

    :param path: the file, which is made if need be; by default memory, which ends with the process.
    :param busy_s: how long to wait while another process writes.
    """

    def __init__(self, path: Union[str, os.PathLike[str]] = MEMORY, busy_s: float = 5.0) -> None:
        self.path = os.fspath(path)
        self.lasting = self.path != MEMORY
        self._busy_s = busy_s
        # In a child of a fork those of its parent are neither used nor closed: closing would touch the parent's locks.
        self._inherited: list[_Opened] = []
        self._opened = PerProcess(self._open)
        self._opening = PerProcess(threading.Lock)  # guards _inherited; held while a file is opened

    def _open(self) -> _Opened:
        with self._opening():
            for opened in self._inherited:
                if opened.pid == os.getpid():
                    return opened
            opened = _Opened(self.path, self._busy_s)
            self._inherited.append(opened)
            return opened

    def close(self) -> None:
        """Close what this process has open; it opens again on use, and memory is lost."""
        pid = os.getpid()
        with self._opening():
            for opened in self._inherited:
                if opened.pid == pid:
                    opened.close()
            self._inherited = [opened for opened in self._inherited if opened.pid != pid]
            self._opened = PerProcess(self._open)

    def add(self, record: TaskRecord) -> None:
        """Keep a new record."""
        self._opened().write(f"INSERT INTO tasks VALUES ({', '.join('?' * 11)})", _row(record))

    def get(self, id: str, whole: bool = False) -> TaskRecord | None:
        """Return a record, or None; its `request` is {} unless `whole`."""
        columns = "*" if whole else _BUT_REQUEST
        found = self._opened().read(f"SELECT {columns} FROM tasks WHERE id = ?", (id,))
        return _record(found[0]) if found else None

    def replace(self, record: TaskRecord) -> bool:
        """Put a record in the place of the one with the version just before its own; say whether there was that one."""
        row = _row(record)
        changed = self._opened().write(
            "UPDATE tasks SET status = ?, version = ?, owner = ?, updated = ?, expires = ?, state = ?, outcome = ? "
            "WHERE id = ? AND version = ?",
            (*row[1:4], *row[6:8], *row[9:], record.id, record.version - 1),
        )
        return changed == 1

    def remove(self, id: str) -> None:
        """Forget a record."""
        self._opened().write("DELETE FROM tasks WHERE id = ?", (id,))

    def queued(self, limit: int) -> Sequence[str]:
        """Return the ids of queued records without an owner, the oldest first."""
        found = self._opened().read(
            f"SELECT id FROM tasks WHERE {_UNFINISHED} AND owner = '' AND status = 'queued' ORDER BY updated LIMIT ?",
            (limit,),
        )
        return [row[0] for row in found]

    def owned(self, owner: str) -> dict[str, int]:
        """Return the ids of the unfinished records of an owner, each with its version."""
        return dict(self._opened().read(f"SELECT id, version FROM tasks WHERE {_UNFINISHED} AND owner = ?", (owner,)))

    def owners(self) -> dict[str, int]:
        """Return the owners of unfinished records, each with the number of its heartbeats so far."""
        found = self._opened().read(
            "SELECT DISTINCT tasks.owner, COALESCE(beats, 0) FROM tasks LEFT JOIN owners ON owners.owner = tasks.owner "
            f"WHERE {_UNFINISHED} AND tasks.owner > ''"
        )
        return dict(found)

    def beat(self, owner: str) -> None:
        """Count a heartbeat of an owner; with its first one those are forgotten that have no task any more."""
        opened = self._opened()
        if opened.write("UPDATE owners SET beats = beats + 1 WHERE owner = ?", (owner,)) == 0:
            opened.write(f"DELETE FROM owners WHERE owner NOT IN (SELECT owner FROM tasks WHERE {_UNFINISHED})")
            opened.write("INSERT OR IGNORE INTO owners VALUES (?, 1)", (owner,))

    def expired(self, now: float, limit: int) -> Sequence[str]:
        """Return ids of records that have ended, or are queued, whose time is over."""
        found = self._opened().read(
            "SELECT id FROM tasks WHERE expires <= ? AND status NOT IN ('working', 'input_required') LIMIT ?",
            (now, limit),
        )
        return [row[0] for row in found]

    def find(self, principal: str | None, statuses: Sequence[str], limit: int) -> Sequence[TaskRecord]:
        """Return the newest records with one of these statuses, the newest first, without `request`."""
        which = f"status IN ({', '.join('?' * len(statuses))})"
        values: list[Any] = [*statuses]
        if principal is not None:
            which += " AND principal = ?"
            values.append(principal)
        query = f"SELECT {_BUT_REQUEST} FROM tasks WHERE {which} ORDER BY created DESC LIMIT ?"
        found = self._opened().read(query, (*values, limit))
        return [_record(row) for row in found]

    def count(self, principal: str, most: int) -> tuple[int, int, int]:
        """Count the unfinished records of a principal, the unfinished ones and all of them, each up to `most`."""
        # Not by the index of the principal, which has all that it ever made.
        few = f"tasks INDEXED BY unfinished WHERE {_UNFINISHED}"
        parts = (f"{few} AND principal = ?", few, "tasks")
        counts = (f"(SELECT COUNT(*) FROM (SELECT 1 FROM {part} LIMIT {most:d}))" for part in parts)
        ((own, unfinished, total),) = self._opened().read(f"SELECT {', '.join(counts)}", (principal,))
        return own, unfinished, total


class _Opened:
    """The connections of one process: one that reads and one that writes, so that readers never wait for a writer.

    :raises UnusableStore: when the file cannot keep tasks.
    """

    def __init__(self, path: str, busy_s: float) -> None:
        try:
            import sqlite3
        except ImportError as problem:
            raise UnusableStore(f"this Python cannot keep tasks ({problem}); use another TaskStore") from problem
        self.pid = os.getpid()
        self._write_lock = threading.Lock()  # held for each use of the writer
        self._read_lock = self._write_lock if path == MEMORY else threading.Lock()  # the same for the reader
        self._writer: Optional[Database] = None
        self._reader: Optional[Database] = None
        try:
            if path != MEMORY:
                _make_private(path)
            self._writer = self._reader = _connect(path, busy_s)
            until = time.monotonic() + busy_s
            while not self._prepared(self._writer, path, time.monotonic() < until):
                # Where several open a new file at once, SQLite does not wait by itself.
                threading.Event().wait(_PAUSE_S)
            if path != MEMORY:
                self._reader = _connect(path, busy_s)
        except (sqlite3.Error, OSError) as problem:
            self.close()
            raise UnusableStore(
                f"{path} cannot keep tasks ({problem}); name a file that this process may write, on a local disk"
            ) from problem
        except UnusableStore:
            self.close()
            raise
        weakref.finalize(self, _close, self.pid, self._writer, self._reader).atexit = False

    def _prepared(self, database: Database, path: str, patient: bool) -> bool:
        """Make the tables; False for another try, since the file is locked."""
        from sqlite3 import OperationalError

        try:
            self._prepare(database, path)
        except OperationalError as problem:
            if patient and "locked" in str(problem):
                return False
            raise
        return True

    def _prepare(self, database: Database, path: str) -> None:
        if path != MEMORY:
            ((mode,),) = database.execute("PRAGMA journal_mode = WAL").fetchall()
            if mode != "wal":
                raise UnusableStore(f"{path} is on a file system without the locks that SQLite needs; use a local disk")
            database.execute("PRAGMA synchronous = NORMAL")
            database.execute(f"PRAGMA wal_autocheckpoint = {_LOG_PAGES}")
        database.execute("BEGIN IMMEDIATE")
        try:
            ((version,),) = database.execute("PRAGMA user_version").fetchall()
            ((tables,),) = database.execute("SELECT COUNT(*) FROM sqlite_master").fetchall()
            if version not in (0, _VERSION) or (version == 0 and tables):
                raise UnusableStore(f"{path} is a database of something else; name another file for the tasks")
            for statement in _MADE.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA user_version = {_VERSION}")
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise

    def write(self, statement: str, values: Iterable[Any] = ()) -> int:
        """Run a statement that changes something, and return how many rows it changed."""
        with self._write_lock:
            assert self._writer is not None
            return self._writer.execute(statement, tuple(values)).rowcount

    def read(self, statement: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self._read_lock:
            assert self._reader is not None
            return self._reader.execute(statement, tuple(values)).fetchall()

    def close(self) -> None:
        """Close the connections, once no thread uses them."""
        with self._write_lock:
            _close(self.pid, self._writer)
        with self._read_lock:
            _close(self.pid, self._reader)


def _make_private(path: str) -> None:
    """Make the file if there is none, so that nobody else may read arguments and results."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass


def _connect(path: str, busy_s: float) -> Database:
    import sqlite3

    return sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)


def _close(pid: int, *databases: Optional[Database]) -> None:
    for database in databases if os.getpid() == pid else ():
        if database is not None:
            database.close()


def _row(record: TaskRecord) -> tuple[Any, ...]:
    outcome = None if record.outcome is None else wire.dumps(record.outcome)
    return (*record[:8], wire.dumps(record.request), wire.dumps(record.state), outcome)


def _record(row: tuple[Any, ...]) -> TaskRecord:
    parts = [None if part is None else json.loads(part) for part in row[8:]]
    return TaskRecord(*row[:8], *parts)
