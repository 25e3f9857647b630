"""An Alembic environment whose one migration fills a table with what a tool of an MCP server returns.

Needs alembic. From the folder `examples`:

    alembic --config alembic_seed/alembic.ini upgrade head      # makes seed.db; `downgrade base` undoes it

Alembic runs this file, and it the migrations in `versions`: plain functions, in which a client is a plain object.
"""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import create_engine


def main() -> None:
    """Run the migrations that Alembic was told to."""
    engine = create_engine(os.environ.get("DATABASE", "sqlite:///seed.db"))
    with engine.connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


main()
