"""Blocks and forms that not every revision has, and the check of what leaves in one."""

from __future__ import annotations

from tests import official

LEGACY = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")

TEXT = {"type": "text", "text": "Hi"}
IMAGE = {"type": "image", "data": "aGk=", "mimeType": "image/png"}
AUDIO = {"type": "audio", "data": "aGk=", "mimeType": "audio/wav"}
USE = {"type": "tool_use", "id": "1", "name": "t", "input": {}}
DONE = {"type": "tool_result", "toolUseId": "1", "content": [TEXT, {**AUDIO, "_meta": {"a": 1}}], "isError": False}
TOOL = {"name": "t", "inputSchema": {"type": "object"}, "description": "d"}
FIELDS = {
    "plain": {"type": "string", "title": "T", "description": "D", "minLength": 1, "maxLength": 9, "default": "x"},
    "mail": {"type": "string", "format": "email"},
    "real": {"type": "number", "minimum": 0.5, "maximum": 2, "default": 1.5},
    "whole": {"type": "integer", "default": 3},
    "flag": {"type": "boolean", "default": True},
    "one": {"type": "string", "enum": ["a", "b"], "default": "a"},
    "titled": {"type": "string", "oneOf": [{"const": "a", "title": "A"}], "default": "a"},
    "old": {"type": "string", "enum": ["a"], "enumNames": ["A"]},
}
SEVERAL = {"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "minItems": 0, "default": ["a"]}
TITLES = {"type": "array", "items": {"anyOf": [{"const": "a", "title": "A"}]}, "maxItems": 1}


def form(**fields):
    return {"type": "object", "properties": fields}


def user(content):
    return [{"role": "user", "content": content}]


def fits(version, name, value):
    """Assert that a value is one of a definition, and has nothing that it does not define."""
    assert official._first(version, name, value) is None
    assert official.undefined(version, name, value) is None
