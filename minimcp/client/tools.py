"""Tools of a server as the client knows them: their headers, and the schemas that check their results."""

from __future__ import annotations

import logging
import threading
from typing import Any, Optional

from ..engines.errors import InvalidArguments, ProtocolError
from ..engines.schema.validator import Undecided, Validator
from ..protocol import headers

log = logging.getLogger("minimcp")

Message = dict[str, Any]


class Tools:
    """The tools seen in `tools/list`, by name; filled whenever a list comes in.

    :ivar complete: whether all pages of the list were asked for, so that there is no need to ask again.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards everything below
        self._known: dict[str, Message] = {}
        self._headers: dict[str, list[headers.Annotation]] = {}
        self._validators: dict[str, Optional[Validator]] = {}
        self._warned: set[tuple[str, str]] = set()  # names of tools, and about what
        self.complete = False

    def learn(self, listed: list[Any], over_http: bool) -> list[Message]:
        """Take note of listed tools and return the usable ones.

        One that is not a tool at all is dropped, and over HTTP one whose `x-mcp-header` annotations break the rules;
        the others pass unchanged. Spec: TRN-080, TRN-081, FEAT-016
        """
        usable = []
        for tool in listed:
            name = tool.get("name") if isinstance(tool, dict) else None
            if not isinstance(name, str) or not isinstance(tool.get("inputSchema"), dict):
                self._warn(str(name), "is left out: it has no name or no inputSchema")
                continue
            try:
                found = headers.annotated(tool["inputSchema"]) if over_http else []
            except (ValueError, RecursionError) as problem:
                self._warn(name, f"is left out: {problem}")
                continue
            with self._lock:
                if self._known.get(name) != tool:
                    self._known[name] = tool
                    self._headers[name] = found
                    self._validators.pop(name, None)
            usable.append(tool)
        return usable

    def _warn(self, name: str, reason: str, about: str = "") -> None:
        with self._lock:
            if (name, about) in self._warned or len(self._warned) > 1000:
                return
            self._warned.add((name, about))
        log.warning("the tool %.100r %.300s", name, reason)

    def get(self, name: str) -> Message | None:
        """Return the definition of a tool that was listed, or None."""
        return self._known.get(name)

    def annotations(self, name: Any) -> list[headers.Annotation]:
        """Return the arguments of a tool that go into headers too, [] for an unknown tool."""
        return self._headers.get(name, [])

    def forget(self) -> None:
        """Forget all tools: the server said that they changed."""
        with self._lock:
            self._known.clear()
            self._headers.clear()
            self._validators.clear()
            self.complete = False

    def check_output(self, name: str, result: Message) -> None:
        """Check a tool's result by its `outputSchema`, if the tool is known and has one. Spec: FEAT-022, FEAT-227

        What cannot be judged passes: the call has run, so its result is not thrown away.

        :raises ProtocolError: naming the tool.
        """
        schema = (self._known.get(name) or {}).get("outputSchema")
        if not schema or result.get("isError"):
            return
        if "structuredContent" not in result:
            raise ProtocolError(f"The tool {name!r} declares an outputSchema but returned no structuredContent")
        try:
            if name not in self._validators:
                self._validators[name] = None
                self._validators[name] = Validator(schema, "its outputSchema", foreign=True)
            validator = self._validators[name]
            if validator is not None:
                validator.check(result["structuredContent"])
        except (Undecided, ValueError) as reason:
            self._warn(name, f"has a result that is not judged: {reason}", "output")
        except InvalidArguments as problem:
            raise ProtocolError(f"The result of the tool {name!r} does not fit its outputSchema: {problem}") from None
