"""A log that shows what was done to it: each line is JSON that holds the hash of the line before.

    Server(around_request=Audit(Chain("audit.jsonl", key=os.environ["AUDIT_KEY"], max_bytes=100_000_000)))

A line ends with `seq`, its number, `prev`, the hash of the record before, and `hash`, its own, of all that stands
before it in the line. The log itself writes two kinds of records, which have `chain`: "continued" at the top of a file,
which goes on with the records of the file `from`; and "torn", for the `bytes` bytes before it that are no record, such
as a line that a crash cut off, with their `sha256`.

Without a key, who can write the file can also write another history. With one they can only take records away from its
end, which shows to those who know the hash of a later record: see `chain_verify`.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import logging
import os
import re
import stat
import threading
import time
from collections import deque
from typing import Any, BinaryIO, Optional, Union

from ..engines.fork import PerProcess
from ..engines.open_files import FileLock, OpenFile
from ..engines.trace import timestamp

log = logging.getLogger("minimcp")

Record = dict[str, Any]
Key = Union[str, bytes, None]
Path = Union[str, "os.PathLike[str]"]

_LINE = re.compile(rb'(\{.*), "hash": "((?:hmac-)?sha256:[0-9a-f]{64})"\}')
_OURS = ("chain", "seq", "prev", "hash")
_SHORTEST_KEY = 16
# A longer line is no record.
LONGEST = 64 * 1024 * 1024
_FIRST_READ = 2048
_SMALLEST = 4096
_UNSEEN = (0, -1)
# At least the bytes of what a line has beside its record.
_ROOM = 256
# In ASCII, so that neither a line break nor a lone surrogate in a value can break a line.
_encode = json.JSONEncoder(default=repr).encode


class Chain:
    """Appends records to a file as a chain, as what `Audit` writes to: `Audit(Chain("audit.jsonl"))`.

    Threads and processes may share a file; on Windows, where there is no lock between processes, one process alone.
    A record is written at once and whole. A file that is there is gone on with.

    :param path: the file, which is made for its owner alone; beside it is `FILE.lock`.
    :param key: a secret of at least 16 bytes, without which nobody can write a chain that `verify` with it accepts.
    :param max_bytes: a file that would grow beyond this is renamed, to its name with the number of its last record, and
        the next one begins with its last hash; 0 for never. None is ever removed.
    :param fsync: wait until each record is on the disk.
    :raises ValueError: for a short key, and for a file that others can write, or in which there is no record of this
        chain.
    """

    def __init__(self, path: Path, key: Key = None, *, max_bytes: int = 0, fsync: bool = False) -> None:
        if max_bytes and max_bytes < _SMALLEST:
            raise ValueError(f"max_bytes is 0 or at least {_SMALLEST}")
        self._path = os.path.abspath(os.path.expanduser(os.fspath(path)))
        self._next = f"{self._path}.next"
        self._key = checked_key(key)
        self._max_bytes = max_bytes
        self._fsync = fsync
        self._end = PerProcess(lambda: _End(self._path))
        end = self._end()
        with end.lock, FileLock(self._path):
            self._look()
            OpenFile(self._path)()
            _check_private(self._path)
            # What has to be written first is found again with the first record.
            self._find_end(end, os.stat(self._path).st_size, starting=True)

    def __call__(self, record: Record) -> None:
        """Append a record.

        :raises OSError: when it cannot be written; a part of it that was is marked by the next one.
        """
        if not record.keys().isdisjoint(_OURS):
            record = {name: value for name, value in record.items() if name not in _OURS}
        waiting, end = _Waiting(_encode(record)[:-1]), self._end()
        end.queue.append(waiting)
        # Where another thread writes, that one writes this record, too: nobody waits for a lock that many want.
        while end.queue and end.lock.acquire(blocking=False):
            try:
                self._write_waiting(end)
            finally:
                end.lock.release()
        waiting.done.acquire()
        if waiting.problem is not None:
            raise waiting.problem

    def _write_waiting(self, end: _End) -> None:
        """Write all records that wait."""
        known, problem = (end.seq, end.hash), None
        found = [end.queue.popleft() for _ in range(len(end.queue))]
        try:
            with end.process_lock:
                self._append(end, [each.body for each in found])
        except BaseException as error:
            # What was written all the same is found in the file.
            (end.seq, end.hash), end.seen, problem = known, _UNSEEN, error
        for each in found:
            each.problem = problem
            each.done.release()

    def _append(self, end: _End, bodies: list[str]) -> None:
        seen, lead = self._look(), b""
        if seen != end.seen:
            end.file.close()
            lead = self._find_end(end, seen[1])
        data = lead
        for body in bodies:
            size = seen[1] + len(data)
            if self._max_bytes and size > len(lead) and size + len(body) + _ROOM > self._max_bytes:
                if data:
                    self._write(end.file, data)
                self._rotate(end)
                seen, data = self._look(), b""
            data += self._line(end, body)
        self._write(end.file, data)
        end.seen = seen[0] or os.stat(self._path).st_ino, seen[1] + len(data)

    def _look(self) -> tuple[int, int]:
        """Return which file it is, and its size; (0, 0) when there is none."""
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            if not os.path.exists(self._next):
                return 0, 0
            # A crash came between the two renamings.
            os.replace(self._next, self._path)
            found = os.stat(self._path)
        return found.st_ino, found.st_size

    def _line(self, end: _End, body: str) -> bytes:
        """Return the line of the next record, given as JSON without its last brace, and take it for the last one."""
        comma = ", " if len(body) > 1 else ""
        text = f'{body}{comma}"seq": {end.seq + 1}, "prev": "{end.hash}"'.encode("ascii")
        end.seq, end.hash = end.seq + 1, hash_of(self._key, text)
        return text + f', "hash": "{end.hash}"}}\n'.encode("ascii")

    def _mark(self, end: _End, kind: str, **more: Any) -> bytes:
        """Return the line of a record of the log itself."""
        return self._line(end, _encode({"time": timestamp(time.time()) + "+00:00", "chain": kind, **more})[:-1])

    def _write(self, to: OpenFile, data: bytes) -> None:
        file = to()
        written = os.write(file, data)
        if written != len(data):
            raise OSError(f"{self._path} took only {written} of {len(data)} bytes")
        if self._fsync:
            os.fsync(file)

    def _find_end(self, end: _End, size: int, starting: bool = False) -> bytes:
        """Find the last record, at a start or when somebody else has written.

        :returns: what has to be written before the next record.
        :raises ValueError: at a start, when there is something, but no record.
        """
        record, rest, begun = None, b"", False
        if size:
            with open(self._path, "rb") as file:
                record, rest, begun = _last_record(file, size, self._key)
        if starting and record is None and b"\n" in rest:
            raise ValueError(
                f"{self._path} has no record of this chain: it has another key, or is another kind of file; "
                "name another file, or move this one away"
            )
        if record is not None and record["seq"] > end.seq:
            end.seq, end.hash = record["seq"], record["hash"]
        elif end.seq and (record is None or record["hash"] != end.hash):
            # It goes on after the last one that it knows of, so that `verify` finds the gap.
            log.error("%s has lost records that this process wrote", self._path)
        if starting:
            return b""
        if not size and end.seq:
            return self._mark(end, "continued")
        if not rest:
            return b"\n" if begun else b""
        closed = rest.endswith(b"\n")
        rest = rest[:-1] if closed else rest
        log.warning("%s has %d bytes that are no record, such as a line that was cut off", self._path, len(rest))
        mark = self._mark(end, "torn", bytes=len(rest), sha256=hashlib.sha256(rest).hexdigest())
        return mark if closed else b"\n" + mark

    def _rotate(self, end: _End) -> None:
        """Rename the file, and put one in its place that goes on with its chain."""
        old = f"{self._path}.{end.seq}"
        while os.path.exists(old):
            # An earlier chain, of which the file was moved away, had a record of this number.
            old += ".1"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._next)
        self._write(OpenFile(self._next, os.O_EXCL), self._mark(end, "continued", **{"from": os.path.basename(old)}))
        end.file.close()
        os.replace(self._path, old)
        os.replace(self._next, self._path)


class _End:
    """The end of the chain as one process knows it.

    :ivar seq: the number of the last record, and `hash` its hash; 0 and "" when there is none.
    :ivar seen: the file and its size after the last record.
    """

    def __init__(self, path: str) -> None:
        self.queue: deque[_Waiting] = deque()  # no lock: single operations, which are atomic
        self.lock = threading.Lock()  # guards all else, and is held while records are written
        self.process_lock = FileLock(path)
        self.file = OpenFile(path)
        self.seq = 0
        self.hash = ""
        self.seen = _UNSEEN


class _Waiting:
    """A record that waits to be written: `done` is released then, and `problem` is what kept it from being written."""

    def __init__(self, body: str) -> None:
        self.body = body
        self.done = threading.Lock()
        self.done.acquire()
        self.problem: Optional[BaseException] = None


def checked_key(key: Key) -> Optional[bytes]:
    """Return a key as bytes.

    :raises ValueError: when it is too short to be secret.
    """
    if key is None:
        return None
    found = key.encode("utf-8") if isinstance(key, str) else bytes(key)
    if len(found) < _SHORTEST_KEY:
        raise ValueError(f"The key of a chain has at least {_SHORTEST_KEY} bytes, such as secrets.token_hex(32)")
    return found


def _check_private(path: str) -> None:
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise ValueError(f"{path} is not a file")
    if os.name == "posix" and (found.st_mode & 0o022 or found.st_uid != os.geteuid()):
        raise ValueError(f"Others can write {path}, so it would prove nothing: make it yours, and chmod 600 {path}")


def hash_of(key: Optional[bytes], text: bytes) -> str:
    """Return the hash of a record, of its text up to it."""
    if key is None:
        return "sha256:" + hashlib.sha256(text).hexdigest()
    return "hmac-sha256:" + hmac.digest(key, text, "sha256").hex()


def read_line(line: bytes, key: Optional[bytes]) -> Union[Record, str]:
    """Return the record in a line, or why it is none."""
    found = _LINE.fullmatch(line)
    if found is None:
        return "it is not a record of a chain"
    given = found[2].decode("ascii")
    if given.startswith("hmac-") != (key is not None):
        return "it was written without a key" if key is not None else "it was written with a key, which verifying needs"
    if not hmac.compare_digest(given, hash_of(key, found[1])):
        return "it was changed" if key is None else "it was changed, or written with another key"
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return "it is not JSON"
    if not isinstance(record.get("seq"), int) or not isinstance(record.get("prev"), str):
        return "it has no number and no hash of the record before"
    return dict(record)


def _last_record(file: BinaryIO, size: int, key: Optional[bytes]) -> tuple[Optional[Record], bytes, bool]:
    """Return the last record of a file, what comes after its line, and whether that line has no end yet.

    :raises ValueError: when it is too far up.
    """
    read, step = b"", _FIRST_READ
    while True:
        step = min(step * 2, size - len(read))
        file.seek(size - len(read) - step)
        read = file.read(step) + read
        stop = len(read) - read.endswith(b"\n")
        while stop >= 0:
            start = read.rfind(b"\n", 0, stop) + 1
            if start == 0 and len(read) < size:
                break
            record = read_line(read[start:stop], key)
            if not isinstance(record, str):
                return record, read[stop + 1 :], stop == len(read)
            stop = start - 1
        if len(read) >= size:
            return None, read, False
        if len(read) > LONGEST:
            raise ValueError(f"The last {LONGEST} bytes of the file have no record of this chain")
