"""Changes of one member in JSON with comments: everything else in the text stays, byte for byte."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minimcp.cli import jsonc
from minimcp.client import host_files

PLACE = ["servers", "new"]
ENTRY = {"command": "p", "args": ["a"]}

CASES = {
    "nothing": (
        "",
        '{\n  "servers": {\n    "new": {\n      "command": "p",\n      "args": [\n        "a"\n      ]\n'
        "    }\n  }\n}\n",
    ),
    "an empty object": ("{}", '{\n  "servers": {\n    "new": 1\n  }\n}'),
    "no servers yet": ('{\n    "a": 1\n}\n', '{\n    "a": 1,\n    "servers": {\n        "new": 1\n    }\n}\n'),
    "tabs": ('{\n\t"servers": {}\n}', '{\n\t"servers": {\n\t\t"new": 1\n\t}\n}'),
    "one line": ('{"servers": {"x": {}}, "b": 2}', '{"servers": {"x": {}, "new": 1}, "b": 2}'),
    "a comma before the end": (
        '{\n  "servers": {\n    "x": {},\n  },\n}\n',
        '{\n  "servers": {\n    "x": {},\n    "new": 1,\n  },\n}\n',
    ),
    "comments": (
        '// mine\n{\n  "servers": { // all\n    "x": {} // "last", {really}\n    /* the end */\n  } /* of it */\n}\n',
        '// mine\n{\n  "servers": { // all\n    "x": {}, // "last", {really}\n    "new": 1\n    /* the end */\n'
        "  } /* of it */\n}\n",
    ),
    "only a comment": (
        '{\n  "servers": {\n    // none yet\n  }\n}\n',
        '{\n  "servers": {\n    // none yet\n    "new": 1\n  }\n}\n',
    ),
    "carriage returns": (
        '{\r\n  "servers": {\r\n    "x": {} // one\r\n  }\r\n}\r\n',
        '{\r\n  "servers": {\r\n    "x": {}, // one\r\n    "new": 1\r\n  }\r\n}\r\n',
    ),
    "braces and quotes in texts": (
        '{"a": "}{\\" // no", "servers": {"}": ["]"]}}',
        '{"a": "}{\\" // no", "servers": {"}": ["]"], "new": 1}}',
    ),
}


@pytest.mark.parametrize(("text", "expected"), CASES.values(), ids=CASES)
def test_a_member_is_put_at_the_end_and_nothing_else_moves(text, expected):
    value = ENTRY if not text else 1
    assert jsonc.put(text, PLACE, value) == expected


@pytest.mark.parametrize("text", [text for text, _ in CASES.values() if '"servers"' in text])
def test_what_was_put_and_taken_is_as_if_nothing_had_been(text):
    changed = jsonc.take(jsonc.put(text, PLACE, ENTRY), PLACE)
    assert changed == text or (re.sub(r"\{\s*\}", "{}", changed) == re.sub(r"\{\s*\}", "{}", text))


def test_a_member_that_is_there_is_replaced_where_it_stands():
    text = '{\n  "servers": {\n    "new": {"old": true}, // mine\n    "x": 1\n  }\n}\n'
    assert jsonc.put(text, PLACE, {"a": 1}) == (
        '{\n  "servers": {\n    "new": {\n      "a": 1\n    }, // mine\n    "x": 1\n  }\n}\n'
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"servers": {"new": 1, "x": 2}}', '{"servers": {"x": 2}}'),
        ('{"servers": {"x": 2, "new": 1}}', '{"servers": {"x": 2}}'),
        ('{"servers": { "new": 1 }}', '{"servers": {}}'),
        ('{"servers": {\n  "x": 2, // two\n  "new": 1 // new\n}}', '{"servers": {\n  "x": 2 // two\n}}'),
        ('{"servers": {\n  "new": [\n    1\n  ],\n  "x": 2\n}}', '{"servers": {\n  "x": 2\n}}'),
        ('{"servers": {\n  // about new\n  "new": 1\n}}', '{"servers": {\n  // about new\n}}'),
        ('{"servers": {"x": 2}}', '{"servers": {"x": 2}}'),
        ('{"other": {"new": 2}}', '{"other": {"new": 2}}'),
    ],
)
def test_a_member_is_taken_with_what_is_said_of_it_on_its_line(text, expected):
    assert jsonc.take(text, PLACE) == expected


@pytest.mark.parametrize("text", ["[]", '{"servers": []}', '{"servers": null}', "5"])
def test_something_else_than_an_object_is_refused(text):
    with pytest.raises(ValueError, match="is not (an|a JSON) object"):
        jsonc.put(text, PLACE, 1)


GAPS = st.sampled_from(["", " ", "\n", "\n  ", " // a } comment\n", '/* "x": { */', "\t", "\r\n"])
NAMES = st.sampled_from(["a", "b", "new", "servers", "}", '"', "\\", "é", "// x"])


@st.composite
def written(draw, depth=2):
    """A text of JSON with comments, and its value."""
    kind = draw(st.sampled_from(["object", "list", "text", "number"] if depth else ["text", "number"]))
    gap = lambda: draw(GAPS)  # noqa: E731
    if kind in ("text", "number"):
        value = draw(NAMES) if kind == "text" else draw(st.integers(-5, 5))
        return json.dumps(value), value
    values = draw(st.lists(written(depth - 1), max_size=3))
    comma = draw(st.booleans()) and values
    if kind == "list":
        inner = ",".join(gap() + text + gap() for text, _ in values)
        return f"[{inner}{',' if comma else ''}{gap()}]", [value for _, value in values]
    names = draw(st.lists(NAMES, min_size=len(values), max_size=len(values), unique=True))
    parts = [f"{gap()}{json.dumps(name)}{gap()}:{gap()}{text}{gap()}" for name, (text, _) in zip(names, values)]
    return f"{{{','.join(parts)}{',' if comma else ''}{gap()}}}", dict(zip(names, (value for _, value in values)))


@given(written(), GAPS, GAPS)
def test_any_text_means_the_same_but_for_the_member_and_keeps_its_comments(found, before, after):
    text, value = f"{before}{found[0]}{after}", found[1]
    if not isinstance(value, dict) or not isinstance(value.get("servers", {}), dict):
        with pytest.raises(ValueError):
            jsonc.put(text, PLACE, 1)
        return
    changed = jsonc.put(text, PLACE, ENTRY)
    assert host_files.parsed(changed) == {**value, "servers": {**value.get("servers", {}), "new": ENTRY}}
    assert changed.count("a } comment") == text.count("a } comment")
    back = host_files.parsed(jsonc.take(changed, PLACE))
    left = {name: each for name, each in value.get("servers", {}).items() if name != "new"}
    assert back == {**value, "servers": left}
