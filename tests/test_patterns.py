"""Regular expressions in schemas: what is refused, and that what is accepted ends in time."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minimcp.engines.schema.patterns import compile_pattern


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a+)+$",
        "(a*)*",
        r"^(\w+\s?)*$",
        r"^(?:\w|\d\b)+$",
        "^(?:[ab]|[ab])+$",
        "^(?:(?:a?)?b)+$",
        r"^(a|ab|b)*$",
        "^(a{1,2}){30}$",
        "(a?){30}a{30}",
        "a?" * 30 + "a" * 30,
        r"(a*a*\.)+$",
        r"^(?:.*,)*$",
        r"(?i:^(?:a|A)+$)|(x+x+)+y",
        "a*a*a*a*a*b",
        r"^(?=(b+)+$).*",
        "^(?i:a[A-Z]*)*$",
        "^((?i:a[A-Z]*))*$",
        "^(?i:[A-Z]*a)+$",
        r"^(?s:\n.*)*x\Z",
        r"(?s)^(?-s:a.*)*(?s:\n.*)*x\Z",
        "^(?i:(?-i:a)[A-Z]*)*$",
        r"^(?a:é\W*)*$",
    ],
)
def test_a_pattern_that_could_take_very_long_is_refused(pattern):
    with pytest.raises(ValueError, match="may take very long"):
        compile_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["(", r"\p{L}", "a{2,1}", "(" * 5000, "(?L)a", "a" * 20_001, "[\0-\uffff]" * 101, "(?:\u4e00|\u4e01)" * 101],
)
def test_a_pattern_that_is_no_regular_expression_is_refused(pattern):
    with pytest.raises(ValueError, match="is not understood"):
        compile_pattern(pattern)


def test_a_pattern_that_refers_back_to_a_group_is_refused():
    with pytest.raises(ValueError, match="refers back"):
        compile_pattern(r"^(['\"]).*\1$")


@pytest.mark.parametrize(
    ("pattern", "text", "length"),
    [
        (r"^[^@\s]+@[^@\s]+\.[^@\s]+$", "someone@mail.example.org", 300),
        (r"^[a-z]+(-[a-z]+)*$", "a-good-slug", 1000),
        (r"^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,}$", "mail.example.org", 253),
        (r"^(\d{1,3}\.){3}\d{1,3}$", "192.168.0.1", 100),
        (r"^([0-9A-F]{2})+$", "00FFAB", 10_000),
        (r"^[0-9a-f]{64}$", "0" * 64, 1000),
        (r"^\d{4}-\d\d-\d\d$", "2026-07-28", 1000),
        (r"^(?=.*\d)(?=.*[a-z]).{8,}$", "passw0rd1", 1000),
        (r"^P(?:\d+Y)?(?:\d+M)?(?:\d+D)?$", "P1D", 300),
        (r"^(foo|bar|baz)*$", "foobarbaz", 10_000),
        (
            r"^(?!\.)(?!.*\.\.)([A-Za-z0-9_'+\-\.]*)[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9\-]*\.)+[A-Za-z]{2,}$",
            "someone@mail.example.org",
            300,
        ),
        (r"^[A-Za-zÀ-ÿ' -]{1,100}$", "Zoë O'Neil", 1000),
        (r"^\w+( \w+)*$", "some words here", 2000),
        (r"^(https?)://[^\s/$.?#].[^\s]*$", "https://example.org/x", 10_000),
        (r".*", "anything", 100_000),
        (r"\S", "x", 100_000),
    ],
)
def test_an_ordinary_pattern_is_accepted_for_strings_of_useful_length(pattern, text, length):
    search, longest = compile_pattern(pattern)
    assert search(text)
    assert longest >= length


@pytest.mark.parametrize(
    ("pattern", "unit", "end"),
    [
        (r"\s+$", " ", "x"),
        (r"(?m)^\s*x", "\n", "y"),
        (r"(?m:^\s*x)", "\n", "y"),
        (r"(?m)(?:^|\A)\s*x", "\n", "y"),
        (r"^[^@\s]+@[^@\s]+\.[^@\s]+$", "a@.", "@"),
        (r"^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,}$", "aa.", "!"),
        (r"^x*y*x*$", "xy", "z"),
        (r"^(?:-[a-z0-9]+)*[a-z]*$", "-abc", "!"),
        ("(?:a{1000}){1000}b", "a", "a"),
        (r"^[\w.-]+(/[\w.-]+)*/?$", "a", "!"),
    ],
)
def test_the_longest_string_of_a_pattern_is_searched_in_time(pattern, unit, end):
    search, longest = compile_pattern(pattern)
    text = (unit * longest)[: longest - 1] + end
    started = time.thread_time()
    search(text)
    assert time.thread_time() - started < 1.0


_LEAVES = st.sampled_from(["a", "b", "[ab]", "[^a]", ".", r"\w", "ab", "ba"])
_PATTERNS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        st.tuples(inner, inner).map(lambda parts: f"(?:{parts[0]}|{parts[1]})"),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}"])).map(lambda p: f"(?:{p[0]}){p[1]}"),
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(_PATTERNS, st.text("ab", min_size=1, max_size=4))
def test_whatever_pattern_is_accepted_ends_in_time_on_repeated_text(pattern, unit):
    try:
        search, longest = compile_pattern(f"^(?:{pattern})$")
    except ValueError:
        return
    text = (unit * 26)[: min(longest, 26) - 1] + "!"
    started = time.thread_time()
    search(text)
    assert time.thread_time() - started < 1.0


def test_accepting_a_pattern_changes_nothing_about_what_it_matches():
    search, _ = compile_pattern(r"(?i)^ab?c{2}$")
    for text in ("acc", "ABCC", "abc", "abbcc", ""):
        assert bool(search(text)) == bool(re.search(r"(?i)^ab?c{2}$", text))


def test_a_group_may_be_named_as_in_ecma_262():
    search, longest = compile_pattern(r"^(?<y>\d{4})-(?<m>\d\d)$")
    assert search("2026-07").group("m") == "07"
    assert longest == 100_000
    search, _ = compile_pattern(r"^(?<a>\(?<b>[(?<c>])$")
    assert search("(<b>?") is not None
    with pytest.raises(ValueError, match="is not understood"):
        compile_pattern(r"(?<1>a)")


@pytest.mark.parametrize(
    "pattern", ["|".join(f"w{n}" for n in range(3500)), "(?:" * 90 + "x{0,1000}y?" + "){0,1000}z?" * 90, "a?" * 9000]
)
def test_to_count_the_ways_of_a_pattern_takes_little_time(pattern):
    started = time.thread_time()
    try:
        compile_pattern(pattern)
    except ValueError:
        pass
    assert time.thread_time() - started < 1.0
