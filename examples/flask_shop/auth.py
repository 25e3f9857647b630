"""Who is asking: a person with a login, or a program with an API token. Either way it is `g.user`."""

from __future__ import annotations

from flask import Blueprint, abort, g, redirect, request, session, url_for
from sqlalchemy import select
from werkzeug.security import check_password_hash
from werkzeug.wrappers import Response

from .models import User, db, hash_token

bp = Blueprint("auth", __name__)


@bp.before_app_request
def load_user() -> None:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        g.user = db.scalar(select(User).where(User.token_hash == hash_token(token.strip())))
    else:
        g.user = db.get(User, session["user_id"]) if "user_id" in session else None


@bp.get("/login")
def login_form() -> str:
    return (
        '<form method="post"><input name="name"><input name="password" type="password"><button>Log in</button></form>'
    )


@bp.post("/login")
def login() -> Response:
    user = db.scalar(select(User).where(User.name == request.form["name"]))
    if user is None or not check_password_hash(user.password, request.form["password"]):
        abort(403)
    session.clear()
    session["user_id"] = user.id
    return redirect(url_for("shop.index"))
