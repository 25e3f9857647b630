"""The floors of the house: who may import whom, which third parties are let in where, and what loads when."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / "minimcp").rglob("*.py"))

# Each folder, and the folders below it.
BELOW = {
    "engines": set(),
    "protocol": {"engines"},
    "server": {"engines", "protocol"},
    "client": {"engines", "protocol"},
    "transports": {"engines", "protocol"},
    "auth": {"engines", "protocol"},
    "views": {"engines", "protocol", "server"},
    "monitoring": {"engines", "protocol", "server"},
    "extensions": {"engines", "protocol", "server"},
    "gateway": {"engines", "protocol", "server", "client", "transports", "auth", "views", "monitoring", "extensions"},
}
BELOW["cli"] = BELOW["inspector"] = set(BELOW)
# Each engine, and what it uses of the others; all of them use the small modules beside them, which use no engine.
ENGINES = {"schema": set(), "http_server": set(), "http_client": set(), "oauth": {"http_client"}}
# A Server's own transports load on first use, inside the method that opens them.
OPENED_BY = {("server/server.py", "transports"), ("server/server.py", "auth"), ("server/registration.py", "extensions")}
STRANGERS = {("modern", "legacy"), ("legacy", "modern")}
THIRD_PARTIES = {
    "jsonschema": ("engines/schema/judge.py", "engines/schema/keywords.py"),
    "jsonschema_specifications": ("engines/schema/judge.py",),
    "referencing": ("engines/schema/judge.py",),
    "werkzeug": ("transports/", "engines/http_server/", "client/transports/wsgi.py", "auth/", "inspector/"),
    "requests": ("client/transports/wsgi.py", "engines/http_client/", "engines/oauth/"),
    "urllib3": ("engines/http_client/foreign.py",),
    "jwt": ("engines/oauth/dpop.py",),
    "cryptography": ("engines/oauth/dpop.py",),
    "flask": ("transports/frameworks.py", "auth/surrounding.py"),
    "flask_login": ("auth/surrounding.py",),
    "django": ("transports/frameworks.py",),
    "pydantic": ("engines/schema/models.py",),
    "limits": ("auth/rates.py", "auth/counts.py", "gateway/rates.py", "gateway/counts.py"),
    "redis": ("auth/counts.py", "gateway/counts.py", "server/redis_"),
    "prometheus_client": ("gateway/metrics.py", "monitoring/metrics.py"),
    # For type checkers alone, which bring its stubs.
    "typing_extensions": ("server/registration.py",),
    "pytest": ("pytest_plugin.py",),
}
# These stand on a third party from their first line, so they themselves load on first use.
ON_FIRST_USE = {
    "engines/schema/judge.py",
    "engines/schema/keywords.py",
    "engines/http_server/wsgi_server.py",
    "engines/http_server/handler.py",
    "engines/http_client/foreign.py",
    "pytest_plugin.py",
}


def imports(path: Path):
    """Every import of a file: its dotted name from the root, and whether it runs when the file is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = path.relative_to(ROOT).parent.parts
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.Lambda)) or _is_type_checking(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        eager = id(node) not in late
        if isinstance(node, ast.Import):
            yield from ((alias.name, eager) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            yield module, eager
            yield from ((f"{module}.{alias.name}", eager) for alias in node.names)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def inside(path: Path) -> str:
    return path.relative_to(ROOT / "minimcp").as_posix()


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_imports_point_down_and_third_parties_stay_in_their_places(path):
    folder = inside(path).partition("/")[0]
    for name, eager in imports(path):
        parts = name.split(".")
        if parts[0] == "minimcp" and len(parts) > 1 and folder in BELOW and parts[1] in BELOW:
            allowed = parts[1] == folder or parts[1] in BELOW[folder]
            assert allowed or (not eager and (inside(path), parts[1]) in OPENED_BY), f"{path.name} imports {name}"
            assert (path.stem, parts[-1]) not in STRANGERS, f"{path.name} imports {name}"
            first_use = "/".join(parts[1:]) + ".py" in ON_FIRST_USE and inside(path) not in ON_FIRST_USE
            assert not (eager and first_use), f"{path.name} imports {name}"
        elif parts[0] in THIRD_PARTIES:
            late = not eager or inside(path) in ON_FIRST_USE
            assert late, f"{path.name} imports {name} when it loads; import it where it is used"
            assert inside(path).startswith(THIRD_PARTIES[parts[0]]), f"{path.name} imports {name}"
        elif parts[0] != "minimcp" and sys.version_info >= (3, 10):
            assert parts[0] in sys.stdlib_module_names, f"{path.name} imports {name}"


@pytest.mark.parametrize("path", [path for path in FILES if inside(path).startswith("engines/")], ids=inside)
def test_an_engine_imports_nothing_of_the_package_but_engines(path):
    own = inside(path).split("/")[1]
    for name, _ in imports(path):
        if name.split(".")[0] != "minimcp":
            continue
        # Not from `minimcp` itself either, which leads everywhere.
        assert name.startswith("minimcp.engines"), f"{path.name} imports {name}"
        other = (*name.split("."), "", "")[2]
        if other in ENGINES and other != own:
            assert other in ENGINES.get(own, set()), f"{path.name} imports {name}"


def test_what_the_package_itself_is_asked_for_is_its_version():
    asked = {(inside(path), name) for path in FILES for name, _ in imports(path) if name.count(".") == 1}
    asked = {(file, name) for file, name in asked if name.startswith("minimcp.") and name[8:] not in BELOW}
    assert {name for file, name in asked if file.partition("/")[0] in BELOW} == {"minimcp.__version__"}


def test_every_folder_has_its_floor():
    folders = {path.parent.name for path in (ROOT / "minimcp").glob("*/__init__.py")}
    assert folders <= set(BELOW)
    assert {path.parent.name for path in (ROOT / "minimcp/engines").glob("*/__init__.py")} == set(ENGINES)


@pytest.mark.parametrize("path", FILES, ids=inside)
def test_nothing_is_async(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await)
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, kinds)]
    assert not [name for name, _ in imports(path) if name.split(".")[0] in ("asyncio", "anyio", "trio")]


@pytest.mark.parametrize("folder", ["http_client", "oauth"])
def test_no_private_part_of_another_library_is_touched(folder):
    for path in sorted((ROOT / "minimcp/engines" / folder).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        uses = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr.startswith("_")]
        others = [ast.unparse(use) for use in uses if not (isinstance(use.value, ast.Name) and use.value.id == "self")]
        assert not [use for use in others if not use.endswith(("__", "._replace"))], path.name


def loaded(code: str, stdin: str = "") -> set[str]:
    """The modules a fresh interpreter has loaded after some code."""
    code += "\nimport sys, json; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], input=stdin, capture_output=True, text=True, cwd=ROOT, timeout=30, check=True
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


HEAVY = {"jsonschema", "werkzeug", "requests", "pydantic", "http.server", "asyncio", "email"}


def test_importing_the_package_loads_no_third_party():
    assert not loaded("import minimcp; minimcp.Server; minimcp.Context") & HEAVY


def test_a_stdio_server_that_answers_a_call_never_loads_http():
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "add", "_meta": meta}}
    call["params"]["arguments"] = {"a": 1, "b": 2}
    code = """
from minimcp import Server
server = Server("s")
@server.tool
def add(a: int, b: int) -> int:
    return a + b
server.run()
"""
    found = loaded(code, json.dumps(call) + "\n")
    assert "minimcp.transports.stdio" in found
    assert not found & {*HEAVY, "minimcp.transports.http", "minimcp.engines.http_server.wsgi_server", "http.client"}


def test_a_client_of_a_process_never_loads_http():
    code = """
import sys
from minimcp import Client
with Client([sys.executable, "-m", "minimcp", "run", "examples/hello.py"], env={"PYTHONPATH": "."}) as client:
    assert client.call_tool("count", text="one two").data["words"] == 2
"""
    found = loaded(code)
    assert any(name.endswith(".stdio") for name in found)
    assert not found & {*HEAVY, "http.client", "urllib3", "ssl", "minimcp.server.server"}
