"""The seams: interfaces that others implement or call; each is typed, and `Any` stands there for JSON alone."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import minimcp

PACKAGE = Path(minimcp.__file__).parent
TREES = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py")}

# Interfaces that must be there; every other `Protocol` class is looked at too.
INTERFACES = {"Auth", "Bus", "Catalog", "Extension", "Served", "ServedCall", "ServedSession", "Strategy"}
# Classes that are used or subclassed across a seam without being a `Protocol`.
CLASSES = {"Context", "Entry", "Exchange", "HttpApp", "Outcome", "Principal", "Server", "StdioLoop", "Transport"}

# Values as they came from a peer or go to one, of which nothing is known yet, and dicts of them.
JSON = {
    *("Served.call(message)", "Served.refuse(message)", "Server.handle(message)", "Server.handle()"),
    *("Outcome(message)", "HttpApp.refuse(message)", "AuditedRequest.reply", "Served.identity()"),
    *("RuledEntry.definition", "RuledRequest.params", "KeySource.find()"),
    *("Catalog.page(cursor)", "Catalog.completion(reference)"),
    *(
        "Bus.publish(data)",
        "SharedBus.send(data)",
        "Caller.answers(questions)",
        "Strategy.ask()",
        "Context.ask()",
        "Context.log(data)",
    ),
    *("Context.detach(handler)", "Context.extension()", "Principal(claims)", "Principal.claims"),
    *("Context.sample(messages)", "Context.sample(tools)", "Context.sample(tool_choice)"),
    *("Context.sample(preferences)", "Context.sample(metadata)", "Entry.run(arguments)"),
}
# Functions of an author, whose parameters and result are whatever they are.
FREE = {
    # A form may be a class or a dict of hints; a handler and what it returns are the author's.
    *("Context.elicit(fields)", "Entry(function)", "Entry.run()", "Entry.run_text()", "Context.task()"),
    # The result of a callback that nobody looks at, and of a context manager.
    *("Server(around_call)", "Server(lifespan)", "Context.app()", "Caller.on_progress"),
    # The context of whichever server's request, and sessions, which only the server that shares them looks into.
    *("LimitedRequest.ctx", "SharedSessions.takers", "SharedSessions.on_listening", "SharedSessions.on_leaving"),
    *(f"SharedSessions.{name}(session)" for name in ("key", "join", "claim", "holder", "ask", "reply")),
    *("SharedSessions.leave_events(session)", "SharedSessions.left_events(session)"),
    # Views, which belong to frameworks that are not imported.
    *("Server.flask_view()", "Server.django_view()"),
}


def interfaces() -> Iterator[ast.ClassDef]:
    for tree in TREES.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).partition("[")[0] for base in node.bases}
                if "Protocol" in bases or node.name in CLASSES:
                    yield node


def hidden() -> set[str]:
    """The names of aliases that are nothing but `Any`."""
    found = {"Any"}
    for tree in TREES.values():
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id == "Any":
                found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def annotations(cls: ast.ClassDef) -> Iterator[tuple[str, ast.expr]]:
    """Each annotation of a class's public names, by its place."""
    for node in cls.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and not node.target.id.startswith("_"):
            yield f"{cls.name}.{node.target.id}", node.annotation
        if not isinstance(node, ast.FunctionDef) or (node.name.startswith("_") and node.name != "__init__"):
            continue
        place = cls.name if node.name == "__init__" else f"{cls.name}.{node.name}"
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.kwarg):
            if argument is not None and argument.annotation is not None:
                yield f"{place}({argument.arg})", argument.annotation
        if node.returns is not None and node.name != "__init__":
            yield f"{place}()", node.returns


def untyped() -> set[str]:
    names = hidden()
    return {
        place
        for cls in interfaces()
        for place, annotation in annotations(cls)
        if any(isinstance(part, ast.Name) and part.id in names for part in ast.walk(annotation))
    }


def test_the_interfaces_are_there() -> None:
    assert {cls.name for cls in interfaces()} >= INTERFACES | CLASSES


def test_no_seam_is_untyped() -> None:
    assert untyped() - JSON - FREE == set()


def test_the_lists_of_exceptions_are_not_longer_than_needed() -> None:
    assert (JSON | FREE) - untyped() == set()


def test_every_parameter_of_a_seam_has_a_type() -> None:
    bare = [
        f"{cls.name}.{node.name}({argument.arg})"
        for cls in interfaces()
        for node in ast.walk(cls)
        if isinstance(node, ast.FunctionDef)
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        if argument.annotation is None and argument.arg not in ("self", "cls")
    ]
    assert bare == []
