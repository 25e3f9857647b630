"""Asking: a tool that needs something from the person, or from the client's model, while it runs.

The same function serves every client. On 2026-07-28 each question ends the run and the answer comes with a retry that
starts again from the top, so ask first and act last; before that the thread simply waits.
"""

from typing import Annotated, Literal

from minimcp import Context, Server

server = Server("ask", "1.0")
booked: dict[str, str] = {}


@server.tool
def book_table(restaurant: str, ctx: Context) -> str:
    """Book a table, after asking the person for the details."""
    wishes = ctx.elicit(
        f"A table at {restaurant}: for whom, and when?",
        {
            "guests": Annotated[int, {"minimum": 1, "maximum": 12}],
            "time": Literal["18:00", "20:00"],
            "outside": (bool, False),
        },
    )
    if not wishes:
        return f"Nothing was booked: the person chose to {wishes.action}."
    if wishes["guests"] > 6:
        deposit = ctx.elicit("This needs a deposit. Book all the same?", {"agree": bool})
        if not deposit or not deposit["agree"]:
            return "Nothing was booked: a deposit was too much."
    # Through all rounds of one call `flow` stays the same: booking twice is booking once.
    booked[ctx.idempotency_key] = restaurant
    return f"Booked a table for {wishes['guests']} at {wishes['time']}."


@server.tool
def summarize(text: str, ctx: Context) -> str:
    """Summarize a text with the client's own model, or cut it short where there is none."""
    if not ctx.can("sampling"):
        return text[:80]
    return ctx.sample(f"Summarize in one sentence:\n{text}", max_tokens=100).text


@server.tool
def sign_in(ctx: Context) -> str:
    """Send the person to a page for what must not pass through a model."""
    agreed = ctx.elicit_url("Sign in to the restaurant's site.", "https://restaurant.example/sign-in")
    return "The page was opened." if agreed else "Not signed in."


if __name__ == "__main__":
    server.run()
