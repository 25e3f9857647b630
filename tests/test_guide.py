"""Every block of the guide is run, and every output that it shows is compared with what is printed."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import documents
from tests.documents import ROOT, Page

EXAMPLES = ROOT / "examples"
GUIDE = EXAMPLES / "guide"
PAGES = sorted(GUIDE.glob("*.md"))
# What a page needs beside the library.
_NEEDS = {
    "mounting.md": ("flask", "django"),
    "gateway.md": ("jwt",),
    "protecting.md": ("jwt",),
    "tasks.md": ("celery", "rq"),
}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_blocks_of_a_page_print_what_it_says(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _NEEDS.get(path.name, ()):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    with _no_django() if path.name == "mounting.md" else contextlib.nullcontext():
        Page(path, tmp_path).run()


@contextlib.contextmanager
def _no_django() -> Iterator[None]:
    """Let the page configure Django, which another test of this process may have done already."""
    from django.conf import settings
    from django.urls import clear_url_caches
    from django.utils.functional import empty

    before = dict(vars(settings))
    settings._wrapped = empty
    clear_url_caches()
    try:
        yield
    finally:
        settings._wrapped = empty
        vars(settings).update(before)
        clear_url_caches()


def test_the_first_page_names_all_pages_and_no_link_leads_nowhere() -> None:
    first = (GUIDE / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([\w./-]+\.md)", first))
    assert {path.name for path in PAGES} - {"README.md"} <= linked
    for path in [*PAGES, EXAMPLES / "README.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_an_output_is_compared_line_by_line_but_for_what_varies() -> None:
    assert documents.matches("a … c\n", "a b c\n") and documents.matches("a\n…\nd\n…\n", "a\nb\nc\nd")
    assert not documents.matches("a … c\n", "a b\nc\n") and not documents.matches("a\n", "a\nb\n")
    assert not documents.matches("a.c", "abc")


def test_an_output_that_is_written_anew_keeps_the_lines_that_hold() -> None:
    assert documents.merged("a …\nb\n", "a 1\nc\n") == "a …\nc\n"
    assert documents.merged("a\n", "a\nb") == "a\nb\n"
