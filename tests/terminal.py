"""A program on a pseudo-terminal."""

from __future__ import annotations

import codecs
import os
import signal
import subprocess
import sys
import threading

from tests.transports import ROOT


class Pty:
    """A Python program on a terminal of its own."""

    def __init__(self, *words):
        import pty

        self.end, other = pty.openpty()
        self.child = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=other,
            stdout=subprocess.PIPE,
            stderr=other,
            # Ctrl-C is ignored in what is started in the background, and what is ignored is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        os.close(other)
        self.seen = ""
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self):
        decoder = codecs.getincrementaldecoder("utf-8")()  # a character may come in two parts
        while True:
            try:
                data = os.read(self.end, 4096)
            except OSError:
                data = b""
            with self._changed:
                self.seen += decoder.decode(data)
                self._changed.notify_all()
            if not data:
                return

    def wait_for(self, text):
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.seen, 60), self.seen
            self.seen = self.seen.partition(text)[2]

    def type(self, text):
        os.write(self.end, text.encode())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait(20)
        self._reader.join(20)
        os.close(self.end)
        self.child.stdout.close()
