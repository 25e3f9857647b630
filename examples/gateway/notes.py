"""Notes that everybody shares, as resources that can be watched. Over stdio: `minimcp run notes.py`."""

import threading

from minimcp import Server, ToolError

server = Server("notes", "1.0", instructions="Keep here what should be remembered.")
lock = threading.Lock()
notes = {"welcome": "The gateway keeps one process for all of its callers, so that they share these notes."}


@server.tool
def write_note(name: str, text: str) -> str:
    """Write a note, or write it anew."""
    with lock:
        notes[name] = text
    server.updated(f"note://{name}")
    return f"{name} is written"


@server.tool(annotations={"readOnlyHint": True})
def find_notes(word: str) -> list[str]:
    """Name the notes that have a word in them."""
    with lock:
        return [name for name, text in notes.items() if word.lower() in text.lower()]


@server.resource("note://{name}", mime_type="text/plain")
def note(name: str) -> str:
    """A note by its name."""
    with lock:
        if name not in notes:
            raise ToolError(f"There is no note {name!r}.")
        return notes[name]


@server.completion("note://{name}", "name")
def names(value: str, arguments: dict[str, str]) -> list[str]:
    with lock:
        return [name for name in notes if name.startswith(value)]


@server.prompt
def summary(name: str) -> str:
    """Ask for a summary of a note."""
    return f"Read note://{name} and say in one sentence what it is about."


if __name__ == "__main__":
    server.run()
