"""The list of requirements is whole: each row that binds a server has a test or a reason, and each test is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROWS = HERE.parents[1] / "shared" / "protocol"
FILES = ("1-base.md", "2-transports.md", "3-features.md")
LINE = re.compile(r"((?:BASE|TRN|FEAT)-\d{3}) (?:(test_\w+\.py)::(\S+)|- (\S.{15,}))\Z")


def listed() -> list[tuple[str, str, str, str]]:
    """The lines of the list: id, file, test, reason."""
    lines = (HERE / "requirements").read_text(encoding="utf-8").splitlines()
    found = [LINE.match(line) for line in lines if line and not line.startswith("#")]
    assert all(found), [
        line for line, match in zip([line for line in lines if line[:1] not in ("", "#")], found) if not match
    ]
    return [match.groups() for match in found if match]


def test_every_row_that_binds_a_server_or_a_transport_is_listed_and_no_other():
    if not ROWS.exists():
        pytest.skip("the requirements are not beside the tree")
    text = "".join((ROWS / name).read_text(encoding="utf-8") for name in FILES)
    rows = re.findall(r"^\| ((?:BASE|TRN|FEAT)-\d{3}) \| [^|]+ \| (\w+) \|", text, re.MULTILINE)
    assert len(rows) > 500
    wanted = [id for id, who in rows if who != "client"]
    assert sorted({id for id, *_ in listed()}) == sorted(wanted)


def test_every_listed_test_exists():
    functions: dict[str, set[str]] = {}
    for _, file, name, _ in listed():
        if not file or file == "test_transcripts.py":
            assert not file or (HERE / "transcripts" / f"{name}.txt").exists(), name
            continue
        if file not in functions:
            tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
            functions[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name in functions[file], f"{file}::{name}"


def test_no_row_has_both_a_test_and_a_reason_and_no_line_is_double():
    rows = listed()
    assert len(set(rows)) == len(rows)
    tested, reasoned = ({id for id, file, _, _ in rows if bool(file) is which} for which in (True, False))
    assert not tested & reasoned
