"""Tools of a server as the client knows them: their headers, and the schemas that check their results."""

from __future__ import annotations

import logging
import threading
from typing import Any, Optional

from ..engines.errors import InvalidArguments, ProtocolError
from ..engines.schema.validator import Validator, check_schema
from ..protocol import headers, revisions

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
        self._warned: set[str] = set()
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
                self._warn(str(name), "it has no name or no inputSchema")
                continue
            try:
                found = headers.annotated(tool["inputSchema"]) if over_http else []
            except (ValueError, RecursionError) as problem:
                self._warn(name, str(problem))
                continue
            with self._lock:
                if self._known.get(name) != tool:
                    self._known[name] = tool
                    self._headers[name] = found
                    self._validators.pop(name, None)
            usable.append(tool)
        return usable

    def _warn(self, name: str, reason: str) -> None:
        with self._lock:
            if name in self._warned or len(self._warned) > 1000:
                return
            self._warned.add(name)
        log.warning("the tool %.100r is left out: %.300s", name, reason)

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

    def wraps(self, name: str) -> bool:
        """Say whether the data of a tool are no object, so that they come as the only member `result` of one."""
        schema = (self._known.get(name) or {}).get("outputSchema")
        if not isinstance(schema, dict):
            return False
        properties = schema.get("properties")
        said = schema.get(revisions.WRAPPED)
        return said if isinstance(said, bool) else isinstance(properties, dict) and properties.keys() == {"result"}

    def check_output(self, name: str, result: Message) -> None:
        """Check a tool's result by its `outputSchema`, if the tool is known and has one. Spec: FEAT-022

        :raises ProtocolError: naming the tool.
        """
        tool = self._known.get(name)
        schema = tool.get("outputSchema") if tool else None
        if schema is None or result.get("isError"):
            return
        if "structuredContent" not in result:
            raise ProtocolError(f"The tool {name!r} declares an outputSchema but returned no structuredContent")
        if name not in self._validators:
            try:
                check_schema(schema, f"The outputSchema of {name!r}")
            except ValueError as problem:
                raise ProtocolError(str(problem)) from None
            self._validators[name] = Validator(schema)
        validator = self._validators[name]
        assert validator is not None
        try:
            validator.check(result["structuredContent"])
        except InvalidArguments as problem:
            raise ProtocolError(f"The result of the tool {name!r} does not fit its outputSchema: {problem}") from None
