"""Python types and JSON Schema: schemas from hints and docstrings, conversion, and bounded validation without network.

It knows nothing of MCP. `hints` reads a signature, `converters` and `values` turn JSON into the hinted types and back.
`validator` checks schemas and values within one budget of time and nesting: `fast_check` accepts ordinary values in
0.75 us; only for what it cannot accept, `judge` asks jsonschema, with every keyword counted, and `sentences` says what
was due. `patterns` refuses regular expressions that may take too long, since `re` cannot be interrupted.
pydantic would replace about half of this package, at 48 ms per import and a fourth dependency.
"""
