"""Builders of content blocks: plain dicts with the specification's names. Spec: FEAT-040 to FEAT-047"""

from __future__ import annotations

import base64
import mimetypes
from typing import Any

Block = dict[str, Any]


def _with(block: Block, annotations: dict[str, Any] | None, meta: dict[str, Any] | None) -> Block:
    if annotations is not None:
        block["annotations"] = annotations
    if meta is not None:
        block["_meta"] = meta
    return block


def _base64(data: bytes | str) -> str:
    return data if isinstance(data, str) else base64.b64encode(data).decode("ascii")


def text(text: str, *, annotations: dict[str, Any] | None = None, meta: dict[str, Any] | None = None) -> Block:
    """Build a text block."""
    return _with({"type": "text", "text": text}, annotations, meta)


def image(
    data: bytes | str,
    mime_type: str = "image/png",
    *,
    annotations: dict[str, Any] | None = None,
    meta: dict[str, Any] | None = None,
) -> Block:
    """Build an image block from bytes, or from text that is base64 already."""
    return _with({"type": "image", "data": _base64(data), "mimeType": mime_type}, annotations, meta)


def audio(
    data: bytes | str,
    mime_type: str = "audio/wav",
    *,
    annotations: dict[str, Any] | None = None,
    meta: dict[str, Any] | None = None,
) -> Block:
    """Build an audio block from bytes, or from text that is base64 already."""
    return _with({"type": "audio", "data": _base64(data), "mimeType": mime_type}, annotations, meta)


def resource(
    uri: str,
    contents: str | bytes,
    mime_type: str | None = None,
    *,
    annotations: dict[str, Any] | None = None,
    meta: dict[str, Any] | None = None,
) -> Block:
    """Build a block that embeds a resource: text from str, a base64 blob from bytes."""
    return _with({"type": "resource", "resource": resource_contents(uri, contents, mime_type)}, annotations, meta)


def link(uri: str, name: str, **fields: Any) -> Block:
    """Build a link to a resource.

    :param fields: `title`, `description`, `mimeType`, `size`, `annotations`, `icons`, `_meta` as in the specification.
    """
    return {"type": "resource_link", "uri": uri, "name": name, **fields}


def resource_contents(uri: str, contents: str | bytes, mime_type: str | None = None) -> Block:
    """Build one item of a `resources/read` result, guessing the media type from the URI when none is given."""
    guessed = mime_type or mimetypes.guess_type(uri)[0]
    if isinstance(contents, str):
        return {"uri": uri, "mimeType": guessed or "text/plain", "text": contents}
    return {"uri": uri, "mimeType": guessed or "application/octet-stream", "blob": _base64(contents)}


def is_block(value: Any) -> bool:
    """Say whether a value is a content block: a dict with a known `type` and that type's own member."""
    return isinstance(value, dict) and _OWN_MEMBER.get(value.get("type", ""), "") in value


_OWN_MEMBER = {"text": "text", "image": "data", "audio": "data", "resource": "resource", "resource_link": "uri"}
