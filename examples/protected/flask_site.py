"""A Flask application with Flask-Login, whose pages call the server as the user who has logged in; programs have keys.

Needs flask-login. From the folder `examples`:

    python -m minimcp token report --role staff --file keys.json
    flask --app 'protected.flask_site:create_app("keys.json")' run
"""

from __future__ import annotations

import os
from typing import Any

from flask import Flask, abort, request
from flask_login import LoginManager, UserMixin, login_user, logout_user
from werkzeug.security import check_password_hash, generate_password_hash

from minimcp import Context, Server
from minimcp.auth import FlaskLogin, Keys


class User(UserMixin):
    def __init__(self, name: str, *roles: str) -> None:
        self.id = name
        self.password = generate_password_hash(f"{name}'s password")
        self.roles = roles


USERS = {"ann": User("ann", "staff"), "bob": User("bob")}


def make_server(keys: str) -> Server:
    """Make the server that lives in the application."""
    server = Server("flask-site", "1.0", auth=[FlaskLogin(roles=lambda user: user.roles), Keys(keys)])

    @server.tool
    def greet(ctx: Context) -> str:
        """Greet the caller."""
        return f"Hello {ctx.principal.id}"

    @server.tool(roles=["staff"])
    def report() -> str:
        """Write a report; for staff alone."""
        return "All is well."

    return server


def create_app(keys: str, **config: Any) -> Flask:
    """Make the application; `flask` and WSGI servers call this."""
    app = Flask(__name__)
    app.config.update(SECRET_KEY=os.environ.get("SITE_SECRET", "only for trying out"))
    # Without it some browsers send the cookie along with requests of other sites' pages.
    app.config.update(SESSION_COOKIE_SAMESITE="Lax", SESSION_COOKIE_HTTPONLY=True)
    app.config.update(config)
    LoginManager(app).user_loader(USERS.get)
    app.add_url_rule("/mcp", view_func=make_server(keys).flask_view(), strict_slashes=False)

    @app.post("/login")
    def login() -> str:
        user = USERS.get(request.form["name"])
        if user is None or not check_password_hash(user.password, request.form["password"]):
            abort(403)
        login_user(user)
        return "You are logged in."

    @app.post("/logout")
    def logout() -> str:
        logout_user()
        return "You are logged out."

    return app
