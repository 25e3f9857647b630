"""The rows of `requirements/*.md` are whole: each that binds what is built has, for each side, tests or a reason."""

from __future__ import annotations

import ast
import collections
import re
from pathlib import Path
from typing import NamedTuple

import pytest

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "minimcp"
ORIGINAL = HERE.parents[1] / "shared" / "protocol"
FILES = sorted((HERE / "requirements").glob("[!R]*.md"))
SIDES = {"server": {"server"}, "client": {"client"}, "both": {"server", "client"}, "transport": {"server"}, "AS": set()}

ID = r"(?:BASE|TRN|FEAT|AUTH|EXT)-\d{3}"
KEYWORD = r"(?:MUST|SHOULD)(?: NOT)?|MAY"
ROW = re.compile(rf"- \*\*({ID})\*\* ({KEYWORD}), (\w+), ([^:]+): (.+) \[([^\[\]]+)\]")
TEST = re.compile(r"  - (\w+): ((?:\w+/)*test_\w+\.py)::(\S+)")
REASON = re.compile(r"  - (\w+): no test: (\S+(?: \S+){4,})")
LEFT_OUT = re.compile(r"  - (\w+): left out: (\S+(?: \S+){4,})")


class Requirement(NamedTuple):
    """A row, with what stands below it: the tests of each side as (file, name), and the reasons of each side."""

    text: tuple[str, ...]
    who: str
    tests: dict[str, list[tuple[str, str]]]
    reasons: dict[str, list[str]]


def rows() -> list[tuple[str, Requirement]]:
    """Return the rows of all files with their IDs, in their order."""
    found: list[tuple[str, Requirement]] = []
    for file in FILES:
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
            if not line or line.startswith("#"):
                continue
            row, test, reason = ROW.fullmatch(line), TEST.fullmatch(line), REASON.fullmatch(line)
            if row:
                found.append((row[1], Requirement(row.groups(), row[3], {}, {})))
            elif test:
                found[-1][1].tests.setdefault(test[1], []).append((test[2], test[3]))
            elif reason:
                found[-1][1].reasons.setdefault(reason[1], []).append(reason[2])
            else:
                known = LEFT_OUT.fullmatch(line)
                assert known, f"{file.name}:{number}: neither a row, nor a test, nor a reason: {line}"
                assert known[1] in found[-1][1].tests, f"{file.name}:{number}: nothing is shown, so nothing is left out"
    return found


ROWS = dict(rows())


def test_no_id_stands_for_two_rows():
    assert len(ROWS) > 800
    assert [id for id, count in collections.Counter(id for id, _ in rows()).items() if count > 1] == []


def test_each_side_that_a_row_binds_has_tests_or_one_reason():
    wrong = {}
    for id, row in ROWS.items():
        tested, reasoned = set(row.tests), set(row.reasons)
        assert row.who in SIDES, id
        if (
            tested & reasoned
            or tested | reasoned != SIDES[row.who]
            or any(len(why) > 1 for why in row.reasons.values())
        ):
            wrong[id] = f"binds {row.who}, tests for {tested or 'none'}, reasons for {reasoned or 'none'}"
    assert not wrong


def test_every_test_that_a_row_names_exists_and_is_named_once():
    functions: dict[str, set[str]] = {}
    wrong = []
    for id, row in ROWS.items():
        for side, tests in row.tests.items():
            wrong += [f"{id} {side}: {test} twice" for test in set(tests) if tests.count(test) > 1]
            for file, name in tests:
                # They show that the checks of the suite work, and nothing about the package.
                assert file not in ("test_official_schema.py", "test_requirements.py"), id
                if file == "test_transcripts.py":
                    exists = (HERE / "transcripts" / f"{name}.txt").exists()
                else:
                    if file not in functions and (HERE / file).exists():
                        tree = ast.parse((HERE / file).read_text("utf-8"))
                        functions[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
                    exists = name.startswith("test_") and name in functions.get(file, ())
                wrong += [] if exists else [f"{id} {side}: there is no {file}::{name}"]
    assert not wrong


def test_every_requirement_that_the_package_names_is_here():
    named = {id: file.name for file in sorted(PACKAGE.rglob("*.py")) for id in re.findall(ID, file.read_text("utf-8"))}
    assert len(named) > 200
    assert {id: file for id, file in named.items() if id not in ROWS} == {}


def test_the_rows_are_those_of_the_checklist():
    if not ORIGINAL.exists():
        pytest.skip("the checklist that the rows came from is not beside the tree")
    original = {}
    for file in ORIGINAL.glob("*.md"):
        for row in re.findall(
            rf"^\| ({ID}) \| (.+) \| (\w+) \| (.+) \| (.+) \| (.+) \|$", file.read_text("utf-8"), re.M
        ):
            id, keyword, who, text, revisions, page = row
            original[id] = (id, keyword, who, revisions, text, page)
    assert len(original) > 800
    assert {id: row.text for id, row in ROWS.items()} == original
