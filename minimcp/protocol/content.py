"""Builders of content blocks: plain dicts with the specification's names. Spec: FEAT-040 to FEAT-047"""

from __future__ import annotations

import base64
import os
import re
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from . import types

B = TypeVar("B")


class Raw(dict):  # type: ignore[type-arg]
    """A result as it is to go over the wire, with members that this version does not know.

    A handler that returns one is not interpreted: `resultType` and `_meta` that are there stay, and the revision's
    envelope only adds what is missing. A relay returns another server's result in this way.
    """


def _with(block: B, annotations: types.Annotations | None, meta: dict[str, Any] | None) -> B:
    optional: Any = block
    if annotations is not None:
        optional["annotations"] = annotations
    if meta is not None:
        optional["_meta"] = meta
    return block


def _base64(data: bytes | str | os.PathLike[str]) -> str:
    if isinstance(data, os.PathLike):
        with open(data, "rb") as file:
            data = file.read()
    if not isinstance(data, str):
        return base64.b64encode(data).decode("ascii")
    if not is_base64(data):
        # A text may be anybody's, so that no file is opened for it.
        raise ValueError(f"{data[:100]!r} is no base64; give bytes, or the path of a file: Path({data[:100]!r})")
    return data


def _media_type(data: bytes | str | os.PathLike[str], default: str) -> str:
    """Return the media type of a path, or the default.

    :raises ValueError: for a path whose name has another kind of type.
    """
    if not isinstance(data, os.PathLike):
        return default
    import mimetypes

    kind, found = default.partition("/")[0], mimetypes.guess_type(data)[0]
    if found is None or not found.startswith(f"{kind}/"):
        raise ValueError(f"The name of {os.fspath(data)} does not say which {kind} it is; give mime_type=")
    return found


_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")


def is_base64(data: str) -> bool:
    """Say whether text is base64 as the wire has it: padded, on one line. Spec: FEAT-041"""
    return len(data) % 4 == 0 and _BASE64.fullmatch(data) is not None


def text(
    text: str, *, annotations: types.Annotations | None = None, meta: dict[str, Any] | None = None
) -> types.TextContent:
    """Build a text block."""
    block: types.TextContent = {"type": "text", "text": text}
    return _with(block, annotations, meta)


def image(
    data: bytes | str | os.PathLike[str],
    mime_type: str | None = None,
    *,
    annotations: types.Annotations | None = None,
    meta: dict[str, Any] | None = None,
) -> types.ImageContent:
    """Build an image block from bytes, from the path of a file, or from text that is base64 already.

    :param mime_type: by default that of the path, or image/png.
    """
    mime_type = mime_type or _media_type(data, "image/png")
    block: types.ImageContent = {"type": "image", "data": _base64(data), "mimeType": mime_type}
    return _with(block, annotations, meta)


def audio(
    data: bytes | str | os.PathLike[str],
    mime_type: str | None = None,
    *,
    annotations: types.Annotations | None = None,
    meta: dict[str, Any] | None = None,
) -> types.AudioContent:
    """Build an audio block from bytes, from the path of a file, or from text that is base64 already.

    :param mime_type: by default that of the path, or audio/wav.
    """
    mime_type = mime_type or _media_type(data, "audio/wav")
    block: types.AudioContent = {"type": "audio", "data": _base64(data), "mimeType": mime_type}
    return _with(block, annotations, meta)


def resource(
    uri: str,
    contents: str | bytes,
    mime_type: str | None = None,
    *,
    annotations: types.Annotations | None = None,
    meta: dict[str, Any] | None = None,
) -> types.EmbeddedResource:
    """Build a block that embeds a resource: text from str, a base64 blob from bytes."""
    block: types.EmbeddedResource = {"type": "resource", "resource": resource_contents(uri, contents, mime_type)}
    return _with(block, annotations, meta)


def link(uri: str, name: str, **fields: Any) -> types.ResourceLink:
    """Build a link to a resource.

    :param fields: `title`, `description`, `mimeType`, `size`, `annotations`, `icons`, `_meta` as in the specification.
    """
    return cast("types.ResourceLink", {"type": "resource_link", "uri": uri, "name": name, **fields})


def resource_contents(
    uri: str, contents: str | bytes, mime_type: str | None = None
) -> types.TextResourceContents | types.BlobResourceContents:
    """Build one item of a `resources/read` result, guessing the media type from the URI when none is given."""
    guessed = mime_type
    if guessed is None:
        import mimetypes

        guessed = mimetypes.guess_type(uri)[0]
    if isinstance(contents, str):
        return {"uri": uri, "mimeType": guessed or "text/plain", "text": contents}
    return {"uri": uri, "mimeType": guessed or "application/octet-stream", "blob": _base64(contents)}


def blocks(value: Any) -> list[Any] | None:
    """Return the content blocks of a value that is content, or None when it is data.

    Content is None, text, a block, `(bytes, media type)`, or a list or tuple of these that is not empty.
    """
    if not isinstance(value, (list, tuple)) or is_media(value):
        return _blocks(value)
    parts = [_blocks(item) for item in value]
    if not value or any(part is None for part in parts):
        return None
    return [block for part in parts for block in part or ()]


def _blocks(value: Any) -> list[Any] | None:
    if value is None:
        return []
    if isinstance(value, str):
        return [text(value)]
    if is_block(value):
        return [value]
    if is_media(value):
        data, mime_type = value
        if mime_type.startswith("image/"):
            return [image(data, mime_type)]
        if mime_type.startswith("audio/"):
            return [audio(data, mime_type)]
        return [resource("data:" + mime_type, data, mime_type)]
    return None


def is_media(value: Any) -> bool:
    """Say whether a value is `(bytes, media type)`."""
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], bytes) and isinstance(value[1], str)


def is_block(value: Any) -> bool:
    """Say whether a value is a content block: a dict with a known `type` and all that a block of that type needs."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "resource":
        return is_contents(value.get("resource"))
    if kind in ("image", "audio") and not (isinstance(value.get("data"), str) and is_base64(value["data"])):
        return False
    needed = _NEEDED.get(kind) if isinstance(kind, str) else None
    return needed is not None and all(isinstance(value.get(member), str) for member in needed)


_NEEDED = {
    "text": ("text",),
    "image": ("data", "mimeType"),
    "audio": ("data", "mimeType"),
    "resource_link": ("uri", "name"),
}


def is_contents(value: Any) -> bool:
    """Say whether a value is an item of a `resources/read` result: a dict with a `uri`, and a `text` or `blob`."""
    members = ("uri", "blob" if isinstance(value, dict) and "blob" in value else "text")
    return isinstance(value, dict) and all(isinstance(value.get(member), str) for member in members)


def is_message(value: Any) -> bool:
    """Say whether a value is a message of a prompt, with a block or anything that becomes one as its content."""
    return isinstance(value, dict) and value.get("role") in ("user", "assistant") and "content" in value


def is_result(value: Any, member: str, is_item: Callable[[Any], bool]) -> bool:
    """Say whether a value is a whole result: a dict with a list of nothing but items, and no member of another result.

    :param member: the name of the list: "content", "contents" or "messages".
    """
    if isinstance(value, Raw):
        return True
    if not isinstance(value, dict) or not isinstance(value.get(member), list) or not value.keys() <= _MEMBERS[member]:
        return False
    flags = isinstance(value.get("isError", False), bool) and isinstance(value.get("_meta", {}), dict)
    return flags and all(map(is_item, value[member]))


_MEMBERS = {
    "content": {"content", "structuredContent", "isError", "_meta"},
    "contents": {"contents", "ttlMs", "cacheScope", "_meta"},
    "messages": {"messages", "description", "_meta"},
}


def is_content_hint(hint: Any) -> bool:
    """Say whether a hint is a content shape of `types`, bytes with their media type, or a list or union of these.

    A tool that returns content blocks is annotated `-> list`, `-> ImageContent`, or not at all.
    """
    if getattr(hint, "__module__", "") == _SHAPES:
        return str(hint.__name__).endswith(_CONTENT)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple and arguments == (bytes, str):
        return True
    return any(is_content_hint(argument) for argument in arguments)


# By name, so that `types` need not be loaded.
_SHAPES = f"{__package__}.types"
_CONTENT = ("Content", "EmbeddedResource", "ResourceLink", "CallToolResult")
