"""Differences among the legacy revisions: the first revision that has a field, a block or a rule."""

from __future__ import annotations

import re

# Older peers are not sent these members of tools, resources and prompts.
ITEM_FIELDS_SINCE = {
    "annotations": "2025-03-26",
    "title": "2025-06-18",
    "outputSchema": "2025-06-18",
    "_meta": "2025-06-18",
    "icons": "2025-11-25",
}
IMPLEMENTATION_FIELDS_SINCE = {
    "title": "2025-06-18",
    "description": "2025-11-25",
    "icons": "2025-11-25",
    "websiteUrl": "2025-11-25",
}
CAPABILITIES_SINCE = {"completions": "2025-03-26"}
BLOCKS_SINCE = {"audio": "2025-03-26", "resource_link": "2025-06-18"}
QUESTION_FIELDS_SINCE = {"mode": "2025-11-25", "tools": "2025-11-25", "toolChoice": "2025-11-25"}
# Defaults, titled choices and choices of several in elicitation forms. Spec: FEAT-185 to FEAT-190
FULL_FORMS_SINCE = "2025-11-25"
STRUCTURED_SINCE = "2025-06-18"
# The member of a result's `_meta` with structured content that the revision has no other place for.
STRUCTURED_META = "structuredContent"
# The keyword of an output schema that says whether its only member `result` stands for a value that is no object.
WRAPPED = "x-fastmcp-wrap-result"
# Tool arguments that do not fit are results with isError from here on, errors before. Spec: FEAT-031, FEAT-032
ARGUMENT_RESULTS_SINCE = "2025-11-25"

_EXTENSION = re.compile(r"[A-Za-z](?:[A-Za-z0-9.-]*[A-Za-z0-9])?/[A-Za-z0-9](?:[A-Za-z0-9._/-]*[A-Za-z0-9])?\Z")


def check_extension(identifier: object) -> None:
    """Check the identifier of an extension. Spec: EXT-001

    :raises ValueError: when it has no prefix.
    """
    if not isinstance(identifier, str) or not _EXTENSION.match(identifier):
        raise ValueError(f"An extension is named with a prefix, such as 'com.example/thing', not {identifier!r}")
