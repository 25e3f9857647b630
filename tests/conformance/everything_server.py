"""One of everything that the official conformance suite asks a server for, through the public API.

    python -m tests.conformance.everything_server --port 8000

The names, and the texts that matter, are those of the suite's scenarios. There is one body for each tool: the same
function asks a legacy client while it waits, and a 2026-07-28 client by ending the call with its questions.
"""

from __future__ import annotations

import argparse
import base64
import json
from typing import Annotated, Any, Literal

from minimcp import Answer, Context, McpError, Server, ToolError, audio, image, resource

# One pixel, and a millisecond of silence.
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mNQaPgPAAJjAaBHFA0BAAAAAElFTkSuQmCC")
WAV = base64.b64decode("UklGRiwAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQgAAACAgICAgICAgA==")

CITIES = ("Bergen", "Berlin", "Lima", "Oslo")

server = Server(
    "everything",
    "1.0",
    title="Everything server",
    instructions="A server for the conformance suite; every tool shows one feature.",
    ttl_ms=60_000,
)


# What tools return


@server.tool(annotations={"readOnlyHint": True})
def test_simple_text() -> str:
    """Return a text."""
    return "This is a simple text response for testing."


@server.tool
def test_image_content() -> tuple[bytes, str]:
    """Return an image; bytes and their media type are enough."""
    return PNG, "image/png"


@server.tool
def test_audio_content() -> list[Any]:
    """Return a sound, built as the block that goes over the wire."""
    return [audio(WAV, "audio/wav", annotations={"audience": ["user"]})]


@server.tool
def test_embedded_resource() -> list[Any]:
    """Return a resource inside the result."""
    return [resource("test://embedded-resource", "This is an embedded resource content.", "text/plain")]


@server.tool
def test_multiple_content_types() -> list[Any]:
    """Return a text, an image and a resource."""
    data = json.dumps({"test": "data", "value": 123})
    return [
        "Multiple content types test:",
        image(PNG, "image/png"),
        resource("test://mixed-content-resource", data, "application/json"),
    ]


@server.tool
def test_error_handling() -> str:
    """Fail in a way the model should read."""
    raise ToolError("This tool intentionally returns an error for testing")


# What tools take


CONTACT = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


@server.tool(input_schema=CONTACT)
def json_schema_2020_12_tool(**contact: Any) -> str:
    """Take arguments by a JSON Schema of one's own, which is listed word for word."""
    return f"Contact: {json.dumps(contact)}"


@server.tool
def test_custom_header(region: Annotated[str, "Where to look", {"x-mcp-header": "Region"}]) -> str:
    """Take an argument that HTTP clients mirror in the header Mcp-Param-Region."""
    return f"Region: {region}"


# What tools do while they run


@server.tool
def test_tool_with_logging(ctx: Context) -> str:
    """Send three log messages, with a pause between them."""
    ctx.log("info", "Tool execution started")
    ctx.cancelled.wait(0.05)
    ctx.log("info", "Tool processing data")
    ctx.cancelled.wait(0.05)
    ctx.log("info", "Tool execution completed")
    return "Three messages were logged"


@server.tool
def test_logging_tool(ctx: Context) -> str:
    """Send a log message, which goes only to those who asked for that level."""
    ctx.log("info", "A message for whoever listens", logger="everything")
    return "One message was logged"


@server.tool
def test_tool_with_progress(ctx: Context) -> str:
    """Report progress three times, with a pause between."""
    for done in (0, 50, 100):
        ctx.progress(done, 100, f"{done} of 100")
        ctx.cancelled.wait(0.05)
    return "All 100 steps are done"


@server.tool
def test_reconnection(ctx: Context) -> str:
    """Have the client hang up and come back for the result."""
    ctx.close_stream(retry_ms=100)
    ctx.cancelled.wait(0.1)
    return "The client came back for this result"


@server.tool
def test_trigger_tool_change() -> str:
    """Add a tool, or remove it again; clients hear of it by themselves."""
    if server.remove_tool("test_dynamic_tool"):
        return "test_dynamic_tool is gone"
    server.tool(lambda: "Here I am", "test_dynamic_tool", description="Come and go.")
    return "test_dynamic_tool is there"


@server.tool
def test_trigger_prompt_change() -> str:
    """Add a prompt, or remove it again."""
    if server.remove_prompt("test_dynamic_prompt"):
        return "test_dynamic_prompt is gone"
    server.prompt(lambda: "Here I am", "test_dynamic_prompt", description="Come and go.")
    return "test_dynamic_prompt is there"


# What tools ask


@server.tool
def test_sampling(prompt: Annotated[str, "What to ask the model"], ctx: Context) -> str:
    """Ask the client's model."""
    return f"LLM response: {ctx.sample(prompt, max_tokens=100).text}"


@server.tool
def test_elicitation(message: Annotated[str, "What to ask the user"], ctx: Context) -> str:
    """Ask the user to fill in a form."""
    form = {"username": Annotated[str, "How to call you"], "email": Annotated[str, "Where to write to you"]}
    return f"User response: {_shown(ctx.elicit(message, form))}"


@server.tool
def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    """Ask with a form in which every kind of field has a default."""
    form = {
        "name": (str, "John Doe"),
        "age": (int, 30),
        "score": (float, 95.5),
        "status": (Literal["active", "inactive", "pending"], "active"),
        "verified": (bool, True),
    }
    return f"Elicitation completed: {_shown(ctx.elicit('Check these fields', form))}"


@server.tool
def test_elicitation_sep1330_enums(ctx: Context) -> str:
    """Ask with a form that has every kind of choice."""
    options = ["option1", "option2", "option3"]
    form = {
        "untitledSingle": {"type": "string", "enum": options},
        "titledSingle": {"type": "string", "oneOf": _titled("Option")},
        "legacyEnum": {
            "type": "string",
            "enum": ["opt1", "opt2", "opt3"],
            "enumNames": ["Option One", "Option Two", "Option Three"],
        },
        "untitledMulti": {"type": "array", "items": {"type": "string", "enum": options}, "minItems": 1},
        "titledMulti": {"type": "array", "items": {"anyOf": _titled("Choice")}, "maxItems": 3},
    }
    return f"Elicitation completed: {_shown(ctx.elicit('Choose', form))}"


def _titled(what: str) -> list[dict[str, str]]:
    words = enumerate(("First", "Second", "Third"), 1)
    return [{"const": f"value{number}", "title": f"{word} {what}"} for number, word in words]


def _shown(answer: Answer) -> str:
    return f"action={answer.action}, content={json.dumps(answer)}"


@server.tool
def test_missing_capability(ctx: Context) -> str:
    """Need the client's model, whether or not the client has one."""
    return ctx.sample("Say something.").text


@server.tool
def test_streaming_elicitation(ctx: Context) -> str:
    """Report progress, then ask."""
    ctx.progress(50, 100, "half way")
    return _shown(ctx.elicit("Go on?", {"yes": bool}))


# A question with a key is answered under that key, even by a client that kept no requestState.


@server.tool
def test_input_required_result_elicitation(ctx: Context) -> str:
    """Ask for a name."""
    answer = ctx.elicit("What is your name?", {"name": str}, key="user_name")
    return f"Hello, {answer['name']}!"


@server.tool
def test_input_required_result_sampling(ctx: Context) -> str:
    """Ask the client's model a question."""
    return ctx.sample("What is the capital of France?", max_tokens=100, key="capital_question").text


@server.tool
def test_input_required_result_list_roots(ctx: Context) -> str:
    """Ask for the client's folders."""
    return f"Roots: {', '.join(root['uri'] for root in ctx.list_roots(key='client_roots'))}"


@server.tool
def test_input_required_result_request_state(ctx: Context) -> str:
    """Ask for a confirmation; the answer comes back with the signed state of this call."""
    return "state-ok" if ctx.elicit("Do you confirm?", {"ok": bool}, key="confirm") else "not confirmed"


@server.tool
def test_input_required_result_tampered_state(ctx: Context) -> str:
    """Ask for a confirmation; a state that was changed on the way is refused before this function runs."""
    return "state-ok" if ctx.elicit("Do you confirm?", {"ok": bool}, key="confirm") else "not confirmed"


def _question(message: str, **fields: str) -> dict[str, Any]:
    properties = {name: {"type": kind} for name, kind in fields.items()}
    form = {"type": "object", "properties": properties, "required": list(properties)}
    return {"method": "elicitation/create", "params": {"message": message, "requestedSchema": form}}


def _prompt(text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": {"type": "text", "text": text}}]
    return {"method": "sampling/createMessage", "params": {"messages": messages, "maxTokens": 50}}


@server.tool
def test_input_required_result_multiple_inputs(ctx: Context) -> str:
    """Ask three things in one round; a question is a request of the specification without its envelope."""
    answers = ctx.ask(
        user_name=_question("What is your name?", name="string"),
        greeting=_prompt("Write a greeting."),
        client_roots={"method": "roots/list"},
    )
    greeting, roots = answers["greeting"].text, answers["client_roots"]
    return f"{greeting} {answers['user_name']['name']}, you work in {len(roots)} folders."


@server.tool
def test_input_required_result_multi_round(ctx: Context) -> str:
    """Ask one thing, then another that depends on the answer."""
    name = ctx.elicit("What is your name?", {"name": str}, key="step1")["name"]
    color = ctx.elicit(f"Which color do you like, {name}?", {"color": str}, key="step2")["color"]
    return f"{name} likes {color}."


@server.tool
def test_input_required_result_capabilities(ctx: Context) -> str:
    """Ask only what this client can answer."""
    questions = {}
    if ctx.can("elicitation"):
        questions["user_name"] = _question("What is your name?", name="string")
    if ctx.can("sampling"):
        questions["greeting"] = _prompt("Write a greeting.")
    if not questions:
        return "There is nobody to ask"
    return f"Answered: {', '.join(ctx.ask(**questions))}"


# Tools whose calls become tasks, under the names of the suite's scenarios


@server.tool
def greet(name: str) -> str:
    """Greet somebody at once."""
    return f"Hello, {name}!"


@server.tool(task=True)
def slow_compute(ctx: Context, seconds: float = 1, label: str = "") -> str:
    """Take some seconds."""
    ctx.cancelled.wait(seconds)
    ctx.check()
    return f"{label} took {seconds} s"


@server.tool(task="required")
def failing_job() -> str:
    """Fail in a way the model should read."""
    raise ToolError("This job always fails")


@server.tool(task=True)
def protocol_error_job() -> str:
    """Fail with a protocol error."""
    raise McpError("This job breaks the protocol", code=-31001)


@server.tool(task=True)
def confirm_delete(filename: str, ctx: Context) -> str:
    """Ask before a file is deleted."""
    answer = ctx.elicit(f"Delete {filename}?", {"confirm": bool})
    return "deleted" if answer and answer["confirm"] else "kept"


@server.tool(task=True)
def multi_input(ctx: Context) -> str:
    """Ask two things at once."""
    first, second = _question("Your name?", name="string"), _question("Sure?", confirm="boolean")
    answers = ctx.ask(first=first, second=second)
    return f"{answers['first']['name']}: {answers['second']['confirm']}"


@server.tool
def test_tool_with_task(ctx: Context) -> str:
    """Ask for a name, and go on in a task."""
    return ctx.task(_greeting, ctx.elicit("What is your name?", {"name": str}, key="user_name")["name"])


def _greeting(name: str) -> str:
    return f"Hello, {name}!"


# Resources


@server.resource("test://static-text", title="Static text", mime_type="text/plain")
def static_text() -> str:
    """A text that stays the same."""
    return "This is the content of the static text resource."


@server.resource("test://static-binary", title="Static image", mime_type="image/png")
def static_binary() -> bytes:
    """An image that stays the same."""
    return PNG


@server.resource("test://watched-resource", title="Watched text", mime_type="text/plain")
def watched_resource() -> str:
    """A text to subscribe to."""
    return "This is the content of the watched resource."


@server.resource("test://template/{id}/data", title="Data by id", mime_type="application/json", ttl_ms=0)
def template_data(id: str) -> dict[str, Any]:
    """What is known of an id."""
    return {"id": id, "templateTest": True, "data": f"Data for ID: {id}"}


# Prompts


@server.prompt(title="Simple prompt")
def test_simple_prompt() -> str:
    """A prompt without arguments."""
    return "This is a simple prompt for testing."


@server.prompt(title="Prompt with arguments")
def test_prompt_with_arguments(
    arg1: Annotated[str, "First test argument"], arg2: Annotated[str, "Second test argument"]
) -> str:
    """A prompt that repeats its arguments."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@server.prompt(title="Prompt with a resource")
def test_prompt_with_embedded_resource(resourceUri: Annotated[str, "URI of the resource to embed"]) -> list[Any]:
    """A prompt with a resource inside."""
    embedded = resource(resourceUri, "Embedded resource content for testing.", "text/plain")
    return [embedded, "Please process the embedded resource above."]


@server.prompt(title="Prompt with an image")
def test_prompt_with_image() -> list[Any]:
    """A prompt with an image inside."""
    return [image(PNG, "image/png"), "Please analyze the image above."]


@server.prompt(title="Prompt that asks")
def test_input_required_result_prompt(ctx: Context) -> str:
    """A prompt that first asks what it is for."""
    answer = ctx.elicit("What is the prompt about?", {"context": str}, key="user_context")
    return f"Write about {answer['context']}."


@server.completion("test_prompt_with_arguments", "arg1")
def complete_arg1(value: str, arguments: dict[str, str]) -> list[str]:
    """The cities that begin with what was typed."""
    return [city for city in CITIES if city.lower().startswith(value.lower())]


def run_protected(key: str, port: int, ready: Any) -> None:
    """Serve with a verifier in front, to which each request comes with a key: the suite itself has none to send."""
    from minimcp.auth import Keys
    from minimcp.auth.protected import ProtectedServer
    from minimcp.engines.http_server.wsgi_server import serve

    server.engine.auth = ProtectedServer(Keys({"suite": key}))
    app = server.wsgi

    def with_key(environ: dict[str, Any], start_response: Any) -> Any:
        environ["HTTP_X_API_KEY"] = key
        return app(environ, start_response)

    serve(with_key, port=port, ready=ready)


def main() -> None:
    """Serve over HTTP until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--port", type=int, default=8000, help="0 for any free port")
    parser.add_argument("--key", help="protect the server by this API key, which is added to each request")
    options = parser.parse_args()

    def ready(listening: Any) -> None:
        print(f"listening on {listening.url}/mcp", flush=True)

    if options.key is None:
        server.run_http(port=options.port, ready=ready)
    else:
        run_protected(options.key, options.port, ready)


if __name__ == "__main__":
    main()
