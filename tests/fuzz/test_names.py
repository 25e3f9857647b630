"""Any name and URI below any prefix: they come back as they were, and no two prefixes share one."""

from __future__ import annotations

import copy
import os
import re
from typing import Any

import pytest

pytest.importorskip("hypothesis")
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minimcp.protocol.content import Raw
from minimcp.server.names import original_uri, public_name, public_uri, rewrite_result, slug
from minimcp.server.uris import Template, check_uri

EXAMPLES = int(os.environ.get("MINIMCP_FUZZ_EXAMPLES", "300"))
QUICK = settings(max_examples=EXAMPLES, deadline=None)
PREFIXES = st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True)
NAMES = st.one_of(
    st.text(max_size=128),
    st.from_regex(r"[A-Za-z0-9_.-]{1,128}", fullmatch=True),
    st.sampled_from(["a" * 128, "__", "a_b", "weather_", "ünïcode", "\ud800", "日本語" * 40]),
)
SCHEMES = st.from_regex(r"[A-Za-z][A-Za-z0-9+.-]{0,8}", fullmatch=True)
RESTS = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["", "//", "///", "//host", "//user@host:1/a?b#c", "x", "a@b.example", "//h/%2F%20/..", "+", "+x"]),
)
URIS = st.one_of(
    st.builds("{}:{}".format, SCHEMES, RESTS),
    st.builds(
        "{}{}".format, st.sampled_from(["ui://", "UI://", "ui:", "urn:", "mailto:", "git+ssh://", "weather+x:"]), RESTS
    ),
)


@QUICK
@given(PREFIXES, URIS)
def test_a_uri_comes_back_as_it_was(prefix: str, uri: str) -> None:
    public = public_uri(prefix, uri)
    assert original_uri(prefix, public) == uri
    assert check_uri(public) == check_uri(uri) or len(public) > 8192
    assert public.partition(":")[0].lower() == "ui" if uri[:5].lower() == "ui://" else public.endswith(uri)


@QUICK
@given(PREFIXES, st.one_of(URIS, st.text(max_size=60)))
def test_only_the_one_spelling_is_read(prefix: str, text: str) -> None:
    original = original_uri(prefix, text)
    assert original is None or public_uri(prefix, original) == text


@QUICK
@given(PREFIXES, PREFIXES, URIS)
def test_no_uri_belongs_to_two_prefixes(one: str, other: str, uri: str) -> None:
    assume(one.lower() != other.lower())
    assert slug(one) != slug(other)
    found = original_uri(other, public_uri(one, uri))
    # Only one that has a plus in its own scheme, such as that of a server within this one, may look like another's.
    assert found is None or "+" in slug(one) + slug(other) + uri


@QUICK
@given(PREFIXES, NAMES)
def test_a_name_has_64_characters_at_most_and_is_always_the_same(prefix: str, name: str) -> None:
    public = public_name(prefix, name)
    assert len(public) <= 64 and public == public_name(prefix, name)
    assert public == f"{prefix}_{name}" or re.fullmatch(r"(?s).{55}_[0-9a-f]{8}", public)
    assert public_name("", name) == name
    assert public != public_name(prefix, name + "x") and public != public_name(prefix, "x" + name)


@QUICK
@given(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True))
def test_a_template_still_matches(prefix: str, value: str) -> None:
    for text, uri in (("file:///{path}", f"file:///{value}"), ("ui://{host}/x", f"ui://{value}/x")):
        template = Template(public_uri(prefix, text))
        assert template.match(public_uri(prefix, uri)) == Template(text).match(uri)
        assert template.match(uri) is None


MEMBERS = st.sampled_from(
    ["content", "contents", "messages", "type", "uri", "resource", "_meta", "ui", "resourceUri", "x", "text"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=4),
    max_leaves=12,
)


@QUICK
@given(st.dictionaries(MEMBERS, JSON, max_size=5))
def test_a_result_of_any_shape_is_taken_and_never_changed_in_place(result: dict[str, Any]) -> None:
    before = copy.deepcopy(result)
    found = rewrite_result(lambda uri: public_uri("w", uri), result)
    assert result == before and found.keys() == result.keys()
    assert rewrite_result(lambda uri: uri, result) is result


def test_links_contents_and_the_ui_of_a_result_get_the_marker() -> None:
    result = {
        "content": [
            {"type": "text", "text": "file:///a"},
            {"type": "resource_link", "uri": "file:///a", "name": "a", "new": {"uri": "file:///a"}},
            {"type": "resource", "resource": {"uri": "ui://h/x", "text": ""}},
            {"type": "resource_link", "uri": "https://away.example/", "name": "a"},
            {"type": "resource_link", "uri": "HTTP://listed.example/", "name": "a"},
            {"type": "resource_link", "uri": "data:,x", "name": "a"},
            {
                "type": "tool_result",
                "toolUseId": "1",
                "content": [{"type": "resource_link", "uri": "x:1", "name": "a"}],
            },
        ],
        "structuredContent": {"uri": "file:///a"},
        "_meta": {"ui": {"resourceUri": "ui://h/x", "other": 1}, "ui/resourceUri": "ui://h/x", "k": "file:///a"},
    }
    found = rewrite_result(lambda uri: public_uri("w", uri), Raw(result), lambda uri: "listed" in uri)
    assert isinstance(found, Raw) and found["content"][0] is result["content"][0]
    assert found["structuredContent"] is result["structuredContent"]
    assert found["content"][1:] == [
        {"type": "resource_link", "uri": "w+file:///a", "name": "a", "new": {"uri": "file:///a"}},
        {"type": "resource", "resource": {"uri": "ui://w+h/x", "text": ""}},
        {"type": "resource_link", "uri": "https://away.example/", "name": "a"},
        {"type": "resource_link", "uri": "w+HTTP://listed.example/", "name": "a"},
        {"type": "resource_link", "uri": "data:,x", "name": "a"},
        {"type": "tool_result", "toolUseId": "1", "content": [{"type": "resource_link", "uri": "w+x:1", "name": "a"}]},
    ]
    assert found["_meta"] == {
        "ui": {"resourceUri": "ui://w+h/x", "other": 1},
        "ui/resourceUri": "ui://w+h/x",
        "k": "file:///a",
    }
    messages = {"messages": [{"role": "user", "content": {"type": "resource_link", "uri": "x:1", "name": "n"}}]}
    assert rewrite_result(lambda uri: "y:1", messages)["messages"][0]["content"]["uri"] == "y:1"
    assert rewrite_result(lambda uri: "y:1", {"contents": [{"uri": "x:1"}]}) == {"contents": [{"uri": "y:1"}]}
