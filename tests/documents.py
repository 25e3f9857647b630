"""Pages whose blocks are run from the first to the last, and whose printed outputs are compared.

- A block of Python runs in the module that all such blocks of a page share. An error that ends it is printed as its
  last line would be, and a warning in the log as its text.
- A block of a shell runs in the folder of the page, and later ones know its variables. After `<!-- runs on -->` it is
  a server, which is up from there to the end of the page.
- A block of `text` is what the block before it prints: no more and no less, and standard error counts too. In it `…`
  stands for anything on a line, and a line that is `…` for any lines.
- After a paragraph that ends in a file's name, such as "`server.py`:", a block is that file.
- A block of JSON is well-formed.

Ports are exchanged for free ones. With MINIMCP_WRITE_PAGES=1 in the environment the outputs are written to the page
instead, where they differ: read what comes out before it is committed.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional
from unittest import mock

from tests.helpers import free_port

ROOT = Path(__file__).resolve().parent.parent
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_NAMED = re.compile(r"`([\w./-]+\.\w+)`:\s*\Z")
_PORTS = ("8000", "8001", "8002", "8003", "8009", "5000")
_BOUND_S = 60.0


class Block(NamedTuple):
    """A block of a page and what it prints.

    :ivar file: the name of the file that the block is, or "".
    :ivar stays: whether it is a server that runs until the end of the page.
    :ivar output: what the page says that it prints, and `span` where.
    """

    language: str
    code: str
    line: int
    file: str
    stays: bool
    output: Optional[str]
    span: tuple[int, int]


def blocks(page: str) -> list[Block]:
    """Return the blocks of a page."""
    found: list[Block] = []
    for match in FENCE.finditer(page):
        language, code = match.group(1), match.group(2)
        if language == "text":
            assert found and found[-1].output is None, f"a text after no block: {code[:60]!r}"
            found[-1] = found[-1]._replace(output=code, span=match.span(2))
            continue
        before = page[: match.start()]
        named = _NAMED.search(before)
        stays = before.endswith("<!-- runs on -->\n")
        line = before.count("\n") + 1
        found.append(Block(language, code, line, named.group(1) if named else "", stays, None, (0, 0)))
    return found


def matches(expected: str, actual: str) -> bool:
    """Say whether an output is the one that a page shows."""
    pattern = ""
    for line in _lines(expected):
        parts = (re.escape(part) for part in line.split("…"))
        pattern += r"(?:[^\n]*\n)*?" if line == "…" else "[^\n]*".join(parts) + "\n"
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in _lines(_COLOUR.sub("", actual)))) is not None


def merged(expected: str, actual: str) -> str:
    """Return an output for a page, with the lines of the page that still hold, and so with their `…`."""
    old, new = _lines(expected), _lines(_COLOUR.sub("", actual))
    if len(old) == len(new):
        new = [one if matches(one, other) else other for one, other in zip(old, new)]
    return "".join(f"{line}\n" for line in new)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip("\n").split("\n")]


class Page:
    """A page that is run in a folder.

    :param folder: where its files are written and its commands are typed.
    :param ports: ports of the page, and those of the servers that the test has started for it.
    """

    def __init__(self, path: Path, folder: Path, ports: Optional[dict[str, str]] = None) -> None:
        self.path, self.folder = path, folder
        self.text = path.read_text(encoding="utf-8")
        self._ports = {port: str(free_port()) for port in _PORTS if port in self.text}
        self._ports.update(ports or {})
        self._module = types.ModuleType(f"page_{path.stem.lower()}")
        self._programs = folder / ".programs"
        self._exports = self._programs / "exports"
        ours = ("MINIMCP", "PYTEST")
        self._environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        self._environment.update(
            PATH=f"{self._programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            PYTHONPATH=str(ROOT),
            PYTHONUNBUFFERED="1",
            PYTHONWARNINGS="ignore",
            NO_COLOR="1",
            COLUMNS="100",
        )

    def run(self) -> None:
        """Run all blocks in their order.

        :raises AssertionError: naming the line of the first one that prints something else.
        """
        # What earlier tests have left is dropped now, and not in the middle of a block, which would show a warning.
        gc.collect()
        self._write_programs()
        name, modules = self._module.__name__, set(sys.modules)
        sys.modules[name] = self._module
        sys.path.insert(0, str(self.folder))
        written: list[tuple[tuple[int, int], str]] = []
        try:
            # The blocks of Python run in this process.
            with contextlib.ExitStack() as stack, mock.patch.dict(os.environ, PATH=self._environment["PATH"]):
                for block in blocks(self.text):
                    where = f"{self.path.name}, line {block.line}"
                    actual = self._run(block, stack, where)
                    expected = self._with_free_ports(block.output or "")
                    if matches(expected, actual):
                        continue
                    if os.environ.get("MINIMCP_WRITE_PAGES") and block.output is not None:
                        written.append((block.span, merged(block.output, self._with_written_ports(actual))))
                        continue
                    raise AssertionError(f"{where} says\n\n{expected}\nand prints\n\n{actual}")
        finally:
            sys.path.remove(str(self.folder))
            for each in set(sys.modules) - modules:
                if (getattr(sys.modules[each], "__file__", None) or "").startswith(f"{self.folder}{os.sep}"):
                    del sys.modules[each]
            del sys.modules[name]
            for (start, end), output in reversed(written):
                self.text = self.text[:start] + output + self.text[end:]
            if written:
                self.path.write_text(self.text, encoding="utf-8")

    def _run(self, block: Block, stack: contextlib.ExitStack, where: str) -> str:
        """Run a block and return what it prints."""
        code = self._with_free_ports(block.code)
        if block.file:
            file = self.folder / block.file
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(code, encoding="utf-8")
            return ""
        if block.language == "python":
            return self._run_python(code, block.line, block.output is not None)
        if block.language == "json":
            json.loads(code)
            return ""
        assert block.language == "sh", f"{where}: no block can be {block.language!r}"
        if block.stays:
            return stack.enter_context(self._serving(code, self._with_free_ports(block.output or "")))
        child = subprocess.run(
            ["bash", "-c", f"set -a; . {self._exports}; trap 'export -p >{self._exports}' EXIT; {code}"],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_BOUND_S,
        )
        assert child.returncode == 0 or block.output is not None, f"{where}: {child.stdout}"
        assert "bash: " not in child.stdout, f"{where} is no command of a shell: {child.stdout}"
        return child.stdout

    def _run_python(self, code: str, line: int, may_fail: bool) -> str:
        out = io.StringIO()

        def show(message: Warning | str, category: type[Warning], *_: object) -> None:
            print(f"{category.__name__}: {message}", file=out)

        class Shown(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                if record.levelno == logging.WARNING:
                    print(record.getMessage(), file=out)

        handler = Shown()
        logging.getLogger("minimcp").addHandler(handler)
        # The lines of the page, so that what a traceback or a warning names is there.
        compiled = compile("\n" * line + code, str(self.path), "exec", dont_inherit=True)
        with contextlib.redirect_stdout(out), warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", ResourceWarning)
            warnings.showwarning = show  # type: ignore[assignment]
            try:
                exec(compiled, vars(self._module))
            except Exception as problem:
                if not may_fail:
                    raise
                last = "".join(traceback.format_exception_only(type(problem), problem))
                kind, _, said = last.partition(": ")
                print(f"{kind.rpartition('.')[2]}: {said}", end="", file=out)
            finally:
                logging.getLogger("minimcp").removeHandler(handler)
        return out.getvalue()

    @contextlib.contextmanager
    def _serving(self, code: str, expected: str) -> Iterator[str]:
        """Start a server and give what it has printed once that is what is expected."""
        child = subprocess.Popen(
            ["bash", "-c", f". {self._exports}; exec {code}"],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        changed, said, ended = threading.Condition(), [""], [False]

        def read() -> None:
            assert child.stdout is not None
            for line in child.stdout:
                with changed:
                    said[0] += line
                    changed.notify_all()
            with changed:
                ended[0] = True
                changed.notify_all()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            with changed:
                changed.wait_for(lambda: ended[0] or (said[0] and matches(expected, said[0])), _BOUND_S / 3)
                printed = said[0]
            yield printed
        finally:
            child.send_signal(signal.SIGINT)
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                pass
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait(10)
            reader.join(10)
            if child.stdout is not None:
                child.stdout.close()

    def _write_programs(self) -> None:
        """Write the commands that an installation has, for this interpreter and this checkout."""
        self._programs.mkdir()
        self._exports.touch()
        (self.folder / "minimcp").symlink_to(ROOT / "minimcp")
        for name, command in (("python", ""), ("minimcp", " -m minimcp"), ("pytest", " -m pytest")):
            program = self._programs / name
            # A server that a client starts does not get the client's variables.
            program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec "{sys.executable}"{command} "$@"\n')
            program.chmod(0o755)

    def _with_free_ports(self, text: str) -> str:
        return _exchanged(text, self._ports)

    def _with_written_ports(self, text: str) -> str:
        return _exchanged(text, {free: written for written, free in self._ports.items()})


def _exchanged(text: str, numbers: dict[str, str]) -> str:
    for old, new in numbers.items():
        text = re.sub(rf"(?<!\d){old}(?!\d)", new, text)
    return text
