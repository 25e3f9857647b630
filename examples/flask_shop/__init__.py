"""A small Flask shop, and the MCP endpoint that was added to it: the file `mcp.py` and two lines in `create_app`.

Needs flask and sqlalchemy. From the folder `examples`:

    flask --app flask_shop init-db      # makes shop.db and prints an API token for ann, bob and the manager eve
    flask --app flask_shop run

A person logs in at http://127.0.0.1:5000/login; a host connects to http://127.0.0.1:5000/mcp and sends the header
`Authorization: Bearer TOKEN`. In production give all workers the same secrets:

    SHOP_SECRET=... MINIMCP_SECRET=... gunicorn --workers 4 --threads 8 'flask_shop:create_app()'
"""

from __future__ import annotations

import os
from typing import Any

import click
from flask import Flask
from sqlalchemy.exc import IntegrityError

from . import auth, mcp, models, views


def create_app(**config: Any) -> Flask:
    """Make the application; `flask` and WSGI servers call this."""
    app = Flask(__name__)
    app.config.update(DATABASE="sqlite:///shop.db", SECRET_KEY=os.environ.get("SHOP_SECRET", "only for trying out"))
    app.config.update(config)
    models.init_app(app)
    app.register_blueprint(auth.bp)
    app.register_blueprint(views.bp)
    app.register_blueprint(mcp.bp)

    @app.cli.command("init-db")
    def init_db() -> None:
        """Create the tables, three users and some goods."""
        try:
            tokens = models.create_all()
        except IntegrityError:
            raise click.ClickException("The shop has its users and goods already.") from None
        for name, token in tokens.items():
            click.echo(f"{name}: {token}")

    return app
