"""Verifying a chained log: whether a record was changed, removed, moved or put in."""

from __future__ import annotations

import hashlib
import os
import re
from typing import BinaryIO, NamedTuple, Optional

from .chain import LONGEST, Key, Path, Record, checked_key, read_line


class Verdict(NamedTuple):
    """The outcome of `verify`.

    :ivar line: the number of the first line that is wrong, in `file`, and `reason` why; 0 and "" when all are right.
    :ivar records: how many records there are, those of the log itself included.
    :ivar first: the number of the first one; above 1 when the chain goes on from a file that is not there.
    :ivar last: the hash of the last one: who notes it elsewhere can later show that records were taken from the end.
    :ivar torn: in how many places something was cut off, and marked.
    """

    file: str
    line: int = 0
    reason: str = ""
    records: int = 0
    first: int = 0
    last: str = ""
    torn: int = 0

    @property
    def intact(self) -> bool:
        """Whether nothing is wrong."""
        return not self.reason


def verify(path: Path, key: Key = None, known: Optional[str] = None) -> Verdict:
    """Check a chain, from the oldest of its files that is in the folder to this one.

    :param known: the hash of a record that was noted earlier, which must be there.
    :raises OSError: when the file cannot be read.
    """
    secret = checked_key(key)
    walk = _Walk(secret, known)
    for file in _files(os.fspath(path), secret):
        if not walk.read(file):
            break
    verdict = walk.verdict
    if verdict.intact and known is not None and not walk.met:
        reason = "the record with the known hash is not there; records were taken from the end"
        return verdict._replace(line=walk.line, reason=reason)
    return verdict


def _files(path: str, key: Optional[bytes]) -> list[str]:
    """Return the files of a chain that ends with this one, the oldest first."""
    found = [path]
    name = re.sub(r"(?:\.[0-9]+)+\Z", "", os.path.basename(path))
    pattern = re.compile(re.escape(name) + r"(?:\.[0-9]+)+")
    while True:
        with open(found[0], "rb") as file:
            record = read_line(file.readline(LONGEST).rstrip(b"\n"), key)
        origin = record.get("from") if isinstance(record, dict) and record.get("chain") == "continued" else None
        if not isinstance(origin, str) or not pattern.fullmatch(origin):
            return found
        older = os.path.join(os.path.dirname(path), origin)
        if older in found or not os.path.exists(older):
            return found
        found.insert(0, older)


class _Walk:
    """Goes through the lines of a chain.

    :ivar line: the number of the line it is at.
    :ivar met: whether it met the known record.
    """

    def __init__(self, key: Optional[bytes], known: Optional[str]) -> None:
        self.verdict = Verdict("")
        self.line = 0
        self.met = False
        self._key = key
        self._known = known
        self._seq: Optional[int] = None

    def read(self, path: str) -> bool:
        """Check a file; False when something is wrong."""
        self.verdict = self.verdict._replace(file=path)
        with open(path, "rb") as file:
            return self._lines(file)

    def _lines(self, file: BinaryIO) -> bool:
        # The lines since the last record that are none: where they begin, why, and what they are.
        bad: list[bytes] = []
        where, why, self.line = 0, "", 0
        for line in iter(lambda: file.readline(LONGEST), b""):
            self.line += 1
            record = read_line(line[:-1] if line.endswith(b"\n") else line, self._key)
            if isinstance(record, str):
                if not bad:
                    where, why = self.line, record
                bad.append(line)
                continue
            if bad and not _is_mark(record, b"".join(bad)[:-1]):
                break
            reason = self._misplaced(record)
            if reason:
                return self._wrong(self.line, reason)
            self._take(record, bool(bad))
            bad = []
        if len(bad) == 1 and not bad[0].endswith(b"\n"):
            # Whoever writes next will mark it.
            self.verdict = self.verdict._replace(torn=self.verdict.torn + 1)
        elif bad:
            return self._wrong(where, why)
        return True

    def _misplaced(self, record: Record) -> str:
        """Return why a record cannot follow the one before, "" when it can."""
        seq, before = record["seq"], self._seq
        if before is None:
            if record.get("chain") == "continued" or (seq == 1 and record["prev"] == ""):
                return ""
            return f"it is record {seq}, and those before it are missing"
        if seq > before + 1:
            return f"it is record {seq}, and {_range(before + 1, seq - 1)} missing before it"
        if seq <= before:
            return f"it is record {seq}, but comes after record {before}"
        if record["prev"] != self.verdict.last:
            return "the record before it is another than the one it was written after"
        return ""

    def _take(self, record: Record, torn: bool) -> None:
        verdict = self.verdict
        self.met = self.met or record["hash"] == self._known
        self._seq = record["seq"]
        self.verdict = verdict._replace(
            records=verdict.records + 1,
            first=verdict.first or record["seq"],
            last=record["hash"],
            torn=verdict.torn + torn,
        )

    def _wrong(self, line: int, reason: str) -> bool:
        self.verdict = self.verdict._replace(line=line, reason=reason)
        return False


def _is_mark(record: Record, rest: bytes) -> bool:
    """Say whether a record marks these bytes as none."""
    if record.get("chain") != "torn" or record.get("bytes") != len(rest):
        return False
    return bool(record.get("sha256") == hashlib.sha256(rest).hexdigest())


def _range(first: int, last: int) -> str:
    return f"record {first} is" if first == last else f"records {first} to {last} are"
