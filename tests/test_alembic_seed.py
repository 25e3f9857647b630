"""The example `examples/alembic_seed`: a migration that asks an MCP server."""

from __future__ import annotations

import os
import shlex
import sqlite3
import subprocess
import sys
from typing import Any

import pytest

from tests.transports import ROOT

pytest.importorskip("alembic", reason="alembic is not installed")


def alembic(database: Any, server: str, *arguments: str) -> Any:
    weather = shlex.join([sys.executable, "-m", "minimcp", "run", server])
    env = {**os.environ, "PYTHONPATH": str(ROOT), "DATABASE": f"sqlite:///{database}", "WEATHER": weather}
    command = [sys.executable, "-m", "alembic", "--config", "examples/alembic_seed/alembic.ini", *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=180)


def query(database: Any, sql: str) -> list[Any]:
    connection = sqlite3.connect(database)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


TABLES = "select name from sqlite_master where name = 'forecasts'"


def test_a_migration_fills_a_table_from_a_tool_and_can_be_undone(tmp_path: Any) -> None:
    database = tmp_path / "seed.db"
    done = alembic(database, "examples/structured.py", "upgrade", "head")
    assert done.returncode == 0, done.stderr
    assert query(database, "select city, count(*) from forecasts group by city") == [("Bergen", 7), ("Oslo", 7)]
    first = query(database, "select * from forecasts order by city, day limit 1")
    assert first == [("Bergen", "2026-07-28", "rain", 17.5)]
    assert alembic(database, "examples/structured.py", "downgrade", "base").returncode == 0
    assert query(database, TABLES) == []


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("raise RuntimeError('no weather today')", "no weather today"),
        (
            "from minimcp import Server, ToolError\nserver = Server('weather')\n@server.tool\n"
            "def forecast(city: str, days: int) -> str:\n    raise ToolError('no forecast for ' + city)\n",
            "ToolFailed: no forecast for Bergen",
        ),
    ],
    ids=["a server that does not start", "a tool that fails"],
)
def test_a_server_that_fails_leaves_the_database_as_it_was(tmp_path: Any, text: str, complaint: str) -> None:
    (tmp_path / "weather.py").write_text(text)
    done = alembic(tmp_path / "seed.db", str(tmp_path / "weather.py"), "upgrade", "head")
    assert done.returncode == 1 and complaint in done.stderr, done.stderr
    assert query(tmp_path / "seed.db", TABLES) == []
    assert query(tmp_path / "seed.db", "select * from alembic_version") == []
