"""Change notices: a list of notes that tells its readers when it changes.

A 2026-07-28 client hears of changes on `subscriptions/listen`, an older one after `resources/subscribe`; the server
says `updated`, or registers and removes things, and the rest follows by itself.
"""

from minimcp import Server

server = Server("notes", "1.0")
notes: dict[str, str] = {}


@server.tool
def write(title: str, text: str) -> str:
    """Write a note; a new one becomes a resource, an old one is changed."""
    uri = f"note://{title}"
    is_new, notes[title] = title not in notes, text
    if is_new:
        server.resource(uri, name=title, mime_type="text/plain")(lambda: notes[title])
    else:
        server.updated(uri)
    server.updated("note://")
    return uri


@server.tool
def tear_up(title: str) -> bool:
    """Throw a note away and say whether it was there."""
    notes.pop(title, None)
    server.updated("note://")
    return server.remove_resource(f"note://{title}")


@server.resource("note://", name="index", mime_type="application/json")
def index() -> list[str]:
    """The titles of all notes."""
    return sorted(notes)


if __name__ == "__main__":
    server.run()
