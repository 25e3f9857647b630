"""The doors of a server: stdio, Streamable HTTP, HTTP+SSE and the embedded HTTP server."""
