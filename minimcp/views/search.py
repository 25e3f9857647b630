"""Search mode: three tools by which a model finds, reads and calls tools of which there are too many for one list."""

from __future__ import annotations

import copy
import math
import re
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Optional

from ..engines.errors import InvalidArguments
from ..protocol.errors import ToolError
from ..server.catalog import Definition, Entry
from ..server.context import Context
from ..server.makers import make_tool

if TYPE_CHECKING:
    from ..protocol import types

Message = dict[str, Any]
Words = dict[str, float]

_MOST_FOUND = 50
_MOST_KEPT = 20_000
_LONGEST_TEXT = 300
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\d_A-Za-z]+")
_OF_NAME, _OF_TITLE, _OF_DESCRIPTION, _OF_ARGUMENTS = 8.0, 5.0, 2.0, 1.0
_OF_CALLS = {"name", "arguments"}
_ONLY_READS: types.ToolAnnotations = {"readOnlyHint": True, "openWorldHint": False}


class Search:
    """The tools `search_tools`, `describe_tool` and `call_tool` over a list of tools.

    :param listed: returns the definitions of all tools that a caller may see.
    :param least: True, or from how many tools on these are listed in place of the others.
    :ivar tools: their entries by name; the policy has no say about them, since it has one about what they show.
    :ivar definitions: of these.
    """

    def __init__(self, listed: Callable[[Context], list[Definition]], least: int) -> None:
        self._listed = listed
        self._least = 0 if least is True else least
        self._lock = threading.Lock()  # guards _known
        # The words of definitions by their ids; the definitions are kept with them, so that no id is used again.
        self._known: dict[int, tuple[Definition, Words]] = {}
        entries = [
            make_tool(self.search, "search_tools", annotations=_ONLY_READS),
            make_tool(self.describe, "describe_tool", annotations=_ONLY_READS),
            make_tool(self.call, "call_tool"),
        ]
        for entry in entries:
            entry.open = True
        self.tools: dict[str, Entry] = {entry.definition["name"]: entry for entry in entries}
        self.definitions = [entry.definition for entry in entries]

    def replaces(self, ctx: Context, definitions: Optional[list[Definition]] = None) -> bool:
        """Say whether a caller's list of tools has these three in place of the others.

        :param definitions: the others, where they are at hand.
        """
        return self._least == 0 or len(self._listed(ctx) if definitions is None else definitions) >= self._least

    def called(self, params: Message) -> Optional[Message]:
        """Return the params of the call that a call of `call_tool` stands for, or None for any other call."""
        arguments = params.get("arguments")
        if params.get("name") != "call_tool" or not isinstance(arguments, dict):
            return None
        name, passed = arguments.get("name"), arguments.get("arguments")
        if (
            not isinstance(name, str)
            or not (passed is None or isinstance(passed, dict))
            or arguments.keys() - _OF_CALLS
        ):
            return None
        return {**params, "name": name, "arguments": passed or {}}

    def search(self, ctx: Context, query: str, limit: int = 10) -> Message:
        """Search the tools of this server by words, for instance "create calendar event".

        Use it first: the tools themselves are not listed. Then read one with describe_tool and call it with call_tool.

        :param query: words of what the tool does; an empty text finds any.
        :param limit: the most tools to return, 50 at most.
        """
        definitions = self._listed(_listing(ctx))
        found = self.ranked(definitions, query)
        shown = [_short(each) for each in found[: max(1, min(limit, _MOST_FOUND))]]
        return {"tools": shown, "found": len(found), "total": len(definitions)}

    def describe(self, ctx: Context, name: str) -> Message:
        """Return the definition of a tool, with the JSON Schema of its arguments.

        :param name: as search_tools has it.
        """
        for definition in self._listed(_listing(ctx)):
            if definition["name"] == name:
                return definition
        raise ToolError(f"There is no tool {name[:100]!r}; find one with search_tools")

    def call(self, name: str, arguments: Optional[dict[str, Any]] = None) -> None:
        """Call a tool.

        :param name: as search_tools has it.
        :param arguments: as describe_tool describes them.
        """
        # The catalog has made any well-formed call into that of the tool itself.
        raise InvalidArguments("name is a text and arguments an object")

    def ranked(self, definitions: list[Definition], query: str) -> list[Definition]:
        """Return the definitions that have words of a query, the best first.

        A word counts by the place where it stands, and the more the fewer tools have it.
        """
        wanted = list(dict.fromkeys(_words(query)))
        if not wanted:
            return definitions
        words = [self._words_of(each) for each in definitions]
        spread = Counter(word for each in words for word in each)
        scores = []
        for number, each in enumerate(words):
            score = 0.0
            for word in wanted:
                weight, common = _best(word, each, spread)
                score += weight * math.log(1 + len(words) / (1 + common))
            if score > 0:
                scores.append((-score, number))
        return [definitions[number] for _, number in sorted(scores)]

    def _words_of(self, definition: Definition) -> Words:
        with self._lock:
            known = self._known.get(id(definition))
            if known is None:
                if len(self._known) >= _MOST_KEPT:
                    self._known.clear()
                known = self._known[id(definition)] = definition, _weighed(definition)
        return known[1]


def _listing(ctx: Context) -> Context:
    """Return the context of a list: rules about the arguments of a call have no say about what is found."""
    ctx = copy.copy(ctx)
    ctx.method, ctx.params = "tools/list", {}
    return ctx


def _short(definition: Definition) -> Message:
    text = definition.get("description")
    found: Message = {member: definition[member] for member in ("name", "title") if member in definition}
    if isinstance(text, str) and text:
        found["description"] = text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "..."
    return found


def _words(text: Any) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)] if isinstance(text, str) else []


def _weighed(definition: Definition) -> Words:
    """Return the words of a definition with the weight of the best place in which each stands."""
    found: Words = {}
    schema = definition.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    places = [
        *((_OF_NAME, definition["name"]), (_OF_TITLE, definition.get("title"))),
        (_OF_DESCRIPTION, definition.get("description")),
        *((_OF_ARGUMENTS, name) for name in (properties if isinstance(properties, dict) else ())),
    ]
    for weight, text in places:
        for word in _words(text):
            found.setdefault(word, weight)
    return found


def _best(word: str, words: Words, spread: Counter[str]) -> tuple[float, int]:
    """Return the weight of a word among those of a tool, and how many tools have it; half for the beginning of one."""
    if word in words:
        return words[word], spread[word]
    begun = [(words[each] / 2, spread[each]) for each in words if _related(word, each)]
    return max(begun, default=(0.0, 0))


def _related(word: str, other: str) -> bool:
    """Say whether one word begins with the other, or, where words are not set apart by spaces, has it in it."""
    if not word.isascii():
        return word in other or other in word
    shorter, longer = sorted((word, other), key=len)
    return len(shorter) >= 3 and longer.startswith(shorter)
