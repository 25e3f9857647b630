"""The words of the package: one thing per name, docstrings that begin with a verb or a noun, plain terms."""

from __future__ import annotations

import ast
import collections
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "minimcp"
FILES = {str(file.relative_to(PACKAGE)): file.read_text("utf-8") for file in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(text) for name, text in FILES.items()}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

# File names that recur because both ends, or every kind of thing, have the same part.
SHARED_FILES = {
    *("__init__.py", "errors.py", "legacy.py", "modern.py", "methods.py"),
    *("http.py", "http_sse.py", "legacy_http.py", "stdio.py"),
}
RIDDLES = ("What", "Whoever", "Whatever", "Where", "Who", "Why", "How")
SPEC_LINE = re.compile(r"Spec: +(.+)")
REQUIREMENT = r"(?:BASE|TRN|FEAT|AUTH|EXT)-\d{3}"
REFERENCE = re.compile(rf"{REQUIREMENT}(?: to {REQUIREMENT})?|\d\d:[a-z][\w/-]*(?:#[\w-]+)?")
OTHER_REFERENCE = re.compile(r"RFC \d+(?: section [\d.]+)?|PEP \d+")
WORN_WORDS = re.compile(r"\b(?:doors?|gate ?keepers?)\b", re.IGNORECASE)

# Files and names that are still being rewritten; both are empty when the last branch is merged.
FINISHED = {name for name in FILES if name.startswith(("engines/http_server/", "engines/schema/"))}
FINISHED |= {"engines/__init__.py", "engines/bounds.py", "protocol/types.py", "protocol/forms.py"}
UNFINISHED_FILES: set[str] = set()
UNFINISHED_CLASSES: set[str] = set()


def documented(name: str) -> list[tuple[int, str]]:
    """Return the line and text of each docstring of a file."""
    found = []
    for node in ast.walk(TREES[name]):
        if isinstance(node, DOCUMENTED):
            text = ast.get_docstring(node)
            if text:
                found.append((getattr(node, "lineno", 1), text))
    return found


def report(offenders: dict[str, list[str]]) -> str:
    """Return one line per offender, below its file."""
    return "\n".join(f"{name}: {what}" for name, each in sorted(offenders.items()) for what in each)


def recurring_classes(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Return the class names, without leading underscores, that stand in more than one place."""
    found = collections.defaultdict(list)
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                found[node.name.lstrip("_")].append(f"{name}:{node.lineno}")
    return {name: places for name, places in found.items() if len(places) > 1}


def riddles(text: str) -> bool:
    """Whether a docstring begins with a word that makes a nominal clause of it."""
    return re.match(rf"(?:{'|'.join(RIDDLES)})\b", text) is not None


def bad_references(text: str) -> list[str]:
    """Return what stands on `Spec:` lines and is no requirement, page of the specification, RFC or PEP."""
    wrong = []
    for line in SPEC_LINE.findall(text):
        for part in re.split(r", (?:and )?| and |; ", line.strip().rstrip('".')):
            if not (REFERENCE.fullmatch(part) or OTHER_REFERENCE.fullmatch(part)):
                wrong.append(part)
    return wrong


def worn_words(tree: ast.Module) -> list[str]:
    """Return the metaphors in the texts of a module, docstrings included."""
    return [
        f"{node.lineno}: {node.value[:60]!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and WORN_WORDS.search(node.value)
    ]


def test_no_class_name_stands_for_two_things() -> None:
    found = {name: places for name, places in recurring_classes(TREES).items() if name not in UNFINISHED_CLASSES}
    assert not found, report(found)


def test_file_names_recur_only_where_both_ends_have_the_same_part() -> None:
    found = collections.defaultdict(list)
    for name in FILES:
        found[name.rpartition("/")[2]].append(name)
    recurring = {name: files for name, files in found.items() if len(files) > 1 and name not in SHARED_FILES}
    assert not recurring, report(recurring)


@pytest.mark.parametrize("name", sorted(set(FILES) - UNFINISHED_FILES))
def test_docstrings_begin_with_a_verb_or_a_noun(name: str) -> None:
    found = {f"{name}:{line}": [text.split("\n")[0]] for line, text in documented(name) if riddles(text)}
    assert not found, report(found)


@pytest.mark.parametrize("name", sorted(set(FILES) - UNFINISHED_FILES))
def test_references_to_the_specification_can_be_looked_up(name: str) -> None:
    assert bad_references(FILES[name]) == []


@pytest.mark.parametrize("name", sorted(set(FILES) - UNFINISHED_FILES))
def test_texts_use_the_fields_terms(name: str) -> None:
    assert worn_words(TREES[name]) == []


def test_the_checks_find_what_they_are_for() -> None:
    trees = {"a.py": ast.parse("class Call: pass"), "b.py": ast.parse("def f():\n    class _Call: pass")}
    assert recurring_classes(trees) == {"Call": ["a.py:1", "b.py:2"]}
    assert [riddles(text) for text in ("What it is.", "Who asks", "Whole numbers.", "Whether it is.", "How.")] == [
        *(True, True, False, False, True)
    ]
    assert bad_references("Spec: FEAT-001, TRN-002 to TRN-005, 26:basic/index#meta\nSpec: RFC 9112 section 6") == []
    assert bad_references('Spec: FEAT-01, T145"\nSpec: file 1, section 1.0.4') == [
        *("FEAT-01", "T145", "file 1", "section 1.0.4")
    ]
    assert worn_words(ast.parse("raise ValueError('the door is shut')\nlog('a gatekeeper')\ndoorway = 'outdoors'")) == [
        *("1: 'the door is shut'", "2: 'a gatekeeper'")
    ]
