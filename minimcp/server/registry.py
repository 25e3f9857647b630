"""What a server offers: plain dicts of tools, resources, templates, prompts and completions.

A dict is never changed in place. Registration makes a new one under `_lock` and puts it in the old one's place,
so a reader takes a snapshot by reading the attribute and needs no lock.
"""

from __future__ import annotations

import base64
import binascii
import inspect
import json
import threading
from collections.abc import Callable
from typing import Any

from ..engines.schema import hints, text, validator
from ..protocol import content, headers
from ..protocol.errors import InvalidParams
from .uris import Template, check_uri, is_template

Definition = dict[str, Any]
Allow = Callable[[Any], bool]

# The list a kind of entry is shown in, and the change it announces.
LISTS = {"tools": "tools", "resources": "resources", "resourceTemplates": "resources", "prompts": "prompts"}


class Entry:
    """One registered thing: what the wire shows of it, and what runs when it is asked for.

    :ivar definition: the object that the list method sends.
    :ivar context: the name of the parameter that receives the Context, or None.
    :ivar order: its place among all registrations; cursors point at it.
    :ivar schema: the JSON Schema of the arguments.
    """

    __slots__ = (
        "allow",
        "bind",
        "context",
        "definition",
        "function",
        "headers",
        "hints",
        "order",
        "output",
        "schema",
        "template",
        "validate",
    )

    def __init__(
        self, function: Callable[..., Any], definition: Definition, signature: hints.Signature, allow: Allow | None
    ) -> None:
        self.function = function
        self.definition = definition
        self.bind = signature.bind
        self.context: str | None = signature.context
        self.allow = allow
        self.order = 0
        self.validate = validator.Validator(signature.schema).check
        self.output: validator.Validator | None = None
        self.template: Template | None = None
        self.headers: list[headers.Annotation] = []
        self.hints: Definition = {}
        self.schema = signature.schema

    def run(self, ctx: Any, arguments: dict[str, Any]) -> Any:
        """Validate and convert the arguments, then call the function.

        :raises InvalidArguments: when an argument does not fit.
        """
        self.validate(arguments)
        values = self.bind(arguments)
        if self.context is None:
            return self.function(**values)
        return self.function(**{**values, self.context: ctx})

    def run_text(self, ctx: Any, arguments: dict[str, str]) -> Any:
        """Run with arguments that arrived as text, converted by the schema.

        :raises InvalidArguments: when an argument does not fit.
        """
        return self.run(ctx, text.from_texts(self.schema, arguments))


class Registry:
    """The dicts, and the lists made from them."""

    def __init__(self, context_type: type, publish: Callable[[str], None]) -> None:
        self._context_type = context_type
        self._publish = publish
        self._lock = threading.Lock()  # guards every replacement below and _registered
        self._registered = 0
        self.tools: dict[str, Entry] = {}
        self.resources: dict[str, Entry] = {}
        self.resourceTemplates: dict[str, Entry] = {}
        self.prompts: dict[str, Entry] = {}
        self.completions: dict[tuple[str, str], Callable[..., Any]] = {}
        # What was ever registered stays advertised, so that removing the last tool does not change the capabilities.
        self.offers: frozenset[str] = frozenset()
        self._lists: dict[Any, list[Entry]] = {}

    def add(self, kind: str, key: str, entry: Entry) -> None:
        """Register or replace an entry; a replacement keeps its place in the list."""
        with self._lock:
            entries = dict(getattr(self, kind))
            old = entries.get(key)
            self._registered += 1
            entry.order = old.order if old else self._registered
            entries[key] = entry
            self._replace(kind, entries)
            offers = {LISTS[kind]} | ({"logging"} if entry.context else set())
            self.offers = self.offers | offers
        self._publish(LISTS[kind])

    def remove(self, kind: str, key: str) -> bool:
        """Remove an entry and say whether it was there."""
        with self._lock:
            entries = dict(getattr(self, kind))
            found = entries.pop(key, None) is not None
            self._replace(kind, entries)
        if found:
            self._publish(LISTS[kind])
        return found

    def _replace(self, kind: str, entries: dict[str, Entry]) -> None:
        setattr(self, kind, entries)
        self._lists = {}

    def add_completion(self, reference: str, argument: str, function: Callable[..., Any]) -> None:
        """Register who completes one argument of a prompt (by name) or of a resource template (by its text)."""
        if inspect.iscoroutinefunction(function):
            raise TypeError(f"{function.__name__} is async; write it as a plain def, minimcp runs it on a thread")
        with self._lock:
            self.completions = {**self.completions, (reference, argument): function}
            self.offers = self.offers | {"completions"}

    def find(self, method: str, params: dict[str, Any]) -> Entry | None:
        """The entry a request is for, or None; tolerates any params."""
        if method == "tools/call":
            return self.tools.get(_text(params.get("name")))
        if method == "prompts/get":
            return self.prompts.get(_text(params.get("name")))
        if method == "resources/read":
            return self.resource(_text(params.get("uri")))
        return None

    def resource(self, uri: str) -> Entry | None:
        """The resource with this URI, or the first template that matches it."""
        found = self.resources.get(uri)
        if found is None and check_uri(uri):
            for entry in self.resourceTemplates.values():
                if entry.template is not None and entry.template.match(uri) is not None:
                    return entry
        return found

    def page(self, kind: str, ctx: Any, cursor: Any, size: int | None) -> tuple[list[Definition], str | None]:
        """One page of definitions this caller may see, in order of registration, and the next cursor.

        :raises InvalidParams: for a cursor this server did not give out. Spec: FEAT-119
        """
        lists = self._lists
        entries = lists.get(kind)
        if entries is None:
            entries = lists[kind] = sorted(getattr(self, kind).values(), key=lambda entry: entry.order)
        if cursor is not None:
            after = _read_cursor(kind, cursor)
            entries = [entry for entry in entries if entry.order > after]
        shown = [entry for entry in entries if entry.allow is None or entry.allow(ctx)]
        if size is None or len(shown) <= size:
            return [entry.definition for entry in shown], None
        page = shown[:size]
        return [entry.definition for entry in page], _write_cursor(kind, page[-1].order)

    # The makers below turn a function into an entry; the decorators of Registration are thin wrappers.

    def make_tool(
        self,
        function: Callable[..., Any],
        name: str | None,
        allow: Allow | None,
        input_schema: Definition | None,
        output_schema: Definition | None,
        **shown: Any,
    ) -> Entry:
        """Build a tool's entry.

        :raises TypeError: for a function or hint that cannot be a tool.
        :raises ValueError: for a schema or `x-mcp-header` that breaks a rule.
        """
        if input_schema is None:
            signature = hints.signature(function, self._context_type)
        else:
            validator.check_input_schema(input_schema)
            signature = hints.raw_signature(function, self._context_type, input_schema)
        name = name or function.__name__
        check_name(name)
        output = output_schema
        if output is None:
            output = hints.output_schema(signature.returns, content.is_content_hint)
        definition = _definition(signature, name, {**shown, "inputSchema": signature.schema, "outputSchema": output})
        entry = Entry(function, definition, signature, allow)
        entry.headers = headers.annotated(signature.schema)
        if output is not None:
            validator.check_schema(output, "outputSchema")
            entry.output = validator.Validator(output)
        return entry

    def make_resource(self, function: Callable[..., Any], uri: str, allow: Allow | None, **shown: Any) -> Entry:
        """Build a resource's or, when the URI has variables, a template's entry.

        :raises ValueError: for a malformed URI or template, or one whose variables are not the function's parameters.
        """
        hints_given = {"ttlMs": shown.pop("ttl_ms", None), "cacheScope": shown.pop("cache_scope", None)}
        signature = hints.signature(function, self._context_type)
        names = set(signature.schema.get("properties", {}))
        template = Template(uri) if is_template(uri) else None
        if template is None and not check_uri(uri):
            raise ValueError(f"{uri!r} is not a URI; write it with a scheme, for instance config://app")
        wanted = set(template.names) if template else set()
        if not wanted <= names or set(signature.schema.get("required", ())) - wanted:
            differing = ", ".join(sorted(wanted ^ names))
            raise ValueError(f"{uri!r} and the parameters of {function.__name__}() differ: {differing}")
        shown["uriTemplate" if template else "uri"] = uri
        definition = _definition(signature, shown.pop("name", None) or function.__name__, shown)
        entry = Entry(function, definition, signature, allow)
        entry.template = template
        entry.hints = {key: value for key, value in hints_given.items() if value is not None}
        return entry

    def make_prompt(self, function: Callable[..., Any], name: str | None, allow: Allow | None, **shown: Any) -> Entry:
        """Build a prompt's entry; its arguments are the function's parameters."""
        signature = hints.signature(function, self._context_type)
        required = signature.schema.get("required", ())
        arguments = []
        for key, part in signature.schema.get("properties", {}).items():
            argument = {"name": key, "required": key in required}
            if "description" in part:
                argument["description"] = part["description"]
            arguments.append(argument)
        definition = _definition(signature, name or function.__name__, {**shown, "arguments": arguments or None})
        return Entry(function, definition, signature, allow)


def _definition(signature: hints.Signature, name: str, fields: dict[str, Any]) -> Definition:
    """Put the fields that have a value under the specification's names, with the docstring as the description."""
    description = fields.pop("description", None) or signature.text or None
    definition = {"name": name, "title": fields.pop("title", None), "description": description}
    renamed = {"mime_type": "mimeType", "meta": "_meta"}
    definition.update({renamed.get(key, key): value for key, value in fields.items()})
    return {key: value for key, value in definition.items() if value is not None}


def check_name(name: str) -> None:
    """Refuse a tool name other implementations could not use. Spec: FEAT-006

    :raises ValueError: with what a name may look like.
    """
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.")
    if not 1 <= len(name) <= 128 or not set(name) <= allowed:
        raise ValueError(f"The tool name {name[:140]!r} is not 1 to 128 of A-Z a-z 0-9 _ - .")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _write_cursor(kind: str, order: int) -> str:
    return base64.urlsafe_b64encode(json.dumps([kind, order]).encode("ascii")).decode("ascii")


def _read_cursor(kind: str, cursor: Any) -> int:
    try:
        if isinstance(cursor, str) and len(cursor) < 100:
            found, order = json.loads(base64.b64decode(cursor, altchars=b"-_", validate=True))
            if found == kind and type(order) is int:
                return order
    except (binascii.Error, ValueError, TypeError):
        pass
    raise InvalidParams("This cursor was not given out by this server; start again without one")
