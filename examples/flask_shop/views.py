"""The pages that people see."""

from __future__ import annotations

from flask import Blueprint, g, render_template_string
from sqlalchemy import select

from .models import Product, db

bp = Blueprint("shop", __name__)

PAGE = """<!doctype html><title>Shop</title>
<h1>Goods</h1><ul>{% for p in products %}<li>{{ p.name }}, {{ "%.2f" % (p.cents / 100) }}</li>{% endfor %}</ul>
{% if g.user %}<h1>Orders of {{ g.user.name }}</h1>
<ul>{% for o in g.user.orders %}<li>{{ o.quantity }} x {{ o.product.name }}</li>{% endfor %}</ul>{% endif %}"""


@bp.get("/")
def index() -> str:
    return render_template_string(PAGE, products=db.scalars(select(Product).order_by(Product.id)).all(), g=g)
