"""The chained log: what it writes, what it survives, and what `verify` finds."""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from werkzeug.test import Client

from minimcp import Server
from minimcp.auth import Audit, Chain
from minimcp.auth.chain_verify import verify
from minimcp.cli.main import main
from tests.embedded import wait_until
from tests.helpers import http_headers, modern

ROOT = Path(__file__).resolve().parent.parent
KEY = "a key of this test, long enough"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def written(file: Path, count: int = 5, **options: Any) -> Chain:
    chain = Chain(file, **options)
    for number in range(1, count + 1):
        chain({"n": number})
    return chain


def lines(file: Path) -> list[bytes]:
    return file.read_bytes().splitlines(keepends=True)


def problem(file: Path, key: Any = None, **options: Any) -> tuple[int, str]:
    found = verify(file, key, **options)
    return found.line, found.reason


def test_each_line_holds_the_hash_of_the_one_before(file: Path) -> None:
    chain = Chain(file)
    chain({"time": "now", "n": 1})
    chain({"n": "a\nb\u2028\ud800"})
    first, second = lines(file)
    body = b'{"time": "now", "n": 1, "seq": 1, "prev": ""'
    digest = "sha256:" + hashlib.sha256(body).hexdigest()
    assert first == body + f', "hash": "{digest}"}}\n'.encode()
    assert second.startswith(
        b'{"n": "a\\nb\\u2028\\ud800", "seq": 2, "prev": "' + digest.encode() + b'", "hash": "sha256:'
    )
    found = verify(file)
    assert found.intact and found.records == 2 and found.first == 1
    assert found.last == json.loads(second)["hash"]
    if os.name == "posix":
        assert file.stat().st_mode & 0o777 == 0o600


def test_with_a_key_the_hash_is_one_that_needs_it(file: Path) -> None:
    Chain(file, KEY)({"n": 1})
    body = b'{"n": 1, "seq": 1, "prev": ""'
    assert json.loads(lines(file)[0])["hash"] == "hmac-sha256:" + hmac.new(KEY.encode(), body, "sha256").hexdigest()
    assert verify(file, KEY).intact and verify(file, KEY.encode()).intact
    assert problem(file) == (1, "it was written with a key, which verifying needs")
    assert problem(file, KEY + "x") == (1, "it was changed, or written with another key")


def test_a_chain_without_the_key_is_none_of_the_key(file: Path) -> None:
    written(file)
    assert problem(file, KEY) == (1, "it was written without a key")


def test_names_of_the_chain_cannot_be_taken_by_a_record(file: Path) -> None:
    Chain(file)({"seq": 9, "prev": "x", "hash": "y", "chain": "torn", "n": 1})
    assert sorted(json.loads(lines(file)[0])) == ["hash", "n", "prev", "seq"] and verify(file).intact


def test_an_audit_writes_to_it(file: Path) -> None:
    server = Server("s", around_request=Audit(Chain(file, KEY)))
    server.tool(lambda: "x", "work")
    message = modern("tools/call", name="work")
    Client(server.wsgi).post("/mcp", data=json.dumps(message), headers=http_headers(message))
    record = json.loads(lines(file)[0])
    assert (record["method"], record["name"], record["outcome"], record["seq"]) == ("tools/call", "work", "ok", 1)
    assert verify(file, KEY).intact


def change(number: int, edit: Callable[[bytes], bytes]) -> Callable[[list[bytes]], None]:
    def apply(found: list[bytes]) -> None:
        found[number] = edit(found[number])

    return apply


def swap(found: list[bytes]) -> None:
    found[1], found[2] = found[2], found[1]


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize(
    ("edit", "line", "reason"),
    [
        (change(1, lambda line: line.replace(b'"n": 2', b'"n": 3')), 2, "it was changed"),
        (change(4, lambda line: line.replace(b'"n": 5', b'"n": 6')), 5, "it was changed"),
        (change(2, lambda line: line.replace(b'"seq": 3', b'"seq": 8')), 3, "it was changed"),
        (change(2, lambda line: b'{"n": 3}\n'), 3, "it is not a record of a chain"),
        (change(2, lambda line: b"\n"), 3, "it is not a record of a chain"),
        (change(2, lambda line: line[:40]), 3, "it was changed"),
        (change(2, lambda line: line + line), 4, "it is record 3, but comes after record 3"),
        (lambda found: found.pop(2), 3, "it is record 4, and record 3 is missing before it"),
        (lambda found: found.__delitem__(slice(1, 3)), 2, "it is record 4, and records 2 to 3 are missing before it"),
        (lambda found: found.pop(0), 1, "it is record 2, and those before it are missing"),
        (swap, 2, "it is record 3, and record 2 is missing before it"),
    ],
)
def test_what_was_done_to_a_line_is_found(
    file: Path, key: Any, edit: Callable[[list[bytes]], Any], line: int, reason: str
) -> None:
    written(file, key=key)
    found = lines(file)
    edit(found)
    file.write_bytes(b"".join(found))
    where, why = problem(file, key)
    assert where == line and why.startswith(reason)


def test_a_line_of_another_chain_is_found(file: Path, tmp_path: Path) -> None:
    written(file)
    other = tmp_path / "other.jsonl"
    chain = Chain(other)
    for number in range(5):
        chain({"other": number})
    found = lines(file)
    found[2] = lines(other)[2]
    file.write_bytes(b"".join(found))
    assert problem(file) == (3, "the record before it is another than the one it was written after")


def test_records_taken_from_the_end_show_to_those_who_know_a_hash(file: Path) -> None:
    written(file, key=KEY)
    known = verify(file, KEY).last
    assert problem(file, KEY, known=known) == (0, "")
    file.write_bytes(b"".join(lines(file)[:3]))
    assert problem(file, KEY) == (0, "")
    reason = "the record with the known hash is not there; records were taken from the end"
    assert problem(file, KEY, known=known) == (3, reason)


def test_it_goes_on_after_a_restart(file: Path) -> None:
    written(file, 2)
    written(file, 3)
    found = verify(file)
    assert (found.reason, found.records, found.torn) == ("", 5, 0)


@pytest.mark.parametrize("tail", [b'{"n": 3, "se', b"\x00\x00\xff", b'{"n": 3}', b"x\ny", b"x\n\n"])
def test_a_line_that_was_cut_off_is_marked(file: Path, tail: bytes) -> None:
    written(file, 2)
    whole = file.read_bytes()
    with open(file, "ab") as end:
        end.write(tail)
    written(file, 2)
    rest = tail[:-1] if tail.endswith(b"\n") else tail
    mark = json.loads(file.read_bytes()[len(whole) + len(rest) + 1 :].splitlines()[0])
    assert (mark["chain"], mark["seq"], mark["bytes"]) == ("torn", 3, len(rest))
    assert mark["sha256"] == hashlib.sha256(rest).hexdigest()
    found = verify(file)
    assert (found.reason, found.records, found.torn) == ("", 5, 1)
    file.write_bytes(file.read_bytes().replace(rest, b"?" * len(rest), 1))
    assert not verify(file).intact


def test_a_first_line_that_was_cut_off_is_marked(file: Path) -> None:
    file.touch(0o600)
    file.write_bytes(b'{"n": 1')
    written(file, 1)
    found = verify(file)
    assert (found.reason, found.records, found.torn, found.first) == ("", 2, 1, 1)


def test_a_crash_while_the_mark_is_written_is_marked_in_turn(file: Path) -> None:
    written(file, 2)
    with open(file, "ab") as end:
        end.write(b'{"n": 3, ')
    written(file, 1)
    complete = file.read_bytes()
    for length in range(len(b"".join(lines(file)[:2])) + 1, len(complete) - 1):
        file.write_bytes(complete[:length])
        written(file, 1)
        found = verify(file)
        assert (found.reason, found.torn) == ("", 2 if found.records == 5 else 1), length


def test_only_the_line_break_of_the_last_record_is_missing(file: Path) -> None:
    written(file, 2)
    file.write_bytes(file.read_bytes()[:-1])
    assert verify(file).records == 2
    written(file, 1)
    found = verify(file)
    assert (found.reason, found.records, found.torn) == ("", 3, 0)


def test_a_last_line_that_is_cut_off_and_not_marked_yet_is_told(file: Path) -> None:
    written(file, 2)
    file.write_bytes(file.read_bytes()[:-20])
    found = verify(file)
    assert (found.reason, found.records, found.torn) == ("", 1, 1)


def test_a_record_longer_than_what_is_read_at_first_is_found_again(file: Path) -> None:
    Chain(file)({"text": "x" * 100_000})
    written(file, 1)
    assert verify(file).records == 2 and verify(file).intact


def test_a_write_that_fails_leaves_the_chain_whole(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = written(file, 2)
    write = os.write

    def fails(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def short(handle: int, data: bytes) -> int:
        return write(handle, data[:30])

    for bad in (fails, short, fails):
        monkeypatch.setattr(os, "write", bad)
        with pytest.raises(OSError):
            chain({"n": 3})
        monkeypatch.setattr(os, "write", write)
    chain({"n": 4})
    found = verify(file)
    assert (found.reason, found.records, found.torn) == ("", 4, 1)


def test_records_that_somebody_removes_meanwhile_leave_a_gap(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    chain = written(file, 5)
    file.write_bytes(b"".join(lines(file)[:3]))
    chain({"n": 6})
    assert problem(file) == (4, "it is record 6, and records 4 to 5 are missing before it")
    assert "has lost records that this process wrote" in caplog.text


def test_a_file_that_is_taken_away_is_gone_on_with_in_a_new_one(file: Path) -> None:
    chain = written(file, 5)
    last = verify(file).last
    file.unlink()
    chain({"n": 6})
    mark = json.loads(lines(file)[0])
    assert (mark["chain"], mark["seq"], mark["prev"]) == ("continued", 6, last)
    found = verify(file)
    assert (found.reason, found.first, found.records) == ("", 6, 2)


@pytest.mark.parametrize("key", [None, KEY])
def test_a_file_that_grows_is_replaced_by_one_that_goes_on(file: Path, key: Any) -> None:
    written(file, 30, key=key, max_bytes=4096)
    written(file, 30, key=key, max_bytes=4096)
    older = sorted((each for each in file.parent.glob("audit.jsonl.*[0-9]")), key=lambda each: int(each.suffix[1:]))
    assert len(older) >= 2 and all(each.stat().st_size <= 4096 for each in (*older, file))
    mark = json.loads(lines(file)[0])
    assert (mark["chain"], mark["from"], mark["seq"]) == ("continued", older[-1].name, int(older[-1].suffix[1:]) + 1)
    assert mark["prev"] == json.loads(lines(older[-1])[-1])["hash"]
    found = verify(file, key)
    assert (found.reason, found.first, found.records) == ("", 1, 60 + len(older))
    part = verify(older[1], key)
    assert (part.reason, part.first, part.records) == ("", 1, int(older[1].suffix[1:]))
    # A record of an older file that is missing or changed is found from the newest.
    older[0].write_bytes(b"".join(lines(older[0])[:-1]))
    found = verify(file, key)
    assert (Path(found.file).name, found.line) == (older[1].name, 1) and "is missing before it" in found.reason
    older[0].unlink()
    found = verify(file, key)
    assert (found.reason, found.first) == ("", json.loads(lines(older[1])[0])["seq"])


def test_the_name_of_an_older_file_leads_nowhere_else(file: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("../audit.jsonl.1", "/etc/passwd", "elsewhere/audit.jsonl.1", "audit.jsonl", "other.1", 7):
        body = json.dumps({"chain": "continued", "from": name, "seq": 2, "prev": ""})[:-1]
        file.write_text(body + f', "hash": "sha256:{hashlib.sha256(body.encode()).hexdigest()}"}}\n')
        found = verify(file)
        assert (found.file, found.first, found.records) == (str(file), 2, 1)


def test_a_file_never_replaces_an_older_one(file: Path) -> None:
    written(file, 30, max_bytes=4096)
    (old,) = file.parent.glob("audit.jsonl.*[0-9]")
    before = old.read_bytes()
    file.unlink()
    written(file, 30, max_bytes=4096)
    assert old.read_bytes() == before and Path(f"{old}.1").exists()
    assert verify(file).intact and verify(file).records == 31


def test_a_crash_between_the_renamings_loses_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = written(file, 5, max_bytes=4096)
    replace, done = os.replace, []

    def once(source: Any, target: Any) -> None:
        if done:
            raise OSError("killed")
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(OSError):
        chain({"text": "x" * 4000})
    monkeypatch.setattr(os, "replace", replace)
    assert not file.exists()
    written(file, 1)
    found = verify(file)
    assert (found.reason, found.first, found.records) == ("", 1, 7)


def test_a_clock_that_goes_back_breaks_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(file)
    chain({"time": "2026-01-02"})
    monkeypatch.setattr(time, "time", lambda: 0.0)
    chain({"time": "2026-01-01"})
    assert verify(file).intact


@pytest.mark.parametrize("locks", [True, False])
def test_threads_share_a_chain(file: Path, monkeypatch: pytest.MonkeyPatch, locks: bool) -> None:
    if not locks:
        monkeypatch.setitem(sys.modules, "fcntl", None)
    chain = Chain(file, max_bytes=20_000)
    threads = [threading.Thread(target=lambda: [chain({"n": n}) for n in range(100)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = verify(file)
    assert found.intact and found.torn == 0
    assert found.records == 400 + len(list(file.parent.glob("audit.jsonl.*[0-9]")))


class Writes:
    """Stands for `os.write`: the first one waits until three further records do, and the others may fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, chain: Chain, fail: bool) -> None:
        self.sizes: list[int] = []
        self.begun = threading.Event()
        self._queue, self._fail, self._write = chain._end().queue, fail, os.write
        monkeypatch.setattr(os, "write", self)

    def __call__(self, handle: int, data: bytes) -> int:
        self.sizes.append(data.count(b"\n"))
        if len(self.sizes) > 1 and self._fail:
            raise OSError(errno.ENOSPC, "No space left on device")
        if len(self.sizes) == 1:
            self.begun.set()
            wait_until(lambda: len(self._queue) == 3)
        return self._write(handle, data)


@pytest.mark.parametrize("fail", [False, True])
def test_what_waits_is_written_at_once_or_fails_for_each(
    file: Path, monkeypatch: pytest.MonkeyPatch, fail: bool
) -> None:
    chain = written(file, 1)
    writes, problems = Writes(monkeypatch, chain, fail), []

    def call(number: int) -> None:
        try:
            chain({"n": number})
        except OSError as problem:
            problems.append(problem.errno)

    threads = [threading.Thread(target=call, args=(number,)) for number in (2, 3, 4, 5)]
    threads[0].start()
    assert writes.begun.wait(30)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(30)
    monkeypatch.undo()
    assert writes.sizes == [1, 3] and problems == ([errno.ENOSPC] * 3 if fail else [])
    chain({"n": 6})
    found = verify(file)
    assert (found.reason, found.records, found.torn) == ("", 3 if fail else 6, 0)


def test_without_a_lock_nothing_is_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = written(file, 1)

    def fails(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(type(chain._end().process_lock), "__enter__", fails)
    with pytest.raises(OSError, match="Too many open files"):
        chain({"n": 2})
    monkeypatch.undo()
    chain({"n": 3})
    assert (verify(file).reason, verify(file).records) == ("", 2)


@pytest.mark.skipif(os.name != "posix", reason="there is no lock between processes")
def test_processes_share_a_file(file: Path) -> None:
    code = (
        "import sys; from minimcp.auth import Chain; chain = Chain(sys.argv[1], sys.argv[2], max_bytes=50_000)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for n in range(300): chain({'of': sys.argv[3], 'n': n})"
    )
    command = [sys.executable, "-c", code, str(file), KEY]
    children = [
        subprocess.Popen([*command, name], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for name in ("a", "b")
    ]
    for child in children:
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=60)
    files = list(file.parent.glob("audit.jsonl.*[0-9]"))
    found = verify(file, KEY)
    assert (found.reason, found.torn, found.first) == ("", 0, 1) and len(files) >= 2
    assert found.records == 600 + len(files)
    records = [json.loads(line) for each in (*files, file) for line in lines(each)]
    for name in ("a", "b"):
        mine = sorted((each["seq"], each["n"]) for each in records if each.get("of") == name)
        assert [number for _, number in mine] == list(range(300))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_goes_on_with_the_chain(file: Path) -> None:
    chain = written(file, 2)
    child = os.fork()
    if not child:
        chain({"of": "child"})
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    chain({"n": 4})
    found = verify(file)
    assert (found.reason, found.records) == ("", 4)


def test_a_file_that_is_no_chain_is_refused(file: Path) -> None:
    file.touch(0o600)
    file.write_text('{"time": "now"}\n')
    with pytest.raises(ValueError, match="has no record of this chain"):
        Chain(file)
    assert file.read_text() == '{"time": "now"}\n'


def test_a_file_with_another_key_is_refused(file: Path) -> None:
    written(file, key=KEY)
    with pytest.raises(ValueError, match="it has another key"):
        Chain(file, KEY + "x")
    with pytest.raises(ValueError, match="it has another key"):
        Chain(file)


@pytest.mark.skipif(os.name != "posix", reason="modes are of posix")
def test_a_file_that_others_can_write_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(file)
    file.chmod(0o620)
    with pytest.raises(ValueError, match="Others can write"):
        Chain(file)
    file.chmod(0o640)
    Chain(file)
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(ValueError, match="Others can write"):
        Chain(file)


@pytest.mark.parametrize("options", [{"key": ""}, {"key": "short"}, {"key": b"x" * 15}, {"max_bytes": 100}])
def test_what_would_protect_nothing_is_refused(file: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Chain(file, **options)


def test_a_folder_and_a_file_in_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        Chain(tmp_path)
    with pytest.raises(OSError):
        Chain(tmp_path / "none" / "audit.jsonl")


def test_the_command_says_whether_a_log_is_intact(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(file, key=KEY)
    monkeypatch.setenv("AUDIT_KEY", KEY)
    last = verify(file, KEY).last
    assert main(["audit", "verify", str(file), "--key-env", "AUDIT_KEY", "--known", last]) == 0
    assert capsys.readouterr().out == f"{file}: intact, 5 records, the last with the hash {last}\n"
    found = lines(file)
    file.write_bytes(b"".join(found[:1] + found[2:]))
    assert main(["audit", "verify", str(file), "--key-env", "AUDIT_KEY"]) == 1
    assert capsys.readouterr().out == f"{file}, line 2: it is record 3, and record 2 is missing before it\n"
    assert main(["audit", "verify", str(file), "--key-env", "NO_SUCH_KEY"]) == 1
    assert "NO_SUCH_KEY, for the key, is not set" in capsys.readouterr().err
    assert main(["audit", "verify", str(file) + "x"]) == 1
    assert "No such file" in capsys.readouterr().err
    Path(str(file) + "x").touch()
    assert main(["audit", "verify", str(file) + "x"]) == 0
    assert capsys.readouterr().out == f"{file}x: empty\n"
