"""Engines: four libraries that know nothing of MCP, and the small modules they share.

`schema` is Python types and JSON Schema, `http_server` a WSGI server, `http_client` an HTTP client with deadlines, and
`oauth` an OAuth client. They import nothing from the packages above them, and reading the protocol needs none of them.
"""
