"""The command `dev`: serves a Python file, and starts it again whenever it or a file beside it changes.

The clients are connected to a gateway in this process, so that they stay connected while the server behind it goes and
comes. It is in the gateway's place only once the changed file has loaded.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Optional

from ..client import python_files
from ..client.client import Client
from ..client.transports.server_lines import ServerLines
from ..client.variables import verbatim
from ..engines.errors import ClientError
from ..gateway import config
from ..gateway.gateway import Gateway
from ..server.screen import say
from .bridge import DAY_S, LONGEST_S, allow_hosts
from .gateway_command import complain, serve, serving_options
from .watched_files import WatchedFiles

Message = dict[str, Any]
Offer = dict[tuple[str, str], Any]  # what a server lists, by its kind and its name

_STARTS_IN_S = 30.0
_STOP_S = 10.0
_EVERYTHING = frozenset({"tools", "resources", "prompts", "completions", "subscribe", "logging"})


def dev(options: Any) -> int:
    """Serve until the client hangs up, or Ctrl-C.

    :param options: those of `run` without TLS, and `watch`, further files and folders.
    """
    from ..transports import stdio

    # Taken away before anything else happens, so that nothing else reaches the protocol.
    pipes = stdio.take_pipes() if options.http is None else None
    path, _ = python_files.split(options.target)
    try:
        if not os.path.isfile(path):
            raise ValueError(python_files.no_file(path))
        python_files.check_hidden(path, os.curdir)
        files = WatchedFiles([os.path.dirname(os.path.abspath(path)), *options.watch])
        restarts = Restarts(options, path, files)
        made = restarts.begin()
    except (OSError, ValueError) as problem:
        return complain(problem, 2)
    allow_hosts(made, options.allow_host)
    restarts.start()
    try:
        return serve(made, options, pipes)
    finally:
        restarts.stop()


class _Front(Gateway):
    """A gateway for one server that is being written: whatever it may offer later is offered from the start."""

    def __init__(self, settings: config.Settings, lines: ServerLines, **options: Any) -> None:
        self._lines = lines
        super().__init__(settings, **options)
        self.federation._offers = _EVERYTHING

    def _upstream(self, settings: config.UpstreamSettings) -> Any:
        made = super()._upstream(settings)
        made.log_line = self._lines  # type: ignore[method-assign]
        return made


class Restarts:
    """Starts the server of a file anew when files have changed.

    :param files: those that are looked at.
    """

    def __init__(self, options: Any, path: str, files: WatchedFiles) -> None:
        self._options = options
        self._path = path
        self._files = files
        self._lines = ServerLines()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="minimcp-dev", daemon=True)
        # Only the thread uses these once it runs.
        self._offer: Optional[Offer] = None
        self._times = 0
        self._front: Optional[_Front] = None

    def begin(self) -> Gateway:
        """Start the server the first time, and return the gateway in front of it; it has none if that fails."""
        name, version = os.path.splitext(os.path.basename(self._path))[0], "0"
        found = self._look()
        if found is not None:
            name, version, self._offer = found
        settings = self._settings(name)
        self._front = _Front(settings, self._lines, version=version, **serving_options(self._options))
        told = f"{self._path} is served as {name}" if found else f"{self._path} is not served until it loads"
        say(f"{told}; {self._files.told()} for changes")
        return self._front

    def start(self) -> None:
        """Watch the files, on a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer; a start in progress is waited for."""
        self._stopping.set()
        self._thread.join(_STOP_S)

    def _settings(self, name: str) -> config.Settings:
        front: Message = {"name": name[:100], "status": False, "path": self._options.path or "/mcp"}
        # It has just started, so that it will again, however long that takes.
        front["listTimeout"] = _STARTS_IN_S
        if self._options.public:
            front["auth"] = "public"
        entry = {**verbatim(self._entry()), "prefix": "", "probe": 0, "timeout": LONGEST_S, "maxTimeout": DAY_S}
        settings = config.read({"mcpServers": {"server": entry}, "gateway": front})
        if self._offer is None:
            return settings._replace(upstreams={})
        # It is another server with each start, which takes the place of the one before.
        (only,) = settings.upstreams.values()
        self._times += 1
        return settings._replace(upstreams={"server": only._replace(fingerprint=str(self._times))})

    def _entry(self) -> Message:
        """Return the entry of the server, which gets the whole environment, as `run` has it."""
        entry = python_files.entry(self._options.target)
        # A file that is changed twice in one second would otherwise be taken for the one that is cached.
        env = {**os.environ, **entry["env"], "PYTHONDONTWRITEBYTECODE": "1"}
        words = ["--", *self._options.words] if self._options.words else []
        return {"command": entry["command"], "args": [*entry["args"], *words], "env": env}

    def _look(self) -> Optional[tuple[str, str, Offer]]:
        """Start the server for itself, and return its name, its version and what it offers; None when it fails."""
        try:
            with Client(verbatim(self._entry()), stderr=self._lines, timeout=_STARTS_IN_S) as client:
                offer: Offer = {}
                offer.update((("tool", each["name"]), each) for each in client.list_tools())
                offer.update((("resource", each["uri"]), each) for each in client.list_resources())
                offer.update((("template", each["uriTemplate"]), each) for each in client.list_resource_templates())
                offer.update((("prompt", each["name"]), each) for each in client.list_prompts())
                info = client.server_info
                return str(info.get("name")), str(info.get("version")), offer
        except ClientError as problem:
            if "exited with code" not in str(problem):
                say(f"minimcp: {problem}")
            return None

    def _watch(self) -> None:
        while True:
            changed = self._files.wait(self._stopping)
            if changed is None:
                return
            try:
                self._restart(changed)
            except Exception as problem:
                say(f"minimcp: {self._path} could not be started again: {problem!r}")

    def _restart(self, changed: list[str]) -> None:
        began = time.monotonic()
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        say(f"{changed[0]}{more} changed: starting {self._path} again")
        found = self._look()
        if self._stopping.is_set():
            return
        if found is None:
            rest = "the server goes on as it was before" if self._offer is not None else "nothing is served"
            say(f"{self._path} does not load: {rest}, until the next change")
            return
        before = self._offer or {}
        name, _, self._offer = found
        assert self._front is not None
        self._front.reload(self._settings(name))
        took = time.monotonic() - began
        say(f"{self._path} is there again after {took:.1f} s: {_difference(before, self._offer)}")


def _difference(before: Offer, after: Offer) -> str:
    """Say what a server offers that it did not, and the other way round."""
    parts = [f"+ {' '.join(key)}" for key in after if key not in before]
    parts += [f"- {' '.join(key)}" for key in before if key not in after]
    parts += [f"~ {' '.join(key)}" for key in after if key in before and before[key] != after[key]]
    return ", ".join(parts[:20]) + (", ..." if len(parts) > 20 else "") or "it offers the same"
