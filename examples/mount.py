"""Two teams with a server each, and one in front of both: `server.mount` puts them together in one process."""

from minimcp import Context, Server, link

weather = Server("weather team", "1.0", instructions="forecast knows today and tomorrow.")
billing = Server("billing team", "1.0", policy=lambda ctx, entry: entry.definition["name"] != "close_month")
invoices = {"7": "Oslo, 120.00", "8": "Bergen, 80.50"}


@weather.tool(annotations={"readOnlyHint": True})
def forecast(city: str, tomorrow: bool = False) -> str:
    """Say what the weather is like."""
    return f"{city} {'tomorrow' if tomorrow else 'today'}: {'rain' if city == 'Bergen' else 'sun'}"


@billing.tool(annotations={"readOnlyHint": True})
def find_invoices(city: str) -> list:
    """Find the invoices of a city."""
    return [link(f"invoice:///{id}", f"invoice {id}") for id, text in invoices.items() if city in text]


@billing.tool
def pay(id: str, ctx: Context) -> str:
    """Pay an invoice, once the person has agreed."""
    if not ctx.elicit(f"Pay {invoices[id]}?", {}):
        return "nothing was paid"
    text = invoices.pop(id)
    billing.remove_resource(f"invoice:///{id}")
    return f"paid {text}"


@billing.tool
def close_month() -> str:
    """Close the month, which the policy of the billing team keeps from everybody."""
    return "closed"


def add_invoice(id: str) -> None:
    """Register an invoice as a resource; clients of both servers are told."""
    billing.resource(f"invoice:///{id}", name=f"invoice {id}")(lambda: invoices[id])


for each in invoices:
    add_invoice(each)


@weather.prompt
def umbrella(city: str) -> str:
    """Ask about umbrellas."""
    return f"Do I need an umbrella in {city}?"


server = Server("front", "1.0", instructions="Tools of two teams.")
server.mount("weather", weather)
server.mount("billing", billing)

if __name__ == "__main__":
    server.run()
