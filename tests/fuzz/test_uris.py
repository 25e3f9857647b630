"""Any template with any URI: what is expanded is found again, and nothing leads out of a directory."""

from __future__ import annotations

import os
import posixpath
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("hypothesis")
from hypothesis import given, settings
from hypothesis import strategies as st

from minimcp.server.uris import Template, check_uri, normal

EXAMPLES = int(os.environ.get("MINIMCP_FUZZ_EXAMPLES", "300"))
QUICK = settings(max_examples=EXAMPLES, deadline=None)
LITERALS = st.sampled_from(["/", "/docs/", "-", ".", "/my docs/", "/café/", "/caf%C3%A9/", "/a~b/", "/%7e/", "/%2F/"])
OPERATORS = st.sampled_from(["{%s}", "{+%s}", "{/%s}", "{/%s*}"])
TAILS = st.sampled_from(["", "/end", "{?q}", "{?q,r}", "?fixed=1{&q}", "?fixed=1"])
PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            ["..", ".", "/", "\\", "%2e", "%2E", "%2f", "%5c", "%00", "%FF", "%C0%AE", "%252e", "etc", "C:"]
        ),
        st.text(max_size=3).map(lambda text: quote(text, errors="replace")),
    ),
    max_size=6,
).map("".join)
NAMES = ("a", "b", "c")


def templates(parts: list[tuple[str, str]], tail: str) -> str:
    """A template of literals and expressions."""
    return "x://s" + "".join(literal + form % name for (literal, form), name in zip(parts, NAMES)) + tail


FORMS = st.builds(templates, st.lists(st.tuples(LITERALS, OPERATORS), max_size=3), TAILS)


def expanded(template: str, value: str) -> str:
    """The template with one value for all its variables, as it stands."""
    for name in (*NAMES, "q", "r"):
        for form in ("{%s}", "{+%s}"):
            template = template.replace(form % name, value)
        for form in ("{/%s}", "{/%s*}"):
            template = template.replace(form % name, "/" + value)
    for form, text in (("{?q}", "?q="), ("{&q}", "&q=")):
        template = template.replace(form, text + value)
    return template.replace("{?q,r}", f"?q={value}&r={value}").replace(" ", "%20")


@QUICK
@given(FORMS, PIECES)
def test_no_value_leads_out_of_a_directory(template: str, value: str) -> None:
    found = Template(template).match(expanded(template, value))
    for each in (found or {}).values():
        assert "\0" not in each
        each.encode("utf-8")
        for path in (each, each.replace("\\", "/")):
            joined = posixpath.normpath(posixpath.join("/root/files", path))
            assert joined == "/root/files" or joined.startswith("/root/files/")


@QUICK
@given(FORMS, st.text("abz019_é ", min_size=1, max_size=5))
def test_what_is_expanded_is_found_again(template: str, value: str) -> None:
    uri = expanded(template, quote(value))
    made = Template(template)
    assert check_uri(uri) and " " not in made.text
    assert made.match(uri) == dict.fromkeys(made.names, value) == made.match(normal(uri))


@QUICK
@given(st.text(max_size=30))
def test_a_text_is_a_template_or_refused(text: str) -> None:
    try:
        made: Any = Template("x://" + text)
    except ValueError as refusal:
        assert "URI template" in str(refusal)
        return
    made.match("x://" + text)
    assert normal(normal(text)) == normal(text)
