"""The transports of a server: stdio, Streamable HTTP, HTTP+SSE, and views for Flask and Django."""
