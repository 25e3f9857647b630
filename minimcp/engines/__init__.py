"""Engines: parts that know nothing of MCP. The protocol is understood without opening one of them."""
