"""The lists of requirements are whole: each row that binds what is built has a test or a reason."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROWS = HERE.parents[1] / "shared" / "protocol"
CORE = ("1-base.md", "2-transports.md", "3-features.md")
# Each list: the files whose rows it has, and whom these bind.
LISTS = {
    "requirements": [(CORE, {"server", "transport", "both"})],
    "requirements_auth": [(("4-authorization.md",), {"client", "both"})],
    "requirements_client": [(CORE, {"client"}), (("5-extensions.md",), {"client", "both"})],
}
ID = r"(?:BASE|TRN|FEAT|AUTH|EXT)-\d{3}"
LINE = re.compile(rf"({ID}) (?:((?:hostile/)?test_\w+\.py)::(\S+)|- (\S.{{15,}}))\Z")


def listed(name: str) -> list[tuple[str, str, str, str]]:
    """The lines of a list: id, file, test, reason."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert not [line for line in lines if not LINE.match(line)]
    return [match.groups() for match in map(LINE.match, lines) if match]


@pytest.mark.parametrize("name", LISTS)
def test_every_row_that_binds_what_is_built_is_listed_and_no_other(name):
    if not ROWS.exists():
        pytest.skip("the requirements are not beside the tree")
    wanted = set()
    for files, whom in LISTS[name]:
        text = "".join((ROWS / file).read_text(encoding="utf-8") for file in files)
        rows = re.findall(rf"^\| ({ID}) \| [^|]+ \| (\w+) \|", text, re.MULTILINE)
        assert len(rows) > 100
        wanted |= {id for id, who in rows if who in whom}
    assert sorted({id for id, *_ in listed(name)}) == sorted(wanted)


@pytest.mark.parametrize("name", LISTS)
def test_every_listed_test_exists(name):
    functions: dict[str, set[str]] = {}
    for _, file, test, _ in listed(name):
        if not file or file == "test_transcripts.py":
            assert not file or (HERE / "transcripts" / f"{test}.txt").exists(), test
            continue
        if file not in functions:
            tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
            functions[file] = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert test in functions[file], f"{file}::{test}"


@pytest.mark.parametrize("name", LISTS)
def test_no_row_has_both_a_test_and_a_reason_and_no_line_is_double(name):
    rows = listed(name)
    assert len(set(rows)) == len(rows)
    tested, reasoned = ({id for id, file, _, _ in rows if bool(file) is which} for which in (True, False))
    assert not tested & reasoned
