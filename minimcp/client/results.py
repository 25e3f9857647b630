"""Results of calls: the dicts that came, with what people take them for: text, data and bytes, or a list."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from ..protocol import revisions


class Result(dict):  # type: ignore[type-arg]
    """The result of a call, a read or a prompt: a plain dict with the specification's names.

    :ivar wrapped: whether the member `result` of the structured content is the data, which is no object.
    """

    wrapped = False

    @property
    def text(self) -> str:
        """All text in it, joined by line breaks: of content blocks, a resource's contents, or a prompt's messages."""
        return "\n".join(block["text"] for block in self._blocks() if isinstance(block.get("text"), str))

    @property
    def data(self) -> Any:
        """The data of a tool's result, or None: the same in every revision, however the revision wraps it."""
        meta = self.get("_meta")
        kept = meta.get(revisions.STRUCTURED_META) if isinstance(meta, dict) else None
        found: Any = self.get("structuredContent", kept)
        return found["result"] if self.wrapped else found

    @property
    def bytes(self) -> Optional[bytes]:
        """The first binary part of it (a blob, image or sound), decoded, or None.

        :raises ValueError: when it is not Base64.
        """
        for block in self._blocks():
            raw = block.get("blob", block.get("data"))
            if isinstance(raw, str):
                return base64.b64decode(raw, validate=True)
        return None

    @property
    def is_error(self) -> bool:
        """True when the tool reports that it failed."""
        return self.get("isError") is True

    if not TYPE_CHECKING:  # A type checker would take every name for one of these.

        def __getattr__(self, name: str) -> Any:
            """Say where the members of a result are, which is a dict."""
            key = _camel(name)
            if key in _MEMBERS:
                raise AttributeError(f"A result is a dict with the specification's names: write result[{key!r}]")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _repr_html_(self) -> Optional[str]:
        """Return a result with pictures or sounds as a notebook shows it; None leaves it a dict."""
        from .notebook import media

        return media(self._blocks())

    def __await__(self) -> NoReturn:
        raise TypeError("The result is there already, since this client is synchronous: leave out await")

    def _blocks(self) -> list[dict[str, Any]]:
        blocks = self.get("content", self.get("contents"))
        if blocks is None:
            messages = _as_list(self.get("messages"))
            blocks = [item.get("content") for item in messages if isinstance(item, dict)]
        flat = [part for block in _as_list(blocks) for part in _as_list(block)]
        dicts = [block for block in flat if isinstance(block, dict)]
        # An embedded resource has its text one level down.
        return [block["resource"] if isinstance(block.get("resource"), dict) else block for block in dicts]


class Item(dict):  # type: ignore[type-arg]
    """A dict that a server sent, such as one tool of a list; whoever takes it for an object is told what to write."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Say how a member is read."""
            key = name if name in self else _camel(name)
            if key in self:
                told = f"This is a dict with the specification's names: write [{key!r}] in place of .{name}"
                raise AttributeError(told)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


class Listing(list):  # type: ignore[type-arg]
    """A list of tools, resources, templates or prompts."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Say that the list is not a member of something else."""
            if _camel(name) in _LISTS:
                raise AttributeError(f"This is the list itself: leave out .{name}")
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _repr_html_(self) -> Optional[str]:
        """Return the list as the table that a notebook shows."""
        from .notebook import table

        return table(self)

    def __await__(self) -> NoReturn:
        raise TypeError("The list is there already, since this client is synchronous: leave out await")


def listing(found: list[Any]) -> Listing:
    """Return a list that a server sent."""
    return Listing(Item(each) if isinstance(each, dict) else each for each in found)


_LISTS = ("tools", "resources", "resourceTemplates", "prompts")
_MEMBERS = ("content", "structuredContent", "isError", "contents", "messages", "description", "_meta")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _camel(name: str) -> str:
    """Return the specification's form of a name that is written with underscores."""
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest)) if first else name
