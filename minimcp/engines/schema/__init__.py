"""Python types and JSON Schema: schemas from hints and docstrings, conversion, and bounded validation without network.

It knows nothing of MCP. `hints` reads a signature, `converters` and `values` turn JSON into the hinted types and back.
`validator` checks schemas and values within one budget of time and nesting: `dialects` says which keywords there are,
`keywords` what they ask, `sentences` what to tell. `patterns` refuses regular expressions that may take too long, since
`re` cannot be interrupted. `fast_check` accepts ordinary values in 0.75 us, and the rest is asked only for what it
cannot accept. The package jsonschema has no bounds: a stranger's schema can raise anything in it, and take any time.
pydantic would replace about half of this package, at 48 ms per import and a third dependency.
"""
