"""nginx and four gunicorn workers under load, while one worker after the other is restarted: the short form.

`python -m tests.benchmarks.restarts` is the long one, with a table.
"""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks import restarts


def test_every_call_has_one_outcome_and_no_notice_is_lost_while_workers_are_restarted(tmp_path: Path) -> None:
    restarted, report = restarts.run(tmp_path, before_s=1, restarts_s=10, every_s=2)
    problems = report.wrong()
    assert problems == [], problems
    assert restarted >= 4
    # A task that waits for an answer when its worker stops is interrupted, and says so.
    assert [failure for failure in report.failures() if "The task was interrupted" not in failure] == []
    kinds = {(call.mode, call.kind) for call in report.answered}
    assert len(kinds) == 10, kinds
    for row in report.notice_rows():
        told = int(row[3].replace(",", ""))
        assert told > 10, row
