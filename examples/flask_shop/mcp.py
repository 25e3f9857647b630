"""The shop for language models: its tools, and the endpoint `/mcp` behind the shop's own login."""

from __future__ import annotations

from typing import Annotated, Optional

from flask import Blueprint, Response, g
from sqlalchemy import func, select

from minimcp import Context, Server, ToolError

from .models import Order, Product, User, db

server = Server(
    "flask-shop",
    "1.0",
    instructions="Look up the products before you order. Every order is confirmed by the person you work for.",
    auth=lambda request: g.user.name,
)
bp = Blueprint("mcp", __name__)
bp.add_url_rule("/mcp", view_func=server.flask_view(), strict_slashes=False)


@bp.before_request
def require_login() -> Optional[Response]:
    if g.user is None:
        return Response("Log in, or send an API token", 401, {"WWW-Authenticate": "Bearer"})
    return None


@server.tool(annotations={"readOnlyHint": True})
def products() -> list[dict]:
    """List the goods with their prices."""
    goods = db.scalars(select(Product).order_by(Product.id))
    return [{"name": product.name, "price": product.cents / 100} for product in goods]


@server.tool(annotations={"readOnlyHint": True})
def my_orders() -> list[dict]:
    """List the orders that the user has placed."""
    return [order.as_dict() for order in g.user.orders]


@server.tool(annotations={"destructiveHint": False})
def place_order(product: str, quantity: Annotated[int, {"minimum": 1, "maximum": 100}], ctx: Context) -> dict:
    """Order something, after the user has confirmed it.

    Args:
        product: the name of the product, as `products` has it
        quantity: how many
    """
    found = db.scalar(select(Product).where(Product.name == product))
    if found is None:
        raise ToolError(f"There is no product {product!r}; call products for what there is")
    total = quantity * found.cents / 100
    answer = ctx.elicit(f"Order {quantity} x {found.name} for {total:.2f}?", {"confirm": bool})
    if not answer.get("confirm"):
        return {"ordered": False}
    order = db.scalar(select(Order).where(Order.key == ctx.idempotency_key))
    if order is None:
        order = Order(user=g.user, product=found, quantity=quantity, key=ctx.idempotency_key)
        db.add(order)
        db.commit()
    return {"ordered": True, "user": order.user.name, **order.as_dict()}


@server.tool(allow=lambda ctx: g.user.is_manager, annotations={"readOnlyHint": True})
def turnover() -> list[dict]:
    """Sum up the orders of every customer; for managers only."""
    total = func.sum(Order.quantity * Product.cents)
    rows = db.execute(
        select(User.name, total).join(Order.user).join(Order.product).group_by(User.name).order_by(User.name)
    )
    return [{"user": name, "total": cents / 100} for name, cents in rows]
