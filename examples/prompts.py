"""Prompts: templates that a person picks in the client, with arguments that complete."""

from minimcp import Server, resource

server = Server("prompts", "1.0")

GUIDE = "Short sentences. No jargon. One idea to a paragraph."
LANGUAGES = ["English", "Estonian", "French", "Norwegian"]


@server.prompt(title="Rewrite a text")
def rewrite(text: str, language: str = "English") -> list:
    """Rewrite a text after the house's style guide.

    Args:
        text: What to rewrite.
        language: The language to write in.
    """
    return [
        resource("guide://style", GUIDE, "text/plain"),
        {"role": "assistant", "content": "I have read the style guide. What shall I rewrite?"},
        f"Rewrite this in {language}:\n\n{text}",
    ]


@server.completion("rewrite", "language")
def complete_language(value: str, arguments: dict[str, str]) -> list[str]:
    return [language for language in LANGUAGES if language.lower().startswith(value.lower())]


@server.resource("guide://style", mime_type="text/plain")
def guide() -> str:
    """The style guide that the prompt shows."""
    return GUIDE


if __name__ == "__main__":
    server.run()
