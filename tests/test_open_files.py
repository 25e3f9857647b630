"""Files that stay open between uses: when they are opened anew and closed, and the lock between processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from minimcp.engines import open_files
from minimcp.engines.open_files import FileLock, OpenFile
from minimcp.engines.trace import writer

ROOT = Path(__file__).resolve().parent.parent
posix = pytest.mark.skipif(os.name != "posix", reason="of posix")


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(open_files.time, "monotonic", lambda: self.now)


@posix
def test_a_file_stays_open_and_what_was_renamed_is_noticed_within_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    file = tmp_path / "log"
    write = writer(file)
    write({"n": 1})
    file.rename(tmp_path / "log.1")
    clock.now += 0.9
    write({"n": 2})
    assert not file.exists()
    clock.now += 0.1
    write({"n": 3})
    assert (tmp_path / "log.1").read_bytes() == b'{"n": 1}\n{"n": 2}\n'
    assert file.read_bytes() == b'{"n": 3}\n' and file.stat().st_mode & 0o777 == 0o600


@posix
def test_a_descriptor_is_open_as_long_as_somebody_has_it(tmp_path: Path) -> None:
    file = OpenFile(tmp_path / "file")
    first = file()
    assert file() is first
    number = int(first)
    file.close()
    os.write(first, b"of a thread that is still at it")
    del first
    with pytest.raises(OSError):
        os.fstat(number)
    assert (tmp_path / "file").stat().st_size == 31


@pytest.mark.parametrize("kept_s", [0.0, 1.0])
def test_a_file_is_closed_with_its_last_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_s: float) -> None:
    monkeypatch.setattr(open_files, "_KEPT_S", kept_s)
    file = OpenFile(tmp_path / "file")
    numbers = {int(file()) for _ in range(3)}
    del file
    for number in numbers:
        with pytest.raises(OSError):
            os.fstat(number)


@posix
def test_a_lock_keeps_others_away_and_is_found_again_when_its_file_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    clock = Clock(monkeypatch)
    lock, path = FileLock(tmp_path / "file"), tmp_path / "file.lock"

    def taken() -> bool:
        with open(path, "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    with lock:
        assert taken()
    assert not taken()
    path.unlink()
    clock.now += 1
    with lock:
        assert taken()
    assert not taken()


@posix
def test_who_comes_second_waits(tmp_path: Path) -> None:
    first, second, entered = FileLock(tmp_path / "file"), FileLock(tmp_path / "file"), threading.Event()

    def enter() -> None:
        with second:
            entered.set()

    with first:
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.1)
    thread.join(10)
    assert entered.is_set()


@posix
def test_a_child_that_is_forked_meanwhile_does_not_keep_a_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom minimcp.engines.open_files import FileLock\n"
        "lock = FileLock(sys.argv[1])\n"
        "with lock:\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        sys.stdin.read()\n"
        "        os._exit(0)\n"
        "with FileLock(sys.argv[1]):\n"
        "    print('taken', flush=True)\n"
        "os.waitpid(child, 0)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "file")]
    streams: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **streams) as process:
        assert process.stdout is not None and process.stdin is not None
        assert process.stdout.readline() == "taken\n"
        process.stdin.close()
        assert process.wait(30) == 0
