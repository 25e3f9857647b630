"""Orders that are confirmed by a person before they are placed. Over stdio: `minimcp run orders.py`."""

import itertools
import threading

from minimcp import Context, Server, ToolError

server = Server("orders", "1.0")
lock = threading.Lock()
numbers = itertools.count(1)
orders: dict[int, str] = {}


@server.tool
def place_order(article: str, ctx: Context, count: int = 1) -> str:
    """Order something, once the user has confirmed it."""
    if not ctx.elicit(f"Order {count} x {article}?", {"confirmed": bool}).get("confirmed"):
        return "Nothing was ordered."
    for step, what in enumerate(("reserved", "packed", "sent"), 1):
        ctx.progress(step, 3, what)
    with lock:
        number = next(numbers)
        orders[number] = f"{count} x {article}"
    return f"Order {number} is placed."


@server.tool(annotations={"destructiveHint": True})
def cancel_order(number: int) -> str:
    """Cancel an order."""
    with lock:
        if orders.pop(number, None) is None:
            raise ToolError(f"There is no order {number}.")
    return f"Order {number} is cancelled."


@server.tool(annotations={"readOnlyHint": True})
def list_orders() -> list[str]:
    """List what is on order."""
    with lock:
        return [f"{number}: {what}" for number, what in orders.items()]


if __name__ == "__main__":
    server.run()
