"""Builders of content blocks: plain dicts with the specification's names. Spec: FEAT-040 to FEAT-047"""

from __future__ import annotations

import base64
import re
import typing
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


def _base64(data: bytes | str) -> str:
    if isinstance(data, str):
        check_base64(data)
        return data
    return base64.b64encode(data).decode("ascii")


def text(
    text: str, *, annotations: types.Annotations | None = None, meta: dict[str, Any] | None = None
) -> types.TextContent:
    """Build a text block."""
    block: types.TextContent = {"type": "text", "text": text}
    return _with(block, annotations, meta)


def image(
    data: bytes | str,
    mime_type: str = "image/png",
    *,
    annotations: types.Annotations | None = None,
    meta: dict[str, Any] | None = None,
) -> types.ImageContent:
    """Build an image block from bytes, or from text that is base64 already."""
    block: types.ImageContent = {"type": "image", "data": _base64(data), "mimeType": mime_type}
    return _with(block, annotations, meta)


def audio(
    data: bytes | str,
    mime_type: str = "audio/wav",
    *,
    annotations: types.Annotations | None = None,
    meta: dict[str, Any] | None = None,
) -> types.AudioContent:
    """Build an audio block from bytes, or from text that is base64 already."""
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

    Content is None, text, a block, `(bytes, media type)`, or a list or tuple of these.
    """
    if value is None:
        return []
    if isinstance(value, (list, tuple)) and not is_media(value):
        parts = [blocks(item) for item in value if item is not None]
        if not value or any(part is None for part in parts):
            return None
        return [block for part in parts for block in part or ()]
    if isinstance(value, str):
        return [text(value)]
    if is_block(value):
        return [check_block(value)]
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
    """Say whether a value is a content block: a dict with a known `type` and that type's own member."""
    return isinstance(value, dict) and _OWN_MEMBER.get(str(value.get("type")), "") in value


_OWN_MEMBER = {"text": "text", "image": "data", "audio": "data", "resource": "resource", "resource_link": "uri"}

ROLES = ("user", "assistant")
SAMPLING_KINDS = ("text", "image", "audio", "tool_use", "tool_result")
# The members that each kind of block needs.
_NEEDED: dict[str, dict[str, Any]] = {
    "text": {"text": str},
    "image": {"data": str, "mimeType": str},
    "audio": {"data": str, "mimeType": str},
    "resource": {"resource": dict},
    "resource_link": {"uri": str, "name": str},
    "tool_use": {"id": str, "name": str, "input": dict},
    "tool_result": {"toolUseId": str, "content": list},
}
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")


def check_block(value: Any, kinds: tuple[str, ...] = tuple(_OWN_MEMBER)) -> Any:
    """Return a block that an author wrote, if it has what its kind needs. Spec: FEAT-040 to FEAT-047, FEAT-167

    :raises ValueError: with what is wrong.
    """
    kind: Any = value.get("type") if isinstance(value, dict) else None
    if kind not in kinds:
        raise ValueError(f"A content block is a dict whose type is one of {', '.join(kinds)}, not {kind!r}")
    check_members(f"A block of type {kind!r}", value, _NEEDED[kind])
    if "data" in _NEEDED[kind]:
        check_base64(value["data"])
    elif kind == "resource":
        check_contents(value["resource"])
    elif kind == "tool_result":
        for each in value["content"]:
            check_block(each)
    if "annotations" in value:
        check_annotations(value["annotations"])
    return value


def check_result(value: dict[str, Any]) -> dict[str, Any]:
    """Return a whole CallToolResult that an author wrote, if it is one. Spec: FEAT-021

    :raises ValueError: with what is wrong.
    """
    check_members("The result of a tool", {"isError": False, "_meta": {}, **value}, {"isError": bool, "_meta": dict})
    for each in value["content"]:
        check_block(each)
    return value


def check_contents(value: Any) -> Any:
    """Return contents of a resource that an author wrote, if they are such. Spec: FEAT-044, FEAT-061

    :raises ValueError: with what is wrong.
    """
    binary = isinstance(value, dict) and "text" not in value
    check_members("The contents of a resource", value, {"uri": str, "blob" if binary else "text": str})
    if binary:
        check_base64(value["blob"])
    return value


def check_role(message: Any) -> None:
    """Refuse what is no message: a dict with a role and content. Spec: FEAT-085, FEAT-158

    :raises ValueError: with what is wrong.
    """
    if not isinstance(message, dict) or message.get("role") not in ROLES or "content" not in message:
        raise ValueError('A message is a dict with content and the role "user" or "assistant"')


def check_annotations(value: Any) -> None:
    """Refuse annotations of content that have other values than the specification's. Spec: FEAT-047

    :raises ValueError: with what is wrong.
    """
    check_members("Annotations", value, {})
    audience, priority = value.get("audience", []), value.get("priority", 0)
    if not isinstance(audience, list) or any(each not in ROLES for each in audience):
        raise ValueError('The audience of annotations is a list of "user" and "assistant"')
    if isinstance(priority, bool) or not isinstance(priority, (int, float)) or not 0 <= priority <= 1:
        raise ValueError("The priority of annotations is a number from 0 to 1")
    if not isinstance(value.get("lastModified", ""), str):
        raise ValueError("lastModified is an ISO 8601 time as text")


def check_base64(data: str) -> None:
    """Refuse text that is not base64.

    :raises ValueError: always with the same words.
    """
    if len(data) % 4 or not _BASE64.fullmatch(data):
        raise ValueError("Binary data that is given as text is base64; give bytes to have it encoded")


def check_members(what: str, value: Any, needed: dict[str, Any]) -> None:
    """Refuse a value that is no dict, or that lacks one of these members.

    :param needed: the type of each, as for `isinstance`.
    :raises ValueError: naming the member.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{what} is a dict, not {type(value).__name__}")
    for name, kind in needed.items():
        member = value.get(name)
        if not isinstance(member, kind) or (isinstance(member, bool) and kind is not bool):
            raise ValueError(f"{what} needs {name!r} as {_JSON_NAMES.get(kind, 'a number')}, not {member!r:.100}")


_JSON_NAMES = {str: "text", dict: "an object", list: "a list", int: "a whole number", bool: "true or false"}


def as_list(value: Any) -> list[Any]:
    """Return the blocks of a sampling message, which may have one or a list."""
    return value if isinstance(value, list) else [value]


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
