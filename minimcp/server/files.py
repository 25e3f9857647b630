"""A folder as resources: its files listed, read and watched, and nothing outside it reached.

Spec: FEAT-058, FEAT-079, FEAT-080
"""

from __future__ import annotations

import errno
import logging
import mimetypes
import os
import stat
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Union
from urllib.parse import quote

from ..engines.fork import PerProcess
from ..protocol.errors import ResourceNotFound
from .uris import is_device

if TYPE_CHECKING:
    from .engine import Engine
    from .server import Server

log = logging.getLogger("minimcp")

_TEXT = ("text/", "application/json", "application/xml", "application/javascript", "application/toml")
_EXACT_NAMES = sys.platform in ("win32", "darwin")
# With these a path is opened folder by folder, so that none of them can be exchanged for a link meanwhile.
_BY_FOLDER = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")


class FileResources:
    """The files of a folder as resources, read only; `FileResources(root).add_to(server)`.

    Links are not followed, hidden files are left out, and a name that means a device is no file. The folder is looked
    through again when clients ask for the list or read, at most once in `watch_s`, and while a thread watches it, which
    begins with the first of these requests; clients learn of files that come, go or change.

    :param root: the folder.
    :param uri: what the URIs begin with.
    :param hidden: whether files and folders whose names begin with a dot are served.
    :param max_bytes: the largest file that is listed and read.
    :param max_files: the most files that are listed; a folder with more is served in part, with a warning in the log.
    :param watch_s: the seconds between two looks.
    :raises NotADirectoryError: when there is no such folder.
    """

    def __init__(
        self,
        root: Union[str, os.PathLike[str]],
        uri: str = "files:///",
        *,
        hidden: bool = False,
        max_bytes: int = 8 * 1024 * 1024,
        max_files: int = 10_000,
        watch_s: float = 2.0,
    ) -> None:
        self._root = os.path.realpath(root)
        if not os.path.isdir(self._root):
            raise NotADirectoryError(errno.ENOTDIR, "There is no folder", os.fspath(root))
        self._uri = uri
        self._hidden = hidden
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._watch_s = watch_s
        self._lock = PerProcess(threading.Lock)  # guards what follows
        self._known: dict[str, tuple[int, int]] = {}  # URI: size and time of change
        self._looked = float("-inf")
        self._warned = False
        self._watcher = PerProcess(_Watcher)
        self._server: Any = None

    def add_to(self, server: Server, **options: Any) -> FileResources:
        """Serve the folder.

        :param options: of `server.resource`, such as `roles=` or `allow=`, for all files.
        """
        self._server, self._options = weakref.ref(server), options

        def read(path: str) -> Any:
            return self._read(path.split("/"))

        server.resource(self._uri + "{+path}", name="file", **options)(read)
        self._look_first(server.engine)
        # The requests of a server that this one is mounted into are about these files, too.
        server.engine.on_mount.append(self._look_first)
        self.refresh()
        return self

    def _look_first(self, engine: Engine) -> None:
        """Have the folder looked through before the requests about resources."""
        for methods in engine.methods.values():
            for name in ("resources/list", "resources/read", "resources/subscribe", "subscriptions/listen"):
                if name in methods:
                    methods[name] = methods[name]._replace(handler=self._before(methods[name].handler))

    def _before(self, handler: Any) -> Any:
        """Wrap a handler, so that the folder is looked through first."""

        def run(ctx: Any, params: Any) -> Any:
            if time.monotonic() - self._looked > self._watch_s:
                self.refresh()
            self._watcher().start(self, self._watch_s)
            return handler(ctx, params)

        return run

    def refresh(self) -> None:
        """Look through the folder now, and tell clients what has changed."""
        server = self._server() if self._server is not None else None
        if server is None:
            return
        with self._lock():
            self._looked = time.monotonic()
            found: dict[str, tuple[list[str], tuple[int, int]]] = {}
            for parts, state in self._files():
                if len(found) >= self._max_files:
                    if not self._warned:
                        log.warning("%s has more than %d files; the rest is not listed", self._root, self._max_files)
                    self._warned = True
                    break
                found[self._uri_of(parts)] = (parts, state)
            before, self._known = self._known, {uri: state for uri, (_, state) in found.items()}
            for uri in before.keys() - found.keys():
                server.remove_resource(uri)
            for uri, (parts, state) in found.items():
                if uri not in before or before[uri][0] != state[0]:
                    self._register(server, uri, parts, state[0])
            changed = [uri for uri, state in before.items() if uri in self._known and self._known[uri] != state]
        for uri in changed:
            server.updated(uri)

    def close(self) -> None:
        """End the watching."""
        self._watcher().stop()

    def _register(self, server: Server, uri: str, parts: list[str], size: int) -> None:
        def read() -> Any:
            return self._read(parts)

        path = "/".join(parts)
        options = {"name": path, "mime_type": _mime_type(parts[-1]), "size": size, **self._options}
        server.resource(uri, **options)(read)

    def _uri_of(self, parts: list[str]) -> str:
        return self._uri + "/".join(quote(part, safe="") for part in parts)

    def _files(self) -> Iterator[tuple[list[str], tuple[int, int]]]:
        """Yield the path and the state of each file, folder by folder in the order of names."""
        folders: list[list[str]] = [[]]
        while folders:
            parts = folders.pop()
            try:
                with os.scandir(os.path.join(self._root, *parts)) as entries:
                    entries = sorted(entries, key=lambda entry: entry.name)  # type: ignore[assignment]
            except OSError:
                continue
            below = []
            for entry in entries:
                try:
                    entry.name.encode("utf-8")
                    if not self._serves(entry.name) or entry.is_symlink():
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        below.append([*parts, entry.name])
                        continue
                    found = entry.stat(follow_symlinks=False)
                except (OSError, UnicodeEncodeError):
                    continue
                if stat.S_ISREG(found.st_mode) and found.st_size <= self._max_bytes:
                    yield [*parts, entry.name], (found.st_size, found.st_mtime_ns)
            folders += reversed(below)

    def _serves(self, name: str) -> bool:
        """Say whether a name can be that of a served file or folder."""
        if not name or name in (".", "..") or set(name) & set("/\\\0") or is_device(name):
            return False
        return self._hidden or not name.startswith(".")

    def _read(self, parts: list[str]) -> Any:
        """Return the content of a file: text where its type and bytes say so.

        :raises ResourceNotFound: when it is not a file that is served.
        """
        missing = ResourceNotFound("Resource not found", {"uri": self._uri_of(parts)[:200]})
        if not all(map(self._serves, parts)):
            raise missing
        try:
            with os.fdopen(self._open(parts), "rb") as file:
                found = os.fstat(file.fileno())
                if not stat.S_ISREG(found.st_mode) or found.st_size > self._max_bytes:
                    raise missing
                data = file.read(self._max_bytes + 1)
        except (OSError, ValueError):
            raise missing from None
        if len(data) > self._max_bytes:
            raise missing
        mime_type = _mime_type(parts[-1])
        if mime_type is None or mime_type.startswith(_TEXT):
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError:
                pass
            else:
                return {"contents": [{"uri": self._uri_of(parts), "mimeType": mime_type or "text/plain", "text": text}]}
        return data, mime_type or "application/octet-stream"

    def _open(self, parts: list[str]) -> int:
        """Open a file below the root, following no link.

        :raises OSError: when there is none.
        """
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        if not _BY_FOLDER:
            path = os.path.join(self._root, *parts)
            if os.path.realpath(path) != path:
                raise FileNotFoundError(path)
            return os.open(path, flags)
        folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name in parts[:-1]:
                _check_name(folder, name)
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = below
            _check_name(folder, parts[-1])
            return os.open(parts[-1], flags, dir_fd=folder)
        finally:
            os.close(folder)


def _check_name(folder: int, name: str) -> None:
    """Refuse another spelling of a name, where the system would find it all the same."""
    if _EXACT_NAMES and name not in os.listdir(folder):
        raise FileNotFoundError(name)


def _mime_type(name: str) -> str | None:
    return {".md": "text/markdown", ".toml": "application/toml"}.get(os.path.splitext(name)[1]) or mimetypes.guess_type(
        name
    )[0]


class _Watcher:
    """The thread that looks through a folder from time to time, while its server lives."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _thread
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()

    def start(self, files: FileResources, watch_s: float) -> None:
        """Begin to watch, unless that has begun."""
        with self._lock:
            if self._thread is None and not self._ended.is_set():
                arguments = weakref.ref(files), watch_s
                self._thread = threading.Thread(target=self._run, args=arguments, name="minimcp-files", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(10)

    def _run(self, files: weakref.ref[FileResources], watch_s: float) -> None:
        while not self._ended.wait(watch_s):
            found = files()
            if found is None or found._server() is None:
                return
            try:
                found.refresh()
            except Exception:
                log.exception("a folder of resources could not be looked through")
            del found
